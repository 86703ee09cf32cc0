"""Attention as a function of Tensors: the fused kernel, and the same in steps that have rules."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vectile import ops, random
from vectile.autograd import rules
from vectile.autograd.arithmetic import add, matmul, tanh, where
from vectile.autograd.networks import dropout, softmax
from vectile.autograd.shaping import broadcast_to, concatenate, expand_dims, reshape, swapaxes
from vectile.autograd.tape import mode
from vectile.autograd.tensor import (
    Tensor,
    TensorLike,
    array_of,
    as_tensor,
    constant,
    edge,
    track,
    wrap,
)
from vectile.device import as_array, is_array, place_of, to
from vectile.ops.attention import BlockSize, Rotary, Window

__all__ = ["attention_and_weights", "rotary_embedding", "scaled_dot_product_attention"]

Options = dict[str, Any]
"""Keyword arguments that `ops.scaled_dot_product_attention` and its backward share, sinks aside."""


def scaled_dot_product_attention(
    query: TensorLike,
    key: TensorLike,
    value: TensorLike,
    attn_mask: TensorLike | None = None,
    *,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    window: Window | None = None,
    block_mask: ArrayLike | None = None,
    block_size: BlockSize | None = None,
    key_lengths: ArrayLike | None = None,
    cu_seqlens_q: ArrayLike | None = None,
    cu_seqlens_k: ArrayLike | None = None,
    document_ids: ArrayLike | None = None,
    softcap: float | None = None,
    alibi_slopes: TensorLike | None = None,
    sinks: TensorLike | None = None,
    rotary: Rotary | None = None,
    rotary_interleaved: bool = False,
    seed: int | None = None,
    return_lse: bool = False,
    return_weights: bool = False,
    return_column_sums: bool = False,
    return_top_k: int = 0,
) -> Any:
    """``softmax(query @ key.T * scale + mask) @ value`` (arXiv 1706.03762, eq. 1) without the score matrix.

    query (..., heads, length, dim); key and value may have fewer heads (a divisor) and another length.
    A bool mask is True where query attends, a float mask is added; `is_causal` lines up the last query
    with the last key. Rows that are masked everywhere give zeros. `scale` defaults to ``dim ** -0.5``.
    The other options are those of `ops.scaled_dot_product_attention`, whose dropout mask follows from `seed`,
    by default the next one drawn from `vectile.manual_seed`'s generator. There are gradients for query, key,
    value and `sinks`, and for an `attn_mask` or `alibi_slopes` that require grad, with which the weights are
    formed explicitly. What ``return_…`` adds are arrays, without a gradient.
    """
    q, k, v = as_tensor(query), as_tensor(key), as_tensor(value)
    s = None if sinks is None else as_tensor(sinks)
    options = _given(
        is_causal=is_causal,
        scale=scale,
        window=window,
        block_mask=block_mask,
        block_size=block_size,
        key_lengths=key_lengths,
        cu_seqlens_q=cu_seqlens_q,
        cu_seqlens_k=cu_seqlens_k,
        document_ids=document_ids,
        softcap=softcap,
        alibi_slopes=alibi_slopes,
        rotary=rotary and (array_of(rotary[0]), array_of(rotary[1])),
        rotary_interleaved=rotary_interleaved,
    )
    if dropout_p:
        options.update(dropout_p=dropout_p, seed=random.next_seed() if seed is None else seed)
    asked = {
        "return_weights": return_weights,
        "return_column_sums": return_column_sums,
        "return_top_k": return_top_k,
    }
    extras: Options = {name: value for name, value in asked.items() if value}
    mask = array_of(attn_mask)
    learned = _learns(attn_mask) or _learns(alibi_slopes)
    if learned and not (extras or return_lse):
        return attention_by_parts(q, k, v, attn_mask, s, {**options, "alibi_slopes": alibi_slopes})
    tracked = any(_learns(x) for x in (q, k, v, s))
    found = ops.scaled_dot_product_attention(
        q._data,
        k._data,
        v._data,
        mask,
        sinks=None if s is None else s._data,
        return_lse=return_lse or tracked,
        **extras,
        **options,
    )
    data, *rest = found if isinstance(found, tuple) else (found,)
    if learned:
        out = attention_by_parts(q, k, v, attn_mask, s, {**options, "alibi_slopes": alibi_slopes})
    elif tracked:
        kept = {name: _kept(x) for name, x in options.items()}
        settings = rest[0], None if mask is None else constant(mask), kept
        edges = edge(q), edge(k), edge(v), None if s is None else edge(s)
        rule = rules.scaled_dot_product_attention
        out = track(data, rule, edges, (q, k, v, s), settings, data)
    else:
        out = wrap(data)
    rest = rest[1:] if tracked and not return_lse else rest
    return (out, *rest) if return_lse or extras else out


def _learns(x: Any) -> bool:
    return isinstance(x, Tensor) and x.requires_grad and mode.enabled


def _kept(option: Any) -> Any:
    """The same, its arrays in memory that nobody else can change."""
    if isinstance(option, tuple):
        return tuple(map(_kept, option))
    return constant(option) if is_array(option) else option


def _given(**options: Any) -> Options:
    """Those that are given, arrays out of their Tensors."""
    return {n: array_of(x) for n, x in options.items() if x is not None and x is not False}


def rotary_embedding(
    x: TensorLike,
    cosine: ArrayLike,
    sine: ArrayLike,
    interleaved: bool = False,
    inverse: bool = False,
) -> Tensor:
    """Pairs of elements of the last axis turned by an angle of each position; see `ops.rotary_embedding`."""
    t, c, s = as_tensor(x), array_of(cosine), array_of(sine)
    data = ops.rotary_embedding(t._data, c, s, interleaved=interleaved, inverse=inverse)
    if not t.requires_grad or not mode.enabled:
        return wrap(data)
    params = constant(c), constant(s), interleaved, inverse
    return track(data, rules.rotary_embedding, (edge(t),), (), params)


def attention_and_weights(
    query: TensorLike,
    key: TensorLike,
    value: TensorLike,
    attn_mask: TensorLike | None = None,
    *,
    dropout_p: float = 0.0,
    sinks: TensorLike | None = None,
    **options: Any,
) -> tuple[Tensor, Tensor]:
    """`scaled_dot_product_attention` and its weights (..., heads, lq, lk) before dropout, with gradients."""
    q, k, v = as_tensor(query), as_tensor(key), as_tensor(value)
    s = None if sinks is None else as_tensor(sinks)
    learned = _learns(attn_mask) or _learns(options.get("alibi_slopes"))
    tracked = learned or any(_learns(x) for x in (q, k, v, s))
    options = {name: x for name, x in options.items() if x is not None and x is not False}
    if not tracked:
        if dropout_p:
            options.update(dropout_p=dropout_p, seed=random.next_seed())
        out, found = ops.scaled_dot_product_attention(
            q._data,
            k._data,
            v._data,
            array_of(attn_mask),
            sinks=array_of(s),
            return_weights=True,
            **_given(**options),
        )
        return wrap(out), wrap(found)
    weights = attention_weights(q, k, attn_mask, s, options)
    if dropout_p or learned:
        return mix(dropout(weights, dropout_p), v), weights
    return scaled_dot_product_attention(q, k, v, attn_mask, sinks=s, **options), weights


def attention_by_parts(
    q: Tensor, k: Tensor, v: Tensor, mask: TensorLike | None, sinks: Tensor | None, options: Options
) -> Tensor:
    """`scaled_dot_product_attention` in differentiable steps, with the whole weight matrix in memory."""
    weights = attention_weights(q, k, mask, sinks, options)
    if "dropout_p" in options:
        weights = dropout(weights, options["dropout_p"], seed=options["seed"])
    return mix(weights, v)


def attention_weights(
    q: Tensor, k: Tensor, mask: TensorLike | None, sinks: Tensor | None, options: Options
) -> Tensor:
    """The softmax (..., heads, lq, lk) before dropout; masked pairs count for nothing, even NaN."""
    scale, softcap, slopes = (options.get(n) for n in ("scale", "softcap", "alibi_slopes"))
    shape, keys, place = q.shape, k.shape[-2], place_of(q._data)
    if "rotary" in options:
        q, k = _turned(q, k, options)
    q = q * (q.shape[-1] ** -0.5 if scale is None else scale)
    groups = _groups(q, k)
    if groups > 1:
        q, k = _split_heads(q, groups), expand_dims(k, -3)
    broken: Any = ~np.isfinite(k._data).all(-1)
    if broken.any():  # such keys have the scores that they have, but no gradient: 0 * NaN is NaN
        actual = ops.matmul(q._data, k._data.swapaxes(-1, -2))
        k = where(broken[..., None], 0.0, k)
        scores = where(broken[..., None, :], actual, matmul(q, swapaxes(k, -1, -2)))
    else:
        scores = matmul(q, swapaxes(k, -1, -2))
    if groups > 1:
        scores = _join_heads(scores)
    if softcap is not None:
        scores = tanh(scores * (1.0 / softcap)) * softcap
    if slopes is not None:
        _, distance = distances(shape[-2], keys, options, place)
        away = np.abs(distance).astype(scores.dtype)
        slope = expand_dims(as_tensor(slopes).astype(scores.dtype), (-2, -1))
        scores = add(scores, -slope * away)
    if mask is not None:
        values = array_of(mask)
        if values.dtype == bool:
            scores = where(mask, scores, -np.inf)
        else:
            scores = where(np.isneginf(values), -np.inf, add(scores, mask))
    seen = seen_pairs(shape, keys, options, place)
    if seen is not None:
        scores = where(seen, scores, -np.inf)
    if sinks is None:
        return softmax(scores)
    last = reshape(sinks, (-1, 1, 1)) if len(shape) > 2 else reshape(sinks, (1, 1))
    last = broadcast_to(last, (*scores.shape[:-1], 1))
    return softmax(concatenate([scores, last], -1))[..., :-1]


def _turned(q: Tensor, k: Tensor, options: Options) -> list[Tensor]:
    """Queries and keys turned by the angles of their places."""
    at = places(q.shape[-2], k.shape[-2], options, place_of(q._data))
    turned = []
    for x, rows in ((q, at), (k, slice(None))):
        cosine, sine = (as_array(table)[..., rows, :] for table in options["rotary"])
        if cosine.ndim > 2:  # alike for all heads
            cosine, sine = cosine[..., None, :, :], sine[..., None, :, :]
        interleaved = options.get("rotary_interleaved", False)
        turned.append(rotary_embedding(x, cosine, sine, interleaved))
    return turned


def _count(n: int, place: str) -> NDArray[Any]:
    """0 to n in the memory of `place`."""
    found: NDArray[Any] = to(np.arange(n), place)
    return found


def places(queries: int, keys: int, options: Options, place: str) -> NDArray[Any]:
    """(queries,): the key at each query's own place; in the memory of `place`, as all of these."""
    i = _count(queries, place)
    starts_q = options.get("cu_seqlens_q")
    if starts_q is None:
        return i + keys - queries
    starts_q, starts_k = as_array(starts_q), as_array(options.get("cu_seqlens_k", starts_q))
    sequence = np.searchsorted(starts_q, i, "right") - 1
    found: NDArray[Any] = i + (starts_k[1:] - starts_q[1:])[sequence]
    return found


