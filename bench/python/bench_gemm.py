"""Matrix products: square, skinny and odd shapes, transposed and batched, linear with its epilogue."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from harness import Case, flop, torch
from vectile import ops

Array = np.ndarray

SHAPES = [
    (64, 64, 64),
    (128, 128, 128),
    (256, 256, 256),
    (512, 512, 512),
    (1024, 1024, 1024),
    (2048, 2048, 2048),
    (8, 3072, 768),
    (32, 3072, 768),
    (1000, 513, 37),
    (1, 4096, 4096),
    (4, 4096, 4096),
    (768, 384, 128),
    (127, 129, 131),
]
QUICK = [(64, 64, 64), (256, 256, 256), (8, 3072, 768), (127, 129, 131)]


def normal(*shapes: tuple[int, ...]) -> Any:
    return lambda rng: tuple(rng.standard_normal(s, np.float32) for s in shapes)


def peers(function: Any) -> dict[str, Any]:
    return {"torch": function, "numpy": function}


def product_tolerance(k: int) -> float:
    """Relative to the largest result; K terms of which errors add up as a random walk, amply."""
    return k**0.5 * 2**-22 + 2e-6


def linear_exact(x: Array, w: Array, b: Array) -> Array:
    from bench_elementwise import phi

    y = x @ w.T + b
    return y * phi(y)


def cases(quick: bool) -> Iterator[Case]:
    for m, n, k in QUICK if quick else SHAPES:
        yield Case(
            f"matmul {m}x{n}x{k}",
            normal((m, k), (k, n)),
            ops.matmul,
            np.matmul,
            peers(lambda a, b: a @ b),
            tolerance=product_tolerance(k),
            work=flop(2 * m * n * k),
        )
    m, n, k = (96, 128, 64) if quick else (768, 512, 384)
    for label, shapes, f in (
        ("NT", ((m, k), (n, k)), lambda a, b: a @ b.T),
        ("TN", ((k, m), (k, n)), lambda a, b: a.T @ b),
    ):
        swap = label == "TN"
        yield Case(
            f"matmul {label} {m}x{n}x{k}",
            normal(*shapes),
            lambda a, b, swap=swap: ops.matmul(a.T, b) if swap else ops.matmul(a, b.T),
            f,
            peers(f),
            tolerance=product_tolerance(k),
            work=flop(2 * m * n * k),
        )
    yield Case(
        "matmul batch 48 of 64x64x32",
        normal((48, 64, 32), (48, 32, 64)),
        ops.matmul,
        np.matmul,
        peers(lambda a, b: a @ b),
        tolerance=product_tolerance(32),
        work=flop(48 * 2 * 64 * 64 * 32),
    )
    for m, n, k in [(32, 128, 64)] if quick else [(32, 3072, 768), (768, 512, 128), (1, 3072, 768)]:
        yield Case(
            f"linear + bias + gelu {m}x{n}x{k}",
            normal((m, k), (n, k), (n,)),
            lambda x, w, b: ops.linear(x, w, b, activation="gelu"),
            linear_exact,
            {
                "torch": lambda x, w, b: torch.nn.functional.gelu(
                    torch.nn.functional.linear(x, w, b)
                )
            },
            tolerance=product_tolerance(k),
            work=flop(2 * m * n * k),
        )
        yield Case(
            f"linear packed {m}x{n}x{k}",
            normal((m, k), (n, k)),
            ops.linear,
            lambda x, w: x @ w.T,
            {
                "torch": lambda x, w: torch.nn.functional.linear(x, w),
                "numpy": lambda x, w: x @ w.T,
            },
            tolerance=product_tolerance(k),
            work=flop(2 * m * n * k),
            prepare={"vectile": lambda x, w: (x, ops.pack(w))},
        )
