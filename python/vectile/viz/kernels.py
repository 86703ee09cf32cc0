"""The kernel table as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vectile.kernel_table import KernelRow
from vectile.viz.style import ACCENT, INK, SECOND, figure, frame, heading


def kernel_chart(rows: Sequence[KernelRow], subtitle: str = "") -> Any:
    """Speed-up over NumPy (left) and fraction of the measured peak (right), a bar per kernel."""
    made = figure(9.5, 0.33 * len(rows) + 1.6)
    left, right = made.subplots(1, 2, sharey=True, gridspec_kw={"width_ratios": (3, 2)})
    y = np.arange(len(rows))[::-1]
    speedup = np.array([row.speedup for row in rows])
    left.barh(y, speedup - 1, left=1, color=np.where(speedup >= 1, ACCENT, SECOND), height=0.66)
    left.set_xscale("log")
    ticks = [t for t in (0.25, 0.5, 1, 2, 5, 10, 20, 50, 100) if t <= max(speedup.max() * 1.6, 2)]
    left.set_xticks(ticks, [f"{t:g}x" for t in ticks])
    left.minorticks_off()
    left.set_xlim(min(0.5, speedup.min() * 0.8), max(speedup.max() * 1.7, 2))
    left.axvline(1, color=INK, linewidth=1)
    left.set_ylim(-0.6, len(rows) - 0.4)
    left.set_yticks(y, [f"{row.name}  {row.size}" for row in rows], size=8.5)
    left.set_title("times NumPy's speed", size=10, color=INK, loc="left")
    for position, value in zip(y, speedup, strict=True):
        left.annotate(
            f"{value:.1f}x",
            (max(value, 1.0), position),
            (4, 0),
            textcoords="offset points",
            va="center",
            size=8,
            color=INK,
        )
    colors = {"flop": ACCENT, "int8": "#5f3dc4", "byte": "#2b8a3e"}
    right.barh(
        y,
        [100 * row.fraction for row in rows],
        color=[colors[row.unit] for row in rows],
        height=0.66,
    )
    right.set_xlim(0, 112)
    right.set_xticks([0, 25, 50, 75, 100], ["0", "25", "50", "75", "100%"])
    right.axvline(100, color=INK, linewidth=1)
    right.set_title("of this run's measured peak", size=10, color=INK, loc="left")
    for position, row in zip(y, rows, strict=True):
        inside = row.fraction > 0.45  # long bars carry their rate in white
        rate = f"{row.rate:,.0f}" if row.rate >= 10 else f"{row.rate:.1f}"
        right.annotate(
            f"{rate} {row.rate_unit}",
            (min(100 * row.fraction, 100), position),
            (-4 if inside else 4, 0),
            textcoords="offset points",
            ha="right" if inside else "left",
            va="center",
            size=8,
            color="white" if inside else INK,
        )
    for axes in (left, right):
        frame(axes, "x")
        axes.tick_params(axis="y", length=0)
    labels = {"flop": "float32 multiply-add", "int8": "INT8 dot product", "byte": "read bandwidth"}
    handles = [
        right.barh([0], [0], color=color, label=labels[unit])
        for unit, color in colors.items()
        if any(row.unit == unit for row in rows)
    ]
    made.legend(
        handles=handles,
        loc="upper right",
        ncols=3,
        frameon=False,
        fontsize=8,
        labelcolor=INK,
        bbox_to_anchor=(0.99, 1 - 4 / (made.get_figheight() * 72)),
        columnspacing=1.2,
    )
    top = heading(made, "Kernels beside NumPy", subtitle)
    made.tight_layout(rect=(0.01, 0.01, 0.99, top))
    return made
