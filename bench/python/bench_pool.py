"""Pooling and interpolation, forward and backward."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from harness import Case, byte, torch
from vectile import ops

Array = np.ndarray


def corners(x: Array, kernel: int, stride: int, padding: int, fill: float) -> Array:
    """Every window of (N, C, H, W): (N, C, H', W', kernel, kernel)."""
    border = ((0, 0), (0, 0), (padding, padding), (padding, padding))
    x = np.pad(x, border, constant_values=fill)
    view = np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), (2, 3))
    return view[:, :, ::stride, ::stride]


def places(x: Array, kernel: int, stride: int, padding: int) -> Array:
    """The place in its plane of each window's first largest element."""
    spread = np.arange(x[0, 0].size).reshape(x.shape[2:])[None, None]
    index = corners(spread, kernel, stride, padding, -1)
    windows = corners(x, kernel, stride, padding, -np.inf)
    best = windows.reshape(*windows.shape[:4], -1).argmax(-1)[..., None]
    flat = np.broadcast_to(index, windows.shape).reshape(*windows.shape[:4], -1)
    return np.take_along_axis(flat, best, -1)[..., 0]


def scatter(g: Array, index: Array, plane: int) -> Array:
    dx = np.zeros((*g.shape[:2], plane * plane), g.dtype)
    rows = np.arange(len(dx))[:, None, None], np.arange(dx.shape[1])[None, :, None]
    np.add.at(dx, (*rows, index.reshape(*g.shape[:2], -1)), g.reshape(*g.shape[:2], -1))
    return dx.reshape(*g.shape[:2], plane, plane)


def spread_evenly(n: int, outputs: int) -> Array:
    """The matrix of adaptive averages along an axis."""
    m = np.zeros((outputs, n))
    for o in range(outputs):
        begin, end = o * n // outputs, -(-(o + 1) * n // outputs)
        m[o, begin:end] = 1 / (end - begin)
    return m


def stretched(n: int, outputs: int, mode: str) -> Array:
    """The matrix of an interpolation along an axis."""
    m = np.zeros((outputs, n))
    for o in range(outputs):
        at = min(max((o + 0.5) * n / outputs - 0.5, 0), n - 1)
        low = o * n // outputs if mode == "nearest" else int(at)
        share = 0.0 if mode == "nearest" else at - low
        m[o, low] += 1 - share
        m[o, min(low + 1, n - 1)] += share
    return m


def images(*shape: int) -> Any:
    return lambda rng: (rng.standard_normal(shape, np.float32),)


def max_cases(n: int, c: int, plane: int, windows: tuple[int, int, int]) -> Iterator[Case]:
    kernel, stride, padding = windows
    pooled = (plane + 2 * padding - kernel) // stride + 1
    large, small = 4 * n * c * plane**2, 4 * n * c * pooled**2
    name = f"{kernel}x{kernel}/{stride} {n}x{c}x{plane}²"

    def exact(x: Array) -> Array:
        return corners(x, kernel, stride, padding, -np.inf).max((-1, -2))

    yield Case(
        f"max_pool {name}",
        images(n, c, plane, plane),
        lambda x: ops.max_pool2d(x, *windows),
        exact,
        {"torch": lambda x: torch.nn.functional.max_pool2d(x, *windows)},
        tolerance=0,
        work=byte(large + small),
    )
    yield Case(
        f"max_pool with indices {name}",
        images(n, c, plane, plane),
        lambda x: ops.max_pool2d(x, *windows, return_indices=True),
        lambda x: (exact(x), places(x, *windows)),
        {"torch": lambda x: torch.nn.functional.max_pool2d(x, *windows, return_indices=True)},
        tolerance=0,
        work=byte(large + 2 * small),
    )

    def gradients(rng: np.random.Generator) -> tuple[Array, ...]:
        x = rng.standard_normal((n, c, plane, plane), np.float32)
        index = places(x, *windows).astype(np.int32)
        return rng.standard_normal(index.shape, np.float32), index

    def for_torch(g: Array, index: Array) -> tuple[Any, ...]:
        x = torch.empty(n, c, plane, plane)
        return torch.from_numpy(g), torch.from_numpy(index.astype(np.int64)), x

    yield Case(
        f"max_pool_backward {name}",
        gradients,
        lambda g, index: ops.max_pool_backward(g, index, (plane, plane)),
        lambda g, index: scatter(g, index.astype(np.int64), plane),
        {
            "torch": lambda g, index, x: torch.ops.aten.max_pool2d_with_indices_backward(
                g, x, [kernel] * 2, [stride] * 2, [padding] * 2, [1, 1], False, index
            )
        },
        tolerance=1e-6,
        work=byte(large + 2 * small),
        prepare={"torch": for_torch},
    )


