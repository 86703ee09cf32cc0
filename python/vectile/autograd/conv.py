"""Convolutions of Tensors. A convolution and the gradients of its two operands are each the others'
derivatives, so that any order of differentiation stays among three kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vectile import _core
from vectile.autograd import arrays, rules
from vectile.autograd.networks import SLOPE_FROM_RESULT, activate
from vectile.autograd.tape import mode
from vectile.autograd.tensor import Tensor, TensorLike, as_tensor, edge, track, wrap
from vectile.ops.conv import ConvSettings, Padding, settings_of, transposed
from vectile.ops.gemm import Activation
from vectile.ops.sizes import Sizes

__all__ = ["conv1d", "conv2d", "conv_transpose1d", "conv_transpose2d"]


def conv1d(
    x: TensorLike,
    weight: TensorLike,
    bias: TensorLike | None = None,
    stride: Sizes = 1,
    padding: Padding = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    activation: Activation | None = None,
) -> Tensor:
    """Convolution over one spatial axis: x (N, C, L), weight (OC, C / groups, k) -> (N, OC, OL)."""
    return _convolve("conv1d", 1, x, weight, bias, stride, padding, dilation, groups, activation)


def conv2d(
    x: TensorLike,
    weight: TensorLike,
    bias: TensorLike | None = None,
    stride: Sizes = 1,
    padding: Padding = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    activation: Activation | None = None,
) -> Tensor:
    """Convolution of images: x (N, C, H, W), weight (OC, C / groups, kh, kw) -> (N, OC, OH, OW).

    `padding`: int, (vertical, horizontal), "same" or "valid". `activation`: None, "relu", "gelu",
    "gelu_tanh", "silu", "tanh" or "sigmoid", applied after the bias. x may lack its batch axis.
    """
    return _convolve("conv2d", 2, x, weight, bias, stride, padding, dilation, groups, activation)


def conv_transpose1d(
    x: TensorLike,
    weight: TensorLike,
    bias: TensorLike | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
    activation: Activation | None = None,
) -> Tensor:
    """Transposed convolution over one axis: x (N, C, L), weight (C, OC / groups, k) -> (N, OC, OL)."""
    settings = stride, padding, output_padding, groups, dilation
    return _transpose("conv_transpose1d", 1, x, weight, bias, settings, activation)


def conv_transpose2d(
    x: TensorLike,
    weight: TensorLike,
    bias: TensorLike | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
    activation: Activation | None = None,
) -> Tensor:
    """Transposed convolution: x (N, C, H, W), weight (C, OC / groups, kh, kw) -> (N, OC, OH, OW).

    ``OH = (H - 1) * stride - 2 * padding + dilation * (kh - 1) + output_padding + 1``.
    """
    settings = stride, padding, output_padding, groups, dilation
    return _transpose("conv_transpose2d", 2, x, weight, bias, settings, activation)


def _convolve(
    op: str,
    axes: int,
    x: TensorLike,
    weight: TensorLike,
    bias: TensorLike | None,
    stride: Sizes,
    padding: Padding,
    dilation: Sizes,
    groups: int,
    activation: str | None,
) -> Tensor:
    t, w = as_tensor(x), as_tensor(weight)
    settings = settings_of(op, axes, w._data.shape[2:], stride, padding, dilation, groups)

    def run(b: Any, fused: str | None) -> Any:
        return _core.conv(op, axes, t._data, w._data, b, *settings, fused)

    return _record(op, run, rules.conv, rules.conv_activation, t, w, bias, settings, activation)


def _transpose(
    op: str,
    axes: int,
    x: TensorLike,
    weight: TensorLike,
    bias: TensorLike | None,
    arguments: tuple[Any, ...],
    activation: str | None,
) -> Tensor:
    t, w = as_tensor(x), as_tensor(weight)
    shape, settings = transposed(op, axes, t._data.shape, w._data.shape, *arguments)

    def run(b: Any, fused: str | None) -> Any:
        return _core.conv_input_grad(op, axes, t._data, w._data, b, shape, *settings, fused)

    return _record(
        op,
        run,
        rules.conv_input_grad,
        rules.conv_transpose_activation,
        t,
        w,
        bias,
        settings,
        activation,
    )


def _record(
    op: str,
    run: Any,
    rule: Any,
    rule_activation: Any,
    t: Tensor,
    w: Tensor,
    bias: TensorLike | None,
    settings: ConvSettings,
    activation: str | None,
) -> Tensor:
    """The result of `run`, recorded where an operand requires grad."""
    b = None if bias is None else as_tensor(bias)
    offset = None if b is None else b._data
    edges = (edge(t), edge(w), None if b is None else edge(b))
    if not mode.enabled or all(e is None for e in edges):
        return wrap(run(offset, activation))
    if activation is None:
        return track(run(offset, None), rule, edges, (t, w), (settings,))
    if activation in SLOPE_FROM_RESULT:
        data = run(offset, activation)
        return track(data, rule_activation, edges, (t, w), (settings, activation), data)
    return activate(op, track(run(offset, None), rule, edges, (t, w), (settings,)), activation)


# ---- what the rules call -----------------------------------------------------------------------------


def conv(x: TensorLike, weight: TensorLike, settings: ConvSettings) -> Tensor:
    """The convolution with settings in full."""
    t, w = as_tensor(x), as_tensor(weight)
    data = arrays.conv(t._data, w._data, settings)
    return _tracked(data, rules.conv, t, w, settings)


def conv_input_grad(
    grad: TensorLike, weight: TensorLike, shape: Sequence[int], settings: ConvSettings
) -> Tensor:
    """The gradient of the input, of `shape`."""
    g, w = as_tensor(grad), as_tensor(weight)
    data = arrays.conv_input_grad(g._data, w._data, shape, settings)
    return _tracked(data, rules.conv_input_grad, g, w, settings)


def conv_weight_grad(
    grad: TensorLike, x: TensorLike, shape: Sequence[int], settings: ConvSettings
) -> Tensor:
    """The gradient of the weight, of `shape`."""
    g, t = as_tensor(grad), as_tensor(x)
    data = arrays.conv_weight_grad(g._data, t._data, shape, settings)
    return _tracked(data, rules.conv_weight_grad, g, t, settings)


def _tracked(data: Any, rule: Any, a: Tensor, b: Tensor, settings: ConvSettings) -> Tensor:
    edges = edge(a), edge(b), None
    if not mode.enabled or all(e is None for e in edges):
        return wrap(data)
    return track(data, rule, edges, (a, b), (settings,))
