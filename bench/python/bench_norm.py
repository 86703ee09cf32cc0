"""Normalisation over the last axis and over channels, forward and backward."""

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
    yield from row_cases(quick)
    yield from channel_cases(quick)


def row_cases(quick: bool) -> Iterator[Case]:
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

        def with_residual(rng: np.random.Generator, inputs=inputs) -> tuple[Array, ...]:
            x, w, b = inputs(rng)
            return x, rng.standard_normal(x.shape, np.float32), w, b

        yield Case(
            f"add_layer_norm {size}",
            with_residual,
            ops.add_layer_norm,
            lambda x, r, w, b: (layer_norm(x + r, w, b), x + r),
            {
                "torch": lambda x, r, w, b: (
                    torch.nn.functional.layer_norm(s := x + r, w.shape, w, b),
                    s,
                )
            },
            tolerance=1e-5,
            work=byte(4 * n_bytes),
        )
        yield Case(
            f"add_rms_norm {size}",
            lambda rng, make=with_residual: make(rng)[:3],
            ops.add_rms_norm,
            lambda x, r, w: (rms_norm(x + r, w), x + r),
            {
                "torch": lambda x, r, w: (
                    torch.nn.functional.rms_norm(s := x + r, w.shape, w, 1e-6),
                    s,
                )
            },
            tolerance=1e-5,
            work=byte(4 * n_bytes),
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


def grouped(x: Array, groups: int | None) -> tuple[Array, tuple[int, ...]]:
    """x as (batch, groups, rest), or as it is for batch_norm, with the axes that share statistics."""
    if groups is None:
        return x, (0, *range(2, x.ndim))
    return x.reshape(len(x), groups, -1), (2,)


def channel_norm(x: Array, w: Array, b: Array, groups: int | None = None) -> Array:
    rows, axes = grouped(x, groups)
    d = rows - rows.mean(axes, keepdims=True)
    u = (d / np.sqrt((d * d).mean(axes, keepdims=True) + x.dtype.type(1e-5))).reshape(x.shape)
    shape = (-1,) + (1,) * (x.ndim - 2)
    return u * w.reshape(shape) + b.reshape(shape)


def channel_norm_backward(
    g: Array, x: Array, w: Array, mean: Array, rstd: Array, groups: int | None = None
) -> tuple[Array, ...]:
    shape, over = (-1,) + (1,) * (x.ndim - 2), (0, *range(2, x.ndim))
    rows, axes = grouped(x, groups)
    place = (1, -1, *shape[1:]) if groups is None else (len(x), groups, 1)
    rstd = rstd.reshape(place)
    u = (rows - mean.reshape(place)) * rstd
    h = (g * w.reshape(shape)).reshape(rows.shape)
    inner = h - h.mean(axes, keepdims=True) - u * (h * u).mean(axes, keepdims=True)
    u = u.reshape(x.shape)
    return (rstd * inner).reshape(x.shape), (g * u).sum(over), g.sum(over)


def channel_cases(quick: bool) -> Iterator[Case]:
    shapes = [(8, 8, 7, 7)] if quick else [(64, 32, 28, 28), (128, 64, 7, 7), (256, 256)]
    for shape in shapes:
        n_bytes = 4 * int(np.prod(shape))

        def inputs(rng: np.random.Generator, shape=shape) -> tuple[Array, ...]:
            x = rng.standard_normal(shape, np.float32) + np.float32(0.5)
            return x, rng.random(shape[1], np.float32), rng.random(shape[1], np.float32)

        def backward(rng: np.random.Generator, groups=None, shape=shape) -> tuple[Array, ...]:
            x, w, _ = inputs(rng, shape)
            rows, axes = grouped(x.astype(np.float64), groups)
            mean, rstd = rows.mean(axes), 1 / np.sqrt(rows.var(axes) + 1e-5)
            g = rng.standard_normal(shape, np.float32)
            return g, x, w, mean.astype(np.float32), rstd.astype(np.float32)

        size = "x".join(map(str, shape))
        yield Case(
            f"batch_norm {size}",
            inputs,
            lambda x, w, b: ops.batch_norm(x, None, None, w, b, training=True),
            channel_norm,
            {
                "torch": lambda x, w, b: torch.nn.functional.batch_norm(x, None, None, w, b, True),
                "numpy": channel_norm,
            },
            tolerance=1e-5,
            work=byte(2 * n_bytes),
        )
        yield Case(
            f"batch_norm_backward {size}",
            backward,
            lambda *a: ops.batch_norm_backward(*a, True),
            channel_norm_backward,
            {
                "torch": lambda g, x, w, m, s: torch.ops.aten.native_batch_norm_backward(
                    g, x, w, None, None, m, s, True, 1e-5, [True] * 3
                ),
                "numpy": channel_norm_backward,
            },
            tolerance=5e-5,
            work=byte(3 * n_bytes),
        )
        if len(shape) < 4:
            continue
        yield Case(
            f"group_norm {size}",
            inputs,
            lambda x, w, b: ops.group_norm(x, 8, w, b),
            lambda x, w, b: channel_norm(x, w, b, 8),
            {"torch": lambda x, w, b: torch.nn.functional.group_norm(x, 8, w, b)},
            tolerance=1e-5,
            work=byte(2 * n_bytes),
        )
        yield Case(
            f"group_norm_backward {size}",
            lambda rng, backward=backward: backward(rng, 8),
            lambda g, x, w, m, s: ops.group_norm_backward(g, x, 8, w, m, s),
            lambda g, x, w, m, s: channel_norm_backward(g, x, w, m, s, 8),
            {
                "torch": lambda g, x, w, m, s: torch.ops.aten.native_group_norm_backward(
                    g, x, m, s, w, len(x), len(w), x[0, 0].numel(), 8, [True] * 3
                )
            },
            tolerance=5e-5,
            work=byte(3 * n_bytes),
        )