def linear_cases(
    name: str, n: int, c: int, plane: int, to: int, matrix: Array, pairs: tuple[Any, ...]
) -> Iterator[Case]:
    """Forward and backward of a map with the same matrix along both axes."""
    forward, backward, in_torch, backward_in_torch = pairs
    work = byte(4 * n * c * (plane**2 + to**2))
    size = f"{n}x{c}x{plane}²"
    yield Case(
        f"{name} {size}",
        images(n, c, plane, plane),
        forward,
        lambda x: matrix @ x @ matrix.T,
        {"torch": in_torch},
        tolerance=2e-6,
        work=work,
    )
    yield Case(
        f"{name} backward {size}",
        images(n, c, to, to),
        backward,
        lambda g: matrix.T @ g @ matrix,
        {"torch": backward_in_torch},
        tolerance=2e-6,
        work=work,
    )


def cases(quick: bool) -> Iterator[Case]:
    n, c, plane = (2, 3, 8) if quick else (64, 32, 28)
    aten = torch.ops.aten if torch else None
    yield from max_cases(n, c, plane, (2, 2, 0))
    if not quick:
        yield from max_cases(8, 64, 112, (3, 2, 1))
        yield from max_cases(8, 64, 14, (3, 1, 1))
    shape, half, double = (n, c, plane, plane), plane // 2, 2 * plane
    average = (
        lambda x: ops.avg_pool2d(x, 2),
        lambda g: ops.avg_pool_backward(g, (plane, plane), (2, 2)),
        lambda x: torch.nn.functional.avg_pool2d(x, 2),
        lambda g: aten.avg_pool2d_backward(
            g, torch.empty(shape), [2, 2], [2, 2], [0, 0], False, True, None
        ),
    )
    yield from linear_cases("avg_pool 2x2/2", *shape[:3], half, spread_evenly(plane, half), average)
    for to in (1, 5):
        adaptive = (
            lambda x, to=to: ops.adaptive_avg_pool2d(x, to),
            lambda g: ops.adaptive_avg_pool_backward(g, (plane, plane)),
            lambda x, to=to: torch.nn.functional.adaptive_avg_pool2d(x, to),
            lambda g: aten._adaptive_avg_pool2d_backward(g, torch.empty(shape)),
        )
        yield from linear_cases(
            f"adaptive_avg_pool to {to}²", *shape[:3], to, spread_evenly(plane, to), adaptive
        )
    yield Case(
        f"adaptive_max_pool to 1² {n}x{c}x{plane}²",
        images(*shape),
        lambda x: ops.adaptive_max_pool2d(x, 1),
        lambda x: x.max((2, 3), keepdims=True),
        {"torch": lambda x: torch.nn.functional.adaptive_max_pool2d(x, 1)},
        tolerance=0,
        work=byte(4 * n * c * plane**2),
    )
    nearest = (
        lambda x: ops.interpolate(x, (double, double)),
        lambda g: ops.interpolate_backward(g, (plane, plane)),
        lambda x: torch.nn.functional.interpolate(x, (double, double)),
        lambda g: aten.upsample_nearest2d_backward(g, [double] * 2, shape, None, None),
    )
    bilinear = (
        lambda x: ops.interpolate(x, (double, double), "linear"),
        lambda g: ops.interpolate_backward(g, (plane, plane), "linear"),
        lambda x: torch.nn.functional.interpolate(x, (double, double), mode="bilinear"),
        lambda g: aten.upsample_bilinear2d_backward(g, [double] * 2, shape, False, None, None),
    )
    for name, mode, pairs in (
        ("interpolate nearest", "nearest", nearest),
        ("interpolate bilinear", "linear", bilinear),
    ):
        matrix = stretched(plane, double, mode)
        yield from linear_cases(f"{name} x2", *shape[:3], double, matrix, pairs)


# Named here for the check that every op is measured: the others are these by another name or shape.
SAME_KERNELS = (
    "max_pool",
    "max_pool1d",
    "avg_pool",
    "avg_pool1d",
    "adaptive_avg_pool",
    "adaptive_avg_pool1d",
    "adaptive_max_pool",
    "adaptive_max_pool1d",
)
