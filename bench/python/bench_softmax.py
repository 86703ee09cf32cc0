"""softmax and log_softmax, forward and backward."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from harness import Case, byte, torch
from vectile import ops


def exact(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def numpy_softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    e /= e.sum(axis=-1, keepdims=True)
    return e


def exact_backward(grad: np.ndarray, y: np.ndarray) -> np.ndarray:
    return y * (grad - (grad * y).sum(axis=-1, keepdims=True))


def cases(quick: bool) -> Iterator[Case]:
    for shape in (
        [(128, 128), (1024, 1024)] if quick else [(128, 128), (1024, 1024), (4096, 4096), (512, 37)]
    ):
        size = f"{shape[0]}x{shape[1]}"
        n_bytes = 4 * shape[0] * shape[1]

        def normal(rng: np.random.Generator, shape=shape) -> tuple[np.ndarray, ...]:
            return (3 * rng.standard_normal(shape, np.float32),)

        def pair(rng: np.random.Generator, shape=shape) -> tuple[np.ndarray, ...]:
            grad, x = rng.standard_normal((2, *shape), np.float32)
            return grad, numpy_softmax(x)

        yield Case(
            f"softmax {size}",
            normal,
            ops.softmax,
            exact,
            {"torch": lambda x: torch.softmax(x, -1), "numpy": numpy_softmax},
            tolerance=1e-5,
            work=byte(2 * n_bytes),
        )
        if shape[0] == 4096:
            continue
        yield Case(
            f"log_softmax {size}",
            normal,
            ops.log_softmax,
            lambda x: np.log(exact(x)),
            {"torch": lambda x: torch.log_softmax(x, -1)},
            tolerance=1e-5,
            work=byte(2 * n_bytes),
        )
        yield Case(
            f"softmax_backward {size}",
            pair,
            ops.softmax_backward,
            exact_backward,
            {
                "torch": lambda g, y: torch._softmax_backward_data(g, y, -1, torch.float32),
                "numpy": exact_backward,
            },
            tolerance=1e-5,
            work=byte(3 * n_bytes),
        )
        yield Case(
            f"log_softmax_backward {size}",
            lambda rng, pair=pair: (lambda g, y: (g, np.log(y)))(*pair(rng)),
            ops.log_softmax_backward,
            lambda g, y: g - np.exp(y) * g.sum(axis=-1, keepdims=True),
            {"torch": lambda g, y: torch._log_softmax_backward_data(g, y, -1, torch.float32)},
            tolerance=1e-5,
            work=byte(3 * n_bytes),
        )
