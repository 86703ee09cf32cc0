"""Pictures of a run: loss curve, attention maps, kernel table. Each function writes one PNG."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vectile.extras import require
from vectile.kernel_table import KernelRow
from vectile.train import History

Path = str | PathLike[str]

INK, MUTED, GRID = "#1f2933", "#7b8794", "#e4e7eb"
ACCENT, SECOND, PALE = "#0b7285", "#e8590c", "#99d1db"


def _figure(width: float, height: float) -> Any:
    """A white figure on which text is dark grey; no global matplotlib state is touched."""
    figure = require("matplotlib.figure", "drawing a picture").Figure((width, height), dpi=150)
    figure.set_facecolor("white")
    return figure


def _style(axes: Any, grid: str = "y") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(colors=MUTED, labelcolor=INK)
    axes.grid(axis=grid, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def _title(figure: Any, title: str, subtitle: str) -> None:
    """Two lines at the top left, placed in points so that they stay apart at any figure height."""
    height = figure.get_figheight() * 72
    figure.text(0.02, 1 - 10 / height, title, size=13, weight="bold", color=INK, va="top")
    figure.text(0.02, 1 - 31 / height, subtitle, size=9, color=MUTED, va="top")


def _save(figure: Any, path: Path, top_points: float = 52) -> None:
    figure.tight_layout(rect=(0.01, 0.01, 0.99, 1 - top_points / (figure.get_figheight() * 72)))
    figure.savefig(path)


def loss_curve(
    path: Path, history: History, subtitle: str = "", target: float | None = None
) -> None:
    """Training loss (each step, and smoothed) and validation loss against the step number."""
    figure = _figure(8, 4.6)
    axes = figure.add_subplot()
    _style(axes)
    train = np.asarray(history.train, np.float64)
    if len(train):
        steps = np.arange(1, len(train) + 1)
        axes.plot(steps, train, color=PALE, linewidth=0.7, label="training, each batch")
        axes.plot(steps, smooth(train), color=ACCENT, linewidth=2, label="training, smoothed")
    if history.validation:
        x, y = np.array(history.validation).T
        axes.plot(x, y, "o-", color=SECOND, linewidth=1.8, markersize=4.5, label="validation")
        axes.annotate(
            f"{y[-1]:.3f}",
            (x[-1], y[-1]),
            (2, 9),
            textcoords="offset points",
            ha="right",
            color=SECOND,
            weight="bold",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
        )
    if target is not None:
        axes.axhline(target, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        axes.annotate(
            f"target {target:g}",
            (0, target),
            (5, 4),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            color=MUTED,
            size=9,
        )
    seen = np.concatenate([train, [loss for _, loss in history.validation]])
    if target is not None:
        seen = np.append(seen, target)
    if len(seen):
        low, high = seen.min(), max(np.quantile(seen, 0.98), seen.min() + 0.1)
        axes.set_ylim(max(0.0, low - 0.08 * (high - low)), high + 0.12 * (high - low))
        axes.set_xlim(0, max(len(train), 1) * 1.02)
    axes.set_xlabel("step", color=INK)
    axes.set_ylabel("cross-entropy, nats per byte", color=INK)
    axes.legend(frameon=False, labelcolor=INK)
    _title(figure, "Loss while training", subtitle)
    _save(figure, path)


def smooth(values: NDArray[np.float64], memory: float = 0.97) -> NDArray[np.float64]:
    """Exponential moving average without the start's bias."""
    out, average, weight = np.empty_like(values), 0.0, 0.0
    for i, value in enumerate(values):
        average = memory * average + (1 - memory) * value
        weight = memory * weight + (1 - memory)
        out[i] = average / weight
    return out


def attention_maps(path: Path, weights: NDArray[Any], text: str) -> None:
    """A heat map per head, layers from top to bottom: weights (layers, heads, length, length)."""
    layers, heads, length, _ = weights.shape
    figure = _figure(max(6.0, 3.0 * heads + 0.6), 3.05 * layers + 1.0)
    letters = [{" ": "␣", "\n": "⏎", "\t": "⇥"}.get(c, c if c.isprintable() else "·") for c in text]
    visible = np.where(np.tri(length, dtype=bool), weights, np.nan)
    for layer in range(layers):
        for head in range(heads):
            axes = figure.add_subplot(layers, heads, layer * heads + head + 1)
            # the square root shows the small weights beside the large without a scale per head
            image = axes.imshow(
                np.sqrt(visible[layer, head]),
                cmap="viridis",
                vmin=0,
                vmax=1,
                interpolation="nearest",
            )
            size = min(7.0, 165 / length)
            axes.set_xticks(range(length), letters, size=size, family="DejaVu Sans Mono")
            axes.set_yticks(
                range(length), letters, size=size, family="DejaVu Sans Mono", va="center"
            )
            axes.tick_params(length=0, pad=1.5, labelcolor=INK)
            axes.spines[:].set_visible(False)
            axes.set_title(f"layer {layer + 1}, head {head + 1}", size=8.5, color=INK, pad=4)
    _title(
        figure,
        "Where each byte looks",
        f"rows attend to columns; line of text: {text.strip()!r}",
    )
    figure.tight_layout(
        rect=(0.005, 0.005, 0.93, 1 - 50 / (figure.get_figheight() * 72)), h_pad=1.2
    )
    bar = figure.colorbar(image, cax=figure.add_axes((0.945, 0.25, 0.012, 0.5)))
    bar.set_ticks(np.sqrt([0, 0.05, 0.2, 0.5, 1.0]), labels=["0", ".05", ".2", ".5", "1"])
    bar.ax.tick_params(labelsize=8, labelcolor=INK, color=MUTED)
    bar.ax.set_title("weight", size=8, color=INK, pad=6)
    bar.outline.set_visible(False)
    figure.savefig(path)


def kernel_chart(path: Path, rows: Sequence[KernelRow], subtitle: str = "") -> None:
    """Speed-up over NumPy (left) and fraction of the measured peak (right), a bar per kernel."""
    figure = _figure(9.5, 0.33 * len(rows) + 1.6)
    left, right = figure.subplots(1, 2, sharey=True, gridspec_kw={"width_ratios": (3, 2)})
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
        _style(axes, "x")
        axes.tick_params(axis="y", length=0)
    labels = {"flop": "float32 multiply-add", "int8": "INT8 dot product", "byte": "read bandwidth"}
    handles = [
        right.barh([0], [0], color=color, label=labels[unit])
        for unit, color in colors.items()
        if any(row.unit == unit for row in rows)
    ]
    figure.legend(
        handles=handles,
        loc="upper right",
        ncols=3,
        frameon=False,
        fontsize=8,
        labelcolor=INK,
        bbox_to_anchor=(0.99, 1 - 4 / (figure.get_figheight() * 72)),
        columnspacing=1.2,
    )
    _title(figure, "Kernels beside NumPy", subtitle)
    _save(figure, path, 58)
