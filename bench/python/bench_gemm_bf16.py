"""Products in bfloat16 arithmetic, of bfloat16 arrays and of float32 ones, beside our own in float32 and
torch on bfloat16."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from harness import Case, flop, torch
from vectile import ops

SQUARES = [(256, 256, 256), (512, 512, 512), (1024, 1024, 1024), (2048, 2048, 2048)]
LINEARS = [(32, 768, 3072), (128, 768, 3072), (512, 3072, 768), (128, 4096, 4096)]  # (m, k, n)
TOLERANCE = 2.0**-6  # relative to the largest result; the bound is of |a| @ |b|


def float32(*arrays: Any) -> tuple[Any, ...]:
    return tuple(a.astype(np.float32) for a in arrays)


def tensors(*arrays: Any) -> tuple[Any, ...]:
    return tuple(torch.from_numpy(a).bfloat16() for a in float32(*arrays))


def cases(quick: bool) -> Iterator[Case]:
    shapes = [("matmul", *s) for s in SQUARES] + [("linear", *s) for s in LINEARS]
    for name, m, k, n in shapes[:2] if quick else shapes:
        linear = name == "linear"
        function = getattr(ops, name)
        sides = {"float32": (function, float32)}
        if torch is not None:
            sides["torch"] = (torch.nn.functional.linear if linear else torch.mm, tensors)
        for peer, (call, prepare) in sides.items():
            for dtype in ("float32", "bfloat16"):
                yield Case(
                    f"{name} bf16 {m}x{k}x{n} {dtype} beside {peer}",
                    lambda rng, m=m, k=k, b=(n, k) if linear else (k, n), dtype=dtype: tuple(
                        ops.cast(rng.standard_normal(s, np.float32), dtype) for s in ((m, k), b)
                    ),
                    partial(function, compute="bf16"),
                    lambda a, b, linear=linear: a @ (b.T if linear else b),
                    {peer: call},
                    tolerance=TOLERANCE,
                    work=flop(2 * m * n * k),
                    prepare={peer: prepare},
                    group=f"{dtype} beside {peer}",
                )
