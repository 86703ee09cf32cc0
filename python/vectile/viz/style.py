"""Colours, titles and frames that all pictures share."""

from __future__ import annotations

import textwrap
from os import PathLike
from pathlib import Path
from typing import Any

from vectile.extras import require

INK, MUTED, GRID = "#1f2933", "#7b8794", "#e4e7eb"
ACCENT, SECOND, PALE = "#0b7285", "#e8590c", "#99d1db"
SERIES = (ACCENT, SECOND, "#5f3dc4", "#2b8a3e", "#c2255c", "#1864ab", "#997404", "#495057")
"""Line colours, told apart with common colour blindness too."""

CLASSES = (*SERIES, "#12b886", "#f06595")
"""Ten point colours."""


def figure(width: float, height: float) -> Any:
    """A white figure of that many inches; no global matplotlib state is touched."""
    made = require("matplotlib.figure", "drawing a picture").Figure((width, height), dpi=150)
    made.set_facecolor("white")
    return made


def frame(axes: Any, grid: str = "y") -> None:
    """Left and bottom lines in grey, a pale grid behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(colors=MUTED, labelcolor=INK)
    if grid:
        axes.grid(axis=grid, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def heading(made: Any, title: str, subtitle: str = "") -> float:
    """Title and wrapped subtitle at the top left; returns the fraction of the height left below them.

    Placed in points, so that the lines stay apart at any height.
    """
    height = made.get_figheight() * 72
    characters = int(made.get_figwidth() * 72 * 0.96 / 5)  # at size 9
    lines = textwrap.wrap(subtitle, max(characters, 20))
    made.text(0.02, 1 - 10 / height, title, size=13, weight="bold", color=INK, va="top")
    made.text(
        0.02, 1 - 31 / height, "\n".join(lines), size=9, color=MUTED, va="top", linespacing=1.3
    )
    return float(1 - (36 + 14 * len(lines)) / height)


def save(made: Any, path: str | PathLike[str]) -> Path:
    """Write a figure as PNG and return the path."""
    made.savefig(path, format="png")
    return Path(path)
