"""`vectile info`: what `python -m vectile.info` prints."""

from __future__ import annotations

import argparse
from typing import Any

from vectile.cli import common
from vectile.info import main


def add_to(commands: Any) -> None:
    parser = common.command(
        commands,
        "info",
        run,
        "print the instruction set, threads and versions in use",
        ["vectile info", "vectile info --json", "VECTILE_ISA=avx2 vectile info"],
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    return main(["--json"] if arguments.json else [])
