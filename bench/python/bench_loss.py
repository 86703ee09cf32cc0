"""Cross-entropy fused with log-softmax, forward and backward."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from harness import Case, byte, torch
from vectile import ops

Array = np.ndarray


def log_softmax(x: Array) -> Array:
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def loss(x: Array, targets: Array) -> Array:
    return -np.take_along_axis(log_softmax(x), targets[:, None], -1).mean()


def gradient(x: Array, targets: Array) -> Array:
    p = np.exp(log_softmax(x))
    p[np.arange(len(p)), targets] -= 1
    return p / len(p)


def train(x: Array, targets: Array) -> Array:
    _, lse = ops.cross_entropy(x, targets, return_lse=True)
    return ops.cross_entropy_backward(np.float32(1), x, targets, lse, -100, 0.0, "mean")


def train_torch(x: Any, targets: Any) -> Any:
    return torch.autograd.grad(torch.nn.functional.cross_entropy(x, targets), x)[0]


def cases(quick: bool) -> Iterator[Case]:
    for rows, n in [(32, 10), (64, 256)] if quick else [(32, 10), (768, 256), (512, 50257)]:

        def inputs(rng: np.random.Generator, rows=rows, n=n) -> tuple[Array, Array]:
            return rng.standard_normal((rows, n), np.float32), rng.integers(0, n, rows)

        yield Case(
            f"cross_entropy {rows}x{n}",
            inputs,
            ops.cross_entropy,
            loss,
            {"torch": lambda x, t: torch.nn.functional.cross_entropy(x, t), "numpy": loss},
            tolerance=1e-5,
            work=byte(4 * rows * n),
        )
        yield Case(
            f"cross_entropy + cross_entropy_backward {rows}x{n}",
            inputs,
            train,
            gradient,
            {"torch": train_torch, "numpy": gradient},
            tolerance=1e-5,
            work=byte(3 * 4 * rows * n),
            prepare={
                "torch": lambda x, t: (torch.from_numpy(x).requires_grad_(), torch.from_numpy(t))
            },
        )
