"""Device ops beside torch's (cuBLAS, cuDNN, Flash) on one GPU, in one process, timed by device events.

Without a GPU, torch for it, or the device ops there are no rows. Both sides get the same tensors and are
checked against float64 on the device, products on a sample of their rows.
"""

from __future__ import annotations

import functools
import statistics
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from harness import Options, Row, torch
from vectile import device, ops

Call = Callable[[], Any]


class Pair(NamedTuple):
    """One call on both sides."""

    name: str
    ours: Call
    theirs: Call
    exact: Call  # in float64, of `part` of the result
    tolerance: float  # of the largest magnitude
    amount: float
    unit: str  # GF/s, GOP/s or GB/s
    part: Callable[[Any], Any] = lambda y: y


def seconds_of(call: Call, least: float) -> Callable[[], float]:
    """A function that times some calls by device events, so many that they take `least` seconds."""

    def timed(calls: int) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(calls):
            call()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3 / calls

    timed(1)
    calls = max(1, int(least / timed(2)))
    return lambda: timed(calls)


def measure(pair: Pair, options: Options, peak: float) -> Row:
    exact = pair.exact()
    size = float(exact.abs().max())
    errors = []
    for call in (pair.ours, pair.theirs):
        error = float((pair.part(call()).double() - exact).abs().max()) / size
        if not error <= pair.tolerance:
            raise AssertionError(f"{pair.name}: expected error <= {pair.tolerance}, got {error}")
        errors.append(error)
    sides = [seconds_of(call, 0.002 if options.quick else 0.02) for call in pair[1:3]]
    times: list[list[float]] = [[], []]
    for _ in range(3 if options.quick else 15):
        for side, found in zip(sides, times, strict=True):
            found.append(side())
    ours, theirs = map(statistics.median, times)
    rate = pair.amount / ours / 1e9
    fraction = rate / peak if pair.unit == "GB/s" else float("nan")
    return Row(
        "cuda",
        pair.name,
        "s",
        ours,
        "torch",
        theirs,
        theirs / ours,
        rate,
        pair.unit,
        fraction,
        errors[0],
    )


def random(*shape: int, dtype: Any = None) -> Any:
    return torch.randn(*shape, device="cuda", dtype=dtype or torch.float32)


