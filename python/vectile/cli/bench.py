"""`vectile bench`: the checkout's benchmarks, or elsewhere the kernel table."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import vectile
from vectile.cli import common
from vectile.runtime import config

# What only bench/python/run.py takes: attribute -> option.
_OF_CHECKOUT = {"peer": "--peer", "case": "--case", "drawn": "--from"}


def add_to(commands: Any) -> None:
    parser = common.command(
        commands,
        "bench",
        run,
        "measure the kernels beside their peers, as fractions of the measured peak",
        [
            "vectile bench --quick",
            "vectile bench gemm softmax --threads 2     (families: in a checkout)",
            "vectile bench gemm --json result.json --plot result.png",
            "vectile bench --from result.json --plot result.svg",
            "vectile bench --table --plot kernels.png",
        ],
    )
    parser.add_argument("family", nargs="*", help="benchmark families of a source checkout")
    parser.add_argument("--table", action="store_true", help="the kernel table beside NumPy only")
    parser.add_argument(
        "--threads", type=common.positive, metavar="N", help="threads of every side"
    )
    parser.add_argument(
        "--isa", help="force a tier, for example avx2; a checkout's peers are kept to it, too"
    )
    parser.add_argument("--case", metavar="TEXT", help="only cases with TEXT in their name")
    parser.add_argument(
        "--peer", choices=("torch", "numpy"), help="whom to compare with (checkout)"
    )
    parser.add_argument("--quick", action="store_true", help="fewer sizes, shorter runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the result")
    parser.add_argument(
        "--from", dest="drawn", type=Path, metavar="FILE", help="only draw this --json file"
    )


def harness() -> Path | None:
    """bench/python/run.py of the checkout that this package is imported from."""
    script = Path(vectile.__file__).resolve().parents[2] / "bench" / "python" / "run.py"
    return script if script.is_file() else None


def run(arguments: argparse.Namespace) -> int:
    for path in (arguments.json, arguments.plot):
        if path is not None:
            common.require_parent(path)
    script = None if arguments.table else harness()
    if script is None and any(getattr(arguments, name) for name in ("family", *_OF_CHECKOUT)):
        raise ValueError(
            "bench: families, --case, --from and --peer need a source checkout, without --table"
        )
    supported = config()["supported_isas"]
    if arguments.isa and arguments.isa not in supported:
        raise ValueError(
            f"bench: --isa: expected one of {', '.join(supported)}, got {arguments.isa}"
        )
    # A child process, since NumPy's thread count and the tier are read when they are first loaded.
    environment = dict(os.environ)
    command = [sys.executable, *([str(script)] if script else ["-m", "vectile.kernel_table"])]
    if arguments.isa:
        environment["VECTILE_ISA"] = arguments.isa
    if arguments.threads:
        command += ["--threads", str(arguments.threads)]
        for name in ("OMP", "OPENBLAS", "MKL"):
            environment[f"{name}_NUM_THREADS"] = str(arguments.threads)
    command += ["--quick"] if arguments.quick else []
    for name in ("json", "plot", *(_OF_CHECKOUT if script else ())):
        value = getattr(arguments, name)
        command += [_OF_CHECKOUT.get(name, f"--{name}"), str(value)] if value else []
    if script and arguments.isa:
        command += ["--isa", arguments.isa]
    return subprocess.run([*command, *arguments.family], env=environment, check=False).returncode
