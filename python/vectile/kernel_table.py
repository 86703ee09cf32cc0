"""vectile's kernels beside NumPy on this machine, as fractions of the peak measured in the same run.

Both sides get the same arrays, take turns in short bursts, and are compared by the median of their times.
`--threads` sets vectile's threads only: NumPy's BLAS reads its own number (OMP_NUM_THREADS, …) when it is
loaded, which `vectile bench --threads` sets too. NumPy's side is what a NumPy user would write.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vectile import machine, ops
from vectile.runtime import config, set_num_threads

Array = np.ndarray[Any, np.dtype[Any]]
Call = Callable[[], Any]

_ROUNDS = 3  # bursts of each side
SETTLE = 0.06  # seconds for a peer's idle threads to let go of their cores


@dataclass(frozen=True)
class KernelRow:
    """One measured kernel. `amount` counts what a call must at least do, in `unit`."""

    name: str
    size: str
    unit: str
    """"flop" (float32), "int8" (operations) or "byte" (read and written once each)."""
    amount: float
    seconds: float
    numpy_seconds: float
    peak: float
    """The measured ceiling, in `unit` a second."""

    @property
    def speedup(self) -> float:
        return self.numpy_seconds / self.seconds

    @property
    def rate(self) -> float:
        """10⁹ units a second."""
        return self.amount / self.seconds / 1e9

    @property
    def fraction(self) -> float:
        """Of the ceiling; caches can lift a memory-bound kernel above the ceiling of reads alone."""
        return self.amount / self.seconds / self.peak

    @property
    def rate_unit(self) -> str:
        return {"flop": "GFLOP/s", "int8": "GOP/s", "byte": "GB/s"}[self.unit]


@dataclass(frozen=True)
class Kernel:
    """What to measure: `make(rng)` gives the two calls to compare."""

    name: str
    size: str
    unit: str
    amount: float
    make: Callable[[np.random.Generator], tuple[Call, Call]]


def kernels(quick: bool = False) -> list[Kernel]:
    """The table's rows: products, attention, INT8 and the memory-bound kernels of a Transformer."""
    sizes = (256, 512) if quick else (256, 1024)
    length = 256 if quick else 512
    square = 512 if quick else 1024
    return [
        *(_matmul(n) for n in sizes),
        _linear_gelu(128, 768, 3072),
        _linear_int8(128, 768, 3072),
        _attention(12, length, 64),
        *(_rowwise(name, square) for name in _ROWWISE),
        _cross_entropy(768, 4096),
        _adamw(1 << 20),
    ]


def kernel_table(
    quick: bool = False,
    seconds_each: float = 0.3,
    progress: Callable[[KernelRow], object] | None = None,
) -> list[KernelRow]:
    """Measure every kernel for about `seconds_each`; `progress` sees each row as it is finished."""
    return list(measure(kernels(quick), seconds_each, progress))


def measure(
    table: list[Kernel], seconds_each: float, progress: Callable[[KernelRow], object] | None = None
) -> Iterator[KernelRow]:
    """Rows for `table`, one after another, against the ceilings measured first."""
    working_sets = {max(4096, int(k.amount)) for k in table if k.unit == "byte"}
    ceilings = machine.ceilings(tuple(sorted(working_sets)))
    for kernel in table:
        ours, theirs = kernel.make(np.random.default_rng(0))
        seconds, numpy_seconds = _interleave(ours, theirs, seconds_each)
        peak = {"flop": ceilings.fma_gflops, "int8": ceilings.int8_gops}.get(kernel.unit)
        if peak is None:
            peak = ceilings.read_gbs[max(4096, int(kernel.amount))]
        row = KernelRow(
            kernel.name, kernel.size, kernel.unit, kernel.amount, seconds, numpy_seconds, peak * 1e9
        )
        if progress is not None:
            progress(row)
        yield row


