"""Losses while training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vectile.viz import style

Series = tuple[Sequence[float], Sequence[float]]


def loss_curves(
    lines: Mapping[str, Series],
    points: Mapping[str, Series] | None = None,
    *,
    target: float | None = None,
    title: str = "Loss while training",
    subtitle: str = "",
    xlabel: str = "step",
    ylabel: str = "loss",
    log: bool = False,
) -> Any:
    """Curves of (steps, values) by name, and a dashed line at `target`.

    `lines` were logged at every step: pale, with their moving average on top. `points` were measured now and
    then, such as a validation loss: marked, the last one in figures. Outliers may leave the picture.
    `log`: a logarithmic scale.
    """
    made = style.figure(8, 4.6)
    axes = made.add_subplot()
    style.frame(axes)
    colors = iter(style.SERIES * (1 + (len(lines) + len(points or {})) // len(style.SERIES)))
    seen = [[] if target is None else [target]]
    last = 1.0
    for name, (steps, values) in lines.items():
        if not len(steps):
            continue
        color, y = next(colors), np.asarray(values, np.float64)
        axes.plot(steps, y, color=color, linewidth=0.7, alpha=0.3)
        if log:  # its average is geometric, and what is not positive has no place
            y = np.where(y > 0, y, np.min(y, where=y > 0, initial=np.inf))
        average = np.exp(smooth(np.log(y))) if log else smooth(y)
        axes.plot(steps, average, color=color, linewidth=2, label=name)
        seen.append(_bulk(y))
        last = max(last, *steps)
    for name, (steps, values) in (points or {}).items():
        if not len(steps):
            continue
        color = next(colors)
        axes.plot(steps, values, "o-", color=color, linewidth=1.8, markersize=4.5, label=name)
        axes.annotate(
            f"{values[-1]:.3f}",
            (steps[-1], values[-1]),
            (2, 9),
            textcoords="offset points",
            ha="right",
            color=color,
            weight="bold",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
        )
        seen.append(list(values))
        last = max(last, *steps)
    if target is not None:
        axes.axhline(target, color=style.MUTED, linewidth=1, linestyle=(0, (4, 3)))
        axes.annotate(
            f"target {target:g}",
            (0, target),
            (5, 4),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            color=style.MUTED,
            size=9,
        )
    _limits(axes, np.concatenate([np.asarray(part, np.float64) for part in seen]), log)
    axes.set_xlim(0, last * 1.02)
    axes.set_xlabel(xlabel, color=style.INK)
    axes.set_ylabel(ylabel, color=style.INK)
    if names := axes.get_legend_handles_labels()[1]:
        axes.legend(
            frameon=False,
            labelcolor=style.INK,
            loc="lower right",
            bbox_to_anchor=(1.01, 0.99),
            ncols=min(len(names), 4),
            columnspacing=1.2,
            handlelength=1.5,
        )
    made.tight_layout(rect=(0.01, 0.01, 0.99, style.heading(made, title, subtitle)))
    return made


def smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Exponential moving average without the start's bias, over a twentieth of the values, at most 33."""
    memory = 1 - 1 / min(33.0, 1 + len(values) / 20)
    out, average, weight = np.empty_like(values), 0.0, 0.0
    for i, value in enumerate(values):
        average = memory * average + (1 - memory) * value
        weight = memory * weight + (1 - memory)
        out[i] = average / weight
    return out


def _bulk(values: NDArray[np.float64]) -> list[float]:
    """The range that a picture should show: all but the two largest and smallest percent, and the average."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return []
    return [*np.quantile(finite, (0.02, 0.98)), *smooth(finite)[[0, -1]]]


def _limits(axes: Any, seen: NDArray[np.float64], log: bool) -> None:
    seen = seen[np.isfinite(seen) & ((seen > 0) | (not log))]
    if log:
        axes.set_yscale("log")
    if not len(seen):
        return
    low, high = seen.min(), seen.max()
    if log:
        axes.set_ylim(low / 1.3, high * 1.3)
    else:
        margin = 0.1 * max(high - low, 1e-3 * abs(high), 1e-9)
        axes.set_ylim(low - margin if low < 0 else max(0.0, low - margin), high + margin)
