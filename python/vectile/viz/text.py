"""Texts side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vectile.viz import style

_FACE = "DejaVu Sans Mono"


def passages(
    texts: Mapping[str, str],
    *,
    title: str = "Samples",
    subtitle: str = "",
    width: int = 60,
    lines: int = 40,
) -> Any:
    """A column in typewriter letters for each of `texts` (name -> text), cut to `lines` lines of `width`."""
    rows = {name: _cut(text, width, lines) for name, text in texts.items()}
    height = max((len(part) for part in rows.values()), default=1)
    made = style.figure(max(5.0, 0.25 + (0.067 * width + 0.25) * len(rows)), 0.147 * height + 0.95)
    top = style.heading(made, title, subtitle)
    head = 16 / (72 * made.get_figheight())
    for i, (name, part) in enumerate(rows.items()):
        left = 0.02 + 0.97 * i / len(rows)
        made.text(
            left, top, name, family=_FACE, weight="bold", size=8, color=style.ACCENT, va="top"
        )
        made.text(
            left,
            top - head,
            "\n".join(part).replace("$", r"\$"),  # no formulas
            size=8,
            family=_FACE,
            color=style.INK,
            va="top",
            linespacing=1.3,
        )
    return made


def _cut(text: str, width: int, lines: int) -> list[str]:
    """What fits, control characters as dots and what is too long marked."""
    shown = [
        "".join(c if c.isprintable() else "·" for c in line)
        for line in text.expandtabs(4).split("\n")
    ]
    return [line if len(line) <= width else line[: width - 1] + "…" for line in shown[:lines]]
