"""Half types beside torch's bfloat16 and beside our float32.

Row-wise ops are the bfloat16 cases of their families, whose names they keep. Products are compared
twice: with torch's on the same operands, and with our own on float32 copies of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import bench_elementwise
import bench_norm
import bench_softmax
from harness import Case, bfloat16, flop, torch
from vectile import ops

FAMILIES = {
    bench_softmax: {"softmax", "log_softmax", "softmax_backward"},
    bench_norm: {"layer_norm", "rms_norm"},
    bench_elementwise: {"exp", "gelu", "silu", "add", "multiply", "gelu_backward"},
}
PRODUCTS = [(64, 64, 64), (256, 256, 256), (512, 512, 512), (1024, 1024, 1024)]
LINEARS = [(8, 768, 3072), (1, 4096, 4096), (512, 768, 3072)]  # (m, n, k)


def widened(*arrays: Any) -> tuple[Any, ...]:
    return tuple(a.astype(np.float32) for a in arrays)


def products(quick: bool) -> Iterator[Case]:
    shapes = [("matmul", *s) for s in PRODUCTS] + [("linear", *s) for s in LINEARS]
    for name, m, n, k in shapes[:2] if quick else shapes:
        linear = name == "linear"
        sides = {"float32": (getattr(ops, name), widened)}
        if torch is not None:
            sides["torch"] = (torch.nn.functional.linear if linear else torch.mm, None)
        for dtype in ("bfloat16", "float16"):
            for peer, (function, prepare) in sides.items():
                if peer == "torch" and dtype == "float16":
                    continue  # an order of magnitude slower where the CPU has no such arithmetic
                yield Case(
                    f"{name} {m}x{n}x{k} {dtype} beside {peer}",
                    lambda rng, b=(n, k) if linear else (k, n), m=m, k=k, dtype=dtype: tuple(
                        ops.cast(rng.standard_normal(s, np.float32), dtype) for s in ((m, k), b)
                    ),
                    getattr(ops, name),
                    lambda a, b, linear=linear: a @ (b.T if linear else b),
                    {peer: function},
                    tolerance=2.0**-7,
                    work=flop(2 * m * n * k),
                    prepare={peer: prepare} if prepare else {},
                    group=f"products beside {peer}",
                )


def cases(quick: bool) -> Iterator[Case]:
    for module, names in FAMILIES.items():
        for case in module.cases(quick):
            if case.name.split()[0] in names and "torch" in case.peers:
                yield bfloat16(case)
    yield from products(quick)