def distances(
    queries: int, keys: int, options: Options, place: str
) -> tuple[NDArray[Any], NDArray[Any]]:
    """(queries, keys): whether both are in one sequence, and how far after the query's place the key is."""
    i, j = _count(queries, place), _count(keys, place)
    distance = j - places(queries, keys, options, place)[:, None]
    starts_q = options.get("cu_seqlens_q")
    if starts_q is None:
        return distance == distance, distance
    starts_k = as_array(options.get("cu_seqlens_k", starts_q))
    of_q = np.searchsorted(as_array(starts_q), i, "right") - 1
    of_k = np.searchsorted(starts_k, j, "right") - 1
    return of_q[:, None] == of_k, distance


def seen_pairs(shape: tuple[int, ...], keys: int, options: Options, place: str) -> Any:
    """The pairs that count, bool and broadcasting to (..., heads, lq, lk); None if all do.

    `shape` is the query's.
    """
    queries, axes = shape[-2], (1,) * min(len(shape) - 2, 1)
    seen: Any = None
    if options.keys() & {"is_causal", "window", "cu_seqlens_q"}:
        seen, distance = distances(queries, keys, options, place)
        left, right = options.get("window", (None, None))
        if left is not None:
            seen = seen & (distance >= -left)
        if right is not None:
            seen = seen & (distance <= right)
        if options.get("is_causal"):
            seen = seen & (distance <= 0)
    masks = [] if seen is None else [seen]
    if "key_lengths" in options:
        lengths = as_array(options["key_lengths"])
        masks.append(_count(keys, place) < lengths.reshape(*lengths.shape, *axes, 1, 1))
    if "document_ids" in options:
        ids = as_array(options["document_ids"])
        of_q = ids[..., keys - queries :, None]
        same = of_q == ids[..., None, :]
        masks.append(same.reshape(*ids.shape[:-1], *axes, queries, keys) if ids.ndim > 1 else same)
    if "block_mask" in options:
        blocks, size = as_array(options["block_mask"]), options.get("block_size")
        for axis, length, given in ((-2, queries, 0), (-1, keys, 1)):
            width = -(-length // max(1, blocks.shape[axis]))
            if size is not None:
                width = size if isinstance(size, int) else size[given]
            blocks = np.repeat(blocks, width, axis).take(_count(length, place), axis)
        masks.append(blocks)
    if not masks:
        return None
    seen = masks[0]
    for other in masks[1:]:
        seen = seen & other
    return seen


def mix(weights: Tensor, v: Tensor) -> Tensor:
    """``weights @ v``, where a weight of zero hides a value even if that is infinite or NaN."""
    groups = _groups(weights, v)
    if groups > 1:
        weights, v = _split_heads(weights, groups), expand_dims(v, -3)
    values = v._data
    broken = ~np.isfinite(values)
    if broken.any():
        out = matmul(weights, where(broken, 0.0, v))
        visible = (weights._data != 0).astype(values.dtype)
        kinds = {np.inf: values == np.inf, -np.inf: values == -np.inf, np.nan: np.isnan(values)}
        for value, found in kinds.items():
            seen = ops.matmul(visible, found.astype(values.dtype)) > 0
            out = add(out, np.where(seen, *map(values.dtype.type, (value, 0))))
    else:
        out = matmul(weights, v)
    return _join_heads(out) if groups > 1 else out


def _groups(q: Tensor, k: Tensor) -> int:
    """How many heads of `q` (..., heads, length, dim) share one of `k`."""
    return q.shape[-3] // k.shape[-3] if q.ndim > 2 else 1


def _split_heads(x: Tensor, groups: int) -> Tensor:
    """(..., heads, n, d) as (..., heads / groups, groups, n, d)."""
    return reshape(x, (*x.shape[:-3], x.shape[-3] // groups, groups, *x.shape[-2:]))


def _join_heads(x: Tensor) -> Tensor:
    """The reverse of `_split_heads`."""
    return reshape(x, (*x.shape[:-4], x.shape[-4] * x.shape[-3], *x.shape[-2:]))
