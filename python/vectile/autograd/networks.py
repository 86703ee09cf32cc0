"""The fused operations that networks are made of, as functions of Tensors."""

from __future__ import annotations

from typing import Any

from vectile import ops, random
from vectile.autograd import rules
from vectile.autograd.arithmetic import add, gelu, silu
from vectile.autograd.packed import PackedWeight, pack
from vectile.autograd.tape import mode
from vectile.autograd.tensor import (
    Tensor,
    TensorLike,
    array_of,
    as_tensor,
    constant,
    edge,
    track,
    wrap,
)
from vectile.device import as_array, is_array, on_device
from vectile.ops.gemm import Activation

__all__ = [
    "add_layer_norm",
    "add_rms_norm",
    "bias_activation_dropout",
    "binary_cross_entropy",
    "cross_entropy",
    "dropout",
    "embedding",
    "layer_norm",
    "linear",
    "log_softmax",
    "mean_squared_error",
    "pack",
    "rms_norm",
    "softmax",
]

#: Activations whose slope follows from their result, so that a kernel may apply them while recorded.
SLOPE_FROM_RESULT = ("relu", "tanh", "sigmoid")


def activate(op: str, y: Tensor, activation: str) -> Tensor:
    """The other activations, whose slope needs what goes into them; ValueError for an unknown name."""
    if activation == "gelu_tanh":
        return gelu(y, "tanh")
    if activation == "gelu":
        return gelu(y)
    if activation == "silu":
        return silu(y)
    raise ValueError(
        f"{op}: activation: expected None, 'relu', 'gelu', 'gelu_tanh', 'silu', 'tanh' or 'sigmoid', "
        f"got {activation!r}"
    )


def linear(
    x: TensorLike,
    weight: Any,
    bias: TensorLike | None = None,
    activation: Activation | None = None,
    residual: TensorLike | None = None,
) -> Tensor:
    """``activation(x @ weight.T + bias) + residual``, (..., out).

    x (..., in), weight (out, in), bias (out,) or None, residual (..., out) or None. `activation`: None,
    "relu", "gelu", "gelu_tanh", "silu", "tanh" or "sigmoid". `weight` may be a `PackedWeight`, or a
    PackedMatrix or a quantised one, through which no gradient is computed: RuntimeError if one is needed.
    """
    w = weight.weight if isinstance(weight, PackedWeight) else weight
    t, b = as_tensor(x), None if bias is None else as_tensor(bias)
    r = None if residual is None else as_tensor(residual)
    to_w = edge(w) if isinstance(w, Tensor) else None
    to_b = None if b is None else edge(b)
    to_r = None if r is None else edge(r)
    asked = t.requires_grad or to_w is not None or to_b is not None or to_r is not None
    matrix = array_of(weight) if w is weight else weight.matrix()
    offset = None if b is None else b._data
    if not asked or not mode.enabled:
        added = None if r is None else r._data
        return wrap(ops.linear(t._data, matrix, offset, activation=activation, residual=added))
    if not is_array(array_of(w)):
        raise RuntimeError(
            "linear: weight: a packed or quantized matrix has no gradient; use no_grad"
        )
    if activation is not None:
        if activation in SLOPE_FROM_RESULT:
            data = ops.linear(t._data, matrix, offset, activation=activation)
            edges, saved = (edge(t), to_w, to_b), (t, w)
            y = track(data, rules.linear_activation, edges, saved, (activation,), data)
        else:
            y = activate("linear", linear(t, weight, bias), activation)
        return y if r is None else add(y, r)
    if r is None:
        data = ops.linear(t._data, matrix, offset)
        return track(data, rules.linear, (edge(t), to_w, to_b), (t, w))
    data = ops.linear(t._data, matrix, offset, residual=r._data)
    return track(data, rules.linear_residual, (edge(t), to_w, to_b, to_r), (t, w))


def softmax(x: TensorLike, axis: int = -1) -> Tensor:
    """``exp(x) / sum(exp(x))`` along `axis`; a row of -inf gives zeros."""
    t = as_tensor(x)
    data = ops.softmax(t._data, axis)
    if not t.requires_grad or not mode.enabled:
        return wrap(data)
    return track(data, rules.softmax, (edge(t),), (), (axis,), data)


def log_softmax(x: TensorLike, axis: int = -1) -> Tensor:
    """``log(softmax(x))`` along `axis`, without overflow."""
    t = as_tensor(x)
    data = ops.log_softmax(t._data, axis)
    if not t.requires_grad or not mode.enabled:
        return wrap(data)
    return track(data, rules.log_softmax, (edge(t),), (), (axis,), data)


