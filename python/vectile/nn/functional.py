"""Functions on Tensors (or NumPy arrays) with PyTorch's names and arguments.

The kernels' own ops come straight from `vectile.autograd.functional`; here are those whose arguments
differ from the kernel's, and the losses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from vectile.autograd import Tensor, as_tensor
from vectile.autograd import functional as _F
from vectile.autograd.functional import (
    gelu,
    linear,
    log_softmax,
    relu,
    scaled_dot_product_attention,
    sigmoid,
    silu,
    softmax,
    softplus,
    tanh,
)

__all__ = [
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "dropout",
    "embedding",
    "flatten",
    "gelu",
    "kl_div",
    "l1_loss",
    "layer_norm",
    "linear",
    "log_softmax",
    "mse_loss",
    "nll_loss",
    "packed_self_attention",
    "relu",
    "rms_norm",
    "scaled_dot_product_attention",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "tanh",
]


def dropout(x: Any, p: float = 0.5, training: bool = True) -> Any:
    """Zero with probability p and scale the rest by 1 / (1 - p); the input itself when not training.

    The mask comes from `vectile.manual_seed`'s generator. ValueError unless 0 <= p <= 1.
    """
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout: p: expected a probability in [0, 1], got {p}")
    if not training or p == 0.0:
        return x
    return _F.dropout(x, p)


def embedding(ids: ArrayLike, weight: Tensor, padding_idx: int | None = None) -> Tensor:
    """Rows of `weight` (rows, dim) by integer `ids` of any shape; row `padding_idx` gets no gradient."""
    ids = np.asarray(ids)
    out = _F.embedding(ids, weight)
    if padding_idx is None or not out.requires_grad:
        return out
    return _F.where((ids == padding_idx)[..., None], out.detach(), out)


def packed_self_attention(
    qkv: Any,
    num_heads: int,
    attn_mask: Any = None,
    *,
    is_causal: bool = False,
    dropout_p: float = 0.0,
) -> Tensor:
    """Attention on (batch, length, 3 * dim) as one linear layer gives it: queries, keys, values side by side.

    Heads are consecutive columns. Masks as in `scaled_dot_product_attention`; returns (batch, length, dim).
    """
    batch, length, width = qkv.shape
    parts = as_tensor(qkv).reshape((batch, length, 3, num_heads, width // (3 * num_heads)))
    q, k, v = (parts[:, :, i].swapaxes(1, 2) for i in range(3))
    out = scaled_dot_product_attention(q, k, v, attn_mask, is_causal=is_causal, dropout_p=dropout_p)
    return out.swapaxes(1, 2).reshape((batch, length, width // 3))


def flatten(x: Any, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Join the axes start_dim … end_dim into one."""
    t = as_tensor(x)
    rank = max(t.ndim, 1)
    for name, axis in (("start_dim", start_dim), ("end_dim", end_dim)):
        if not -rank <= axis < rank:
            raise IndexError(f"flatten: {name}: expected in [-{rank}, {rank}), got {axis}")
    start, end = start_dim % rank, end_dim % rank
    if start > end:
        raise ValueError(f"flatten: start_dim: expected at most end_dim {end}, got {start}")
    shape = t.shape
    joined = math.prod(shape[start : end + 1])
    return t.reshape((*shape[:start], joined, *shape[end + 1 :]))


