"""Lengths and angles of vectors, and integers as vectors."""

from __future__ import annotations

from typing import Any

import numpy as np

from vectile.autograd import Tensor, as_tensor
from vectile.autograd import functional as _F
from vectile.autograd.tensor import wrap
from vectile.device import as_array, on_device

__all__ = ["cosine_similarity", "normalize", "one_hot"]


def normalize(input: Any, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """input / max(||input||_p, eps) along `dim`; p is positive, and may be infinite."""
    if not p > 0:
        raise ValueError(f"normalize: p: expected more than 0, got {p}")
    t = as_tensor(input)
    return t / _norm("normalize", t, p, dim, eps)


def cosine_similarity(x1: Any, x2: Any, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """x1 . x2 / (max(||x1||, eps) max(||x2||, eps)) along `dim`; the two broadcast."""
    a, b = as_tensor(x1), as_tensor(x2)
    shape = np.broadcast_shapes(a.shape, b.shape)
    a, b = (t if t.shape == shape else _F.broadcast_to(t, shape) for t in (a, b))
    lengths = [_norm("cosine_similarity", t, 2.0, dim, eps).squeeze(dim) for t in (a, b)]
    return (a * b).sum(dim) / lengths[0] / lengths[1]


def _norm(op: str, t: Tensor, p: float, dim: int, eps: float) -> Tensor:
    """max(||t||_p, eps) along `dim`, which stays; the slope of the norm at 0 is 0."""
    if not -t.ndim <= dim < t.ndim:
        raise IndexError(f"{op}: dim: expected in [-{t.ndim}, {t.ndim}), got {dim}")
    if p == 1:
        norm = _F.absolute(t).sum(dim, keepdims=True)
    elif p == np.inf:
        norm = _F.absolute(t).max(dim, keepdims=True)
    else:
        total = (t * t if p == 2 else _F.absolute(t) ** p).sum(dim, keepdims=True)
        zero = total.data == 0
        safe = _F.where(zero, 1.0, total)
        norm = _F.where(zero, 0.0, _F.sqrt(safe) if p == 2 else safe ** (1.0 / p))
    return _F.clip(norm, low=eps)


def one_hot(tensor: Any, num_classes: int = -1) -> Tensor:
    """Integers (...) in [0, num_classes) as int64 (..., num_classes), 1 at each and 0 elsewhere.

    `num_classes` -1 is one more than the largest. TypeError for other dtypes, IndexError for an integer
    outside the range; on a GPU, where that is not looked at, it gives zeros.
    """
    ids = as_array(tensor)
    if ids.dtype.kind not in "iu":
        raise TypeError(f"one_hot: tensor dtype: expected integers, got {ids.dtype}")
    if num_classes == -1:
        if not ids.size:
            raise ValueError("one_hot: num_classes: expected a number for an empty tensor, got -1")
        num_classes = int(ids.max()) + 1
    if not on_device(ids):
        wrong = ids[(ids < 0) | (ids >= num_classes)]
        if wrong.size:
            raise IndexError(
                f"one_hot: tensor value: expected in [0, {num_classes}), got {wrong[0]}"
            )
    classes = np.arange(num_classes, dtype=np.int64, like=ids)
    return wrap((ids[..., None].astype(np.int64) == classes).astype(np.int64))
