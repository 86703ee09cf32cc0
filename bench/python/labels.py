"""Text beside the points of a chart, where it covers nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.text import Text

from vectile.viz import style

SMALL = 8.0  # points, the smallest letters
LEADER = {"arrowstyle": "-", "lw": 0.5, "shrinkA": 1, "shrinkB": 3}

Box = tuple[float, float, float, float]  # left, bottom, right, top in pixels


def write(axes: Any, text: str, at: Any, offset: Any, xy: Any = "axes fraction", **how: Any) -> Any:
    """Text some points away from a place in the given coordinates."""
    how = {"size": SMALL + 0.5, "color": style.INK, "va": "center"} | how
    return axes.annotate(
        text, at, offset, xycoords=xy, textcoords="offset points", annotation_clip=False, **how
    )


def shorten(made: Text, most: float) -> None:
    """Cut a text with an ellipsis until it is that many points wide."""
    figure, text = made.get_figure(), made.get_text()
    renderer = figure.canvas.get_renderer()
    while len(text) > 1 and Text.get_window_extent(made, renderer).width > most * figure.dpi / 72:
        text = text[:-1].rstrip()
        made.set_text(text + "…")


class Labels:
    """Puts text where no marker, line or other text is; text that finds no place is left out."""

    AROUND = (
        ((7, -3), "left"),
        ((-7, -3), "right"),
        ((0, 7), "center"),
        ((0, -14), "center"),
        ((7, 6), "left"),
        ((7, -13), "left"),
        ((-7, 6), "right"),
        ((-7, -13), "right"),
        *(
            ((x, y), "left" if x > 0 else "right")
            for d in (16, 24, 34)
            for x, y in ((d, -d), (-d, -d), (d / 2, -1.5 * d), (-d / 2, -1.5 * d), (d, d), (-d, d))
        ),
    )
    """Offsets in points, and how text is aligned there; from the far ones a thin line leads back."""

    def __init__(self, axes: Any) -> None:
        self.axes = axes
        self.renderer = axes.get_figure().canvas.get_renderer()
        self.scale = axes.get_figure().dpi / 72  # pixels in a point
        self.taken: list[Box] = []  # by anything
        self.texts: list[Box] = []

    def avoid_line(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Keep text away from a line between two points."""
        a, b = self.axes.transData.transform([start, end])
        steps = max(1, int(np.hypot(*(b - a)) / (4 * self.scale)))
        for x, y in np.linspace(a, b, steps + 1):
            self.taken.append(self._square(x, y, 1.5))

    def avoid_point(self, at: tuple[float, float]) -> None:
        """Keep text away from a marker."""
        self.taken.append(self._square(*self.axes.transData.transform(at), 3.5))

    def put(self, text: str, at: Any, places: Iterable[Any], colour: str) -> bool:
        """Write at the first free one of the places: an offset in points, and the alignment."""
        for offset, align in places:
            far = np.hypot(*offset) > 20
            how = {"arrowprops": LEADER | {"color": colour}} if far else {}
            made = self._text(text, at, offset, align, colour, **how)
            made.update_positions(self.renderer)
            box = Text.get_window_extent(made, self.renderer).padded(self.scale).extents
            leader = self._leader(at, box) if far else []
            if not any(_overlap(a, b) for a in leader for b in self.texts) and self._free([box]):
                self.texts.append(box)
                self.taken += leader
                return True
            made.remove()
        return False

    def _leader(self, at: Any, box: Any) -> list[Box]:
        """Squares along the line from a point to the middle of a text."""
        a = self.axes.transData.transform(at)
        b = np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])
        return [self._square(*(a + (b - a) * t), 1) for t in np.linspace(0, 1, 16)]

    def along(self, text: str, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Write above a straight line, in its direction, at the first free place."""
        a, b = self.axes.transData.transform([start, end])
        way = (b - a) / np.hypot(*(b - a))
        angle = math.degrees(math.atan2(way[1], way[0]))
        measured = self._text(text, start, (0, 0), "left", style.MUTED)
        box = measured.get_window_extent(self.renderer)
        measured.remove()
        room = 1 - (box.width + 8 * self.scale) / np.hypot(*(b - a))
        for part in np.linspace(0.03, max(0.03, room), 12):
            foot = a + (b - a) * part
            middle = foot + np.array([-way[1], way[0]]) * 5.5 * self.scale
            along = [middle + way * d for d in np.arange(0, box.width, 4 * self.scale)]
            if self._free([self._square(x, y, 3.5) for x, y in along]):
                break
        else:
            foot = a + (b - a) * 0.03
        at = self.axes.transData.inverted().transform(foot)
        lift = (-2.5 * way[1], 2.5 * way[0])
        self._text(text, at, lift, "left", style.MUTED, rotation=angle, rotation_mode="anchor")

    def _text(self, text: str, at: Any, offset: Any, align: str, colour: str, **how: Any) -> Any:
        how = {"va": "baseline", "size": SMALL, "zorder": 6} | how
        return write(self.axes, text, at, offset, "data", ha=align, color=colour, **how)

    def _square(self, x: float, y: float, half: float) -> Box:
        half *= self.scale
        return x - half, y - half, x + half, y + half

    def _free(self, boxes: Sequence[Any]) -> bool:
        """Whether the boxes are inside the axes and cover nothing; they are taken then."""
        x0, y0, x1, y1 = self.axes.get_window_extent(self.renderer).extents
        free = all(
            x0 <= b[0]
            and b[2] <= x1
            and y0 <= b[1]
            and b[3] <= y1
            and not any(_overlap(b, t) for t in self.taken)
            for b in boxes
        )
        if free:
            self.taken += [tuple(b) for b in boxes]
        return free


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
