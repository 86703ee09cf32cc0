"""Pooling and interpolation over the last one or two axes, with their backward passes.

``x`` is (..., length) for the names in 1d and (..., height, width) for those in 2d, with at least one
leading axis, of any strides. A size is one int for all pooled axes or one per axis. The functions without
a number take tuples, whose length says how many axes are pooled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import ArrayLike, NDArray

from vectile import _core
from vectile.ops.sizes import Sizes, sizes

__all__ = [
    "adaptive_avg_pool",
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool_backward",
    "adaptive_max_pool",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "avg_pool",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool_backward",
    "interpolate",
    "interpolate_backward",
    "max_pool",
    "max_pool1d",
    "max_pool2d",
    "max_pool_backward",
]


def _windows(
    op: str, axes: int, kernel_size: Sizes, stride: Sizes | None, padding: Sizes
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    kernel = sizes(op, "kernel_size", kernel_size, axes)
    step = kernel if stride is None else sizes(op, "stride", stride, axes)
    return kernel, step, sizes(op, "padding", padding, axes)


def max_pool(
    x: ArrayLike,
    kernel_size: Sequence[int],
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Return the largest element of each window; NaN where it has one.

    A window holds ``kernel_size`` elements, ``dilation`` apart; windows are ``stride`` apart (None:
    ``kernel_size``) on an axis with ``padding`` elements at either end that no maximum sees. ``ceil_mode``
    keeps a last window that reaches over the end.

    Returns:
        The maxima, or with ``return_indices`` also the place of each in its plane (int32, row-major), the
        first of equals.

    Raises:
        TypeError: ``x`` is not a floating-point array.
        ValueError: ``x`` has too few axes or an empty pooled one; a size is out of range; ``padding`` is more
            than half of a window.
    """
    axes = len(kernel_size)
    kernel, step, border = _windows("max_pool", axes, kernel_size, stride, padding)
    apart = sizes("max_pool", "dilation", dilation, axes)
    return _core.max_pool(x, kernel, step, border, apart, ceil_mode, return_indices)


