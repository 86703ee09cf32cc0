"""Changing a Tensor in place: the memory, its version, and its place on the tape."""

from __future__ import annotations

from typing import Any

import numpy as np

from vectile.autograd import functional as F
from vectile.autograd import rules
from vectile.autograd import tensor as T
from vectile.autograd.tape import mode
from vectile.device import is_array


def setitem(t: Any, index: Any, value: Any, op: str = "__setitem__") -> None:
    """``t[index] = value``; recorded if t or value is tracked and grad mode is on."""
    index = F.plain_index(index, t._data)
    if isinstance(value, T.Tensor):
        value = F.astype(value, t._data.dtype)
    tracked = t.requires_grad or (isinstance(value, T.Tensor) and value.requires_grad)
    if not tracked or not mode.enabled:
        t._data[index] = T.array_of(value)
        t.bump_version(op)
        return
    if t._base is not None:
        assign(t, F.setitem(t, index, value), op)
        return
    _check_may_record(t, op)
    edges = T.edge(t), T.edge(value) if isinstance(value, T.Tensor) else None
    array = T.array_of(value)
    t._data[index] = array
    _rebase(t, T.track(t._data, rules.setitem, edges, (), (index, np.shape(array))), op)


def assign(t: Any, new: T.Tensor, op: str) -> T.Tensor:
    """Give `t` the value and the history of `new`, in t's own memory; returns t."""
    data = t._data
    if new._data.shape != data.shape:
        raise ValueError(f"{op}: result shape: expected {data.shape}, got {new._data.shape}")
    if not np.can_cast(new._data.dtype, data.dtype, "same_kind"):
        raise TypeError(f"{op}: result dtype: expected {data.dtype}, got {new._data.dtype}")
    if not mode.enabled or not (t.requires_grad or new.requires_grad):
        np.copyto(data, new._data)
        t.bump_version(op)
    elif t._base is not None:
        _assign_view(t, new, op)
    else:
        _check_may_record(t, op)
        np.copyto(data, new._data)
        _rebase(t, F.astype(new, data.dtype), op)
    return t  # type: ignore[no-any-return]


def _check_may_record(t: Any, op: str) -> None:
    if t.requires_grad and t._node is None:
        raise RuntimeError(
            f"{op}: a leaf that requires grad cannot change in place while operations are recorded; "
            "use no_grad() or work on a copy"
        )
    if t._node is None and is_array(t._data.base):
        raise RuntimeError(
            f"{op}: the Tensor's memory belongs to another array, which would not know the history; "
            "work on a copy"
        )


def _rebase(t: Any, new: T.Tensor, op: str) -> None:
    """Put `t`, whose memory `op` has just changed, where `new` is on the tape."""
    version = t._shared_version()
    version.bump(op)
    version.rebased = version.changed
    t._node, t.requires_grad = new._node, new.requires_grad


def _assign_view(t: Any, new: T.Tensor, op: str) -> None:
    """`assign` through a view: change the base, whose history this is too, and look again."""
    base, index = t._base.tensor, t._base.index
    if index is None:
        raise RuntimeError(
            f"{op}: a recorded in-place change through a reshaped or transposed view; "
            "change the Tensor that it looks at, or work on a copy"
        )
    setitem(base, index, new, op)
    again = F.getitem(base, index)
    t._node, t.requires_grad = again._node, again.requires_grad
    t._base = again._base
