"""What the user sees while something runs: console, progress bar, Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from vectile.extras import require


def console(**options: Any) -> Any:
    """A rich console on stdout."""
    return require("rich.console", "this command").Console(highlight=False, **options)


def progress_bar(target: Any, *fields: str) -> Any:
    """A rich progress bar with the time left; each field is a format of the task, such as "{loss}"."""
    progress = require("rich.progress", "the progress bar")
    return progress.Progress(
        progress.TextColumn("[bold]{task.description}"),
        progress.BarColumn(bar_width=None),
        progress.TaskProgressColumn(),
        *(progress.TextColumn(field) for field in fields),
        progress.TimeRemainingColumn(compact=True),
        console=target,
        expand=True,
        refresh_per_second=5,
    )


def table(*headings: str) -> Any:
    """A rich table without lines: the first column to the left, the others to the right."""
    out = require("rich.table", "a table").Table(
        box=None, pad_edge=False, collapse_padding=True, header_style="dim"
    )
    for i, heading in enumerate(headings):
        out.add_column(heading, justify="left" if i == 0 else "right", no_wrap=True)
    return out


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Yields a function that says whether Ctrl-C was pressed; a second Ctrl-C interrupts at once.

    Outside the main thread, which alone gets signals, the answer is always no.
    """
    pressed = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    previous = signal.signal(signal.SIGINT, handle)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, previous)
