"""Draw a result of run.py: a roofline, the memory-bound calls, and the ratios to the peer.

Everything is drawn from what ``--json`` keeps, so an old result can be drawn again.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from harness import Row, geometric_mean
from labels import SMALL, Labels, shorten, write
from report import compared, versions
from vectile.viz import style

WIDTH = 9.0  # inches: README shows a picture about 900 pixels wide
LEFT, EDGE = 0.75, 0.18  # inches left of the axes, and at the picture's edges
ABOVE, BELOW = 0.74, 0.56  # of a panel, for its title and for its axis
LINE = 0.27  # height of a line of ratios
FASTER, SLOWER, SLOW_SIDE = style.ACCENT, style.SECOND, "#fff4e6"
MARKERS = "osD^vP*X"
SINGLE_LINES = 44  # with more cases than this, a group of cases shares a line
LEVELS = ("L1 cache", "L2 cache", "L3 cache", "memory")  # of machine.WORKING_SETS


@dataclass(frozen=True)
class Look:
    """How the points of one family are drawn."""

    colour: str
    marker: str


def looks(families: Iterable[str]) -> dict[str, Look]:
    """Colour and shape of every family; eight of each, paired anew in every turn of eight."""
    colours = style.SERIES
    return {
        f: Look(colours[i % len(colours)], MARKERS[(i + i // len(colours)) % len(MARKERS)])
        for i, f in enumerate(dict.fromkeys(families))
    }


def save(result: dict[str, Any], path: Path) -> None:
    """Write the picture of a result; the suffix chooses the format (.png, .svg, .pdf)."""
    rows = [Row(**r) for r in result["rows"]]
    with rc_context({"svg.hashsalt": "vectile", "font.size": 9}):
        made = draw(result, rows)
        made.savefig(path, dpi=150, format=path.suffix[1:])


def draw(result: dict[str, Any], rows: Sequence[Row]) -> Any:
    """The figure: only the panels for which the result has rows."""
    operations = [r for r in rows if r.rate_unit in ("GF/s", "GOP/s") and r.traffic > 0]
    transfers = [r for r in rows if r.rate_unit == "GB/s"]
    lines = ratio_lines(rows)
    panels: list[tuple[float, Callable[[Any], None]]] = []
    if operations:
        panels.append((4.9, lambda axes: roofline(axes, operations, result["ceilings"])))
    if transfers:
        panels.append((3.7, lambda axes: bandwidths(axes, transfers, result["ceilings"])))
    if lines:
        panels.append((LINE * len(lines) + ABOVE + BELOW, lambda axes: ratios(axes, lines)))
    if not panels:
        raise ValueError("plot: rows: expected a rate or a ratio, got none")
    top, bottom = 0.8, 0.3
    height = top + bottom + sum(inches for inches, _ in panels)
    made = style.figure(WIDTH, height)
    style.heading(made, title(result), subtitle(result))
    FigureCanvasAgg(made)  # text is measured while it is placed
    command = f"measured by: {result['command']}"
    shorten(
        made.text(EDGE / WIDTH, 0.12 / height, command, size=SMALL, color=style.MUTED),
        (WIDTH - 2 * EDGE) * 72,
    )
    at = height - top
    for inches, paint in panels:
        at -= inches
        box = (LEFT, at + BELOW, WIDTH - LEFT - EDGE, inches - ABOVE - BELOW)
        size = (WIDTH, height, WIDTH, height)
        paint(made.add_axes(tuple(b / s for b, s in zip(box, size, strict=True))))
    return made


def title(result: dict[str, Any]) -> str:
    peers = sorted({r["peer"].split()[0] for r in result["rows"] if r.get("peer")})
    beside = f" beside {' and '.join(peers)}" if peers else ""
    threads = result["options"]["threads"]
    return f"vectile{beside}, {threads} thread{'s' if threads > 1 else ''}"


def subtitle(result: dict[str, Any]) -> str:
    config = result["config"]
    return (
        f"{config['cpu'].strip()}, {config['isa']}; {result['date']}; {versions(result)}. "
        f"Medians of {result['clock']}, both sides in turns, every result checked against float64."
    )


# ---- panels ----------------------------------------------------------------------------------------


def panel_title(axes: Any, text: str, explanation: str) -> None:
    left = (LEFT - axes.get_position().x0 * WIDTH) * 72
    for y, words, size, weight, colour in (
        (31, text, 11, "bold", style.INK),
        (17, explanation, SMALL + 0.5, "normal", style.MUTED),
    ):
        write(axes, words, (0, 1), (left, y), size=size, weight=weight, color=colour, va="bottom")


def family_key(axes: Any, known: dict[str, Look]) -> None:
    """Names of the families beside their marker, in one line under the panel's title."""
    axes.legend(
        handles=[
            Line2D([], [], color=v.colour, marker=v.marker, linestyle="", markersize=5.5, label=f)
            for f, v in known.items()
        ],
        loc="lower left",
        bbox_to_anchor=(-0.012, 0.985),
        ncols=len(known),
        frameon=False,
        fontsize=SMALL,
        labelcolor=style.INK,
        handletextpad=0.1,
        columnspacing=0.9,
        borderpad=0,
    )


