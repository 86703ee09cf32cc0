"""Convolutions over one or two spatial axes, transposed convolutions, and their gradients.

A convolution here is deep learning's: a cross-correlation. Sizes follow PyTorch's,
``out = (in + padding - dilation * (kernel - 1) - 1) // stride + 1``.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vectile import _core
from vectile.ops.gemm import Activation
from vectile.ops.sizes import Sizes, sizes

__all__ = [
    "conv1d",
    "conv1d_input_grad",
    "conv1d_weight_grad",
    "conv2d",
    "conv2d_input_grad",
    "conv2d_weight_grad",
    "conv_transpose1d",
    "conv_transpose2d",
]

Padding = Sizes | Literal["same", "valid"]


class ConvSettings(NamedTuple):
    """One number per spatial axis; of the padding two, before and after."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int


def settings_of(
    op: str,
    axes: int,
    kernel: Sequence[int],
    stride: Sizes = 1,
    padding: Padding = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> ConvSettings:
    """The settings in their full form; "same" needs the kernel's sizes."""
    steps = sizes(op, "stride", stride, axes)
    apart = sizes(op, "dilation", dilation, axes)
    if padding == "valid":
        around: tuple[int, ...] = (0,) * (2 * axes)
    elif padding == "same":
        if any(s != 1 for s in steps):
            raise ValueError(f"{op}: stride value: expected 1 with padding='same', got {stride}")
        if len(kernel) != axes:
            raise ValueError(f"{op}: weight ndim: expected {axes + 2}, got {len(kernel) + 2}")
        totals = [d * (k - 1) for d, k in zip(apart, kernel, strict=True)]
        around = tuple([p for total in totals for p in (total // 2, total - total // 2)])
    elif isinstance(padding, str):
        raise ValueError(
            f"{op}: padding value: expected int, {axes} of them, 'same' or 'valid', got {padding!r}"
        )
    else:
        around = tuple([p for p in sizes(op, "padding", padding, axes) for _ in range(2)])
    return ConvSettings(steps, around, apart, operator.index(groups))


def transposed(
    op: str,
    axes: int,
    x_shape: Sequence[int],
    weight_shape: Sequence[int],
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> tuple[tuple[int, ...], ConvSettings]:
    """The result's shape, and the convolution that leads from it to x: the one to be transposed.

    ``out = (in - 1) * stride - 2 * padding + dilation * (kernel - 1) + output_padding + 1``.
    """
    if len(weight_shape) != axes + 2:
        raise ValueError(f"{op}: weight ndim: expected {axes + 2}, got {len(weight_shape)}")
    if len(x_shape) not in (axes + 1, axes + 2):
        raise ValueError(
            f"{op}: x ndim: expected {axes + 2}, or {axes + 1} without a batch, got {len(x_shape)}"
        )
    if x_shape[-axes - 1] != weight_shape[0]:
        raise ValueError(f"{op}: x channels: expected {weight_shape[0]}, got {x_shape[-axes - 1]}")
    if isinstance(padding, str):
        raise TypeError(f"{op}: padding type: expected int or {axes} of them, got {padding!r}")
    steps = sizes(op, "stride", stride, axes)
    around = sizes(op, "padding", padding, axes)
    more = sizes(op, "output_padding", output_padding, axes)
    apart = sizes(op, "dilation", dilation, axes)
    out = []
    for n, k, s, p, o, d in zip(
        x_shape[-axes:], weight_shape[2:], steps, around, more, apart, strict=True
    ):
        if p < 0:
            raise ValueError(f"{op}: padding value: expected at least 0, got {p}")
        if not 0 <= o < max(s, d, 1):
            raise ValueError(
                f"{op}: output_padding value: expected at least 0 and less than stride or dilation, "
                f"got {o}"
            )
        out.append((n - 1) * s - 2 * p + d * (k - 1) + o + 1)
        if n > 0 and out[-1] < 1:
            raise ValueError(f"{op}: result size: expected at least 1, got {out[-1]}")
    if any(n == 0 for n in x_shape[-axes:]):
        raise ValueError(f"{op}: x size: expected at least 1, got {tuple(x_shape[-axes:])}")
    groups = operator.index(groups)
    ends = tuple([q for p, o in zip(around, more, strict=True) for q in (p, p - o)])
    shape = (*x_shape[: -axes - 1], weight_shape[1] * groups, *out)
    return shape, ConvSettings(steps, ends, apart, groups)


# ---- convolutions ----------------------------------------------------------------------------------


def conv1d(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Sizes = 1,
    padding: Padding = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    *,
    activation: Activation | None = None,
) -> NDArray[Any]:
    """Return :func:`conv2d` over one spatial axis: x (N, C, L), weight (OC, C / groups, k)."""
    settings = stride, padding, dilation, groups
    return _convolve("conv1d", 1, x, weight, bias, settings, activation)


def conv2d(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Sizes = 1,
    padding: Padding = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    *,
    activation: Activation | None = None,
) -> NDArray[Any]:
    """Return ``activation(conv(x, weight) + bias)``, a cross-correlation of images with filters.

    Implicit GEMM: no matrix of patches is formed. The error of an element is at most
    ``(K + 1) * eps * (conv(|x|, |weight|) + |bias|)`` with ``K = C / groups * kh * kw``, before the
    activation.

    Args:
        x: (N, C, H, W), or (C, H, W) for one image; floating-point, any strides.
        weight: (OC, C / groups, kh, kw).
        bias: (OC,) or None.
        stride, dilation: int or (vertical, horizontal).
        padding: zeros on either side, int or (vertical, horizontal); "valid" is 0, "same" keeps the
            size (stride 1), with the odd zero after.
        groups: channels are split into so many independent convolutions.
        activation: one of :data:`Activation`, or None.

    Returns:
        (N, OC, OH, OW), or (OC, OH, OW).

    Raises:
        TypeError: dtypes differ or are not floating-point; a setting is not an integer.
        ValueError: shapes do not match, a setting is out of range, or the kernel does not fit into
            the padded image.
    """
    settings = stride, padding, dilation, groups
    return _convolve("conv2d", 2, x, weight, bias, settings, activation)


def conv_transpose1d(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
    *,
    activation: Activation | None = None,
) -> NDArray[Any]:
    """Return :func:`conv_transpose2d` over one spatial axis: x (N, C, L), weight (C, OC / groups, k)."""
    settings = stride, padding, output_padding, groups, dilation
    return _transpose("conv_transpose1d", 1, x, weight, bias, settings, activation)


def conv_transpose2d(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
    *,
    activation: Activation | None = None,
) -> NDArray[Any]:
    """Return the transposed convolution: the gradient of :func:`conv2d`'s input, as an upsampling layer.

    Args:
        x: (N, C, H, W) or (C, H, W).
        weight: (C, OC / groups, kh, kw).
        bias: (OC,) or None.
        stride, padding, dilation: those of the convolution that is transposed.
        output_padding: rows and columns added to the result at its end; less than stride or dilation.
        groups, activation: as for :func:`conv2d`.

    Returns:
        (N, OC, OH, OW), ``OH = (H - 1) * stride - 2 * padding + dilation * (kh - 1) +
        output_padding + 1``.

    Raises:
        As :func:`conv2d`.
    """
    settings = stride, padding, output_padding, groups, dilation
    return _transpose("conv_transpose2d", 2, x, weight, bias, settings, activation)


# ---- gradients -------------------------------------------------------------------------------------


def conv1d_input_grad(
    grad: ArrayLike,
    weight: ArrayLike,
    input_shape: Sequence[int],
    stride: Sizes = 1,
    padding: Padding = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> NDArray[Any]:
    """Return the gradient of :func:`conv1d`'s x; see :func:`conv2d_input_grad`."""
    settings = stride, padding, dilation, groups
    return _input_grad("conv1d_input_grad", 1, grad, weight, input_shape, settings)


def conv2d_input_grad(
    grad: ArrayLike,
    weight: ArrayLike,
    input_shape: Sequence[int],
    stride: Sizes = 1,
    padding: Padding = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> NDArray[Any]:
    """Return the gradient of :func:`conv2d`'s x, of shape `input_shape`.

    `grad` has the shape of the result; the other arguments and the errors are those of the forward.
    """
    settings = stride, padding, dilation, groups
    return _input_grad("conv2d_input_grad", 2, grad, weight, input_shape, settings)


def conv1d_weight_grad(
    grad: ArrayLike,
    x: ArrayLike,
    weight_shape: Sequence[int],
    stride: Sizes = 1,
    padding: Padding = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> NDArray[Any]:
    """Return the gradient of :func:`conv1d`'s weight; see :func:`conv2d_weight_grad`."""
    settings = stride, padding, dilation, groups
    return _weight_grad("conv1d_weight_grad", 1, grad, x, weight_shape, settings)


def conv2d_weight_grad(
    grad: ArrayLike,
    x: ArrayLike,
    weight_shape: Sequence[int],
    stride: Sizes = 1,
    padding: Padding = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> NDArray[Any]:
    """Return the gradient of :func:`conv2d`'s weight, of shape `weight_shape`.

    `grad` has the shape of the result; the other arguments and the errors are those of the forward. The
    sum over images and pixels is taken in an order that depends on the shapes only.
    """
    settings = stride, padding, dilation, groups
    return _weight_grad("conv2d_weight_grad", 2, grad, x, weight_shape, settings)


# ---- over any number of axes -------------------------------------------------------------------------


def _convolve(
    op: str,
    axes: int,
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None,
    settings: tuple[Any, ...],
    activation: Activation | None,
) -> NDArray[Any]:
    full = settings_of(op, axes, np.shape(weight)[2:], *settings)
    return _core.conv(op, axes, x, weight, bias, *full, activation)


def _transpose(
    op: str,
    axes: int,
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None,
    settings: tuple[Any, ...],
    activation: Activation | None,
) -> NDArray[Any]:
    shape, full = transposed(op, axes, np.shape(x), np.shape(weight), *settings)
    return _core.conv_input_grad(op, axes, x, weight, bias, shape, *full, activation)


def _input_grad(
    op: str,
    axes: int,
    grad: ArrayLike,
    weight: ArrayLike,
    shape: Sequence[int],
    settings: tuple[Any, ...],
) -> NDArray[Any]:
    full = settings_of(op, axes, np.shape(weight)[2:], *settings)
    return _core.conv_input_grad(op, axes, grad, weight, None, shape, *full)


def _weight_grad(
    op: str,
    axes: int,
    grad: ArrayLike,
    x: ArrayLike,
    shape: Sequence[int],
    settings: tuple[Any, ...],
) -> NDArray[Any]:
    full = settings_of(op, axes, tuple(shape)[2:], *settings)
    return _core.conv_weight_grad(op, axes, grad, x, shape, *full)