def _interleave(ours: Call, theirs: Call, seconds: float) -> tuple[float, float]:
    """Median seconds of both, in alternating bursts of about `seconds` together.

    A pause goes before each burst: NumPy's BLAS threads keep their cores for tens of milliseconds after a
    call, and whoever came next would be charged for them.
    """
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(_ROUNDS):
        for call, found in zip((ours, theirs), times, strict=True):
            time.sleep(SETTLE)
            call()
            end = time.perf_counter() + seconds / (2 * _ROUNDS)
            now = 0.0
            while now < end:
                start = time.perf_counter()
                call()
                now = time.perf_counter()
                found.append(now - start)
    return statistics.median(times[0]), statistics.median(times[1])


# ---- the kernels and how a NumPy user would write them ---------------------------------------------


def _normal(rng: np.random.Generator, *shape: int) -> Array:
    return rng.standard_normal(shape, np.float32)


def _matmul(n: int) -> Kernel:
    def make(rng: np.random.Generator) -> tuple[Call, Call]:
        a, b = _normal(rng, n, n), _normal(rng, n, n)
        return lambda: ops.matmul(a, b), lambda: a @ b

    return Kernel("matmul", f"{n}³", "flop", 2.0 * n**3, make)


def numpy_gelu(x: Array) -> Array:
    """GELU's tanh form, as NumPy has no erf."""
    y: Array = 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x * x * x)))
    return y


def _linear_gelu(m: int, k: int, n: int) -> Kernel:
    def make(rng: np.random.Generator) -> tuple[Call, Call]:
        x, w, b = _normal(rng, m, k), _normal(rng, n, k), _normal(rng, n)
        return (
            lambda: ops.linear(x, w, b, activation="gelu_tanh"),
            lambda: numpy_gelu(x @ w.T + b),
        )

    return Kernel("linear + gelu", f"{m}x{k}x{n}", "flop", 2.0 * m * k * n, make)


def _linear_int8(m: int, k: int, n: int) -> Kernel:
    def make(rng: np.random.Generator) -> tuple[Call, Call]:
        x, w, b = _normal(rng, m, k), _normal(rng, n, k), _normal(rng, n)
        quantized = ops.quantize_weight(w)
        return lambda: ops.linear(x, quantized, b), lambda: x @ w.T + b

    return Kernel("INT8 linear", f"{m}x{k}x{n}", "int8", 2.0 * m * k * n, make)


def _attention(heads: int, length: int, dim: int) -> Kernel:
    def make(rng: np.random.Generator) -> tuple[Call, Call]:
        q, k, v = (_normal(rng, heads, length, dim) for _ in range(3))
        mask = np.triu(np.full((length, length), -np.inf, np.float32), 1)

        def numpy_attention() -> Any:
            scores = q @ k.swapaxes(-1, -2) * np.float32(dim**-0.5) + mask
            return numpy_softmax(scores) @ v

        return lambda: ops.scaled_dot_product_attention(q, k, v, is_causal=True), numpy_attention

    # two products over the causal half of the pairs
    amount = 4.0 * heads * dim * length * (length + 1) / 2
    return Kernel("causal attention", f"{heads}x{length}x{dim}", "flop", amount, make)


def numpy_softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    y: Array = e / e.sum(-1, keepdims=True)
    return y


def numpy_layer_norm(x: Array) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    y: Array = centred / np.sqrt((centred * centred).mean(-1, keepdims=True) + np.float32(1e-5))
    return y


# name -> (ours, NumPy's, passes over the array: reads and writes)
_ROWWISE: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any], int]] = {
    "softmax": (lambda x: ops.softmax(x), numpy_softmax, 2),
    "layer_norm": (lambda x: ops.layer_norm(x), numpy_layer_norm, 2),
    "gelu": (lambda x: ops.gelu(x, "tanh"), numpy_gelu, 2),
    "exp": (lambda x: ops.exp(x), np.exp, 2),
    "tanh": (lambda x: ops.tanh(x), np.tanh, 2),
    "add": (lambda x: ops.add(x, x), lambda x: x + x, 2),
    "sum": (lambda x: ops.sum(x), np.sum, 1),
}


def _rowwise(name: str, n: int) -> Kernel:
    ours, theirs, passes = _ROWWISE[name]

    def make(rng: np.random.Generator) -> tuple[Call, Call]:
        x = _normal(rng, n, n)
        return lambda: ours(x), lambda: theirs(x)

    return Kernel(name, f"{n}²", "byte", 4.0 * passes * n * n, make)


