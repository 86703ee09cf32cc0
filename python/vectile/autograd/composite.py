"""The namespace in which a rule runs on Tensors, so that what it computes can be differentiated again.

It has the names of `arrays`. The fused backward kernels are spelled out here in ops that have rules: the
short ones as a formula, the others as the derivative of the forward's definition.
"""

# ruff: noqa: F401  (most names are here for the rules)

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from vectile.autograd.arithmetic import (
    add,
    cast,
    cos,
    cumsum,
    divide,
    erf,
    exp,
    log,
    log1p,
    matmul,
    maximum,
    mean,
    multiply,
    negative,
    power,
    sigmoid,
    sin,
    sqrt,
    subtract,
    sum,
    sum_to,
    tanh,
    to,
    where,
)
from vectile.autograd.attention import attention_by_parts, rotary_embedding
from vectile.autograd.conv import conv, conv_input_grad, conv_weight_grad
from vectile.autograd.engine import grad as _grad
from vectile.autograd.networks import dropout as _dropout
from vectile.autograd.networks import embedding, embedding_backward, log_softmax
from vectile.autograd.pool import (
    adaptive_avg_pool,
    adaptive_avg_pool_backward,
    avg_pool,
    avg_pool_backward,
    interpolate,
    interpolate_backward,
    max_pool_backward,
    pick_pooled,
)
from vectile.autograd.recurrent import recurrent_by_steps
from vectile.autograd.shaping import (
    broadcast_to,
    concatenate,
    expand_dims,
    flip,
    gather,
    gather_backward,
    getitem,
    getitem_backward,
    reshape,
    setitem,
    swapaxes,
    transpose,
)
from vectile.autograd.tensor import Tensor, as_tensor


def dropout(x: Tensor, p: float, seed: int) -> Tensor:
    return _dropout(x, p, True, seed)


# ---- formulas ------------------------------------------------------------------------------------------


def tanh_backward(g: Tensor, y: Tensor) -> Tensor:
    return g * (1.0 - y * y)


def sigmoid_backward(g: Tensor, y: Tensor) -> Tensor:
    return g * (y * (1.0 - y))


def relu_backward(g: Tensor, y: Tensor) -> Tensor:
    return where(y > 0, g, 0.0)


def erf_backward(g: Tensor, x: Tensor) -> Tensor:
    return g * (exp(-(x * x)) * (2 / math.sqrt(math.pi)))


def leaky_relu_backward(g: Tensor, x: Tensor, negative_slope: float) -> Tensor:
    return where(x > 0, g, g * negative_slope)


def prelu_backward(g: Tensor, x: Tensor, weight: Any) -> tuple[Tensor, Tensor]:
    positive = x > 0
    slopes = reshape(weight, () if weight.size == 1 else (-1,) + (1,) * (x.ndim - 2))
    dw = sum_to(where(positive, 0.0, g * x), slopes.shape)
    return where(positive, g, g * slopes), reshape(dw, weight.shape)


def silu_backward(g: Tensor, x: Tensor) -> Tensor:
    s = sigmoid(x)
    return g * (s * (1.0 + x * (1.0 - s)))


def softplus_backward(g: Tensor, x: Tensor) -> Tensor:
    return g * sigmoid(x)


def gelu_backward(g: Tensor, x: Tensor, approximate: str) -> Tensor:
    if approximate == "tanh":
        c = math.sqrt(2 / math.pi)
        t = tanh(x * (1.0 + 0.044715 * (x * x)) * c)
        slope = (1.0 - t * t) * (c * (1.0 + 3 * 0.044715 * (x * x)))
        return g * (0.5 * (1.0 + t + x * slope))
    density = exp(-0.5 * (x * x)) * (1 / math.sqrt(2 * math.pi))
    return g * (0.5 * (1.0 + erf(x * math.sqrt(0.5))) + x * density)


_BACKWARD_OF: dict[
    str, Callable[[Tensor, Tensor], Tensor]
] = {  # of an activation, from its argument
    "relu": relu_backward,  # positive where the result is
    "gelu": lambda g, x: gelu_backward(g, x, "none"),
    "gelu_tanh": lambda g, x: gelu_backward(g, x, "tanh"),
    "silu": silu_backward,
    "tanh": lambda g, x: tanh_backward(g, tanh(x)),
    "sigmoid": lambda g, x: sigmoid_backward(g, sigmoid(x)),
}


def bias_activation_dropout_backward(
    g: Tensor, x: Tensor, bias: Any, activation: str | None, p: float, seed: int
) -> tuple[Tensor, Tensor | None]:
    dx = dropout(g, p, seed)
    if activation is not None:
        dx = _BACKWARD_OF[activation](dx, x if bias is None else x + bias)
    return dx, None if bias is None else sum_to(dx, bias.shape)


def softmax_backward(g: Tensor, y: Tensor, axis: int) -> Tensor:
    return y * (g - sum(g * y, axis, True))


