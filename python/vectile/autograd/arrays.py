"""The namespace in which a rule runs on plain arrays: `vectile.ops`, and NumPy for views and indexing.

Every name here has a Tensor counterpart of the same signature in `composite`, which is where the same
rule runs when its result must itself be differentiable.
"""

# ruff: noqa: F401  (most names are here for the rules)
# NumPy's stubs say Any for what its methods return.
# mypy: disable-error-code=no-any-return

from __future__ import annotations

import builtins
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy import cos, expand_dims, flip, sin
from numpy.typing import NDArray

from vectile import _core, ops
from vectile.device import as_array, is_array, to
from vectile.ops import (
    adaptive_avg_pool,
    adaptive_avg_pool_backward,
    add,
    avg_pool,
    avg_pool_backward,
    bias_activation_dropout_backward,
    cross_entropy_backward,
    divide,
    dropout,
    embedding,
    embedding_backward,
    erf_backward,
    exp,
    gelu_backward,
    interpolate,
    interpolate_backward,
    leaky_relu_backward,
    log,
    log1p,
    log_softmax_backward,
    matmul,
    max_pool_backward,
    maximum,
    minimum,
    multiply,
    negative,
    prelu_backward,
    relu_backward,
    sigmoid_backward,
    silu_backward,
    softmax_backward,
    softplus_backward,
    subtract,
    sum,
    tanh_backward,
)
from vectile.ops.recurrent import recurrent_backward as _recurrent_backward
from vectile.runtime import empty, is_floating, is_half, named_dtype

Array = NDArray[Any]


def weak(x: Any) -> Any:
    """A NumPy scalar as Python's, which takes the dtype of the array beside it."""
    return x.item() if isinstance(x, np.generic) else x


def power(x: Any, exponent: Any) -> Array:
    """`x ** exponent`; the exponents that are one cheap operation are done as one."""
    x, exponent = weak(x), weak(exponent)
    if is_array(x) and is_array(exponent) and x.dtype != exponent.dtype:
        raise TypeError(f"power: exponent dtype: expected {x.dtype}, got {exponent.dtype}")
    if isinstance(exponent, (int, float)):
        if exponent == 2:
            return multiply(x, x)
        if exponent == 1:
            return x.copy()
        if exponent == -1:
            return divide(1.0, x)
    result = as_array(np.power(x, exponent))
    kind = next((v.dtype for v in (x, exponent) if is_array(v)), result.dtype)
    return result.astype(kind) if is_half(kind) and result.dtype != kind else result


def where(condition: Any, a: Any, b: Any) -> Array:
    """`np.where`, in the half type of either array: NumPy takes bfloat16 beside a number to float64."""
    result = np.where(condition, a, b)
    arrays = (x.dtype for x in (a, b) if is_array(x) and is_half(x.dtype))
    return result.astype(next(arrays, result.dtype), copy=False)


def broadcast_to(x: Array, shape: tuple[int, ...]) -> Array:
    """A view of `x` repeated to `shape`; a single number by the short way (the end of every backward)."""
    if x.ndim == 0 and isinstance(x, np.ndarray):
        return np.ndarray(shape, x.dtype, x, 0, (0,) * len(shape))
    return np.broadcast_to(x, shape)


def layer_norm_backward(
    grad: Array, x: Array, weight: Any, mean: Array, rstd: Array, eps: float
) -> Any:
    """`ops.layer_norm_backward`, which has no use for `eps`."""
    return ops.layer_norm_backward(grad, x, weight, mean, rstd)


def rms_norm_backward(grad: Array, x: Array, weight: Any, rstd: Array, eps: float) -> Any:
    """`ops.rms_norm_backward`, which has no use for `eps`."""
    return ops.rms_norm_backward(grad, x, weight, rstd)


def batch_norm_backward(
    grad: Array, x: Array, weight: Any, mean: Array, rstd: Array, training: bool, eps: float
) -> Any:
    """`ops.batch_norm_backward`, which has no use for `eps`."""
    return ops.batch_norm_backward(grad, x, weight, mean, rstd, training)


