"""Run the benchmarks and print one table.

python bench/python/run.py                          # everything, one thread
python bench/python/run.py gemm softmax --threads 2 --json result.json --plot result.png
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent

# What keeps MKL, oneDNN, ATen and OpenBLAS to a tier; they read it when they are loaded.
PEER_LIMITS = {
    "avx2": {
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "OPENBLAS_CORETYPE": "Haswell",
    },
}


def families() -> list[str]:
    """Names of the bench_NAME.py files beside this one."""
    return sorted(p.stem.removeprefix("bench_") for p in HERE.glob("bench_*.py"))


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        description="Compare vectile with torch (where installed) or NumPy.",
        epilog="example: %(prog)s gemm softmax --quick --json result.json",
    )
    p.add_argument("family", nargs="*", help=f"of {', '.join(families())}; all by default")
    p.add_argument("--threads", type=int, default=1, metavar="N", help="threads of every side (1)")
    p.add_argument(
        "--isa", help="force a tier, for example avx2, and keep the peers to that instruction set"
    )
    p.add_argument(
        "--peer", choices=("torch", "numpy"), help="compare with this one where possible"
    )
    p.add_argument("--case", default="", metavar="TEXT", help="only cases with TEXT in their name")
    p.add_argument("--quick", action="store_true", help="fewer shapes, shorter runs")
    p.add_argument("--json", type=Path, metavar="FILE", help="write every figure")
    p.add_argument("--plot", type=Path, metavar="FILE", help="draw the ratios (.png, .svg, .pdf)")
    return p


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    unknown = set(args.family) - set(families())
    if unknown:
        parser().error(f"family: expected one of {', '.join(families())}, got {min(unknown)}")
    if args.threads < 1:
        parser().error(f"--threads: expected at least 1, got {args.threads}")
    for name in ("OMP", "OPENBLAS", "MKL"):  # read by NumPy's BLAS when it is first imported
        os.environ[f"{name}_NUM_THREADS"] = str(args.threads)
    os.environ.update(PEER_LIMITS.get(args.isa, {}))
    sys.path.insert(0, str(HERE))
    import harness
    import report

    if args.isa:
        try:
            harness.use_isa(args.isa)
        except ValueError as e:
            parser().error(str(e))
    options = harness.Options(args.threads, args.peer, args.quick, args.case)
    harness.set_threads(args.threads)
    ceiling = harness.Ceiling()
    rows: list[harness.Row] = []
    failed = False
    for family in args.family or families():
        print(f"{family} …", file=sys.stderr, flush=True)
        try:
            module = importlib.import_module(f"bench_{family}")
            for row in harness.run_module(family, module, options, ceiling):
                rows.append(row)
        except Exception:  # the other families still have something to say
            traceback.print_exc()
            failed = True
    result = harness.report(rows, options, ceiling)
    config, peers = result["config"], result["peers"]
    versions = ", ".join(f"{n} {v}" for n, v in peers.items())
    title = (
        f"vectile {config['version']} ({config['isa']}, {args.threads} thread"
        f"{'s' if args.threads > 1 else ''}, {result['clock']}) on {config['cpu'].strip()}; {versions}"
    )
    report.print_table(rows, title, str(ceiling))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    if args.plot:
        report.save_plot(rows, title, args.plot)
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