def rate(r: Row, seconds: float) -> float:
    return r.amount / seconds / 1e9


def pairs(
    axes: Any, rows: Sequence[Row], known: dict[str, Look], x: Callable[[Row], float]
) -> None:
    """Each case as a filled marker, joined to the hollow one of its peer."""
    for r in rows:
        look, at, ours = known[r.family], x(r), rate(r, r.ours)
        if math.isfinite(r.theirs):
            theirs = rate(r, r.theirs)
            axes.plot([at, at], [ours, theirs], color=look.colour, lw=0.7, alpha=0.5)
            hollow = {"mfc": "white", "mec": look.colour, "mew": 0.8, "ms": 4.6}
            axes.plot(at, theirs, look.marker, zorder=3, **hollow)
        filled = {"mfc": look.colour, "mec": "white", "mew": 0.4, "ms": 5.6}
        axes.plot(at, ours, look.marker, zorder=4, **filled)


def avoid(labels: Labels, rows: Sequence[Row], x: Callable[[Row], float]) -> None:
    """Keep labels away from what :func:`pairs` draws."""
    for r in rows:
        ends = [(x(r), rate(r, s)) for s in (r.ours, r.theirs) if math.isfinite(s)]
        labels.avoid_line(ends[0], ends[-1])
        for at in ends:
            labels.avoid_point(at)


def rates(rows: Sequence[Row]) -> list[float]:
    return [rate(r, s) for r in rows for s in (r.ours, r.theirs) if math.isfinite(s)]


def roofline(axes: Any, rows: Sequence[Row], ceilings: dict[str, Any]) -> None:
    """Rate over arithmetic intensity, under the roof measured in the same run."""

    def intensity(r: Row) -> float:
        return r.amount / r.traffic

    known = looks(r.family for r in rows)
    tops = [(f"float32 multiply-add {ceilings['fma_gflops']:.0f} GFLOP/s", ceilings["fma_gflops"])]
    if any(r.rate_unit == "GOP/s" for r in rows):
        tops.append((f"INT8 dot product {ceilings['int8_gops']:.0f} GOP/s", ceilings["int8_gops"]))
    reads = sorted((int(n), v) for n, v in ceilings["read_gbs"].items())
    high, least = max(v for _, v in tops), min(v for _, v in tops)
    low_x = min(min(map(intensity, rows)), least / reads[0][1] / 2) / 1.6
    high_x = max(map(intensity, rows)) * 1.6
    low_y = max(min(rates(rows)) / 1.6, high / 2000)
    log_axes(axes, (low_x, high_x), (low_y, max(high, *rates(rows)) * 1.9))
    axes.set_xlabel("operations a byte (arguments read once, results written once)")
    axes.set_ylabel("10⁹ operations a second")
    pairs(axes, rows, known, intensity)
    labels = Labels(axes)
    avoid(labels, rows, intensity)
    slopes = []
    for (_, bandwidth), level in zip(reads, LEVELS, strict=False):
        start = max(low_x, low_y / bandwidth)
        ends = [(start, start * bandwidth), (high / bandwidth, high)]
        axes.plot(*zip(*ends, strict=True), color=style.MUTED, lw=1, zorder=2)
        labels.avoid_line(*ends)
        slopes.append((f"{level} {bandwidth:.0f} GB/s", ends[0], (least / bandwidth, least)))
    for name, start, end in slopes:
        labels.along(name, start, end)
    one = high < 1.25 * least  # two lines so close have one label
    named = [(", ".join(name for name, _ in tops), high)] if one else tops
    for name, value in named:
        labels.put(name, (high_x, value), [((-6, 4), "right"), ((-6, -12), "right")], style.INK)
    for _, value in tops:
        ends = [(value / reads[0][1], value), (high_x, value)]
        axes.plot(*zip(*ends, strict=True), color=style.INK, lw=1.3, zorder=2)
        labels.avoid_line(*ends)
    for r in notable(rows):
        at = intensity(r), rate(r, r.ours)
        labels.put(r.name, at, Labels.AROUND, known[r.family].colour)
    if below := sum(rate(r, r.ours) < low_y for r in rows):
        note = f"{below} call{'s' if below > 1 else ''} below this range"
        write(axes, note, (0, 0), (5, 8), color=style.MUTED, size=SMALL)
    panel_title(
        axes,
        "How near to the machine's roof",
        "Filled: vectile; hollow: the peer's call for the same. Lines: the most that this machine "
        "reached in the same run.",
    )
    family_key(axes, known)


