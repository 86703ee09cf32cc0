"""A training step on two threads while another process keeps a core busy, against one thread alone.

Wall time. Only meaningful on a machine with two free cores and nothing else running.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from bench_step import GPT, STEPS, Step
from harness import Options, Row, figure, set_threads, torch


def median_seconds(step: Step, seconds: float) -> float:
    for _ in range(3):
        step()
    times, end = [], time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


@contextmanager
def busy_process() -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.3)
        yield
    finally:
        process.kill()
        process.wait()


def beside_busy(make: Callable[[], Step], seconds: float) -> tuple[float, float]:
    """Seconds of a step on one thread alone, and on two beside a busy process."""
    set_threads(1)
    alone = median_seconds(make(), seconds)
    set_threads(2)
    with busy_process():
        return alone, median_seconds(make(), seconds)


def figures(options: Options) -> Iterator[Row]:
    training = STEPS[GPT]
    batch = training.inputs(np.random.default_rng(0))
    seconds = 1.0 if options.quick else 4.0
    try:
        mine = beside_busy(lambda: training.ours(*batch), seconds)
        other = beside_busy(lambda: training.theirs(*batch), seconds) if torch is not None else None
    finally:
        set_threads(options.threads)
    peer = "torch" if other else ""
    rows = (
        ("GPT step, 1 thread alone", "s", lambda t: t[0]),
        ("GPT step, 2 threads beside a busy process", "s", lambda t: t[1]),
        ("the second over the first", "", lambda t: t[1] / t[0]),
    )
    for name, unit, of in rows:
        yield figure("threads", name, unit, of(mine), peer, of(other) if other else float("nan"))