def layer_norm(
    x: TensorLike,
    weight: TensorLike | None = None,
    bias: TensorLike | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise over the last axis (Ba et al., arXiv 1607.06450); weight and bias: (n,) or None."""
    t = as_tensor(x)
    w = None if weight is None else as_tensor(weight)
    b = None if bias is None else as_tensor(bias)
    to_w = None if w is None else edge(w)
    to_b = None if b is None else edge(b)
    arguments = t._data, None if w is None else w._data, None if b is None else b._data, eps
    if not (t.requires_grad or to_w is not None or to_b is not None) or not mode.enabled:
        return wrap(ops.layer_norm(*arguments))
    data, mean, rstd = ops.layer_norm(*arguments, return_stats=True)
    return track(data, rules.layer_norm, (edge(t), to_w, to_b), (t, w), (mean, rstd, eps))


def rms_norm(x: TensorLike, weight: TensorLike | None = None, eps: float = 1e-6) -> Tensor:
    """Divide by the root mean square over the last axis (arXiv 1910.07467); weight: (n,) or None."""
    t = as_tensor(x)
    w = None if weight is None else as_tensor(weight)
    to_w = None if w is None else edge(w)
    arguments = t._data, None if w is None else w._data, eps
    if not (t.requires_grad or to_w is not None) or not mode.enabled:
        return wrap(ops.rms_norm(*arguments))
    data, rstd = ops.rms_norm(*arguments, return_stats=True)
    return track(data, rules.rms_norm, (edge(t), to_w), (t, w), (rstd, eps))


def add_layer_norm(
    x: TensorLike,
    residual: TensorLike,
    weight: TensorLike | None = None,
    bias: TensorLike | None = None,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor]:
    """`layer_norm` of ``x + residual``, and that sum: one pass over memory, recorded as its two parts."""
    t, r = as_tensor(x), as_tensor(residual)
    if not _alike(t, r):
        total = t + r
        return layer_norm(total, weight, bias, eps), total
    w = None if weight is None else as_tensor(weight)
    b = None if bias is None else as_tensor(bias)
    to_w = None if w is None else edge(w)
    to_b = None if b is None else edge(b)
    arguments = t._data, r._data, None if w is None else w._data, None if b is None else b._data
    needed = t.requires_grad or r.requires_grad
    if not (needed or to_w is not None or to_b is not None) or not mode.enabled:
        data, added = ops.add_layer_norm(*arguments, eps)
        return wrap(data), wrap(added)
    data, added, mean, rstd = ops.add_layer_norm(*arguments, eps, return_stats=True)
    total = track(added, rules.add, (edge(t), edge(r)), (), (None,)) if needed else wrap(added)
    edges = edge(total), to_w, to_b
    return track(data, rules.layer_norm, edges, (total, w), (mean, rstd, eps)), total


def add_rms_norm(
    x: TensorLike, residual: TensorLike, weight: TensorLike | None = None, eps: float = 1e-6
) -> tuple[Tensor, Tensor]:
    """`rms_norm` of ``x + residual``, and that sum: one pass over memory, recorded as its two parts."""
    t, r = as_tensor(x), as_tensor(residual)
    if not _alike(t, r):
        total = t + r
        return rms_norm(total, weight, eps), total
    w = None if weight is None else as_tensor(weight)
    to_w = None if w is None else edge(w)
    arguments = t._data, r._data, None if w is None else w._data, eps
    needed = t.requires_grad or r.requires_grad
    if not (needed or to_w is not None) or not mode.enabled:
        data, added = ops.add_rms_norm(*arguments)
        return wrap(data), wrap(added)
    data, added, rstd = ops.add_rms_norm(*arguments, return_stats=True)
    total = track(added, rules.add, (edge(t), edge(r)), (), (None,)) if needed else wrap(added)
    return track(data, rules.rms_norm, (edge(total), to_w), (total, w), (rstd, eps)), total


def _alike(a: Tensor, b: Tensor) -> bool:
    return a._data.shape == b._data.shape and a._data.dtype == b._data.dtype


def embedding(ids: TensorLike, weight: TensorLike) -> Tensor:
    """The rows ``weight[ids]``: ids of any integer dtype and shape (...), weight (n, d) -> (..., d)."""
    index, w = as_array(array_of(ids)), as_tensor(weight)
    data = ops.embedding(index, w._data)
    if not w.requires_grad or not mode.enabled:
        return wrap(data)
    return track(data, rules.embedding, (edge(w),), (), (constant(index), w._data.shape[0]))


def embedding_backward(grad: TensorLike, ids: Any, rows: int) -> Tensor:
    """`rows` rows of zeros with those of `grad` added at `ids`."""
    t = as_tensor(grad)
    data = ops.embedding_backward(t._data, ids, rows)
    if not t.requires_grad or not mode.enabled:
        return wrap(data)
    return track(data, rules.embedding_backward, (edge(t),), (), (ids, rows))


def dropout(
    x: TensorLike, p: float = 0.5, training: bool = True, seed: int | None = None
) -> Tensor:
    """Each element zero with probability p, else scaled by ``1 / (1 - p)``; x itself unless `training`.

    The mask follows from `seed`, by default the next one drawn from `vectile.manual_seed`'s generator.
    """
    t = as_tensor(x)
    if not training or p == 0:
        return t
    seed = random.next_seed() if seed is None else seed
    data = ops.dropout(t._data, p, seed)
    if not t.requires_grad or not mode.enabled:
        return wrap(data)
    return track(data, rules.dropout, (edge(t),), (), (p, seed))


def bias_activation_dropout(
    x: TensorLike,
    bias: TensorLike | None = None,
    activation: str | None = None,
    p: float = 0.0,
    seed: int | None = None,
) -> Tensor:
    """``dropout(activation(x + bias), p)`` in one pass over memory; bias (n,) for x (..., n).

    `activation`: None, "relu", "gelu", "gelu_tanh", "silu", "tanh" or "sigmoid". `seed` as for `dropout`.
    """
    t, b = as_tensor(x), None if bias is None else as_tensor(bias)
    if seed is None:
        seed = random.next_seed() if p else 0
    to_b = None if b is None else edge(b)
    settings = activation, p, seed
    data = ops.bias_activation_dropout(t._data, None if b is None else b._data, *settings)
    if not (t.requires_grad or to_b is not None) or not mode.enabled:
        return wrap(data)
    return track(data, rules.bias_activation_dropout, (edge(t), to_b), (t, b), settings)


def cross_entropy(
    logits: TensorLike,
    targets: TensorLike,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    """``-log_softmax(logits)[targets]``: logits (..., C), integer targets (...).

    `reduction`: "mean" over the targets that are not `ignore_index`, "sum", or "none" for shape (...).
    """
    t, index = as_tensor(logits), as_array(array_of(targets))
    settings = ignore_index, label_smoothing, reduction
    if not t.requires_grad or not mode.enabled:
        return wrap(ops.cross_entropy(t._data, index, *settings))
    data, lse = ops.cross_entropy(t._data, index, *settings, return_lse=True)
    return track(data, rules.cross_entropy, (edge(t),), (t,), (constant(index), lse, *settings))


def mean_squared_error(x: TensorLike, target: TensorLike) -> Tensor:
    """``mean((x - target) ** 2)`` of two operands of one shape, as one op."""
    t, u = as_tensor(x), as_tensor(target)
    if t._data.shape != u._data.shape:
        raise ValueError(
            f"mean_squared_error: target shape: expected {t._data.shape}, got {u._data.shape}"
        )
    difference = ops.subtract(t._data, u._data)
    data = ops.mean(ops.multiply(difference, difference, out=difference))
    to_t, to_u = edge(t), edge(u)
    if (to_t is None and to_u is None) or not mode.enabled:
        return wrap(data)
    return track(data, rules.mean_squared_error, (to_t, to_u), (t, u))


def binary_cross_entropy(x: TensorLike, target: TensorLike) -> Tensor:
    """``-(t log x + (1 - t) log(1 - x))`` of two operands of one shape in [0, 1], elementwise.

    A logarithm counts as -100 at least, and the slope of x stays finite, as in PyTorch. On a GPU the range is
    not looked at; an x beyond it gives NaN.
    """
    t, u = as_tensor(x), as_tensor(target)
    for name, a in (("x", t._data), ("target", u._data)):
        if a.shape != t._data.shape:
            raise ValueError(
                f"binary_cross_entropy: target shape: expected {t._data.shape}, got {a.shape}"
            )
        if a.size and not (on_device(a) or (a.min() >= 0 and a.max() <= 1)):
            worst = a[~((a >= 0) & (a <= 1))][0]
            raise ValueError(f"binary_cross_entropy: {name} value: expected in [0, 1], got {worst}")
    if_one = ops.maximum(ops.log(t._data), -100.0)
    if_zero = ops.maximum(ops.log1p(ops.negative(t._data)), -100.0)
    ones = ops.multiply(u._data, if_one)
    data = ops.subtract(ops.multiply(ops.subtract(u._data, 1.0), if_zero), ones)
    to_t, to_u = edge(t), edge(u)
    if (to_t is None and to_u is None) or not mode.enabled:
        return wrap(data)
    return track(data, rules.binary_cross_entropy, (to_t, to_u), (t, u))
