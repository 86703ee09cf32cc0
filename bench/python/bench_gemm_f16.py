"""Products in AVX512-FP16 arithmetic beside our own in float32 and torch on float32 arrays."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from harness import Case, flop, torch
from vectile import ops

SQUARES = [(256, 256, 256), (512, 512, 512), (1024, 1024, 1024), (2048, 2048, 2048)]
LINEARS = [(32, 768, 3072), (128, 768, 3072), (512, 3072, 768), (128, 4096, 4096)]  # (m, k, n)
TOLERANCE = 2.0**-7  # relative to the largest result; the bound is of |a| @ |b|


def cases(quick: bool) -> Iterator[Case]:
    shapes = [("matmul", *s) for s in SQUARES] + [("linear", *s) for s in LINEARS]
    for name, m, k, n in shapes[:2] if quick else shapes:
        linear = name == "linear"
        function = getattr(ops, name)
        peers = {"float32": function}
        if torch is not None:
            peers["torch"] = torch.nn.functional.linear if linear else torch.mm
        for peer, call in peers.items():
            yield Case(
                f"{name} fp16 {m}x{k}x{n} beside {peer}",
                lambda rng, m=m, k=k, b=(n, k) if linear else (k, n): (
                    rng.standard_normal((m, k), np.float32),
                    rng.standard_normal(b, np.float32),
                ),
                partial(function, compute="fp16"),
                lambda a, b, linear=linear: a @ (b.T if linear else b),
                {peer: call},
                tolerance=TOLERANCE,
                work=flop(2 * m * n * k),
                group=f"fp16 beside {peer}",
            )
