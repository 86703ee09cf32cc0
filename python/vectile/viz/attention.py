"""Attention weights as heat maps: rows attend to columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vectile.viz import style

_SIGNS = {" ": "␣", "\n": "⏎", "\t": "⇥", "": "∅"}
_TICKS = (0, 0.05, 0.2, 0.5, 1.0)


def attention_map(
    weights: ArrayLike,
    rows: Sequence[str],
    columns: Sequence[str] | None = None,
    *,
    causal: bool = False,
    title: str = "Where each token looks",
    subtitle: str = "rows attend to columns",
) -> Any:
    """One head: `weights` (len(rows), len(columns)) in [0, 1]; `columns` are `rows` for self-attention.

    `causal` leaves the upper triangle white. ValueError for weights of another shape.
    """
    return _heat(weights, rows, columns, causal, title, subtitle)


def cross_attention(
    weights: ArrayLike,
    source: Sequence[str],
    target: Sequence[str],
    *,
    title: str = "Which source words each target word looks at",
    subtitle: str = "",
) -> Any:
    """Encoder-decoder attention: `weights` (len(target), len(source)), source words along the top.

    ValueError for weights of another shape.
    """
    return _heat(weights, target, source, False, title, subtitle)


def attention_heads(
    weights: ArrayLike,
    rows: Sequence[str],
    columns: Sequence[str] | None = None,
    *,
    causal: bool = False,
    title: str = "Where each token looks",
    subtitle: str = "rows attend to columns",
) -> Any:
    """Every head in its own map, layers from top to bottom.

    `weights` (layers, heads, len(rows), len(columns)), or (heads, …) of one layer; else ValueError.
    """
    array = np.asarray(weights)
    array = array[None] if array.ndim == 3 else array
    columns = rows if columns is None else columns
    _check(array, rows, columns, 4)
    layers, heads = array.shape[:2]
    side = 3.0
    height = side * max(0.45, min(1.6, len(rows) / max(1, len(columns))))
    made = style.figure(max(6.0, (side + 0.4) * heads + 0.6), (height + 0.45) * layers + 1.0)
    top = style.heading(made, title, subtitle)
    for layer in range(layers):
        for head in range(heads):
            axes = made.add_subplot(layers, heads, layer * heads + head + 1)
            image = _cells(axes, array[layer, head], causal)
            scale = 72 * side * 0.8
            across = min(scale / len(columns), 11)
            _words(axes, rows, columns, across, min(scale / len(rows), 11))
            name = f"layer {layer + 1}, head {head + 1}" if layers > 1 else f"head {head + 1}"
            axes.set_title(name, size=8.5, color=style.INK, pad=4)
    room = 0.6 / made.get_figwidth()  # for the bar and its numbers
    made.tight_layout(rect=(0.005, 0.005, 1 - room, top), h_pad=1.2)
    _bar(made, image, (1 - 0.85 * room, 0.25, 0.2 * room, 0.5))
    return made


def attention_grid(
    maps: Mapping[str, ArrayLike],
    *,
    columns: int = 4,
    title: str = "What each query sees",
    subtitle: str = "rows attend to columns",
) -> Any:
    """Maps by name side by side, without words: each (queries, keys) in [0, 1].

    ValueError for a map without two axes, or with an empty one.
    """
    arrays = {name: np.asarray(weights) for name, weights in maps.items()}
    for name, array in arrays.items():
        if array.ndim != 2 or 0 in array.shape:
            raise ValueError(
                f"attention_grid: {name} shape: expected (queries, keys) without an empty axis, "
                f"got {array.shape}"
            )
    columns = max(1, min(columns, len(arrays)))
    rows = -(-len(arrays) // columns)
    made = style.figure(2.1 * columns + 0.7, 2.35 * rows + 0.8)
    top = style.heading(made, title, subtitle)
    image = None
    for place, (name, array) in enumerate(arrays.items(), 1):
        axes = made.add_subplot(rows, columns, place)
        image = _cells(axes, array, False)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(True)
        axes.spines[:].set_color(style.GRID)
        axes.set_title(name, size=8.5, color=style.INK, pad=4)
    room = 0.6 / made.get_figwidth()  # for the bar and its numbers
    made.tight_layout(rect=(0.005, 0.005, 1 - room, top), h_pad=1.2)
    if image is not None:
        _bar(made, image, (1 - 0.85 * room, 0.25, 0.2 * room, 0.5))
    return made


def _heat(
    weights: ArrayLike,
    rows: Sequence[str],
    columns: Sequence[str] | None,
    causal: bool,
    title: str,
    subtitle: str,
) -> Any:
    array, on_top = np.asarray(weights), columns is not None
    columns = rows if columns is None else columns
    _check(array, rows, columns, 2)
    cell = min(0.34, 9 / max(len(rows), len(columns), 1))
    letters = [0.085 * max((len(word) for word in words), default=1) for words in (rows, columns)]
    width, height = cell * len(columns) + letters[0] + 1.3, cell * len(rows) + letters[1] + 1.2
    made = style.figure(max(5.2, width), max(3.2, height))
    top = style.heading(made, title, subtitle)
    axes = made.add_subplot()
    image = _cells(axes, array, causal)
    _words(axes, rows, columns, 72 * cell, 72 * cell)
    if on_top:
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
    top -= 6 / (72 * made.get_figheight()) if on_top else 0.0  # words keep off the subtitle
    room = 0.65 / made.get_figwidth()  # for the bar and its numbers
    made.tight_layout(rect=(0.01, 0.01, 1 - room, top))
    box = axes.get_position()
    place = (box.x1 + 0.3 * room, box.y0 + 0.1 * box.height, 0.15 * room, 0.75 * box.height)
    _bar(made, image, place)
    return made


def _check(array: NDArray[Any], rows: Sequence[str], columns: Sequence[str], rank: int) -> None:
    expected = (len(rows), len(columns))
    if array.ndim != rank or array.shape[-2:] != expected or 0 in array.shape:
        raise ValueError(
            f"attention: weights shape: expected (…, rows, columns) = (…, {expected[0]}, "
            f"{expected[1]}) without an empty axis, got {array.shape}"
        )


def _cells(axes: Any, weights: NDArray[Any], causal: bool) -> Any:
    """The map itself; the square root shows small weights beside large ones without a scale per head."""
    shown = np.sqrt(np.clip(weights.astype(np.float64), 0, 1))
    if causal:
        shown = np.where(np.tri(*shown.shape) > 0, shown, np.nan)
    axes.spines[:].set_visible(False)
    return axes.imshow(shown, cmap="viridis", vmin=0, vmax=1, interpolation="nearest")


def _words(
    axes: Any,
    rows: Sequence[str],
    columns: Sequence[str],
    width: float,
    height: float,
) -> None:
    """Tick labels that fit into cells of width x height points; single characters stand upright."""
    upright = all(len(word) <= 1 for word in columns)
    across = [_shown(word) for word in columns]
    down = [_shown(word) for word in rows]
    font = {"family": "DejaVu Sans Mono"} if upright else {}
    size = min(9, 0.95 * width)
    axes.set_xticks(range(len(columns)), across, size=size, rotation=0 if upright else 90, **font)
    size = min(9, 0.95 * height)
    axes.set_yticks(range(len(rows)), down, size=size, va="center", **font)
    axes.tick_params(length=0, pad=1.5 if upright else 3, labelcolor=style.INK)


def _shown(word: str) -> str:
    """A token with its invisible characters made visible."""
    if word in _SIGNS:
        return _SIGNS[word]
    return "".join(_SIGNS.get(c, c if c.isprintable() else "·") for c in word)


def _bar(made: Any, image: Any, place: tuple[float, float, float, float]) -> None:
    bar = made.colorbar(image, cax=made.add_axes(place))
    bar.set_ticks(np.sqrt(_TICKS), labels=["0", ".05", ".2", ".5", "1"])
    bar.ax.tick_params(labelsize=8, labelcolor=style.INK, color=style.MUTED)
    bar.ax.set_title("weight", size=8, color=style.INK, pad=6)
    bar.outline.set_visible(False)
