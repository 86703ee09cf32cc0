"""Dropout, embedding, flattening and normalisation over the last axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from vectile.autograd import Tensor, as_tensor
from vectile.autograd import functional as _F
from vectile.autograd.functional import scaled_dot_product_attention
from vectile.device import as_array


def dropout(x: Any, p: float = 0.5, training: bool = True) -> Any:
    """Zero with probability p and scale the rest by 1 / (1 - p); the input itself when not training.

    The mask comes from `vectile.manual_seed`'s generator. ValueError unless 0 <= p <= 1.
    """
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout: p: expected a probability in [0, 1], got {p}")
    if not training or p == 0.0:
        return x
    return _F.dropout(x, p)


def bias_activation_dropout(
    x: Any,
    bias: Any = None,
    activation: str | None = None,
    p: float = 0.5,
    training: bool = True,
) -> Tensor:
    """``dropout(activation(x + bias), p, training)`` in one pass; `activation` as for `linear`."""
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"bias_activation_dropout: p: expected a probability in [0, 1], got {p}")
    return _F.bias_activation_dropout(x, bias, activation, p if training else 0.0)


def dropout1d(x: Any, p: float = 0.5, training: bool = True) -> Any:
    """`dropout` of whole channels of x (N, C, L) or (C, L) (Tompson et al., arXiv 1411.4280)."""
    return _channel_dropout("dropout1d", x, p, training, (2, 3))


def dropout2d(x: Any, p: float = 0.5, training: bool = True) -> Any:
    """`dropout` of whole channels of x (N, C, H, W), or (N, C, L) as in PyTorch."""
    return _channel_dropout("dropout2d", x, p, training, (3, 4))


def _channel_dropout(op: str, x: Any, p: float, training: bool, ranks: tuple[int, int]) -> Any:
    shape = np.shape(x)
    if len(shape) not in ranks:
        raise ValueError(f"{op}: x rank: expected {ranks[0]} or {ranks[1]}, got {len(shape)}")
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"{op}: p: expected a probability in [0, 1], got {p}")
    if not training or p == 0.0:
        return x
    t, lead = as_tensor(x), shape[:2] if len(shape) > 2 else shape[:1]
    ones = np.ones_like(t.data, shape=(*lead, *(1,) * (len(shape) - len(lead))))
    return t * _F.dropout(ones, p)


def embedding(ids: ArrayLike, weight: Tensor, padding_idx: int | None = None) -> Tensor:
    """Rows of `weight` (rows, dim) by integer `ids` of any shape; row `padding_idx` gets no gradient.

    A negative `padding_idx` counts from the last row. ValueError for one outside the table.
    """
    ids = as_array(ids)
    if padding_idx is not None:
        rows = weight.shape[0]
        if not -rows <= padding_idx < rows:
            raise ValueError(
                f"embedding: padding_idx: expected in [-{rows}, {rows}), got {padding_idx}"
            )
        padding_idx %= rows
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
    **options: Any,
) -> Tensor:
    """Attention on (batch, length, 3 * dim) as one linear layer gives it: queries, keys, values side by side.

    Heads are consecutive columns. Masks and other options as in `scaled_dot_product_attention`; returns
    (batch, length, dim).
    """
    batch, length, width = qkv.shape
    parts = as_tensor(qkv).reshape((batch, length, 3, num_heads, width // (3 * num_heads)))
    q, k, v = (parts[:, :, i].swapaxes(1, 2) for i in range(3))
    options |= {"is_causal": is_causal, "dropout_p": dropout_p}
    out: Tensor = scaled_dot_product_attention(q, k, v, attn_mask, **options)
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


def unflatten(x: Any, dim: int, sizes: Sequence[int]) -> Tensor:
    """Split the axis `dim` into axes of lengths `sizes`, one of which may be -1."""
    t, lengths = as_tensor(x), tuple(int(n) for n in sizes)
    if not -t.ndim <= dim < t.ndim:
        raise IndexError(f"unflatten: dim: expected in [-{t.ndim}, {t.ndim}), got {dim}")
    dim %= t.ndim
    n, product = t.shape[dim], math.prod(m for m in lengths if m != -1)
    if lengths.count(-1) == 1 and product and n % product == 0:
        lengths = tuple(n // product if m == -1 else m for m in lengths)
    if not lengths or min(lengths) < 0 or math.prod(lengths) != n:
        raise ValueError(f"unflatten: sizes: expected lengths that make {n}, got {tuple(sizes)}")
    return t.reshape((*t.shape[:dim], *lengths, *t.shape[dim + 1 :]))


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


def add_layer_norm(
    x: Any,
    residual: Any,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor]:
    """`layer_norm` of ``x + residual``, and that sum."""
    if len(normalized_shape) == 1 and x.shape[-1:] == tuple(normalized_shape):
        return _F.add_layer_norm(x, residual, weight, bias, eps)
    total = x + residual
    return layer_norm(total, normalized_shape, weight, bias, eps), total


def add_rms_norm(
    x: Any,
    residual: Any,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> tuple[Tensor, Tensor]:
    """`rms_norm` of ``x + residual``, and that sum."""
    if len(normalized_shape) == 1 and x.shape[-1:] == tuple(normalized_shape):
        eps = float(np.finfo(x.dtype).eps) if eps is None else eps
        return _F.add_rms_norm(x, residual, weight, eps)
    total = x + residual
    return rms_norm(total, normalized_shape, weight, eps), total


def rms_norm(
    x: Any, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the trailing axes; eps None is the dtype's epsilon."""
    if eps is None:
        eps = float(np.finfo(x.dtype).eps) if x.dtype.kind == "f" else 2.0**-7  # bfloat16's
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