def layer_norm(
    x: Any,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias over the trailing axes `normalized_shape`."""
    if len(normalized_shape) == 1 and x.shape[-1:] == tuple(normalized_shape):
        return _F.layer_norm(x, weight, bias, eps)
    rows, shape = _trailing("layer_norm", x, normalized_shape)
    scale, shift = (None if t is None else t.reshape((-1,)) for t in (weight, bias))
    return _F.layer_norm(rows, scale, shift, eps).reshape(shape)


def rms_norm(
    x: Any, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the trailing axes; eps None is the dtype's epsilon."""
    if eps is None:
        eps = float(np.finfo(x.dtype).eps)
    if len(normalized_shape) == 1 and x.shape[-1:] == tuple(normalized_shape):
        return _F.rms_norm(x, weight, eps)
    rows, shape = _trailing("rms_norm", x, normalized_shape)
    return _F.rms_norm(rows, None if weight is None else weight.reshape((-1,)), eps).reshape(shape)


def _trailing(name: str, x: Any, normalized_shape: Sequence[int]) -> tuple[Tensor, tuple[int, ...]]:
    """x with the normalised axes joined, and its own shape."""
    wanted = tuple(normalized_shape)
    shape = tuple(x.shape)
    if not wanted or shape[-len(wanted) :] != wanted:
        got = shape[-len(wanted) :] if wanted else shape
        raise ValueError(f"{name}: x trailing shape: expected {wanted}, got {got}")
    rows = as_tensor(x).reshape((*shape[: len(shape) - len(wanted)], math.prod(wanted)))
    return rows, shape


# ---- losses --------------------------------------------------------------------------------------


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


def _same_shape(name: str, input: Any, target: Any) -> None:
    if tuple(input.shape) != tuple(np.shape(target)):
        raise ValueError(
            f"{name}: target shape: expected {tuple(input.shape)}, got {tuple(np.shape(target))}"
        )


def _class_last(name: str, input: Any, target: Any) -> tuple[Tensor, np.ndarray[Any, Any]]:
    """(…, C) scores and matching integer targets from PyTorch's (C,), (N, C) or (N, C, d…) layouts."""
    input = as_tensor(input)
    target = np.asarray(target)
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
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """-log softmax(input)[target]. Logits (N, C), (N, C, d…) or (C,); integer targets without the C.

    Targets equal to `ignore_index` count neither in the loss nor in the mean. IndexError for a target
    outside [0, C).
    """
    logits, target = _class_last("cross_entropy", input, target)
    return _F.cross_entropy(logits, target, ignore_index, label_smoothing, reduction)


def nll_loss(input: Any, target: Any, ignore_index: int = -100, reduction: str = "mean") -> Tensor:
    """-input[target] for log-probabilities in cross_entropy's layouts.

    The mean is over the targets that are not `ignore_index`. IndexError for a target outside [0, C).
    """
    scores, target = _class_last("nll_loss", input, target)
    kept = target != ignore_index
    index = np.where(kept, target, 0).astype(np.int64)
    classes = scores.shape[-1]
    if index.size and not (0 <= int(index.min()) and int(index.max()) < classes):
        raise IndexError(f"nll_loss: target value: expected in [0, {classes}), got {index.max()}")
    picked = -_F.gather(scores, index[..., None], -1).reshape(target.shape)
    if not kept.all():
        picked = _F.where(kept, picked, 0.0)
    if reduction == "mean":
        return picked.sum() * (1.0 / int(kept.sum()) if kept.any() else math.nan)
    return _reduce("nll_loss", picked, reduction)


def mse_loss(input: Any, target: Any, reduction: str = "mean") -> Tensor:
    """(input - target)^2; both of one shape."""
    _same_shape("mse_loss", input, target)
    if reduction == "mean":
        return _F.mean_squared_error(input, target)
    difference = as_tensor(input) - target
    return _reduce("mse_loss", difference * difference, reduction)


def l1_loss(input: Any, target: Any, reduction: str = "mean") -> Tensor:
    """|input - target|; both of one shape."""
    _same_shape("l1_loss", input, target)
    return _reduce("l1_loss", _F.absolute(as_tensor(input) - target), reduction)


def binary_cross_entropy_with_logits(
    input: Any,
    target: Any,
    weight: Any = None,
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
        positive = as_tensor(target) * pos_weight
        loss = positive * _F.softplus(-input) + (1.0 - as_tensor(target)) * _F.softplus(input)
    if weight is not None:
        loss = loss * weight
    return _reduce("binary_cross_entropy_with_logits", loss, reduction)


def kl_div(input: Any, target: Any, reduction: str = "mean", log_target: bool = False) -> Tensor:
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
