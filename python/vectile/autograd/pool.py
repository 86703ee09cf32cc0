"""Pooling and interpolation, as functions of Tensors. Sizes are tuples, one int per pooled axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vectile import ops
from vectile.autograd import arrays, rules
from vectile.autograd.tape import mode
from vectile.autograd.tensor import Tensor, TensorLike, as_tensor, edge, track, wrap

__all__ = ["adaptive_avg_pool", "adaptive_max_pool", "avg_pool", "interpolate", "max_pool"]


def _linear(
    x: TensorLike, op: Any, rule: Any, size: Sequence[int], settings: tuple[Any, ...]
) -> Tensor:
    """``op(x, size, *settings)``; its rule gets the length of x's pooled axes back, and the settings."""
    t = as_tensor(x)
    data = op(t._data, size, *settings)
    if not t.requires_grad or not mode.enabled:
        return wrap(data)
    return track(data, rule, (edge(t),), (), (t._data.shape[-len(size) :], *settings))


def _maximum(x: TensorLike, axes: int, op: Any, arguments: tuple[Any, ...], indices: bool) -> Any:
    t = as_tensor(x)
    tracked = t.requires_grad and mode.enabled
    if not tracked and not indices:
        return wrap(op(t._data, *arguments))
    data, index = op(t._data, *arguments, return_indices=True)
    size = t._data.shape[-axes:]
    y = track(data, rules.max_pool, (edge(t),), (), (index, size)) if tracked else wrap(data)
    return (y, wrap(index)) if indices else y


def max_pool(
    x: TensorLike,
    kernel_size: Sequence[int],
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The largest element of each window of the last axes; its gradient goes there. See `ops.max_pool`."""
    windows = kernel_size, stride, padding, dilation, ceil_mode
    return _maximum(x, len(kernel_size), ops.max_pool, windows, return_indices)


def adaptive_max_pool(
    x: TensorLike, output_size: Sequence[int], return_indices: bool = False
) -> Any:
    """The maxima of `output_size` windows that cover each axis evenly."""
    return _maximum(x, len(output_size), ops.adaptive_max_pool, (output_size,), return_indices)


def max_pool_backward(grad: TensorLike, index: Any, input_size: Sequence[int]) -> Tensor:
    """Zeros with `grad` added at `index` in each plane."""
    t = as_tensor(grad)
    data = ops.max_pool_backward(t._data, index, input_size)
    if not t.requires_grad or not mode.enabled:
        return wrap(data)
    return track(data, rules.max_pool_backward, (edge(t),), (), (index, input_size))


def pick_pooled(x: TensorLike, index: Any, input_size: Sequence[int]) -> Tensor:
    """The elements of x's planes at `index`: the adjoint of `max_pool_backward`."""
    t = as_tensor(x)
    data = arrays.pick_pooled(t._data, index, input_size)
    if not t.requires_grad or not mode.enabled:
        return wrap(data)
    return track(data, rules.max_pool, (edge(t),), (), (index, input_size))


def avg_pool(
    x: TensorLike,
    kernel_size: Sequence[int],
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of each window of the last axes; see `ops.avg_pool`."""
    settings = stride, padding, ceil_mode, count_include_pad, divisor_override
    t = as_tensor(x)
    data = ops.avg_pool(t._data, kernel_size, *settings)
    if not t.requires_grad or not mode.enabled:
        return wrap(data)
    size = t._data.shape[-len(kernel_size) :]
    return track(data, rules.avg_pool, (edge(t),), (), (size, kernel_size, *settings))


def avg_pool_backward(grad: TensorLike, input_size: Sequence[int], *windows: Any) -> Tensor:
    """The adjoint of `avg_pool`."""
    t = as_tensor(grad)
    data = ops.avg_pool_backward(t._data, input_size, *windows)
    if not t.requires_grad or not mode.enabled:
        return wrap(data)
    return track(data, rules.avg_pool_backward, (edge(t),), (), windows)


def adaptive_avg_pool(x: TensorLike, output_size: Sequence[int]) -> Tensor:
    """The means of `output_size` windows that cover each axis evenly."""
    return _linear(x, ops.adaptive_avg_pool, rules.adaptive_avg_pool, output_size, ())


def adaptive_avg_pool_backward(grad: TensorLike, input_size: Sequence[int]) -> Tensor:
    """The adjoint of `adaptive_avg_pool`."""
    rule = rules.adaptive_avg_pool_backward
    return _linear(grad, ops.adaptive_avg_pool_backward, rule, input_size, ())


def interpolate(
    x: TensorLike,
    size: Sequence[int],
    mode: str = "nearest",
    align_corners: bool = False,
    scale: Sequence[float] | None = None,
) -> Tensor:
    """The last axes resampled to `size`; see `ops.interpolate`."""
    return _linear(x, ops.interpolate, rules.interpolate, size, (mode, align_corners, scale))


def interpolate_backward(
    grad: TensorLike,
    input_size: Sequence[int],
    mode: str,
    align_corners: bool,
    scale: Sequence[float] | None,
) -> Tensor:
    """The adjoint of `interpolate`."""
    settings = (mode, align_corners, scale)
    rule = rules.interpolate_backward
    return _linear(grad, ops.interpolate_backward, rule, input_size, settings)
