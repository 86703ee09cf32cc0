"""Losses with PyTorch's layouts and reductions."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vectile.autograd import Tensor, as_tensor
from vectile.autograd import functional as _F
from vectile.device import as_array, beside, on_device

Array = NDArray[Any]


def check_reduction(name: str, reduction: str, batchmean: bool = False) -> None:
    """Raise ValueError unless `reduction` is one of the known words."""
    words = ("none", "mean", "sum") + (("batchmean",) if batchmean else ())
    if reduction not in words:
        raise ValueError(
            f"{name}: reduction: expected one of {', '.join(words)}, got {reduction!r}"
        )


def _reduce(name: str, loss: Tensor, reduction: str) -> Tensor:
    if reduction == "mean":
        return loss.mean()
    if reduction == "sum":
        return loss.sum()
    check_reduction(name, reduction)
    return loss


def _reduce_by(name: str, loss: Tensor, weight: Any, reduction: str) -> Tensor:
    """The loss times `weight`, None or of its shape, reduced; a mean is by these weights."""
    if weight is None or reduction != "mean":
        return _reduce(name, _scaled(name, loss, weight), reduction)
    return _scaled(name, loss, weight).sum() / as_tensor(weight).astype(loss.dtype).sum()


def _scaled(name: str, loss: Tensor, weight: Any) -> Tensor:
    if weight is None:
        return loss
    w = as_tensor(weight).astype(loss.dtype)
    if w.shape != loss.shape:
        raise ValueError(f"{name}: weight shape: expected {loss.shape}, got {w.shape}")
    return loss * w


def _same_shape(name: str, input: Any, target: Any) -> None:
    if tuple(input.shape) != tuple(np.shape(target)):
        raise ValueError(
            f"{name}: target shape: expected {tuple(input.shape)}, got {tuple(np.shape(target))}"
        )


def _class_last(name: str, input: Any, target: Any) -> tuple[Tensor, Array]:
    """(…, C) scores and matching integer targets from PyTorch's (C,), (N, C) or (N, C, d…) layouts."""
    input = as_tensor(input)
    target = as_array(target)
    if target.dtype.kind not in "iu":
        raise TypeError(f"{name}: target dtype: expected integers, got {target.dtype}")
    if input.ndim == 0:
        raise ValueError(f"{name}: input rank: expected at least 1, got 0")
    if input.ndim > 2:
        input = input.transpose((0, *range(2, input.ndim), 1))
    if target.shape != input.shape[:-1]:
        raise ValueError(f"{name}: target shape: expected {input.shape[:-1]}, got {target.shape}")
    return input, target