def bandwidths(axes: Any, rows: Sequence[Row], ceilings: dict[str, Any]) -> None:
    """Bytes a second over the bytes of a call, beside reading alone."""
    known = looks(r.family for r in rows)
    measured = ceilings["read_gbs"] | ceilings.get("reads", {})
    reads = sorted((int(n), v) for n, v in measured.items())
    sizes = [r.amount for r in rows] + [n for n, _ in reads]
    found = rates(rows)
    low = max(min(found) / 1.6, reads[0][1] / 10000)
    log_axes(axes, (min(sizes) / 1.5, max(sizes) * 1.5), (low, max(*found, reads[0][1]) * 2.5))
    ticks = [1 << n for n in range(6, 40, 2) if min(sizes) / 1.5 <= 1 << n <= max(sizes) * 1.5]
    axes.set_xticks(ticks, [in_bytes(n) for n in ticks])
    axes.set_xlabel("bytes that a call reads and writes")
    axes.set_ylabel("GB/s")
    axes.plot(*zip(*reads, strict=True), color=style.MUTED, lw=1.3, zorder=2)
    pairs(axes, rows, known, lambda r: r.amount)
    labels = Labels(axes)
    avoid(labels, rows, lambda r: r.amount)
    for ends in itertools.pairwise(reads):
        labels.avoid_line(*ends)
    labels.put("reading alone", reads[0], [((2, 6), "left"), ((2, -14), "left")], style.MUTED)
    for r in notable(rows):
        labels.put(r.name, (r.amount, rate(r, r.ours)), Labels.AROUND, known[r.family].colour)
    panel_title(
        axes,
        "Calls that only touch memory",
        "Filled: vectile; hollow: the peer's call for the same. Line: reading as many bytes over and "
        "over, in the same run.",
    )
    family_key(axes, known)


@dataclass(frozen=True)
class Line:
    """One line of the ratio chart: a family, a group of its cases, or one case.

    A heading shows the mean of the lines below it; their dots are not repeated.
    """

    label: str
    rows: tuple[Row, ...]
    family: bool
    heading: bool = False


def ratio_lines(rows: Sequence[Row]) -> list[Line]:
    """Families with their cases below them, or with their groups where there are many cases."""
    shown = compared(rows)
    single = len(shown) <= SINGLE_LINES
    lines = []
    for family in dict.fromkeys(r.family for r in shown):
        cases = [r for r in shown if r.family == family]
        groups = list(dict.fromkeys(r.group for r in cases))
        lines.append(Line(family, tuple(cases), True, single or len(groups) > 1))
        if single:
            lines += [Line(r.name, (r,), False) for r in cases]
        elif len(groups) > 1:
            lines += [
                Line(g or "other", tuple(r for r in cases if r.group == g), False) for g in groups
            ]
    return lines


