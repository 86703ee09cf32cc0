"""Normalisation over channels, as functions of Tensors."""

from __future__ import annotations

from typing import Any

import numpy as np

from vectile import ops
from vectile.autograd import rules
from vectile.autograd.tape import mode
from vectile.autograd.tensor import Tensor, TensorLike, array_of, as_tensor, edge, track, wrap

__all__ = ["batch_norm", "group_norm"]


def _affine(
    t: Tensor, weight: TensorLike | None, bias: TensorLike | None
) -> tuple[bool, Any, Any, Any, Any]:
    """(whether to record, weight and bias as Tensors, their edges); a bias alone gets a weight of ones."""
    w = None if weight is None else as_tensor(weight)
    b = None if bias is None else as_tensor(bias)
    to_w = None if w is None else edge(w)
    to_b = None if b is None else edge(b)
    tracked = mode.enabled and (t.requires_grad or to_w is not None or to_b is not None)
    if tracked and w is None and b is not None:
        w = wrap(np.ones_like(b._data))
    return tracked, w, b, to_w, to_b


def batch_norm(
    x: TensorLike,
    running_mean: Any = None,
    running_var: Any = None,
    weight: TensorLike | None = None,
    bias: TensorLike | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise each channel of x (batch, channels, ...) (Ioffe & Szegedy, arXiv 1502.03167).

    In training by the batch's statistics, moving the running ones in place; else by the running ones.
    """
    t = as_tensor(x)
    tracked, w, b, to_w, to_b = _affine(t, weight, bias)
    arguments = (
        t._data,
        array_of(running_mean),
        array_of(running_var),
        array_of(w),
        array_of(b),
        training,
        momentum,
        eps,
    )
    if not tracked:
        return wrap(ops.batch_norm(*arguments))
    data, mean, rstd = ops.batch_norm(*arguments, return_stats=True)
    edges = (edge(t), to_w, to_b)
    return track(data, rules.batch_norm, edges, (t, w), (mean, rstd, training, eps))


def group_norm(
    x: TensorLike,
    num_groups: int,
    weight: TensorLike | None = None,
    bias: TensorLike | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise each sample over groups of adjacent channels (Wu & He, arXiv 1803.08494)."""
    t = as_tensor(x)
    tracked, w, b, to_w, to_b = _affine(t, weight, bias)
    arguments = t._data, num_groups, array_of(w), array_of(b), eps
    if not tracked:
        return wrap(ops.group_norm(*arguments))
    data, mean, rstd = ops.group_norm(*arguments, return_stats=True)
    edges = (edge(t), to_w, to_b)
    return track(data, rules.group_norm, edges, (t, w), (num_groups, mean, rstd, eps))
