"""Rows of a table by number, and the scatter of their gradients."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from harness import Case, byte, torch
from vectile import ops

Array = np.ndarray


def backward(grad: Array, ids: Array, rows: int) -> Array:
    dw = np.zeros((rows, grad.shape[-1]), grad.dtype)
    np.add.at(dw, ids.ravel(), grad.reshape(-1, grad.shape[-1]))
    return dw


def cases(quick: bool) -> Iterator[Case]:
    # rows of the table, row length, ids
    sizes = [(256, 128, (12, 64))] + ([] if quick else [(50257, 768, (4, 256))])
    for rows, n, shape in sizes:
        name = f"{shape[0]}x{shape[1]} of {rows}x{n}"
        moved = 2 * 4 * shape[0] * shape[1] * n

        def lookup(rng: np.random.Generator, rows=rows, n=n, shape=shape) -> tuple[Array, Array]:
            return rng.integers(0, rows, shape), rng.standard_normal((rows, n), np.float32)

        def scatter(rng: np.random.Generator, rows=rows, n=n, shape=shape) -> tuple[Array, Array]:
            return rng.standard_normal((*shape, n), np.float32), rng.integers(0, rows, shape)

        yield Case(
            f"embedding {name}",
            lookup,
            ops.embedding,
            lambda ids, w: w[ids],
            {
                "torch": lambda ids, w: torch.nn.functional.embedding(ids, w),
                "numpy": lambda ids, w: w[ids],
            },
            tolerance=1e-7,
            work=byte(moved),
        )
        yield Case(
            f"embedding_backward {name}",
            scatter,
            lambda g, ids, rows=rows: ops.embedding_backward(g, ids, rows),
            lambda g, ids, rows=rows: backward(g, ids, rows),
            {
                "torch": lambda g, ids, rows=rows: torch.ops.aten.embedding_dense_backward(
                    g, ids, rows, -1, False
                ),
                "numpy": lambda g, ids, rows=rows: backward(g, ids, rows),
            },
            tolerance=1e-5,
            work=byte(moved // 2 + 4 * rows * n),
        )