def group_norm_backward(
    grad: Array, x: Array, weight: Any, num_groups: int, mean: Array, rstd: Array, eps: float
) -> Any:
    """`ops.group_norm_backward`, which has no use for `eps`."""
    return ops.group_norm_backward(grad, x, num_groups, weight, mean, rstd)


def scaled_dot_product_attention_backward(
    grad: Array,
    q: Array,
    k: Array,
    v: Array,
    sinks: Any,
    out: Array,
    lse: Array,
    mask: Any,
    options: dict[str, Any],
) -> Any:
    """`ops.scaled_dot_product_attention_backward` by position: the gradients of q, k, v and sinks."""
    found = ops.scaled_dot_product_attention_backward(
        grad, q, k, v, out, lse, mask, sinks=sinks, **options
    )
    return (*found, None) if sinks is None else found


def rotary_embedding(
    x: Array, cosine: Array, sine: Array, interleaved: bool, inverse: bool
) -> Array:
    """`ops.rotary_embedding` by position."""
    return ops.rotary_embedding(x, cosine, sine, interleaved=interleaved, inverse=inverse)


def conv(x: Array, weight: Array, settings: Any) -> Array:
    """The convolution over the axes of `weight` after the first two."""
    return _core.conv("conv", weight.ndim - 2, x, weight, None, *settings)


def conv_input_grad(grad: Array, weight: Array, shape: Sequence[int], settings: Any) -> Array:
    """The gradient of its input."""
    axes = weight.ndim - 2
    return _core.conv_input_grad("conv_input_grad", axes, grad, weight, None, shape, *settings)


def conv_weight_grad(grad: Array, x: Array, shape: Sequence[int], settings: Any) -> Array:
    """The gradient of its weight."""
    return _core.conv_weight_grad("conv_weight_grad", len(shape) - 2, grad, x, shape, *settings)


def recurrent_backward(
    cell: Any, grad: Array, states: Array, kept: Any, operands: Any, *settings: Any
) -> Any:
    """The fused backward, which has no use for the biases, the last two operands."""
    return _recurrent_backward(cell, grad, states, *kept, *operands[:-2], *settings)


def _zeros(shape: tuple[int, ...], like: Array) -> Array:
    """Zeros of the dtype of `like`, and where that is."""
    if not isinstance(like, np.ndarray):
        return np.zeros(shape, like.dtype, like=like)
    out = empty(shape, like.dtype)
    out.fill(0)
    return out


def reshape(x: Array, shape: Any) -> Array:
    """``x.reshape(shape)``; where that is a copy, one in cached memory."""
    if isinstance(x, np.ndarray) and _CAN_ASK_FOR_A_VIEW and not x.flags.c_contiguous:
        try:
            return x.reshape(shape, copy=False)
        except ValueError:
            packed = empty(x.shape, x.dtype)
            np.copyto(packed, x)
            return packed.reshape(shape)
    return x.reshape(shape)


_CAN_ASK_FOR_A_VIEW = np.lib.NumpyVersion(np.__version__) >= "2.1.0"


def transpose(x: Array, axes: tuple[int, ...] | None) -> Array:
    """``x.transpose(axes)``: the method costs a fraction of NumPy's function, as below."""
    return x.transpose(axes)


def swapaxes(x: Array, axis1: int, axis2: int) -> Array:
    """``x.swapaxes(axis1, axis2)``."""
    return x.swapaxes(axis1, axis2)


def sum_to(x: Array, shape: tuple[int, ...]) -> Array:
    """`ops.sum_to`, and x itself where nothing is to be summed."""
    return x if x.shape == shape else ops.sum_to(x, shape)


def cast(x: Array, dtype: Any) -> Array:
    """`x` in another dtype; always a new array."""
    kind = named_dtype(dtype)
    if is_floating(x.dtype) and is_floating(kind) and (is_half(x.dtype) or is_half(kind)):
        return ops.cast(x, kind)
    return x.astype(kind)


