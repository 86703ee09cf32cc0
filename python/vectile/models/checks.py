"""What constructors and forwards of models ask of their arguments, in one form of words."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vectile.autograd import Tensor, as_tensor


def integers(owner: str, minimum: int = 1, **values: Any) -> None:
    """TypeError for a value that is no integer, ValueError for one below `minimum`."""
    for name, value in values.items():
        try:
            operator.index(value)
        except TypeError:
            kind = type(value).__name__
            raise TypeError(f"{owner}: {name} type: expected an integer, got {kind}") from None
        if value < minimum:
            raise ValueError(f"{owner}: {name}: expected >= {minimum}, got {value}")


def shaped(owner: str, name: str, x: Any, *expected: int | str) -> Tensor:
    """`x` as a Tensor; ValueError unless it has the `expected` shape, where a word allows any size."""
    out = as_tensor(x)
    if out.ndim != len(expected) or any(
        want != got for want, got in zip(expected, out.shape, strict=True) if isinstance(want, int)
    ):
        words = ", ".join(map(str, expected)) + ("," if len(expected) == 1 else "")
        raise ValueError(f"{owner}: {name} shape: expected ({words}), got {out.shape}")
    return out


def indices(owner: str, name: str, values: ArrayLike, bound: int) -> NDArray[np.int64]:
    """`values` as int64; TypeError unless they are integers, IndexError for one outside [0, bound)."""
    array = np.asarray(values)
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"{owner}: {name} dtype: expected an integer type, got {array.dtype}")
    wrong = array[(array < 0) | (array >= bound)]
    if wrong.size:
        raise IndexError(f"{owner}: {name} value: expected in [0, {bound}), got {wrong[0]}")
    return array.astype(np.int64)
