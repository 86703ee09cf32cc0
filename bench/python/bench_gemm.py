"""Matrix products: every layout and shape, one-row to 4096, batches of small ones, epilogues.

The peers write into an array that they are given, as vectile does; where torch has several calls for
the same product, the fastest of them is the peer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from harness import Case, flop, torch
from vectile import ops

Array = np.ndarray

QUICK_FLOPS = 2.2e9  # the largest product under --quick
CHECKED_WHOLE = 1 << 25  # multiply-adds; of larger products 32 rows and 32 columns are checked

# layout of A and B (T: the array is stored transposed), then M x N x K
SQUARES = """
NN 12 NN 16 TT 17 NN 24 NN 32 NT 33 NN 48 NN 64 NT 64 TN 64 TT 64 NN 96 TN 97 NN 100 NN 128 NT 128 TN 129
NN 160 NN 192 TT 200 NN 256 NT 256 TN 256 TT 256 NN 333 NN 384 NT 509 NN 512 TN 512 NN 768 NT 768 NN 1000
NN 1024 NT 1024 TN 1024 TT 1024 NN 1537 NN 2048 NT 3000 NN 4096
"""
RECTANGLES = """
NN 127x129x131 NT 61x67x71 TN 63x65x1023 NN 1000x513x37 TT 513x37x1000 NN 768x384x128 NT 384x768x512
TN 768x512x384 TT 768x512x384 NT 32x3072x768 NN 32x768x3072 NT 16x4096x4096 NN 64x4096x64 TN 64x64x4096
NN 4096x64x64 NT 4096x16x512 NN 9x1000x1000 NN 1000x9x1000 NN 1000x1000x9 TN 2048x2048x1 NN 500x300x3
TN 3072x768x256 NN 12x12x4096 NT 128x3072x768 NT 128x768x3072 NN 4095x31x129 TT 31x4095x511
NN 11x2049x333 NT 1024x4096x1024 NN 2048x512x2048 TN 4096x1024x512"""
SKINNY = """
NN 1x1x1 NN 1x1x4096 NT 1x3072x768 NN 1x3072x768 NT 1x768x3072 NN 1x4096x4096 NT 1x4096x4096
NT 2x4096x4096 NN 3x1000x777 NN 4x4096x4096 NT 5x768x768 NT 8x3072x768 NN 8x3072x768 NT 8x4096x4096
NN 4096x1x4096 TN 4096x1x4096 NN 768x2x768 TN 777x7x999 NN 4096x8x512 NN 1x1000x1 NN 7x513x13"""
BATCHES = [
    (4096, 16, 16, 16, "NN"),
    (1000, 16, 16, 16, "NN"),
    (384, 64, 64, 64, "NN"),
    (384, 64, 64, 64, "NT"),
    (1000, 8, 8, 8, "NN"),
    (1000, 13, 11, 7, "NN"),
    (512, 32, 32, 32, "TN"),
    (48, 64, 64, 32, "NT"),
    (96, 128, 64, 128, "NN"),
    (4096, 4, 4, 4, "NN"),
    (256, 1, 128, 64, "NT"),
]
LINEARS = [(32, 3072, 768), (128, 768, 3072), (768, 512, 128), (1, 3072, 768), (33, 129, 65)]


def normal(*shapes: tuple[int, ...]) -> Any:
    return lambda rng: tuple(rng.standard_normal(s, np.float32) for s in shapes)


def product_tolerance(k: int) -> float:
    """Relative to the largest result; K terms of which errors add up as a random walk, amply."""
    return k**0.5 * 2**-22 + 2e-6


def listed(text: str) -> Iterator[tuple[str, tuple[int, int, int]]]:
    """("NN", (64, 64, 64)) of "NN 64", and so on."""
    words = text.split()
    for layout, shape in zip(words[::2], words[1::2], strict=True):
        m, n, k = (int(s) for s in (shape.split("x") if "x" in shape else [shape] * 3))
        yield layout, (m, n, k)


def operands(layout: str, m: int, n: int, k: int, *batch: int) -> Callable[..., tuple[Array, ...]]:
    """Makes A, B and the array for C; a T in `layout` is a transposed view."""

    def make(rng: np.random.Generator, rows: int, columns: int, stored: str) -> Array:
        order = (columns, rows) if stored == "T" else (rows, columns)
        a = rng.random((*batch, *order), np.float32)
        a -= np.float32(0.5)
        return a.swapaxes(-1, -2) if stored == "T" else a

    def inputs(rng: np.random.Generator) -> tuple[Array, ...]:
        a, b = make(rng, m, k, layout[0]), make(rng, k, n, layout[1])
        return a, b, np.zeros((*batch, m, n), np.float32)

    return inputs


def sample(n: int) -> Array:
    """32 of n indices, the first and the last among them."""
    return np.linspace(0, n - 1, min(n, 32)).astype(np.intp)


def checks(m: int, n: int, k: int) -> dict[str, Callable[..., Any]]:
    """`exact` and `summary` of a product; of a large one rows and columns of the result stand for all."""
    if m * n * k <= CHECKED_WHOLE:
        return {"exact": lambda a, b, c: a @ b}
    rows, columns = sample(m), sample(n)
    return {
        "exact": lambda a, b, c: (a[rows] @ b, a @ b[:, columns]),
        "summary": lambda y: (y[rows], y[:, columns]),
    }


def torch_products(m: int, n: int) -> dict[str, Callable[..., Any]]:
    """The calls of torch that give this product."""
    calls = {"torch mm": lambda a, b, c: torch.mm(a, b, out=c)}
    if n == 1:
        calls["torch mv"] = lambda a, b, c: torch.mv(a, b[:, 0], out=c[:, 0])[:, None]
    elif m == 1:
        calls["torch mv"] = lambda a, b, c: torch.mv(b.t(), a[0], out=c[0])[None]
    return calls


def products(group: str, text: str, quick: bool) -> Iterator[Case]:
    for layout, (m, n, k) in listed(text):
        flops = 2 * m * n * k
        if quick and flops > QUICK_FLOPS:
            continue
        yield Case(
            f"{layout} {m}x{n}x{k}",
            operands(layout, m, n, k),
            lambda a, b, c: ops.matmul(a, b, out=c),
            peers=torch_products(m, n) | {"numpy": lambda a, b, c: np.matmul(a, b, out=c)},
            tolerance=product_tolerance(k),
            work=flop(flops),
            group=group,
            **checks(m, n, k),
        )


def batches() -> Iterator[Case]:
    for count, m, n, k, layout in BATCHES:
        yield Case(
            f"{layout} {count} of {m}x{n}x{k}",
            operands(layout, m, n, k, count),
            lambda a, b, c: ops.matmul(a, b, out=c),
            lambda a, b, c: a @ b,
            {
                "torch bmm": lambda a, b, c: torch.bmm(a, b, out=c),
                "torch matmul": lambda a, b, c: torch.matmul(a, b, out=c),
                "numpy": lambda a, b, c: np.matmul(a, b, out=c),
            },
            tolerance=product_tolerance(k),
            work=flop(2 * count * m * n * k),
            group="batched",
        )


def gelu(x: Array) -> Array:
    from bench_elementwise import phi

    return x * phi(x)


def linears() -> Iterator[Case]:
    for m, n, k in LINEARS:
        size, tolerance = f"{m}x{n}x{k}", product_tolerance(k)
        work = flop(2 * m * n * k)
        for label, ours, exact, theirs in (
            (
                "bias",
                lambda x, w, b: ops.linear(x, w, b),
                lambda x, w, b: x @ w.T + b,
                lambda x, w, b: torch.nn.functional.linear(x, w, b),
            ),
            (
                "bias + relu",
                lambda x, w, b: ops.linear(x, w, b, activation="relu"),
                lambda x, w, b: np.maximum(x @ w.T + b, 0),
                lambda x, w, b: torch.nn.functional.linear(x, w, b).relu_(),
            ),
            (
                "bias + gelu",
                lambda x, w, b: ops.linear(x, w, b, activation="gelu"),
                lambda x, w, b: gelu(x @ w.T + b),
                lambda x, w, b: torch.nn.functional.gelu(torch.nn.functional.linear(x, w, b)),
            ),
        ):
            yield Case(
                f"linear + {label} {size}",
                normal((m, k), (n, k), (n,)),
                ours,
                exact,
                {"torch": theirs},
                tolerance,
                work,
                group="linear",
            )
        yield Case(
            f"linear packed {size}",
            normal((m, k), (n, k)),
            ops.linear,
            lambda x, w: x @ w.T,
            {
                "torch": lambda x, w: torch.nn.functional.linear(x, w),
                "numpy": lambda x, w: x @ w.T,
            },
            tolerance,
            work,
            prepare={"vectile": lambda x, w: (x, ops.pack(w))},
            group="linear",
        )


def cases(quick: bool) -> Iterator[Case]:
    yield from products("sgemm", SQUARES + RECTANGLES, quick)
    yield from products("M or N up to 8", SKINNY, quick)
    yield from batches()
    yield from linears()
