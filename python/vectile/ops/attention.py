"""Fused scaled dot-product attention and its backward pass."""

from __future__ import annotations

from typing import Any, TypeAlias

from numpy.typing import ArrayLike, NDArray

from vectile import _core

__all__ = ["scaled_dot_product_attention", "scaled_dot_product_attention_backward"]

Window: TypeAlias = tuple[int | None, int | None]
BlockSize: TypeAlias = int | tuple[int, int]
Rotary: TypeAlias = tuple[ArrayLike, ArrayLike]


def scaled_dot_product_attention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    attn_mask: ArrayLike | None = None,
    *,
    is_causal: bool = False,
    window: Window | None = None,
    block_mask: ArrayLike | None = None,
    block_size: BlockSize | None = None,
    key_lengths: ArrayLike | None = None,
    cu_seqlens_q: ArrayLike | None = None,
    cu_seqlens_k: ArrayLike | None = None,
    document_ids: ArrayLike | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    alibi_slopes: ArrayLike | None = None,
    sinks: ArrayLike | None = None,
    rotary: Rotary | None = None,
    rotary_interleaved: bool = False,
    dropout_p: float = 0.0,
    seed: int = 0,
    return_lse: bool = False,
    return_weights: bool = False,
    return_column_sums: bool = False,
    return_top_k: int = 0,
) -> Any:
    """Return ``softmax(scale * query @ key.T + mask) @ value`` without forming the score matrix.

    Tiles of scores live in cache only, so memory is linear in the length (FlashAttention-2,
    arXiv 2307.08691). Query ``i`` has its place at key ``i + lk - lq``: the last query stands at
    the last key, so that new queries follow cached keys. All masks hold together. Keys that
    `is_causal`, `window`, `block_mask`, `key_lengths`, `cu_seqlens` and `document_ids` hide are not
    computed; ``docs/attention.md`` has the equation and the cost of each option.

    Args:
        query: (..., heads, lq, d), floating-point. A matrix (lq, d) is one head.
        key: (..., kv_heads, lk, d). ``kv_heads`` divides ``heads``: consecutive query heads share
            one (grouped-query attention).
        value: (..., kv_heads, lk, dv); ``dv`` may differ from ``d``.
        attn_mask: broadcasts to (..., heads, lq, lk). bool: True lets the query see the key; the
            dtype of ``query``: added to the scaled scores, where -inf (and what overflows to it)
            masks.
        is_causal: a query sees no key after its place.
        window: (left, right): a query sees at most so many keys before and after its place
            (arXiv 2004.05150); None for a side without a limit.
        block_mask: bool, broadcasts to (..., heads, row blocks, column blocks): True keeps the
            block (arXiv 2007.14062).
        block_size: queries and keys of a block, one number or two; by default the smallest with
            which that many blocks cover the lengths. The last blocks may be cut off.
        key_lengths: integers, broadcast to the batch (...): keys from there on are padding. Places
            remain those of the arrays.
        cu_seqlens_q: integers (n + 1,), as in FlashAttention: sequence ``s`` of ``n`` packed ones
            has the queries ``cu_seqlens_q[s]`` to ``cu_seqlens_q[s + 1]`` and sees its own keys
            only; places are those within the sequence. Holds for each batch and head.
        cu_seqlens_k: the same for keys; ``cu_seqlens_q`` by default.
        document_ids: integers, broadcast to (..., lk): a query sees the keys with the id of its
            place. lq <= lk. Documents that are not contiguous cost what lies between.
        scale: 1 / sqrt(d) by default.
        softcap: scores become ``softcap * tanh(score / softcap)`` before biases and masks
            (Gemma 2, arXiv 2408.00118).
        alibi_slopes: broadcasts to (..., heads): ``slope * |key - place|`` is subtracted from the
            scores (arXiv 2108.12409).
        sinks: (heads,): the score of one more key, whose value is zero (gpt-oss).
        rotary: (cosine, sine), both (..., lk, pairs) and broadcasting to the batch: key ``j`` and a
            query whose place it is turn by the angles of row ``j`` as they are read, as
            :func:`rotary_embedding` would turn them before (arXiv 2104.09864). ``2 * pairs <= d``;
            the dtype of ``query``, or float32 beside a half type. Each query needs a place among
            the keys. The gradients are those of what was given.
        rotary_interleaved: pairs are neighbours; see :func:`rotary_embedding`.
        dropout_p: the probability with which a weight is left out; the others are scaled by
            ``1 / (1 - dropout_p)``. The mask is that of ``dropout(weights, dropout_p, seed)``.
        seed: of that mask.
        return_lse: also return the log of the sum of exponentials of each row of scores,
            (..., heads, lq); the backward pass wants it.
        return_weights: also return the softmax, (..., heads, lq, lk), before dropout.
        return_column_sums: also return the sum of the weights each key gets, (..., heads, lk).
        return_top_k: k > 0: also return the k largest weights of each query, falling, and their
            keys (int64), both (..., heads, lq, k); 0 and key -1 where fewer are not zero.

    Returns:
        out (..., heads, lq, dv), or a tuple (out[, lse][, weights][, column sums][, top weights,
        top keys]). lse and column sums are float32 beside a half type. A row that may see no key
        gives zeros, with lse -inf, or the sink. A key of weight zero contributes nothing, even if
        its value is NaN.

    Arrays are read in place when their last axis is contiguous; others are copied once.

    Raises:
        TypeError: dtypes are not floating-point, or differ; integers are not.
        ValueError: shapes do not fit together, or a value is out of its range.
    """
    return _core.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask,
        is_causal,
        window,
        block_mask,
        _pair(block_size),
        key_lengths,
        cu_seqlens_q,
        cu_seqlens_k,
        document_ids,
        scale,
        softcap,
        alibi_slopes,
        sinks,
        rotary,
        rotary_interleaved,
        dropout_p,
        seed,
        return_lse,
        return_weights,
        return_column_sums,
        return_top_k,
    )


