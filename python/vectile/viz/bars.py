"""Figures of merit side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vectile.viz import style


def bar_chart(
    groups: Sequence[str],
    values: Mapping[str, Sequence[float]],
    *,
    title: str,
    subtitle: str = "",
    ylabel: str = "",
    xlabel: str = "",
) -> Any:
    """For each group a bar of every series in `values` (name -> one number a group), with its number on top.

    ValueError for a series of another length.
    """
    made = style.figure(max(5.5, 1.2 + 0.55 * len(groups) * (1 + len(values))), 3.8)
    axes = made.add_subplot()
    style.frame(axes)
    width = 0.8 / max(1, len(values))
    for i, (name, heights) in enumerate(values.items()):
        if len(heights) != len(groups):
            raise ValueError(
                f"bar_chart: values of {name}: expected {len(groups)}, got {len(heights)}"
            )
        places = np.arange(len(groups)) + (i - (len(values) - 1) / 2) * width
        color = style.SERIES[i % len(style.SERIES)]
        bars = axes.bar(places, heights, 0.92 * width, color=color, label=name)
        axes.bar_label(bars, fmt="%.1f", size=8, color=style.INK, padding=2)
    axes.set_xticks(range(len(groups)), groups)
    axes.tick_params(axis="x", length=0)
    axes.set_xlabel(xlabel, color=style.INK)
    axes.set_ylabel(ylabel, color=style.INK)
    low, high = (
        pick([0.0, *(x for series in values.values() for x in series)]) for pick in (min, max)
    )
    axes.set_ylim(1.12 * low, 1.12 * high if high > low else 1.0)
    if len(values) > 1:
        axes.legend(
            frameon=False,
            labelcolor=style.INK,
            loc="lower right",
            bbox_to_anchor=(1.01, 0.99),
            ncols=len(values),
            columnspacing=1.2,
            handlelength=1.2,
        )
    made.tight_layout(rect=(0.01, 0.01, 0.99, style.heading(made, title, subtitle)))
    return made