def cross_entropy(
    input: Any,
    target: Any,
    weight: Any = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """-log softmax(input)[target]. Logits (N, C), (N, C, d…) or (C,); integer targets without the C.

    Targets equal to `ignore_index` count neither in the loss nor in the mean. `weight` (C,) scales each
    class's term and its share in the mean; it gets no gradient. IndexError for a target outside [0, C),
    whose loss on a GPU is NaN.
    """
    logits, target = _class_last("cross_entropy", input, target)
    if weight is None:
        return _F.cross_entropy(logits, target, ignore_index, label_smoothing, reduction)
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(
            f"cross_entropy: label_smoothing: expected in [0, 1], got {label_smoothing}"
        )
    scores = _F.log_softmax(logits)
    loss, weight, share = _pick("cross_entropy", scores, target, weight, ignore_index)
    if label_smoothing:
        spread = _F.where(share.kept, -(scores * weight).sum(-1), 0.0)
        loss = loss * (1.0 - label_smoothing) + spread * (label_smoothing / scores.shape[-1])
    return _weighted_mean("cross_entropy", loss, share, reduction)


def nll_loss(
    input: Any,
    target: Any,
    weight: Any = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """-input[target] for log-probabilities in cross_entropy's layouts, with its `weight`.

    The mean is over the targets that are not `ignore_index`. IndexError, or NaN on a GPU, for a target
    outside [0, C).
    """
    scores, target = _class_last("nll_loss", input, target)
    loss, _, share = _pick("nll_loss", scores, target, weight, ignore_index)
    return _weighted_mean("nll_loss", loss, share, reduction)


class _Share(NamedTuple):
    kept: Array  # which targets are not ignored
    total: Any  # the weight of these, a float, or on a GPU an array that nothing waits for


def _pick(
    name: str, scores: Tensor, target: Array, weight: Any, ignore_index: int
) -> tuple[Tensor, Array, _Share]:
    """-weight[target] * scores[target], 0 where ignored; the weights; and what a mean divides by."""
    classes = scores.shape[-1]
    like, kind = scores.data, scores.dtype
    if weight is None:
        weight = np.ones_like(like, kind, shape=classes)
    weight = beside(weight, like, kind)
    if weight.shape != (classes,):
        raise ValueError(f"{name}: weight shape: expected {(classes,)}, got {weight.shape}")
    kept = as_array(target != ignore_index)
    wrong = kept & ((target < 0) | (target >= classes))
    if not on_device(target) and wrong.any():
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise IndexError(
            f"{name}: target at {at}: expected in [0, {classes}) or {ignore_index}, got {target[at]}"
        )
    index = np.where(kept & ~wrong, target, 0).astype(np.int64)
    factor = weight[index] if classes else np.zeros(index.shape, kind, like=like)
    if on_device(target):  # which is not waited for
        factor = np.where(wrong, kind.type(np.nan), factor)
    picked = _F.gather(scores, index[..., None], -1) if classes else scores.sum(-1, keepdims=True)
    loss = _F.where(kept, picked.reshape(target.shape) * -factor, 0.0)
    total = np.where(kept, factor, 0).sum(dtype=np.float64)
    return loss, weight, _Share(kept, total.astype(kind) if on_device(total) else float(total))


def _weighted_mean(name: str, loss: Tensor, share: _Share, reduction: str) -> Tensor:
    if reduction == "mean":
        if not isinstance(share.total, float):
            return _F.divide(loss.sum(), share.total)
        return loss.sum() * (1.0 / share.total if share.total else math.nan)
    return _reduce(name, loss, reduction)


def mse_loss(input: Any, target: Any, *, reduction: str = "mean", weight: Any = None) -> Tensor:
    """(input - target)^2; both, and `weight` if given, of one shape. A mean is by the weights."""
    _same_shape("mse_loss", input, target)
    if reduction == "mean" and weight is None:
        return _F.mean_squared_error(input, target)
    difference = as_tensor(input) - target
    return _reduce_by("mse_loss", difference * difference, weight, reduction)


def l1_loss(input: Any, target: Any, *, reduction: str = "mean", weight: Any = None) -> Tensor:
    """|input - target|; shapes and `weight` as in `mse_loss`."""
    _same_shape("l1_loss", input, target)
    return _reduce_by("l1_loss", _F.absolute(as_tensor(input) - target), weight, reduction)


def smooth_l1_loss(
    input: Any, target: Any, *, reduction: str = "mean", beta: float = 1.0
) -> Tensor:
    """|input - target| - beta / 2, or (input - target)^2 / (2 beta) where that is below beta.

    With beta 0 it is `l1_loss`. From Girshick, Fast R-CNN (arXiv 1504.08083).
    """
    if beta < 0:
        raise ValueError(f"smooth_l1_loss: beta: expected at least 0, got {beta}")
    _same_shape("smooth_l1_loss", input, target)
    difference = as_tensor(input) - target
    loss = _huber(difference, beta) / beta if beta else _F.absolute(difference)
    return _reduce("smooth_l1_loss", loss, reduction)


def huber_loss(
    input: Any, target: Any, reduction: str = "mean", delta: float = 1.0, weight: Any = None
) -> Tensor:
    """delta * (|input - target| - delta / 2), or (input - target)^2 / 2 where that is below delta.

    Huber (1964); shapes as in `mse_loss`, but a mean is over the elements, as PyTorch's.
    """
    if not delta > 0:
        raise ValueError(f"huber_loss: delta: expected more than 0, got {delta}")
    _same_shape("huber_loss", input, target)
    loss = _scaled("huber_loss", _huber(as_tensor(input) - target, delta), weight)
    return _reduce("huber_loss", loss, reduction)


def _huber(difference: Tensor, delta: float) -> Tensor:
    """d^2 / 2 and its tangents beyond delta: c (d - c / 2) with c = d held within delta."""
    held = _F.clip(difference, -delta, delta)
    return held * (difference - held * 0.5)


def binary_cross_entropy(
    input: Any, target: Any, weight: Any = None, *, reduction: str = "mean"
) -> Tensor:
    """-(t log p + (1 - t) log(1 - p)) for probabilities p = `input` and targets t, both in [0, 1].

    A logarithm counts as -100 at least. `weight` scales each term and broadcasts. Where p comes from a
    sigmoid, `binary_cross_entropy_with_logits` is exact.
    """
    _same_shape("binary_cross_entropy", input, target)
    loss = _F.binary_cross_entropy(input, target)
    if weight is not None:
        loss = loss * as_tensor(weight).astype(loss.dtype)
    return _reduce("binary_cross_entropy", loss, reduction)


def binary_cross_entropy_with_logits(
    input: Any,
    target: Any,
    weight: Any = None,
    *,
    reduction: str = "mean",
    pos_weight: Any = None,
) -> Tensor:
    """-(p t log s + (1 - t) log(1 - s)), s = sigmoid(input), p = pos_weight (1 unless given).

    Written with log s = -softplus(-x), which neither overflows nor loses the small probabilities.
    """
    _same_shape("binary_cross_entropy_with_logits", input, target)
    input = as_tensor(input)
    if pos_weight is None:
        loss = _F.softplus(input) - input * target
    else:
        positive = as_tensor(target) * as_tensor(pos_weight).astype(input.dtype)
        loss = positive * _F.softplus(-input) + (1.0 - as_tensor(target)) * _F.softplus(input)
    if weight is not None:
        loss = loss * as_tensor(weight).astype(input.dtype)
    return _reduce("binary_cross_entropy_with_logits", loss, reduction)


def kl_div(input: Any, target: Any, *, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """target * (log target - input) for log-probabilities `input`; 0 where the target is 0.

    "batchmean" divides the sum by the first axis' length, the mathematical divergence.
    """
    check_reduction("kl_div", reduction, batchmean=True)
    _same_shape("kl_div", input, target)
    q, p = as_tensor(input), as_tensor(target)
    if log_target:
        loss = _F.exp(p) * (p - q)
    else:
        positive = p.data > 0
        log_p = _F.log(_F.where(positive, p, 1.0))
        loss = _F.where(positive, p * (log_p - q), 0.0)
    if reduction == "batchmean":
        return loss.sum() * (1.0 / q.shape[0])
    return _reduce("kl_div", loss, reduction)