def concatenate(arrays: Sequence[Array], axis: int = 0) -> Array:
    """Join along an existing axis."""
    shape, others = list(arrays[0].shape), {a.dtype for a in arrays}
    if len(others) > 1 or not shape or not isinstance(arrays[0], np.ndarray):
        return np.concatenate(arrays, axis)
    shape[axis] = builtins.sum([a.shape[axis] for a in arrays])
    return np.concatenate(arrays, axis, out=empty(shape, arrays[0].dtype))


def cumsum(x: Array, axis: int) -> Array:
    """Running sum along `axis`, in x's dtype."""
    return np.cumsum(x, axis, dtype=x.dtype)


def getitem(x: Array, index: Any) -> Array:
    """`x[index]`, an array even where NumPy gives a scalar."""
    return as_array(x[index])


class Slices:
    """A gradient known only at some slices, the rest being zero: filled in once, when all are there."""

    __slots__ = ("like", "parts", "shape")

    def __init__(self, grad: Array, index: Any, shape: tuple[int, ...]) -> None:
        self.parts, self.shape, self.like = [(index, grad)], shape, grad

    def __iadd__(self, other: Slices | Array) -> Slices:
        self.parts += other.parts if isinstance(other, Slices) else [(..., other)]
        return self

    def dense(self) -> Array:
        """The gradient as one array."""
        out = _zeros(self.shape, self.like)
        for index, grad in self.parts:
            out[index] += grad
        return out


def _is_basic(index: Any) -> bool:
    """Whether `index` is NumPy's basic indexing, which reaches no element twice."""
    return all(
        item is None or item is ... or isinstance(item, (slice, np.integer)) or type(item) is int
        for item in (index if isinstance(index, tuple) else (index,))
    )


def getitem_backward(grad: Array, index: Any, shape: tuple[int, ...]) -> Array | Slices:
    """Zeros of `shape` with `grad` added at `index`: the adjoint of `getitem`."""
    if _is_basic(index):
        return Slices(grad, index, shape)
    if is_array(index) and index.dtype.kind in "iu" and 0 not in shape:
        rows = grad.reshape(*index.shape, math.prod(shape[1:]))  # as an embedding's
        index = index.astype(np.int64)  # a narrow type cannot hold index + length
        index = np.where(index < 0, index + shape[0], index)
        return embedding_backward(rows, index, shape[0]).reshape(shape)
    if is_array(index) and index.dtype == bool:
        out = _zeros(shape, grad)
        out[index] = grad
        return out
    return _added_at(index, grad, shape)


def _added_at(index: Any, grad: Array, shape: tuple[int, ...]) -> Array:
    """Zeros of `shape` with `grad` added at `index`, as often as that names a place."""
    if isinstance(grad, np.ndarray):
        out = _zeros(shape, grad)
        np.add.at(out, index, grad)
        return out
    # CuPy's arrays have no add.at: each place is a row of one element
    places = np.arange(math.prod(shape), like=grad).reshape(shape)[index]
    rows = grad.reshape(*places.shape, 1)
    return embedding_backward(rows, places, math.prod(shape)).reshape(shape)


def setitem(x: Array, index: Any, value: Any) -> Array:
    """A copy of `x` with `value` at `index`."""
    out = x.copy()
    out[index] = value
    return out


def gather(x: Array, index: Array, axis: int) -> Array:
    """`np.take_along_axis`."""
    return np.take_along_axis(x, index, axis)


def gather_backward(grad: Array, index: Array, axis: int, shape: tuple[int, ...]) -> Array:
    """Zeros of `shape` with `grad` added where `gather` read: its adjoint."""
    where_read = list(np.ix_(*(np.arange(n, like=index) for n in index.shape)))
    where_read[axis] = index
    return _added_at(tuple(where_read), grad, shape)


def pick_pooled(x: Array, index: Array, size: Sequence[int]) -> Array:
    """The elements of x's planes, its last ``len(size)`` axes, at `index`."""
    rows = x.reshape(-1, math.prod(size))
    places = index.reshape(len(rows), -1)
    return np.take_along_axis(rows, places, 1).reshape(index.shape)
