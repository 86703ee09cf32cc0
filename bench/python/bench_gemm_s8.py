"""INT8 products, exact in int32; requantised; and linear on a quantised weight."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from harness import Case, int8_op, torch
from vectile import ops

Array = np.ndarray


def integers(*shapes: tuple[int, ...], dtypes: tuple[type, ...] = (np.int8, np.int8)) -> Any:
    return lambda rng: tuple(
        rng.integers(np.iinfo(t).min, np.iinfo(t).max + 1, s, t)
        for s, t in zip(shapes, dtypes, strict=True)
    )


def exact(a: Array, b: Array) -> Array:
    """float64 holds these sums exactly, and its product is fast."""
    return np.rint(a.astype(np.float64) @ b.astype(np.float64)).astype(np.int32)


def qlinear(a: Array, b: Array) -> Array:
    return ops.qlinear_matmul(
        a,
        np.float32(0.02),
        np.uint8(120),
        b,
        np.float32(0.01),
        np.int8(0),
        np.float32(0.5),
        np.uint8(128),
    )


def qlinear_exact(a: Array, b: Array) -> Array:
    y = np.rint(exact(a.astype(np.int32) - 120, b) * (0.02 * 0.01 / 0.5)) + 128
    return y.clip(0, 255).astype(np.uint8)


def in_torch(x: Array, w: Array) -> tuple[Any, ...]:
    """FBGEMM's dynamically quantised linear, weight per output channel."""
    scale = np.abs(w).max(1) / 127
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        q = torch.quantize_per_channel(
            torch.from_numpy(w),
            torch.from_numpy(scale),
            torch.zeros(len(w), dtype=torch.int64),
            0,
            torch.qint8,
        )
        return torch.from_numpy(x), torch.ops.quantized.linear_prepack(q, None)


def cases(quick: bool) -> Iterator[Case]:
    shapes = [(32, 96, 64), (33, 65, 127)]
    if not quick:
        shapes = [
            (128, 3072, 768),
            (512, 512, 512),
            (1024, 1024, 1024),
            (8, 3072, 768),
            (1, 4096, 4096),
        ]
    for m, n, k in shapes:
        size, work = f"{m}x{n}x{k}", int8_op(2 * m * n * k)
        # _int_mm wants more than 16 rows and multiples of 8.
        in_range = m > 16 and n % 8 == 0 and k % 8 == 0
        yield Case(
            f"matmul_integer s8 s8 {size}",
            integers((m, k), (k, n)),
            ops.matmul_integer,
            exact,
            {"torch": lambda a, b: torch._int_mm(a, b)} if in_range else {},
            tolerance=0,
            work=work,
        )
        yield Case(
            f"matmul_integer u8 s8 {size}",
            integers((m, k), (k, n), dtypes=(np.uint8, np.int8)),
            ops.matmul_integer,
            exact,
            {},
            tolerance=0,
            work=work,
        )
        yield Case(
            f"qlinear_matmul {size}",
            integers((m, k), (k, n), dtypes=(np.uint8, np.int8)),
            qlinear,
            qlinear_exact,
            {},
            tolerance=1 / 128,  # a tie may round either way in float32
            work=work,
        )
        yield Case(
            f"linear int8 weight {size}",
            lambda rng, m=m, n=n, k=k: (
                rng.standard_normal((m, k), np.float32),
                rng.standard_normal((n, k), np.float32),
            ),
            ops.linear,
            lambda x, w: x @ w.T,
            {"torch": lambda x, w: torch.ops.quantized.linear_dynamic(x, w, True)},
            tolerance=0.03,  # two 8-bit roundings, relative to the largest result
            work=work,
            prepare={
                "vectile": lambda x, w: (x, ops.quantize_weight(w)),
                "torch": in_torch,
            },
        )
