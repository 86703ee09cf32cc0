"""Sums, means and extrema over one axis or all; undoing a broadcast; the norm of many arrays."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from harness import Case, byte, torch
from vectile import ops

SHAPES = [(50257, 64), (768, 768), (768,), (3072, 768), (128,)]


def cases(quick: bool) -> Iterator[Case]:
    for shape in [(128, 128)] if quick else [(128, 128), (1024, 1024), (4096, 4096)]:
        size = f"{shape[0]}x{shape[1]}"
        work = byte(4 * shape[0] * shape[1])

        def make(rng: np.random.Generator, shape=shape) -> tuple[np.ndarray, ...]:
            return (rng.random(shape, np.float32) + np.float32(0.5),)

        for name, in_torch in (("sum", "sum"), ("mean", "mean"), ("max", "amax"), ("min", "amin")):
            for axis in (None, 0, -1):
                if shape[0] == 4096 and (name, axis) not in {("sum", None), ("sum", 0)}:
                    continue
                dims = tuple(range(2)) if axis is None else axis
                yield Case(
                    f"{name} {size} axis={axis}",
                    make,
                    lambda x, name=name, axis=axis: getattr(ops, name)(x, axis),
                    lambda x, name=name, axis=axis: getattr(np, name)(x, axis),
                    {
                        "torch": lambda x, f=in_torch, d=dims: getattr(torch, f)(x, d),
                        "numpy": lambda x, name=name, axis=axis: getattr(np, name)(x, axis),
                    },
                    tolerance=1e-5,
                    work=work,
                )
    shape = (12, 64, 128) if quick else (32, 128, 768)
    for target in (shape[2:], (shape[0], 1, 1)):
        yield Case(
            f"sum_to {shape} -> {target}",
            lambda rng: (rng.random(shape, np.float32),),
            lambda x, t=target: ops.sum_to(x, t),
            lambda x, t=target: x.sum((0, 1)) if len(t) == 1 else x.sum((1, 2), keepdims=True),
            {"torch": lambda x, t=target: x.sum_to_size(t)},
            tolerance=1e-5,
            work=byte(4 * int(np.prod(shape))),
        )
    shapes = SHAPES[1:] if quick else SHAPES
    yield Case(
        f"global_norm of {len(shapes)} arrays",
        lambda rng: ([rng.standard_normal(s, np.float32) for s in shapes],),
        ops.global_norm,
        lambda a: np.sqrt(sum((x * x).sum() for x in a)),
        {
            "torch": lambda a: torch.nn.utils.get_total_norm(a),
            "numpy": lambda a: np.sqrt(sum(np.vdot(x, x) for x in a)),
        },
        tolerance=1e-4,  # torch adds up in float32
        work=byte(sum(4 * int(np.prod(s)) for s in shapes)),
    )