def ratios(axes: Any, lines: Sequence[Line]) -> None:
    """The peer's time over vectile's, a dot for each case; the diamond is the geometric mean."""
    every = [r.ratio for line in lines for r in line.rows]
    single = all(len(line.rows) == 1 for line in lines if not line.heading)
    box = axes.get_position()
    left, right = (3.1, 0.9) if single else (1.85, 2.75)  # inches for the names and the notes
    axes.set_position((left / WIDTH, box.y0, (WIDTH - left - right) / WIDTH, box.height))
    low, high = min(0.8, min(every) / 1.15), max(1.25, max(every) * 1.15)
    log_axes(axes, (low, high), None)
    axes.set_ylim(len(lines) - 0.4, -0.6)
    steps = [2.0**n for n in range(-8, 9)] + ([0.8, 1.25] if high / low < 6 else [])
    ticks = [t for t in steps if low <= t <= high]
    axes.set_xticks(ticks, [f"{t:g}x" for t in ticks])
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.axvline(1, color=style.INK, lw=1.2, zorder=1)
    axes.axvspan(low, 1, color=SLOW_SIDE, zorder=0)
    below = ("data", "axes fraction")
    for text, x, align, colour in (
        ("slower", -5, "right", SLOWER),
        ("faster", 5, "left", FASTER),
    ):
        write(axes, text, (1, 0), (x, -26), below, ha=align, color=colour, weight="bold")
    aside = ("axes fraction", "data")
    for y, line in enumerate(lines):
        weight, indent = ("bold", 0) if line.family else ("normal", 10)
        count = f" ({len(line.rows)})" if len(line.rows) > 1 else ""
        start = (EDGE - left) * 72 + indent
        write(axes, line.label + count, (0, y), (start, 0), aside, weight=weight)
        mean = geometric_mean([r.ratio for r in line.rows])
        write(axes, f"{mean:.2f}x", (1, y), (8, 0), aside, weight=weight)
        if len(line.rows) == 1:
            colour = FASTER if mean >= 1 else SLOWER
            axes.plot([1, mean], [y, y], color=colour, lw=2, zorder=3, solid_capstyle="butt")
        if not line.heading:
            dots(axes, y, [r.ratio for r in line.rows])
        if len(line.rows) > 1:
            axes.plot(mean, y, "D", mfc=style.INK, mec="white", mew=0.8, ms=6.5, zorder=5)
        if len(line.rows) > 1 and not single and not line.heading:
            worst = min(line.rows, key=lambda r: r.ratio)
            text = f"worst {worst.ratio:.2f}x: {worst.name}"
            note = write(axes, text, (1, y), (44, 0), aside, size=SMALL, color=style.MUTED)
            shorten(note, (right - EDGE / 2) * 72 - 44)
    panel_title(
        axes,
        "Times the peer's speed",
        "A dot is one call: the peer's time over vectile's. The diamond and the number beside it are "
        "the geometric mean.",
    )


def dots(axes: Any, y: float, values: Sequence[float]) -> None:
    """Cases of one line side by side, moved up or down where they would cover each other."""
    transform = axes.transData
    taken: list[tuple[float, float]] = []
    step = 3.2 * axes.get_figure().dpi / 72
    for v in sorted(values):
        x, middle = transform.transform((v, y))
        at = next(
            (
                middle + d * step
                for d in (0, 1, -1, 2, -2)
                if all(
                    abs(x - a) >= step * 1.2 or abs(middle + d * step - b) >= step * 0.99
                    for a, b in taken
                )
            ),
            middle,
        )
        taken.append((x, at))
        place = transform.inverted().transform((x, at))
        axes.plot(
            *place, "o", color=FASTER if v >= 1 else SLOWER, mec="white", mew=0.3, ms=4.4, zorder=3
        )


# ---- axes and labels -------------------------------------------------------------------------------


def log_axes(axes: Any, x: tuple[float, float], y: tuple[float, float] | None) -> None:
    axes.set_xscale("log")
    axes.set_xlim(*x)
    if y:
        axes.set_yscale("log")
        axes.set_ylim(*y)
    for axis in (axes.xaxis, axes.yaxis) if y else (axes.xaxis,):
        axis.set_major_locator(LogLocator(10))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    style.frame(axes, "both" if y else "x")
    axes.tick_params(labelsize=SMALL + 0.5)


def in_bytes(n: int) -> str:
    """1024 -> 1 KiB"""
    power = min(3, (n.bit_length() - 1) // 10)
    return f"{n >> 10 * power} {('B', 'KiB', 'MiB', 'GiB')[power]}"


def notable(rows: Sequence[Row]) -> list[Row]:
    """Which cases deserve a label, in order: of each family the best and the worst fraction, the rest."""
    known = [r for r in rows if math.isfinite(r.fraction)]
    first: list[Row] = []
    for family in dict.fromkeys(r.family for r in known):
        own = sorted((r for r in known if r.family == family), key=lambda r: r.fraction)
        first += [own[-1], own[0]]
    by_ratio = sorted((r for r in known if math.isfinite(r.ratio)), key=lambda r: r.ratio)
    return list(dict.fromkeys([*first, *by_ratio[:2], *by_ratio[-2:]]))