def max_pool1d(
    x: ArrayLike,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Return :func:`max_pool` over the last axis."""
    kernel = sizes("max_pool1d", "kernel_size", kernel_size, 1)
    return max_pool(x, kernel, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(
    x: ArrayLike,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Return :func:`max_pool` over the last two axes."""
    kernel = sizes("max_pool2d", "kernel_size", kernel_size, 2)
    return max_pool(x, kernel, stride, padding, dilation, ceil_mode, return_indices)


def adaptive_max_pool(
    x: ArrayLike, output_size: Sequence[int], return_indices: bool = False
) -> Any:
    """Return the maxima of ``output_size`` windows that cover each axis evenly.

    Window o of n begins at ``floor(o * length / n)`` and ends before ``ceil((o + 1) * length / n)``.
    Indices and errors as for :func:`max_pool`.
    """
    size = sizes("adaptive_max_pool", "output_size", output_size, len(output_size))
    return _core.adaptive_max_pool(x, size, return_indices)


def adaptive_max_pool1d(x: ArrayLike, output_size: Sizes, return_indices: bool = False) -> Any:
    """Return :func:`adaptive_max_pool` over the last axis."""
    size = sizes("adaptive_max_pool1d", "output_size", output_size, 1)
    return adaptive_max_pool(x, size, return_indices)


def adaptive_max_pool2d(x: ArrayLike, output_size: Sizes, return_indices: bool = False) -> Any:
    """Return :func:`adaptive_max_pool` over the last two axes."""
    size = sizes("adaptive_max_pool2d", "output_size", output_size, 2)
    return adaptive_max_pool(x, size, return_indices)


def max_pool_backward(grad: ArrayLike, index: ArrayLike, input_size: Sequence[int]) -> NDArray[Any]:
    """Return the gradient of the max pools: each element of ``grad`` added at its ``index``.

    ``input_size`` is the length of the forward's pooled axes. IndexError for an index outside its plane.
    """
    size = sizes("max_pool_backward", "input_size", input_size, len(input_size))
    return _core.max_pool_backward(grad, index, size)


def avg_pool(
    x: ArrayLike,
    kernel_size: Sequence[int],
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> NDArray[Any]:
    """Return the mean of each window.

    Windows and errors are those of :func:`max_pool`. The sum is divided by the number of elements in the
    window, those in the padding (zeros) among them if ``count_include_pad``, or by ``divisor_override``.
    """
    axes = len(kernel_size)
    windows = _windows("avg_pool", axes, kernel_size, stride, padding)
    return _core.avg_pool(x, *windows, ceil_mode, count_include_pad, divisor_override)


def avg_pool1d(
    x: ArrayLike,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> NDArray[Any]:
    """Return :func:`avg_pool` over the last axis."""
    kernel = sizes("avg_pool1d", "kernel_size", kernel_size, 1)
    return avg_pool(x, kernel, stride, padding, ceil_mode, count_include_pad)


def avg_pool2d(
    x: ArrayLike,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> NDArray[Any]:
    """Return :func:`avg_pool` over the last two axes."""
    kernel = sizes("avg_pool2d", "kernel_size", kernel_size, 2)
    return avg_pool(x, kernel, stride, padding, ceil_mode, count_include_pad, divisor_override)


def avg_pool_backward(
    grad: ArrayLike,
    input_size: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> NDArray[Any]:
    """Return the gradient of :func:`avg_pool`, whose pooled axes were ``input_size`` long."""
    op, axes = "avg_pool_backward", len(kernel_size)
    size = sizes(op, "input_size", input_size, axes)
    windows = _windows(op, axes, kernel_size, stride, padding)
    return _core.avg_pool_backward(
        grad, size, *windows, ceil_mode, count_include_pad, divisor_override
    )


def adaptive_avg_pool(x: ArrayLike, output_size: Sequence[int]) -> NDArray[Any]:
    """Return the means of ``output_size`` windows that cover each axis as in :func:`adaptive_max_pool`."""
    size = sizes("adaptive_avg_pool", "output_size", output_size, len(output_size))
    return _core.adaptive_avg_pool(x, size)


def adaptive_avg_pool1d(x: ArrayLike, output_size: Sizes) -> NDArray[Any]:
    """Return :func:`adaptive_avg_pool` over the last axis."""
    return adaptive_avg_pool(x, sizes("adaptive_avg_pool1d", "output_size", output_size, 1))


def adaptive_avg_pool2d(x: ArrayLike, output_size: Sizes) -> NDArray[Any]:
    """Return :func:`adaptive_avg_pool` over the last two axes."""
    return adaptive_avg_pool(x, sizes("adaptive_avg_pool2d", "output_size", output_size, 2))


def adaptive_avg_pool_backward(grad: ArrayLike, input_size: Sequence[int]) -> NDArray[Any]:
    """Return the gradient of :func:`adaptive_avg_pool`, whose pooled axes were ``input_size`` long."""
    size = sizes("adaptive_avg_pool_backward", "input_size", input_size, len(input_size))
    return _core.adaptive_avg_pool_backward(grad, size)


def interpolate(
    x: ArrayLike,
    size: Sequence[int],
    mode: str = "nearest",
    align_corners: bool = False,
    scale: Sequence[float] | None = None,
) -> NDArray[Any]:
    """Return ``x`` with its last ``len(size)`` axes resampled to ``size``.

    Output o reads the input at ``o / scale`` ("nearest": its floor), at ``(o + 0.5) / scale - 0.5``
    ("nearest-exact", "linear": between the two neighbours; "cubic": between four, Keys 1981 with a = -0.75),
    or with ``align_corners`` so that the first and last elements keep their places ("linear", "cubic").

    Args:
        x: floating-point, (..., length) or (..., height, width).
        size: the new lengths.
        mode: "nearest", "nearest-exact", "linear" or "cubic", along each of the axes.
        align_corners: see above.
        scale: output per input length; None, or 0 for an axis, is the quotient of the lengths.

    Raises:
        TypeError, ValueError: as :func:`max_pool`, and for another mode.
    """
    lengths = sizes("interpolate", "size", size, len(size))
    scales = [0.0] * len(lengths) if scale is None else scale
    return _core.interpolate(x, lengths, mode, align_corners, scales)


def interpolate_backward(
    grad: ArrayLike,
    input_size: Sequence[int],
    mode: str = "nearest",
    align_corners: bool = False,
    scale: Sequence[float] | None = None,
) -> NDArray[Any]:
    """Return the gradient of :func:`interpolate`, whose resampled axes were ``input_size`` long."""
    lengths = sizes("interpolate_backward", "input_size", input_size, len(input_size))
    scales = [0.0] * len(lengths) if scale is None else scale
    return _core.interpolate_backward(grad, lengths, mode, align_corners, scales)
