"""layer_norm and rms_norm, forward and backward."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from harness import Case, byte, torch
from vectile import ops

Array = np.ndarray


def layer_norm(x: Array, w: Array, b: Array) -> Array:
    d = x - x.mean(-1, keepdims=True)
    return d / np.sqrt((d * d).mean(-1, keepdims=True) + x.dtype.type(1e-5)) * w + b


def rms_norm(x: Array, w: Array) -> Array:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + x.dtype.type(1e-6)) * w


def statistics(x: Array) -> tuple[Array, Array]:
    """mean and 1 / standard deviation of the rows."""
    x = x.astype(np.float64)
    return x.mean(-1), 1 / np.sqrt(x.var(-1) + 1e-5)


def layer_norm_backward(
    grad: Array, x: Array, w: Array, mean: Array, rstd: Array
) -> tuple[Array, ...]:
    h = (x - mean[:, None]) * rstd[:, None]
    g = grad * w
    dx = rstd[:, None] * (g - g.mean(-1, keepdims=True) - h * (g * h).mean(-1, keepdims=True))
    return dx, (grad * h).sum(0), grad.sum(0)


def rms_norm_backward(grad: Array, x: Array, w: Array, rstd: Array) -> tuple[Array, ...]:
    h = x * rstd[:, None]
    g = grad * w
    return rstd[:, None] * (g - h * (g * h).mean(-1, keepdims=True)), (grad * h).sum(0)


def rms_graph(grad: Array, x: Array, w: Array, rstd: Array) -> tuple[Any, ...]:
    """torch has no backward of rms_norm by itself: what autograd runs from a recorded forward."""
    a, b = (torch.from_numpy(v).requires_grad_() for v in (x, w))
    return torch.nn.functional.rms_norm(a, b.shape, b, 1e-6), a, b, torch.from_numpy(grad)


def cases(quick: bool) -> Iterator[Case]:
    shapes = [(128, 128)] if quick else [(128, 128), (768, 128), (1024, 1024), (4096, 4096)]
    for rows, n in shapes:
        size, n_bytes = f"{rows}x{n}", 4 * rows * n

        def inputs(rng: np.random.Generator, rows=rows, n=n) -> tuple[Array, ...]:
            x = rng.standard_normal((rows, n), np.float32) + np.float32(0.5)
            return x, rng.random(n, np.float32), rng.random(n, np.float32)

        def backward(rng: np.random.Generator, rows=rows, n=n) -> tuple[Array, ...]:
            x, w, _ = inputs(rng, rows, n)
            mean, rstd = (s.astype(np.float32) for s in statistics(x))
            return rng.standard_normal((rows, n), np.float32), x, w, mean, rstd

        def rms_backward(rng: np.random.Generator, rows=rows, n=n) -> tuple[Array, ...]:
            grad, x, w, _, _ = backward(rng, rows, n)
            mean_square = (x.astype(np.float64) ** 2).mean(-1)
            return grad, x, w, (1 / np.sqrt(mean_square + 1e-6)).astype(np.float32)

        yield Case(
            f"layer_norm {size}",
            inputs,
            ops.layer_norm,
            layer_norm,
            {
                "torch": lambda x, w, b: torch.nn.functional.layer_norm(x, w.shape, w, b),
                "numpy": layer_norm,
            },
            tolerance=1e-5,
            work=byte(2 * n_bytes),
        )
        yield Case(
            f"rms_norm {size}",
            lambda rng, inputs=inputs: inputs(rng)[:2],
            ops.rms_norm,
            rms_norm,
            {
                "torch": lambda x, w: torch.nn.functional.rms_norm(x, w.shape, w, 1e-6),
                "numpy": rms_norm,
            },
            tolerance=1e-5,
            work=byte(2 * n_bytes),
        )
        yield Case(
            f"layer_norm_backward {size}",
            backward,
            ops.layer_norm_backward,
            layer_norm_backward,
            {
                "torch": lambda g, x, w, m, r: torch.ops.aten.native_layer_norm_backward(
                    g, x, w.shape, m[:, None], r[:, None], w, w, [True] * 3
                ),
                "numpy": layer_norm_backward,
            },
            tolerance=2e-5,
            work=byte(3 * n_bytes),
        )
        yield Case(
            f"rms_norm_backward {size}",
            rms_backward,
            ops.rms_norm_backward,
            rms_norm_backward,
            {
                "torch": lambda y, x, w, g: torch.autograd.grad(y, (x, w), g, retain_graph=True),
                "numpy": rms_norm_backward,
            },
            tolerance=2e-5,
            work=byte(3 * n_bytes),
            prepare={"torch": rms_graph},
        )