def log_softmax_backward(g: Tensor, y: Tensor, axis: int) -> Tensor:
    return g - exp(y) * sum(g, axis, True)


# ---- derivatives of definitions --------------------------------------------------------------------------


def _derivative(f: Callable[..., Tensor], g: Tensor, *operands: Any) -> tuple[Any, ...]:
    """The gradients of ``f(*operands)`` weighted by `g`, recorded; None for what requires none."""
    # Each operand is given a node of its own, so that one that appears twice is two variables.
    own = [None if x is None else reshape(x, as_tensor(x).shape) for x in operands]
    wanted = [x for x in own if x is not None and x.requires_grad]
    found = _grad(f(*own), wanted, g, create_graph=True, allow_unused=True)
    grads = iter([x * 0.0 if d is None else d for x, d in zip(wanted, found, strict=True)])
    return tuple([next(grads) if x is not None and x.requires_grad else None for x in own])


def layer_norm_backward(g: Tensor, x: Tensor, weight: Any, *stats: Any) -> tuple[Any, ...]:
    def forward(x: Tensor, weight: Any) -> Tensor:
        centred = x - mean(x, -1, True)
        y = centred / sqrt(mean(centred * centred, -1, True) + stats[-1])
        return y if weight is None else y * weight

    return *_derivative(forward, g, x, weight), sum_to(g, x.shape[-1:])


def rms_norm_backward(g: Tensor, x: Tensor, weight: Any, *stats: Any) -> tuple[Any, ...]:
    def forward(x: Tensor, weight: Any) -> Tensor:
        y = x / sqrt(mean(x * x, -1, True) + stats[-1])
        return y if weight is None else y * weight

    return _derivative(forward, g, x, weight)


def _by_channel(x: Any, like: Tensor) -> Any:
    """(channels,) as it broadcasts with (batch, channels, ...)."""
    return x.reshape((-1,) + (1,) * (like.ndim - 2))


def _sum_by_channel(x: Tensor) -> Tensor:
    return sum(x, (0, *range(2, x.ndim)))


def batch_norm_backward(
    g: Tensor, x: Tensor, weight: Any, average: Any, rstd: Any, training: bool, eps: float
) -> tuple[Any, ...]:
    axes = (0, *range(2, x.ndim))

    def forward(x: Tensor, weight: Any) -> Tensor:
        if training:
            centred = x - mean(x, axes, True)
            y = centred / sqrt(mean(centred * centred, axes, True) + eps)
        else:
            y = (x - _by_channel(average, x)) * _by_channel(rstd, x)
        return y if weight is None else y * _by_channel(weight, x)

    return *_derivative(forward, g, x, weight), _sum_by_channel(g)


def group_norm_backward(
    g: Tensor, x: Tensor, weight: Any, num_groups: int, *settings: Any
) -> tuple[Any, ...]:
    def forward(x: Tensor, weight: Any) -> Tensor:
        rows = reshape(x, (x.shape[0], num_groups, math.prod(x.shape[1:]) // num_groups))
        centred = rows - mean(rows, -1, True)
        y = reshape(centred / sqrt(mean(centred * centred, -1, True) + settings[-1]), x.shape)
        return y if weight is None else y * _by_channel(weight, x)

    return *_derivative(forward, g, x, weight), _sum_by_channel(g)


def cross_entropy_backward(
    g: Tensor,
    logits: Tensor,
    targets: Any,
    lse: Any,
    ignore_index: int,
    label_smoothing: float,
    reduction: str,
) -> Tensor:
    kept = targets != ignore_index
    wanted = np.full(logits.shape, label_smoothing / logits.shape[-1], logits.dtype)
    index = np.where(kept, targets, 0)[..., None]
    np.put_along_axis(wanted, index, wanted[..., :1] + (1 - label_smoothing), -1)
    wanted *= kept[..., None]
    if reduction == "mean":
        wanted /= kept.sum()
    if reduction == "none":
        g = expand_dims(g, -1)
    weighted = wanted * g
    return exp(log_softmax(logits)) * sum(weighted, -1, True) - weighted


def scaled_dot_product_attention_backward(
    g: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    sinks: Any,
    out: Any,
    lse: Any,
    mask: Any,
    options: dict[str, Any],
) -> tuple[Any, ...]:
    def forward(q: Tensor, k: Tensor, v: Tensor, sinks: Any) -> Tensor:
        return attention_by_parts(q, k, v, mask, sinks, options)

    return _derivative(forward, g, q, k, v, sinks)


def recurrent_backward(
    cell: str,
    g: Tensor,
    states: Any,
    kept: Any,
    operands: Any,
    reverse: bool,
    lengths: Any,
    want_x: bool,
    want_parameters: bool,
) -> tuple[Any, ...]:
    def forward(*operands: Any) -> Tensor:
        return recurrent_by_steps(cell, operands, reverse, lengths)

    return _derivative(forward, g, *operands)
