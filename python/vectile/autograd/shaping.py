"""The operations that only move data: views, indexing, joining and splitting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vectile.autograd import arrays, rules
from vectile.autograd.tape import mode
from vectile.autograd.tensor import (
    Tensor,
    TensorLike,
    array_of,
    as_tensor,
    constant,
    edge,
    join_dtypes,
    track,
    view,
    wrap,
)
from vectile.device import as_array, is_array, near

__all__ = [
    "broadcast_to",
    "concatenate",
    "expand_dims",
    "flip",
    "gather",
    "getitem",
    "pad",
    "plain_index",
    "reshape",
    "setitem",
    "split",
    "squeeze",
    "stack",
    "swapaxes",
    "take",
    "transpose",
]


def reshape(x: TensorLike, shape: int | Sequence[int]) -> Tensor:
    """The elements in another shape, in C order; one length may be -1. A view where NumPy makes one."""
    t = as_tensor(x)
    data = t._data
    return view(t, arrays.reshape(data, shape), rules.reshape, (data.shape,))


def transpose(x: TensorLike, axes: Sequence[int] | None = None) -> Tensor:
    """A view with the axes permuted (None: reversed)."""
    t = as_tensor(x)
    inverse = None if axes is None else tuple(np.argsort([a % t.ndim for a in axes]).tolist())
    return view(t, t._data.transpose(axes), rules.transpose, (inverse,))


def swapaxes(x: TensorLike, axis1: int, axis2: int) -> Tensor:
    """A view with two axes swapped."""
    t = as_tensor(x)
    return view(t, t._data.swapaxes(axis1, axis2), rules.swapaxes, (axis1, axis2))


def expand_dims(x: TensorLike, axis: int | tuple[int, ...]) -> Tensor:
    """A view with new axes of length 1 at the positions `axis` of the result."""
    t = as_tensor(x)
    return view(t, np.expand_dims(t._data, axis), rules.reshape, (t._data.shape,))


def squeeze(x: TensorLike, axis: int | tuple[int, ...] | None = None) -> Tensor:
    """A view without the axes `axis` (None: all) of length 1."""
    t = as_tensor(x)
    return view(t, t._data.squeeze(axis), rules.reshape, (t._data.shape,))


def broadcast_to(x: TensorLike, shape: Sequence[int]) -> Tensor:
    """A read-only view repeated to `shape`."""
    t = as_tensor(x)
    return view(t, np.broadcast_to(t._data, shape), rules.broadcast_to, (t._data.shape,))


def flip(x: TensorLike, axis: int | tuple[int, ...] | None = None) -> Tensor:
    """A view with the order along `axis` (None: all) reversed."""
    t = as_tensor(x)
    return view(t, np.flip(t._data, axis), rules.flip, (axis,))


def plain_index(index: Any, like: Any) -> Any:
    """An index of `like` with arrays of its own, where `like` is, for arrays, Tensors and lists."""
    if isinstance(index, tuple):
        return tuple([plain_index(item, like) for item in index])
    if isinstance(index, list):
        return near(as_array(index), like) if index else index
    if isinstance(index, Tensor) or is_array(index):
        return near(constant(index), like)
    return index


def getitem(x: TensorLike, index: Any) -> Tensor:
    """``x[index]``: a view for basic indexing, a copy for index and bool arrays, as in NumPy."""
    t = as_tensor(x)
    data = t._data
    index = plain_index(index, data)
    return view(t, as_array(data[index]), rules.getitem, (index, data.shape), index)


def getitem_backward(grad: TensorLike, index: Any, shape: tuple[int, ...]) -> Tensor:
    """Zeros of `shape` with `grad` added at `index`."""
    t = as_tensor(grad)
    data = arrays.getitem_backward(t._data, index, shape)
    if isinstance(data, arrays.Slices):
        data = data.dense()
    if not t.requires_grad or not mode.enabled:
        return wrap(data)
    return track(data, rules.getitem_backward, (edge(t),), (), (index, shape))


def setitem(x: TensorLike, index: Any, value: TensorLike) -> Tensor:
    """A copy of x with `value` at `index`."""
    t, v = as_tensor(x), array_of(value)
    index = plain_index(index, t._data)
    data = arrays.setitem(t._data, index, v)
    to_t, to_v = edge(t), edge(value) if isinstance(value, Tensor) else None
    if (to_t is None and to_v is None) or not mode.enabled:
        return wrap(data)
    return track(data, rules.setitem, (to_t, to_v), (), (index, np.shape(v)))


def take(x: TensorLike, indices: Any, axis: int | None = None) -> Tensor:
    """``np.take``: whole slices along `axis` (None: elements of the flattened array)."""
    t = as_tensor(x)
    if axis is None:
        return getitem(reshape(t, -1), as_array(array_of(indices)))
    before = (slice(None),) * (axis % t.ndim)
    return getitem(t, (*before, as_array(array_of(indices))))


def gather(x: TensorLike, index: Any, axis: int) -> Tensor:
    """``np.take_along_axis``: the element at `index` along `axis`, for each position of the other axes."""
    t = as_tensor(x)
    index = near(as_array(array_of(index)), t._data)
    data = arrays.gather(t._data, index, axis)
    if not t.requires_grad or not mode.enabled:
        return wrap(data)
    return track(data, rules.gather, (edge(t),), (), (constant(index), axis, t._data.shape))


def gather_backward(grad: TensorLike, index: Any, axis: int, shape: tuple[int, ...]) -> Tensor:
    """Zeros of `shape` with `grad` added where `gather` read."""
    t = as_tensor(grad)
    data = arrays.gather_backward(t._data, index, axis, shape)
    if not t.requires_grad or not mode.enabled:
        return wrap(data)
    return track(data, rules.gather_backward, (edge(t),), (), (index, axis, shape))


def concatenate(tensors: Sequence[TensorLike], axis: int = 0) -> Tensor:
    """Tensors joined along an existing axis."""
    parts = [as_tensor(t) for t in join_dtypes("concatenate", list(tensors))]
    data = arrays.concatenate([t._data for t in parts], axis)
    edges = tuple([edge(t) for t in parts])
    if not mode.enabled or not any(e is not None for e in edges):
        return wrap(data)
    axis %= data.ndim
    bounds = np.cumsum([0, *(t._data.shape[axis] for t in parts)]).tolist()
    return track(data, rules.concatenate, edges, (), (axis, bounds))


def stack(tensors: Sequence[TensorLike], axis: int = 0) -> Tensor:
    """Tensors of one shape joined along a new axis."""
    parts = [as_tensor(t) for t in join_dtypes("stack", list(tensors))]
    data = np.stack([t._data for t in parts], axis)
    edges = tuple([edge(t) for t in parts])
    if not mode.enabled or not any(e is not None for e in edges):
        return wrap(data)
    return track(data, rules.stack, edges, (), (axis % data.ndim,))


def split(x: TensorLike, sections: int | Sequence[int], axis: int = 0) -> list[Tensor]:
    """``np.split``: views of `sections` equal parts along `axis`, or of the parts cut there."""
    t = as_tensor(x)
    parts = np.split(t._data, sections, axis)
    before = (slice(None),) * (axis % t.ndim)
    ends = np.cumsum([part.shape[axis] for part in parts]).tolist()
    return [
        getitem(t, (*before, slice(end - part.shape[axis], end)))
        for part, end in zip(parts, ends, strict=True)
    ]


def pad(x: TensorLike, width: Any, value: float = 0.0) -> Tensor:
    """``np.pad`` with a constant: `width` is n, (before, after), or one such pair per axis."""
    t = as_tensor(x)
    data = np.pad(t._data, width, constant_values=value)
    if not t.requires_grad or not mode.enabled:
        return wrap(data)
    pairs = np.broadcast_to(width, (t.ndim, 2)).tolist()
    inside = tuple([slice(low, low + n) for (low, _), n in zip(pairs, t._data.shape, strict=True)])
    return track(data, rules.pad, (edge(t),), (), (inside,))
