"""Changing a Tensor in place: the memory, its version, and its place on the tape."""

from __future__ import annotations

from typing import Any

import numpy as np

from vectile.autograd import functional as F
from vectile.autograd.tape import mode, tick


def setitem(t: Any, index: Any, value: Any, op: str = "__setitem__") -> None:
    """``t[index] = value``; recorded if t or value is tracked and grad mode is on."""
    index = F.plain_index(index)
    array = F.array_of(value)
    if not mode.enabled or not (t.requires_grad or getattr(value, "requires_grad", False)):
        t._data[index] = array
        t.bump_version(op)
    else:
        value = value if isinstance(value, F.Tensor) else F.wrap(np.asarray(array, t.dtype))
        assign(t, F.setitem(t, index, value), op)


def assign(t: Any, new: Any, op: str) -> Any:
    """Give `t` the value and the history of `new`, in t's own memory; returns t."""
    data = t._data
    if new._data.shape != data.shape:
        raise ValueError(f"{op}: result shape: expected {data.shape}, got {new._data.shape}")
    if not np.can_cast(new._data.dtype, data.dtype, "same_kind"):
        raise TypeError(f"{op}: result dtype: expected {data.dtype}, got {new._data.dtype}")
    if not mode.enabled or not (t.requires_grad or new.requires_grad):
        np.copyto(data, new._data)
        t.bump_version(op)
        return t
    if t.requires_grad and t._node is None:
        raise RuntimeError(
            f"{op}: a leaf that requires grad cannot change in place while operations are recorded; "
            "use no_grad() or work on a copy"
        )
    if t._base is not None:
        return _assign_view(t, new, op)
    if isinstance(data.base, np.ndarray):
        raise RuntimeError(
            f"{op}: a recorded in-place change through a view of another array; work on a copy"
        )
    np.copyto(data, new._data)
    version = t._shared_version()
    version.bump(op)
    version.rebased = version.changed
    t._node, t.requires_grad = new._node, new.requires_grad
    return t


def _assign_view(t: Any, new: Any, op: str) -> Any:
    """The same through a view: write to the base, whose history this is too, and look again."""
    base, index, _ = t._base
    if index is None:
        raise RuntimeError(
            f"{op}: a recorded in-place change through a reshaped or transposed view; "
            "change the Tensor that it looks at, or work on a copy"
        )
    assign(base, F.setitem(base, index, new), op)
    again = F.getitem(base, index)
    t._node, t.requires_grad = again._node, again.requires_grad
    t._base = (base, index, tick())
    return t