def _cross_entropy(rows: int, classes: int) -> Kernel:
    def make(rng: np.random.Generator) -> tuple[Call, Call]:
        x, targets = _normal(rng, rows, classes), rng.integers(0, classes, rows)

        def numpy_cross_entropy() -> Any:
            shifted = x - x.max(-1, keepdims=True)
            log_sum = np.log(np.exp(shifted).sum(-1))
            return (log_sum - shifted[np.arange(rows), targets]).mean()

        return lambda: ops.cross_entropy(x, targets), numpy_cross_entropy

    return Kernel("cross_entropy", f"{rows}x{classes}", "byte", 4.0 * rows * classes, make)


def _adamw(n: int) -> Kernel:
    def make(rng: np.random.Generator) -> tuple[Call, Call]:
        g = _normal(rng, n)
        (p1, m1, v1), (p2, m2, v2) = np.zeros((2, 3, n), np.float32)

        def ours() -> None:
            ops.adamw_(
                [p1],
                [g],
                [m1],
                [v1],
                lr=1e-3,
                beta1=0.9,
                beta2=0.999,
                eps=1e-8,
                weight_decay=0.01,
                step=10,
            )

        def theirs() -> None:
            p2[:] *= 1 - 1e-3 * 0.01
            m2[:] = 0.9 * m2 + 0.1 * g
            v2[:] = 0.999 * v2 + 0.001 * g * g
            rate = 1e-3 / (1 - 0.9**10)
            p2[:] -= rate * m2 / (np.sqrt(v2) / math.sqrt(1 - 0.999**10) + 1e-8)

        return ours, theirs

    return Kernel("adamw step", f"{n >> 20}M", "byte", 4.0 * 7 * n, make)  # reads 4, writes 3


# ---- showing it ------------------------------------------------------------------------------------


def columns(row: KernelRow) -> tuple[str, ...]:
    """A row as text: kernel, size, vectile, NumPy, speed-up, rate, fraction of peak."""
    return (
        row.name,
        row.size,
        _time(row.seconds),
        _time(row.numpy_seconds),
        f"{row.speedup:.1f}x",
        f"{row.rate:,.0f} {row.rate_unit}" if row.rate >= 10 else f"{row.rate:.1f} {row.rate_unit}",
        f"{100 * row.fraction:.0f}%",
    )


HEADINGS = ("kernel", "size", "vectile", "NumPy", "speed-up", "rate", "of peak")


def _time(seconds: float) -> str:
    return f"{1e6 * seconds:,.0f} µs" if seconds < 1e-2 else f"{1e3 * seconds:,.1f} ms"


def main(argv: list[str] | None = None) -> int:
    """Print the table; `--json FILE` and `--plot FILE` keep it."""
    parser = argparse.ArgumentParser(prog="python -m vectile.kernel_table", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, shorter runs")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of vectile's side")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the table")
    arguments = parser.parse_args(argv)
    if arguments.threads is not None:
        set_num_threads(arguments.threads)
    machine_line = describe()
    print(machine_line)
    form = "{:18} {:>14} {:>12} {:>12} {:>9} {:>14} {:>8}".format
    print(form(*HEADINGS))
    rows = kernel_table(
        arguments.quick,
        0.1 if arguments.quick else 0.5,
        lambda row: print(form(*columns(row)), flush=True),
    )
    if arguments.json:
        figures = [asdict(row) | {"speedup": row.speedup, "fraction": row.fraction} for row in rows]
        arguments.json.write_text(json.dumps({"config": config(), "kernels": figures}, indent=1))
    if arguments.plot:
        from vectile import viz

        viz.save(viz.kernel_chart(rows, machine_line), arguments.plot)
    return 0


def describe() -> str:
    """The machine in one line."""
    now = config()
    threads = f"{now['threads']} thread{'s' if now['threads'] > 1 else ''}"
    return f"{now['cpu'].strip()}, {now['isa']}, {threads}; NumPy {now['numpy']}"


if __name__ == "__main__":
    raise SystemExit(main())
