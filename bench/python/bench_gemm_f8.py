"""8-bit floating point: there and back, and linear on such a weight beside torch on one in float32."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from harness import Case, byte, flop, torch
from vectile import ops


def round_trip(w: Any, dtype: Any) -> Any:
    scale = w.abs().amax(1, keepdim=True) / torch.finfo(dtype).max
    return (w / scale).to(dtype).float() * scale


def cases(quick: bool) -> Iterator[Case]:
    shapes = [(1, 96, 128), (33, 64, 256)]
    if not quick:
        shapes = [(1, 4096, 4096), (8, 4096, 4096), (128, 3072, 768)]
    for m, n, k in shapes:
        for format in ("float8_e4m3fn", "float8_e5m2"):
            yield Case(
                f"quantize_fp8 {format} {n}x{k}",
                lambda rng, n=n, k=k: (rng.standard_normal((n, k), np.float32),),
                lambda w, f=format: ops.dequantize_linear(*ops.quantize_fp8(w, f, 0), axis=0),
                lambda w: w,
                {"torch": lambda w, f=format: round_trip(w, getattr(torch, f))},
                tolerance=0.1,
                work=byte(10 * n * k),  # read twice, written and read in a byte, and written
            )
            yield Case(
                f"linear {format} weight {m}x{n}x{k}",
                lambda rng, m=m, n=n, k=k: (
                    rng.standard_normal((m, k), np.float32),
                    rng.standard_normal((n, k), np.float32),
                ),
                ops.linear,
                lambda x, w: x @ w.T,
                {"torch": lambda x, w: torch.nn.functional.linear(x, w)},
                tolerance=0.1,  # the format's rounding of the weight, relative to the largest result
                work=byte(n * k + 4 * (m * k + m * n)) if m == 1 else flop(2 * m * n * k),
                prepare={
                    "vectile": lambda x, w, f=format: (x, ops.quantize_weight(w, dtype=f)),
                },
            )
