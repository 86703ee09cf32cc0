"""`vectile advise`: which precision is the fastest for a layer or a model on this machine."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from vectile.cli import common
from vectile.precision import HEADINGS, Advice, advise
from vectile.runtime import set_num_threads
from vectile.train import load_model


def add_to(commands: Any) -> None:
    parser = common.command(
        commands,
        "advise",
        run,
        "measure which precision is the fastest here for a layer or a model",
        [
            "vectile advise 1x4096x4096                  (rows x inputs x outputs)",
            "vectile advise 8x768x3072 8x3072x768",
            "vectile advise model.safetensors --rows 64",
        ],
    )
    parser.add_argument(
        "work", nargs="+", help="ROWSxINxOUT of one Linear layer or several, or a checkpoint"
    )
    parser.add_argument(
        "--rows",
        type=common.positive,
        default=1,
        metavar="N",
        help="batch x length, for a model (1)",
    )
    parser.add_argument("--threads", type=common.positive, metavar="N", help="threads of a kernel")
    parser.add_argument(
        "--seconds", type=float, default=1.0, metavar="S", help="how long to measure (1)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure")


def run(arguments: argparse.Namespace) -> int:
    if arguments.json is not None:
        common.require_parent(arguments.json)
    if arguments.threads:
        set_num_threads(arguments.threads)
    advice = advise(_work(arguments.work), rows=arguments.rows, seconds=arguments.seconds)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(_figures(advice), indent=1) + "\n")
    show(advice)
    return 0


def show(advice: Advice) -> None:
    """Print the table and the verdict."""
    out = common.console()
    out.print(advice.title, style="bold", markup=False)
    table = common.table(*HEADINGS)
    for line in advice.cells():
        table.add_row(*line, style="bold green" if line[0] == advice.fastest else None)
    out.print(table)
    verdict, *rest = advice.notes()
    out.print(verdict, style="bold", markup=False)
    for note in rest:
        out.print(note, style="dim", markup=False)


def _work(words: list[str]) -> Any:
    shapes = [re.fullmatch(r"(\d+)x(\d+)x(\d+)", word) for word in words]
    if all(shapes):
        return [tuple(int(n) for n in s.groups()) for s in shapes if s]
    if len(words) == 1:
        return load_model(words[0])
    raise ValueError(f"advise: expected ROWSxINxOUT each or one checkpoint, got {' '.join(words)}")


def _figures(advice: Advice) -> dict[str, Any]:
    return {
        "machine": advice.machine,
        "layers": [{**shape._asdict(), "count": count} for shape, count in advice.layers],
        "fastest": advice.fastest,
        "contenders": advice.contenders,
        "verdict": advice.verdict,
        "timings": [vars(t) for t in advice.timings],
        "skipped": dict(advice.skipped),
        "parts": [_figures(part) for part in advice.parts],
    }
