"""Show benchmark rows as a table (rich where installed)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

from harness import Row, geometric_mean

HEADER = ("", "vectile", "peer", "ratio", "rate", "of peak")


def amount(value: float, unit: str) -> str:
    """A number with a readable unit: seconds become µs or ms."""
    if not math.isfinite(value):
        return ""
    if unit != "s":
        return f"{value:,.3g} {unit}" if value < 1000 else f"{value:,.0f} {unit}"
    for scale, name in ((1e-6, "µs"), (1e-3, "ms"), (1.0, "s")):
        if value < 1000 * scale:
            return f"{value / scale:.3g} {name}"
    return f"{value:.0f} s"


def versions(result: dict[str, Any]) -> str:
    """The package and its peers, of a result that run.py writes."""
    peers = {"vectile": result["config"]["version"]} | result["peers"]
    return ", ".join(f"{n} {v}" for n, v in peers.items())


def _cells(row: Row) -> tuple[str, ...]:
    known = math.isfinite
    return (
        row.name,
        amount(row.ours, row.unit),
        f"{row.peer} {amount(row.theirs, row.unit)}".strip(),
        f"{row.ratio:.2f}x" if known(row.ratio) else "",
        f"{row.rate:.3g} {row.rate_unit}" if known(row.rate) else "",
        f"{row.fraction:.0%}" if known(row.fraction) else "",
    )


def _groups(rows: Sequence[Row]) -> Iterable[tuple[str, list[Row]]]:
    for family, group in itertools.groupby(rows, key=lambda r: r.family):
        yield family, list(group)


def compared(rows: Iterable[Row]) -> list[Row]:
    """The rows that are calls beside a peer's; figures measured elsewhere have no error."""
    return [r for r in rows if math.isfinite(r.ratio) and math.isfinite(r.error)]


def summaries(rows: Sequence[Row]) -> list[str]:
    """One line for every family, and for each of its groups: the mean of the ratios, and the worst."""
    lines = []
    for family, group in _groups(compared(rows)):
        parts = {r.group: [s for s in group if s.group == r.group] for r in group}
        labelled = {f"{family}, {k}": v for k, v in parts.items()} if len(parts) > 1 else {}
        for label, part in ({family: group} | labelled).items():
            worst = min(part, key=lambda r: r.ratio)
            lines.append(
                f"{label}: {geometric_mean([r.ratio for r in part]):.2f}x, geometric mean of {len(part)}; "
                f"worst {worst.ratio:.2f}x, {worst.name}"
            )
    return lines


def print_table(rows: Sequence[Row], title: str, caption: str) -> None:
    """Print every row by family, then the mean and the worst ratio of each."""
    _print_rows(rows, title, caption)
    print("\n".join(summaries(rows)))


def _print_rows(rows: Sequence[Row], title: str, caption: str) -> None:
    lines: list[tuple[str, ...] | None] = []
    for family, group in _groups(rows):
        lines += [None, (family, "", "", "", "", "")]
        lines += [("  " + c[0], *c[1:]) for c in map(_cells, group)]
    try:
        from rich.box import SIMPLE
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        _print_plain(lines, title, caption)
        return
    table = Table(
        title=title, caption=caption, box=SIMPLE, header_style="bold", padding=(0, 1, 0, 0)
    )
    for i, name in enumerate(HEADER):
        table.add_column(name, justify="right" if i else "left", no_wrap=i > 0)
    for line in lines[1:]:
        if line is None:
            table.add_section()
        else:
            table.add_row(*line, style=None if line[0].startswith(" ") else "bold")
    console = Console()
    if not console.is_terminal:
        console.width = 100
    console.print(table)


def _print_plain(lines: list[tuple[str, ...] | None], title: str, caption: str) -> None:
    cells = [HEADER, *(line for line in lines if line)]
    widths = [max(len(c[i]) for c in cells) for i in range(len(HEADER))]
    print(title)
    for c in cells:
        parts = (
            s.rjust(w) if i else s.ljust(w) for i, (s, w) in enumerate(zip(c, widths, strict=True))
        )
        print("  ".join(parts).rstrip())
    print(caption)