def products(n: int) -> Iterator[Pair]:
    """(n, n) by (n, n), of each precision; the float32 peer has TF32 off, or on beside ours."""
    rows = slice(0, n, max(1, n // 64))
    for name, dtype, tf32, error in (
        ("float32", torch.float32, False, 4e-6),
        ("tf32", torch.float32, True, 4e-3),
        ("bfloat16", torch.bfloat16, False, 2e-2),
        ("float16", torch.float16, False, 4e-3),
    ):
        a, b = random(n, n, dtype=dtype), random(n, n, dtype=dtype)

        def theirs(a: Any = a, b: Any = b, tf32: bool = tf32) -> Any:
            torch.backends.cuda.matmul.allow_tf32 = tf32
            return torch.matmul(a, b)

        yield Pair(
            f"matmul {n}³ {name}",
            lambda a=a, b=b, tf32=tf32: ops.matmul(a, b, compute="tf32" if tf32 else None),
            theirs,
            lambda a=a, b=b: a[rows].double() @ b.double(),
            error,
            2.0 * n**3,
            "GF/s",
            lambda y: y[rows],
        )
    x, w = (torch.randint(-128, 128, (n, n), device="cuda", dtype=torch.int8) for _ in range(2))
    yield Pair(
        f"matmul_integer {n}³",
        lambda: ops.matmul_integer(x, w.t()),
        lambda: torch._int_mm(x, w.t()),
        lambda: x[rows].double() @ w.t().double(),
        0.0,
        2.0 * n**3,
        "GOP/s",
        lambda y: y[rows],
    )


def narrow(wide: int, n: int, tokens: int) -> Iterator[Pair]:
    """One token through a wide layer, and the gradient of a layer of width n over many tokens."""
    x, w = random(1, wide, dtype=torch.bfloat16), random(wide, wide, dtype=torch.bfloat16)
    yield Pair(
        f"linear 1x{wide}x{wide} bfloat16",
        lambda: ops.linear(x, w),
        lambda: torch.nn.functional.linear(x, w),
        lambda: x.double() @ w.double().t(),
        2e-2,
        2.0 * wide**2,
        "GB/s",
    )
    a, b = (random(tokens, n, dtype=torch.bfloat16) for _ in range(2))
    yield Pair(
        f"matmul {n}x{tokens}x{n} bfloat16",
        lambda: ops.matmul(a.t(), b),
        lambda: torch.matmul(a.t(), b),
        lambda: a.double().t() @ b.double(),
        2e-2,
        2.0 * n * n * tokens,
        "GF/s",
    )


def attention(b: int, h: int, n: int, d: int, causal: bool) -> Iterator[Pair]:
    q, k, v, g = (random(b, h, n, d, dtype=torch.bfloat16) for _ in range(4))
    attend = torch.nn.functional.scaled_dot_product_attention
    exact = [x[:1, :1].double().requires_grad_() for x in (q, k, v)]
    leaves = [x.detach().requires_grad_() for x in (q, k, v)]
    flop = 4.0 * b * h * n * n * d * (0.5 if causal else 1.0)
    name = f"B{b} H{h} L{n} D{d} bfloat16{' causal' if causal else ''}"
    yield Pair(
        f"attention {name}",
        lambda: ops.scaled_dot_product_attention(q, k, v, is_causal=causal),
        lambda: attend(q, k, v, is_causal=causal),
        lambda: attend(*exact, is_causal=causal).detach(),
        2e-2,
        flop,
        "GF/s",
        lambda y: y[:1, :1],
    )
    options = {"is_causal": causal}
    out, lse = ops.scaled_dot_product_attention(q, k, v, **options, return_lse=True)
    made = attend(*leaves, is_causal=causal)
    yield Pair(
        f"attention backward {name}",
        lambda: ops.scaled_dot_product_attention_backward(g, q, k, v, out, lse, **options)[0],
        lambda: torch.autograd.grad(made, leaves, g, retain_graph=True)[0],
        lambda: torch.autograd.grad(attend(*exact, is_causal=causal), exact, g[:1, :1].double())[0],
        5e-2,
        2.5 * flop,
        "GF/s",
        lambda y: y[:1, :1],
    )


def rowwise(rows: int, n: int) -> Iterator[Pair]:
    """Calls that read and write each element once."""
    x, weight, bias = random(rows, n), random(n), random(n)
    moved = 8.0 * rows * n
    f = torch.nn.functional
    for name, ours, theirs in (
        ("softmax", lambda x: ops.softmax(x), lambda x: torch.softmax(x, -1)),
        (
            "layer_norm",
            lambda x: ops.layer_norm(x, weight.to(x), bias.to(x)),
            lambda x: f.layer_norm(x, (n,), weight.to(x), bias.to(x)),
        ),
        ("gelu", lambda x: ops.gelu(x), lambda x: f.gelu(x)),
    ):
        yield Pair(
            f"{name} {rows}x{n}",
            lambda ours=ours: ours(x),
            lambda theirs=theirs: theirs(x),
            lambda theirs=theirs: theirs(x[:64].double()),
            2e-5,
            moved,
            "GB/s",
            lambda y: y[:64],
        )
    sides = [[random(rows * n).mul_(0.01).abs_() for _ in range(4)] for _ in range(2)]
    for mine, other in zip(*sides, strict=True):
        other.copy_(mine)
    start = [x[:1024].double() for x in sides[0]]
    rates = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.01}

    def ours() -> Any:
        p, g, m, v = sides[0]
        ops.adamw_([p], [g], [m], [v], **rates, step=1)
        return p

    def theirs() -> Any:
        p, g, m, v = sides[1]
        first = torch.ones((), device="cuda")
        torch._fused_adamw_([p], [g], [m], [v], [], [first], **rates, amsgrad=False, maximize=False)
        return p

    def exact() -> Any:
        p, g, m, v = start
        b1, b2 = rates["beta1"], rates["beta2"]
        m, v = (b1 * m + (1 - b1) * g) / (1 - b1), (b2 * v + (1 - b2) * g * g) / (1 - b2)
        lr = rates["lr"]
        return p * (1 - lr * rates["weight_decay"]) - lr * m / (v.sqrt() + rates["eps"])

    yield Pair(
        f"adamw {rows * n}", ours, theirs, exact, 1e-5, 28.0 * rows * n, "GB/s", lambda p: p[:1024]
    )


def groups(quick: bool) -> Iterator[Callable[[], Iterator[Pair]]]:
    for n in (512,) if quick else (1024, 4096, 8192):
        yield functools.partial(products, n)
    yield functools.partial(narrow, *((512, 32, 2048) if quick else (8192, 512, 16384)))
    for causal in (False, True):
        yield functools.partial(
            attention, *((1, 2, 256, 64) if quick else (4, 16, 4096, 128)), causal
        )
    yield functools.partial(rowwise, *((256, 1024) if quick else (16384, 4096)))  # 256 MB


def attempts(
    groups: Iterator[Callable[[], Iterator[Pair]]], run: Callable[[Pair], Row]
) -> Iterator[Row]:
    """The rows of all pairs; one that fails is told of, and fails the run when the others are done."""
    failed = 0
    for group in groups:
        pairs = group()
        while True:
            try:
                pair = next(pairs, None)  # none either after a group that failed itself
                if pair is None:
                    break
                row = run(pair)
            except Exception:
                traceback.print_exc()
                failed += 1
                continue
            print(
                f"{row.name}: {row.ours:.3e} s, torch {row.theirs:.3e} s, error {row.error:.1e}",
                file=sys.stderr,
                flush=True,
            )
            yield row
    if failed:
        raise AssertionError(f"cuda: {failed} cases failed")


def figures(options: Options) -> Iterator[Row]:
    if torch is None or not torch.cuda.is_available() or not device.available():
        print("cuda: no GPU with torch and the device ops for it: no rows", file=sys.stderr)
        return
    x = torch.empty(1 << 25 if options.quick else 1 << 26, device="cuda")
    y = torch.empty_like(x)
    copy = seconds_of(lambda: y.copy_(x), 0.02)
    peak = max(8.0 * x.numel() / copy() / 1e9 for _ in range(5))
    yield from attempts(groups(options.quick), lambda pair: measure(pair, options, peak))
