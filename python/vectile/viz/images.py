"""Grids of images: samples, and inputs above their reconstructions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vectile.viz import style


def sample_grid(
    images: ArrayLike,
    labels: Sequence[object] | None = None,
    *,
    columns: int | None = None,
    limits: tuple[float, float] = (0.0, 1.0),
    title: str = "Samples",
    subtitle: str = "",
) -> Any:
    """Images (n, channels, height, width) in rows of `columns`, each with its label above if it has one.

    One channel is drawn as ink on paper, three as colours; `limits` are the values of white and black
    (of no and full colour). ValueError for another shape, no image, or another number of labels.
    """
    array = _images(images, "sample_grid")
    if labels is not None and len(labels) != len(array):
        raise ValueError(f"sample_grid: labels length: expected {len(array)}, got {len(labels)}")
    columns = columns or min(len(array), max(1, round(np.sqrt(1.6 * len(array)))))
    tall = array.shape[2] / array.shape[3]
    side = max(0.45, min(0.9, 9 / columns))
    names = [""] * len(array) if labels is None else [str(label) for label in labels]
    starts = range(0, len(array), columns)
    gaps = [0.2 if any(names[start : start + columns]) else 0.06 for start in starts]
    drops = np.cumsum([side * tall + gap for gap in gaps])
    made = style.figure(max(4.5, columns * (side + 0.06) + 0.4), drops[-1] + 0.9)
    top = style.heading(made, title, subtitle)
    width, height = made.get_size_inches()
    left = (width - columns * (side + 0.06)) / 2
    for i, image in enumerate(array):
        row, column = divmod(i, columns)
        y = top * height - drops[row] + 0.03
        place = (left + column * (side + 0.06), y, side, side * tall)
        axes = made.add_axes([v / (height if k % 2 else width) for k, v in enumerate(place)])
        _draw(axes, image, limits)
        axes.set_title(names[i], size=7, color=style.MUTED, pad=1.5)
    return made


def reconstructions(
    originals: ArrayLike,
    *results: ArrayLike,
    names: Sequence[str] = ("input", "output"),
    limits: tuple[float, float] = (0.0, 1.0),
    title: str = "Reconstructions",
    subtitle: str = "",
) -> Any:
    """A row of originals (n, channels, height, width) above a row for each result; a name per row.

    ValueError unless the arrays have one length and there is a name for each.
    """
    stacks = [_images(stack, "reconstructions") for stack in (originals, *results)]
    if len({len(stack) for stack in stacks}) != 1 or len(names) != len(stacks):
        raise ValueError(
            f"reconstructions: rows: expected equally many images and a name each, got "
            f"{[len(stack) for stack in stacks]} images and {len(names)} names"
        )
    count = len(stacks[0])
    side = max(0.45, min(0.8, 9 / count))
    made = style.figure(max(4.5, count * (side + 0.06) + 1.1), len(stacks) * (side + 0.08) + 0.9)
    top = style.heading(made, title, subtitle)
    width, height = made.get_size_inches()
    for row, (name, stack) in enumerate(zip(names, stacks, strict=True)):
        y = top * height - (row + 1) * (side + 0.08) + 0.02
        at = (y + side / 2) / height
        made.text(0.85 / width, at, name, size=9, color=style.INK, ha="right", va="center")
        for column, image in enumerate(stack):
            place = (0.95 + column * (side + 0.06), y, side, side)
            axes = made.add_axes([v / (height if k % 2 else width) for k, v in enumerate(place)])
            _draw(axes, image, limits)
    return made


def _images(images: ArrayLike, op: str) -> NDArray[Any]:
    array = np.asarray(images)
    if array.ndim != 4 or array.shape[1] not in (1, 3) or 0 in array.shape:
        raise ValueError(
            f"{op}: images shape: expected (n, 1 or 3, height, width), got {array.shape}"
        )
    return array


def _draw(axes: Any, image: NDArray[Any], limits: tuple[float, float]) -> None:
    low, high = limits
    scaled = np.clip((image.astype(np.float64) - low) / (high - low), 0, 1)
    shown = 1 - scaled[0] if len(image) == 1 else scaled.transpose(1, 2, 0)
    axes.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color(style.GRID)