def scaled_dot_product_attention_backward(
    grad: ArrayLike,
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    out: ArrayLike,
    lse: ArrayLike,
    attn_mask: ArrayLike | None = None,
    *,
    is_causal: bool = False,
    window: Window | None = None,
    block_mask: ArrayLike | None = None,
    block_size: BlockSize | None = None,
    key_lengths: ArrayLike | None = None,
    cu_seqlens_q: ArrayLike | None = None,
    cu_seqlens_k: ArrayLike | None = None,
    document_ids: ArrayLike | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    alibi_slopes: ArrayLike | None = None,
    sinks: ArrayLike | None = None,
    rotary: Rotary | None = None,
    rotary_interleaved: bool = False,
    dropout_p: float = 0.0,
    seed: int = 0,
) -> tuple[NDArray[Any], ...]:
    """Return the gradients (dq, dk, dv[, dsinks]) of :func:`scaled_dot_product_attention`.

    The weights are computed again from ``lse``, tile by tile (FlashAttention-2, section 3.1.2), and
    the dropout mask from ``seed``. Query heads that share a key head are summed into it. A fully
    masked row has no gradient. ``dsinks`` (heads,) is there if ``sinks`` are.

    Args:
        grad: the gradient of ``out``, of its shape.
        out, lse: what the forward call returned.
        query, key, value, attn_mask and the options: as in the forward call.

    Raises:
        TypeError: dtypes are not floating-point, or differ; integers are not.
        ValueError: shapes do not fit together, or a value is out of its range.
    """
    found: tuple[NDArray[Any], ...] = _core.scaled_dot_product_attention_backward(
        grad,
        query,
        key,
        value,
        out,
        lse,
        attn_mask,
        is_causal,
        window,
        block_mask,
        _pair(block_size),
        key_lengths,
        cu_seqlens_q,
        cu_seqlens_k,
        document_ids,
        scale,
        softcap,
        alibi_slopes,
        sinks,
        rotary,
        rotary_interleaved,
        dropout_p,
        seed,
    )
    return found


def _pair(size: BlockSize | None) -> tuple[int, int] | None:
    return (size, size) if isinstance(size, int) else size
