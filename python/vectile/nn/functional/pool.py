"""Pooling and resampling with PyTorch's names and arguments, on (..., L) or (..., H, W)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vectile.autograd import Tensor, as_tensor
from vectile.autograd import functional as _F
from vectile.autograd.tensor import wrap
from vectile.ops.sizes import Sizes, sizes

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "avg_pool1d",
    "avg_pool2d",
    "interpolate",
    "max_pool1d",
    "max_pool2d",
    "pixel_shuffle",
    "pixel_unshuffle",
]

AdaptiveSize = int | None | Sequence[int | None]


def _with_indices(result: Any) -> Any:
    """Indices as PyTorch gives them, int64."""
    if isinstance(result, Tensor):
        return result
    y, index = result
    return y, wrap(index.data.astype(np.int64))


def max_pool1d(
    x: Any,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The largest element of each window of the last axis; NaN where it has one.

    `stride` defaults to `kernel_size`; `ceil_mode` keeps a last window that reaches over the end. With
    `return_indices` a pair: the maxima, and the place of each (int64).
    """
    kernel = sizes("max_pool1d", "kernel_size", kernel_size, 1)
    settings = stride, padding, dilation, ceil_mode, return_indices
    return _with_indices(_F.max_pool(x, kernel, *settings))


def max_pool2d(
    x: Any,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """`max_pool1d` over the last two axes; an index is the place in the flattened plane."""
    kernel = sizes("max_pool2d", "kernel_size", kernel_size, 2)
    settings = stride, padding, dilation, ceil_mode, return_indices
    return _with_indices(_F.max_pool(x, kernel, *settings))


def avg_pool1d(
    x: Any,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """The mean of each window of the last axis, padding counted as zeros if `count_include_pad`."""
    kernel = sizes("avg_pool1d", "kernel_size", kernel_size, 1)
    return _F.avg_pool(x, kernel, stride, padding, ceil_mode, count_include_pad)


def avg_pool2d(
    x: Any,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """`avg_pool1d` over the last two axes; `divisor_override` replaces the number of elements."""
    kernel = sizes("avg_pool2d", "kernel_size", kernel_size, 2)
    settings = stride, padding, ceil_mode, count_include_pad, divisor_override
    return _F.avg_pool(x, kernel, *settings)


def _adaptive_size(op: str, x: Tensor, output_size: AdaptiveSize, axes: int) -> tuple[int, ...]:
    """`output_size` with None, which keeps a length, filled in."""
    wanted = output_size if isinstance(output_size, Sequence) else (output_size,) * axes
    if len(wanted) != axes or x.ndim < axes:
        return sizes(op, "output_size", [n or 0 for n in wanted], axes)
    kept = x.shape[-axes:]
    filled = [old if new is None else new for old, new in zip(kept, wanted, strict=True)]
    return sizes(op, "output_size", filled, axes)


def adaptive_avg_pool1d(x: Any, output_size: AdaptiveSize) -> Tensor:
    """The means of `output_size` windows that cover the last axis evenly; None keeps its length."""
    t = as_tensor(x)
    return _F.adaptive_avg_pool(t, _adaptive_size("adaptive_avg_pool1d", t, output_size, 1))


def adaptive_avg_pool2d(x: Any, output_size: AdaptiveSize) -> Tensor:
    """`adaptive_avg_pool1d` over the last two axes."""
    t = as_tensor(x)
    return _F.adaptive_avg_pool(t, _adaptive_size("adaptive_avg_pool2d", t, output_size, 2))


def adaptive_max_pool1d(x: Any, output_size: AdaptiveSize, return_indices: bool = False) -> Any:
    """The maxima of `output_size` windows that cover the last axis evenly; indices as `max_pool1d`."""
    t = as_tensor(x)
    size = _adaptive_size("adaptive_max_pool1d", t, output_size, 1)
    return _with_indices(_F.adaptive_max_pool(t, size, return_indices))


def adaptive_max_pool2d(x: Any, output_size: AdaptiveSize, return_indices: bool = False) -> Any:
    """`adaptive_max_pool1d` over the last two axes."""
    t = as_tensor(x)
    size = _adaptive_size("adaptive_max_pool2d", t, output_size, 2)
    return _with_indices(_F.adaptive_max_pool(t, size, return_indices))


#: mode: (the kernel's name, the number of resampled axes it is for or None for any)
_MODES = {
    "nearest": ("nearest", None),
    "nearest-exact": ("nearest-exact", None),
    "area": ("area", None),
    "linear": ("linear", 1),
    "bilinear": ("linear", 2),
    "bicubic": ("cubic", 2),
}


def interpolate(
    x: Any,
    size: Sizes | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
) -> Tensor:
    """Resample the axes after the first two of x (N, C, L) or (N, C, H, W).

    Give `size` or `scale_factor` (then the new length is ``floor(length * factor)``). Modes: "nearest",
    "nearest-exact", "area" (adaptive means), "linear" (3-D x), "bilinear" and "bicubic" (4-D). With
    `align_corners` (the last three) the outermost elements keep their places. `recompute_scale_factor`
    derives the factor again from the rounded size.
    """
    t, op = as_tensor(x), "interpolate"
    axes = t.ndim - 2
    if axes not in (1, 2):
        raise ValueError(f"{op}: x ndim: expected 3 or 4, got {t.ndim}")
    if mode not in _MODES:
        raise ValueError(f"{op}: mode: expected one of {', '.join(_MODES)}, got {mode!r}")
    kernel, needed = _MODES[mode]
    if needed not in (None, axes):
        raise ValueError(f"{op}: x ndim: expected {needed + 2} for {mode}, got {t.ndim}")
    if align_corners is not None and kernel not in ("linear", "cubic"):
        raise ValueError(f"{op}: align_corners: expected None for {mode}, got {align_corners}")
    if (size is None) == (scale_factor is None):
        raise ValueError(f"{op}: size, scale_factor: expected one of them, got both or none")
    factors = None
    if size is None:
        factors = _factors(scale_factor, axes)
        lengths = tuple(
            int(np.floor(n * factor)) for n, factor in zip(t.shape[2:], factors, strict=True)
        )
    else:
        lengths = sizes(op, "size", size, axes)
    if recompute_scale_factor:
        factors = None
    if kernel == "area":
        return _F.adaptive_avg_pool(t, lengths)
    return _F.interpolate(t, lengths, kernel, bool(align_corners), factors)


def _factors(scale_factor: Any, axes: int) -> list[float]:
    given = scale_factor if isinstance(scale_factor, Sequence) else [scale_factor] * axes
    factors = [float(f) for f in given]
    if len(factors) != axes or not all(0 < f < np.inf for f in factors):
        raise ValueError(
            f"interpolate: scale_factor: expected {axes} positive numbers, got {scale_factor}"
        )
    return factors


def _shuffle_shape(op: str, x: Tensor, factor: int, divides: tuple[int, ...], by: int) -> None:
    if x.ndim < 3:
        raise ValueError(f"{op}: x ndim: expected at least 3, got {x.ndim}")
    if factor < 1 or any(x.shape[axis] % by for axis in divides):
        raise ValueError(
            f"{op}: x shape: expected channels, height, width that {factor} fits, got {x.shape}"
        )


def pixel_shuffle(x: Any, upscale_factor: int) -> Tensor:
    """(..., C r², H, W) -> (..., C, H r, W r) (Shi et al., arXiv 1609.05158)."""
    t, r = as_tensor(x), upscale_factor
    _shuffle_shape("pixel_shuffle", t, r, (-3,), r * r)
    *lead, channels, height, width = t.shape
    n = len(lead)
    parts = t.reshape((*lead, channels // (r * r), r, r, height, width))
    order = (*range(n), n, n + 3, n + 1, n + 4, n + 2)
    return parts.transpose(order).reshape((*lead, channels // (r * r), height * r, width * r))


def pixel_unshuffle(x: Any, downscale_factor: int) -> Tensor:
    """(..., C, H r, W r) -> (..., C r², H, W): the inverse of `pixel_shuffle`."""
    t, r = as_tensor(x), downscale_factor
    _shuffle_shape("pixel_unshuffle", t, r, (-2, -1), r)
    *lead, channels, height, width = t.shape
    n = len(lead)
    parts = t.reshape((*lead, channels, height // r, r, width // r, r))
    order = (*range(n), n, n + 2, n + 4, n + 1, n + 3)
    return parts.transpose(order).reshape((*lead, channels * r * r, height // r, width // r))
