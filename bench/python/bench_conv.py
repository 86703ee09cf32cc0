"""Convolutions forward, and forward with both gradients: square images, few channels, strides, depthwise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from harness import Case, flop, torch
from vectile import ops

Array = np.ndarray

# name: (x, weight, stride, padding, groups)
SHAPES = {
    "3x3 C64 32x32 N8": ((8, 64, 32, 32), (64, 64, 3, 3), 1, 1, 1),
    "3x3 C256 14x14 N8": ((8, 256, 14, 14), (256, 256, 3, 3), 1, 1, 1),
    "5x5 C1 28x28 N16 to 32": ((16, 1, 28, 28), (32, 1, 5, 5), 1, 0, 1),
    "depthwise 3x3 C64 32x32 N8": ((8, 64, 32, 32), (64, 1, 3, 3), 1, 1, 64),
    "3x3 /2 C64 32x32 N8 to 128": ((8, 64, 32, 32), (128, 64, 3, 3), 2, 1, 1),
    "1x1 C64 32x32 N8 to 128": ((8, 64, 32, 32), (128, 64, 1, 1), 1, 0, 1),
    "7x7 /2 C3 112x112 N2 to 64": ((2, 3, 112, 112), (64, 3, 7, 7), 2, 3, 1),
    "3x3 C512 4x4 N8": ((8, 512, 4, 4), (512, 512, 3, 3), 1, 1, 1),
    "4x4 /2 C64 16x16 N32 to 128": ((32, 64, 16, 16), (128, 64, 4, 4), 2, 1, 1),
}
QUICK = {
    "3x3 C16 8x8 N2": ((2, 16, 8, 8), (16, 16, 3, 3), 1, 1, 1),
    "4x4 /2 C8 8x8 N2 to 4": ((2, 8, 8, 8), (4, 8, 4, 4), 2, 1, 1),
    "depthwise 3x3 C8 8x8 N2": ((2, 8, 8, 8), (8, 1, 3, 3), 1, 1, 8),
}


def inputs(x: Any, w: Any, stride: int, padding: int) -> Callable[[np.random.Generator], Any]:
    out = [(n + 2 * padding - k) // stride + 1 for n, k in zip(x[2:], w[2:], strict=True)]
    g = (x[0], w[0], *out)
    return lambda rng: tuple(rng.standard_normal(s, np.float32) for s in (x, w, g, (w[0],)))


def ours(x: Array, w: Array, g: Array, stride: int, padding: int, groups: int) -> Any:
    settings = stride, padding, 1, groups
    return (
        ops.conv2d(x, w, None, *settings),
        ops.conv2d_input_grad(g, w, x.shape, *settings),
        ops.conv2d_weight_grad(g, x, w.shape, *settings),
    )


def with_gradients(x: Any, w: Any, g: Any, stride: int, padding: int, groups: int) -> Any:
    x, w = x.detach().requires_grad_(), w.detach().requires_grad_()
    y = torch.nn.functional.conv2d(x, w, None, stride, padding, 1, groups)
    return (y, *torch.autograd.grad(y, (x, w), g))


def exact_with_gradients(x: Array, w: Array, g: Array, *settings: int) -> Any:
    if torch is None:
        return ours(x, w, g, *settings)
    tensors = (torch.from_numpy(a) for a in (x, w, g))
    return tuple(a.detach().numpy() for a in with_gradients(*tensors, *settings))


def tolerance(terms: int) -> float:
    """Relative to the largest result; errors of that many terms add up as a random walk, amply."""
    return terms**0.5 * 2**-22 + 2e-6


def cases(quick: bool) -> Iterator[Case]:
    for name, (x, w, stride, padding, groups) in (QUICK if quick else SHAPES).items():
        make = inputs(x, w, stride, padding)
        out = make(np.random.default_rng(0))[2].shape
        work = 2 * int(np.prod(out)) * int(np.prod(w[1:]))
        s = (stride, padding, groups)
        yield Case(
            f"conv2d {name}",
            make,
            lambda x, w, g, b, s=s: ops.conv2d(x, w, b, s[0], s[1], 1, s[2]),
            lambda x, w, g, b, s=s: ops.conv2d(x, w, b, s[0], s[1], 1, s[2]),
            {
                "torch": lambda x, w, g, b, s=s: torch.nn.functional.conv2d(
                    x, w, b, s[0], s[1], 1, s[2]
                )
            },
            tolerance=tolerance(int(np.prod(w[1:]))),
            work=flop(work),
        )
        yield Case(
            f"conv2d fwd+bwd {name}",
            make,
            lambda x, w, g, b, s=s: ours(x, w, g, *s),
            lambda x, w, g, b, s=s: exact_with_gradients(x, w, g, *s),
            {"torch": lambda x, w, g, b, s=s: with_gradients(x, w, g, *s)},
            tolerance=tolerance(max(int(np.prod(w)), int(np.prod(out)))),
            work=flop(3 * work),
        )
    n, size = (2, 4) if quick else (32, 8)
    c, m = (8, 4) if quick else (128, 64)
    yield Case(
        f"conv_transpose2d 4x4 /2 C{c} {size}x{size} N{n} to {m}",
        lambda rng: (
            rng.standard_normal((n, c, size, size), np.float32),
            rng.standard_normal((c, m, 4, 4), np.float32),
            rng.standard_normal(m, np.float32),
        ),
        lambda x, w, b: ops.conv_transpose2d(x, w, b, 2, 1, activation="relu"),
        lambda x, w, b: ops.conv_transpose2d(x, w, b, 2, 1, activation="relu"),
        {
            "torch": lambda x, w, b: torch.nn.functional.conv_transpose2d(x, w, b, 2, 1).relu_(),
        },
        tolerance=tolerance(c * 16),
        work=flop(2 * n * size * size * c * m * 16),
    )
    length = 40 if quick else 1024
    settings = 1, 2, 2
    yield Case(
        f"conv1d k3 dilation 2 C64 L{length} N4",
        lambda rng: (
            rng.standard_normal((4, 64, length), np.float32),
            rng.standard_normal((64, 64, 3), np.float32),
        ),
        lambda x, w: one_axis(x, w, settings),
        lambda x, w: one_axis(x, w, settings),
        {"torch": lambda x, w: torch_one_axis(x, w, settings)},
        tolerance=tolerance(4 * length),
        work=flop(3 * 2 * 4 * length * 64 * 64 * 3),
    )
    yield Case(
        f"conv_transpose1d k4 /2 C64 L{length} N4",
        lambda rng: (
            rng.standard_normal((4, 64, length), np.float32),
            rng.standard_normal((64, 64, 4), np.float32),
        ),
        lambda x, w: ops.conv_transpose1d(x, w, None, 2, 1),
        lambda x, w: ops.conv_transpose1d(x, w, None, 2, 1),
        {"torch": lambda x, w: torch.nn.functional.conv_transpose1d(x, w, None, 2, 1)},
        tolerance=tolerance(256),
        work=flop(2 * 4 * length * 64 * 64 * 4),
    )


def one_axis(x: Array, w: Array, settings: tuple[int, int, int]) -> Any:
    y = ops.conv1d(x, w, None, *settings)
    return (
        y,
        ops.conv1d_input_grad(y, w, x.shape, *settings),
        ops.conv1d_weight_grad(y, x, w.shape, *settings),
    )


def torch_one_axis(x: Any, w: Any, settings: tuple[int, int, int]) -> Any:
    x, w = x.detach().requires_grad_(), w.detach().requires_grad_()
    y = torch.nn.functional.conv1d(x, w, None, *settings)
    return tuple(v.detach() for v in (y, *torch.autograd.grad(y, (x, w), y)))
