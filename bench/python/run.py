"""Run the benchmarks and print one table.

python bench/python/run.py                          # everything, one thread
python bench/python/run.py gemm softmax --threads 2 --json result.json --plot result.png
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shlex
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
        "--peer",
        choices=("torch", "numpy", "onnxruntime"),
        help="compare with this one where possible",
    )
    p.add_argument("--case", default="", metavar="TEXT", help="only cases with TEXT in their name")
    p.add_argument("--quick", action="store_true", help="fewer shapes, shorter runs")
    p.add_argument("--json", type=Path, metavar="FILE", help="write every figure")
    p.add_argument("--plot", type=Path, metavar="FILE", help="draw them (.png, .svg, .pdf)")
    p.add_argument(
        "--from", dest="drawn", type=Path, metavar="FILE", help="only draw this --json file"
    )
    return p


def redraw(source: Path, path: Path | None) -> int:
    """Draw what an earlier run wrote with --json."""
    if path is None:
        parser().error("--from: expected --plot FILE beside it")
    import picture

    try:
        picture.save(json.loads(source.read_text()), path)
    except OSError as e:
        parser().error(f"--from: {e}")
    except (ValueError, KeyError, TypeError) as e:
        parser().error(f"--from {source}: expected what --json writes, got {type(e).__name__}: {e}")
    return 0


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    if args.plot and args.plot.suffix not in (".png", ".svg", ".pdf"):
        parser().error(f"--plot: expected a name in .png, .svg or .pdf, got {args.plot}")
    sys.path.insert(0, str(HERE))
    if args.drawn:
        return redraw(args.drawn, args.plot)
    unknown = set(args.family) - set(families())
    if unknown:
        parser().error(f"family: expected one of {', '.join(families())}, got {min(unknown)}")
    if args.threads < 1:
        parser().error(f"--threads: expected at least 1, got {args.threads}")
    for name in ("OMP", "OPENBLAS", "MKL"):  # read by NumPy's BLAS when it is first imported
        os.environ[f"{name}_NUM_THREADS"] = str(args.threads)
    os.environ.update(PEER_LIMITS.get(args.isa, {}))
    import harness
    import report

    if args.plot:
        import picture  # fails before the run where matplotlib is missing
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
    words = list(sys.argv[1:] if argv is None else argv)
    for output in ("--json", "--plot"):
        if output in words:
            del words[words.index(output) : words.index(output) + 2]
    command = shlex.join(["bench/python/run.py", *words])
    result = harness.report(rows, options, ceiling, command)
    config, threads = result["config"], f"{args.threads} thread{'s' if args.threads > 1 else ''}"
    title = (
        f"{report.versions(result)}; {config['isa']}, {threads}, {result['clock']}, "
        f"{config['cpu'].strip()}, {result['date']}"
    )
    report.print_table(rows, title, str(ceiling))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    if args.plot:
        picture.save(result, args.plot)
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
