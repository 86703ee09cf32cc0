"""Maps of what a model has sorted: points in a plane, and which class was taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from vectile.viz import style

_MOST_CLASSES = 20


def embedding_map(
    points: ArrayLike,
    labels: Sequence[object] | None = None,
    *,
    classes: ArrayLike | None = None,
    title: str = "Embedding",
    subtitle: str = "",
) -> Any:
    """Points (n, 2) in a plane.

    `classes` (n,), at most 20 different ones, colour the points and get a legend; `labels` are written
    beside the points (words, for example). ValueError for other shapes.
    """
    xy = np.asarray(points, np.float64)
    if xy.ndim != 2 or xy.shape[1] != 2:
        raise ValueError(f"embedding_map: points shape: expected (n, 2), got {xy.shape}")
    for name, given in (("labels", labels), ("classes", classes)):
        if given is not None and len(np.asarray(given)) != len(xy):
            raise ValueError(
                f"embedding_map: {name} length: expected {len(xy)}, got {len(np.asarray(given))}"
            )
    made = style.figure(7.2, 6.2)
    axes = made.add_subplot()
    style.frame(axes, "both")
    size = 22 if labels is not None else float(np.clip(9000 / max(len(xy), 1), 8, 30))
    group = np.zeros(len(xy), int) if classes is None else np.asarray(classes)
    kinds = np.unique(group)
    if len(kinds) > _MOST_CLASSES:
        raise ValueError(
            f"embedding_map: classes: expected at most {_MOST_CLASSES}, got {len(kinds)}"
        )
    for i, kind in enumerate(kinds):
        part = xy[group == kind]
        color = style.CLASSES[i % len(style.CLASSES)]
        marker = "o" if i < len(style.CLASSES) else "^"
        axes.scatter(
            *part.T, s=size, color=color, marker=marker, alpha=0.75, linewidths=0, label=str(kind)
        )
    for label, place in zip(labels if labels is not None else (), xy, strict=False):
        axes.annotate(
            str(label), place, (4, 2), textcoords="offset points", size=7.5, color=style.INK
        )
    if classes is not None:
        axes.legend(
            frameon=False,
            labelcolor=style.INK,
            loc="center left",
            bbox_to_anchor=(1.0, 0.5),
            handletextpad=0.1,
        )
    made.tight_layout(rect=(0.01, 0.01, 0.99, style.heading(made, title, subtitle)))
    return made


def confusion_matrix(
    expected: ArrayLike,
    predicted: ArrayLike,
    names: Sequence[str] | None = None,
    *,
    title: str = "What was taken for what",
    subtitle: str | None = None,
) -> Any:
    """Counts of integer classes: row = the true class, column = the predicted one; errors stand out.

    `names` default to the numbers 0 … largest class. ValueError for arrays of different length.
    """
    truth, guess = np.asarray(expected).ravel(), np.asarray(predicted).ravel()
    if truth.shape != guess.shape or not len(truth):
        raise ValueError(
            f"confusion_matrix: predicted length: expected {len(truth)} >= 1, got {len(guess)}"
        )
    count = int(max(truth.max(), guess.max())) + 1 if names is None else len(names)
    names = [str(i) for i in range(count)] if names is None else list(names)
    table = np.zeros((count, count), int)
    np.add.at(table, (truth, guess), 1)
    right = int(np.trace(table))
    if subtitle is None:
        subtitle = f"{right} of {len(truth)} right: {100 * right / len(truth):.1f}%"
    side = max(3.4, 0.42 * count + 1.2)
    letters = 0.085 * max(len(name) for name in names)
    made = style.figure(side + letters + 0.5, side + letters + 0.6)
    top = style.heading(made, title, subtitle)
    axes = made.add_subplot()
    diagonal = np.eye(count, dtype=bool)
    rates = table / np.maximum(table.sum(1, keepdims=True), 1)
    shade = np.ones((count, count, 3))
    for mask, color, strength in ((diagonal, style.ACCENT, rates), (~diagonal, style.SECOND, 0)):
        rgb = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        amount = strength if mask is diagonal else np.where(table > 0, 0.25 + 0.75 * rates, 0)
        blend = 1 - np.asarray(amount)[..., None] * (1 - rgb)
        shade = np.where(mask[..., None], blend, shade)
    axes.imshow(shade, interpolation="nearest")
    for (row, column), value in np.ndenumerate(table):
        if value:
            light = shade[row, column].mean() < 0.62
            color = "white" if light else style.INK
            axes.text(column, row, value, size=8, color=color, ha="center", va="center")
    upright = all(len(name) <= 3 for name in names)
    axes.set_xticks(range(count), names, size=8.5, rotation=0 if upright else 90)
    axes.set_yticks(range(count), names, size=8.5)
    axes.tick_params(length=0, labelcolor=style.INK)
    axes.set_xticks(np.arange(0.5, count - 1), minor=True)
    axes.set_yticks(np.arange(0.5, count - 1), minor=True)
    axes.grid(which="minor", color=style.GRID, linewidth=0.8)
    axes.tick_params(which="minor", length=0)
    axes.spines[:].set_color(style.GRID)
    axes.set_xlabel("predicted", color=style.INK)
    axes.set_ylabel("true", color=style.INK)
    made.tight_layout(rect=(0.01, 0.01, 0.99, top))
    return made
