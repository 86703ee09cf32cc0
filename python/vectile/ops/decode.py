"""Attention of the newest tokens to cached keys and values, and appending to the cache."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike, NDArray

from vectile import _core
from vectile.ops.attention import Window

__all__ = ["append_to_cache", "decode_attention"]


def decode_attention(
    query: ArrayLike,
    key_cache: NDArray[Any],
    value_cache: NDArray[Any],
    block_tables: ArrayLike,
    lengths: ArrayLike,
    *,
    key_scales: NDArray[Any] | None = None,
    value_scales: NDArray[Any] | None = None,
    scale: float | None = None,
    window: Window | None = None,
    softcap: float | None = None,
    alibi_slopes: ArrayLike | None = None,
    sinks: ArrayLike | None = None,
    return_lse: bool = False,
) -> Any:
    """Return causal attention of each sequence's newest tokens to a cache of keys and values.

    The cache lies in blocks (PagedAttention, arXiv 2309.06180): token ``t`` of sequence ``b`` is row
    ``t % block_size`` of block ``block_tables[b, t // block_size]``. One block a sequence is a
    contiguous cache. Query ``i`` stands at key ``lengths[b] - lq + i`` and sees no key after it; one
    before the first key sees none and gets zeros. Keys and values are read once for all queries of a
    group, in place, and pieces of the keys run in parallel (Flash-Decoding); keys outside the window
    are not read. ``docs/attention.md`` has the equations and the cost.

    Args:
        query: (batch, heads, lq, d), floating-point: the newest ``lq`` tokens of each sequence.
        key_cache: (blocks, kv_heads, block_size, d), C-contiguous; float32, float64, float16,
            bfloat16 or int8, whatever the dtype of ``query``. ``kv_heads`` divides ``heads``:
            consecutive query heads share one (grouped-query attention).
        value_cache: (blocks, kv_heads, block_size, dv), the dtype of ``key_cache``.
        block_tables: (batch, max_blocks), integers. Entries of blocks that no query sees are not
            read.
        lengths: (batch,), integers: the tokens of each sequence, the queries' own included.
        key_scales, value_scales: (blocks, kv_heads, block_size), float32, with an int8 cache only: a
            token is its scale times its bytes.
        scale, window, softcap, alibi_slopes, sinks: as in
            :func:`vectile.ops.scaled_dot_product_attention`; slopes broadcast to (batch, heads).
        return_lse: also return the log-sum-exp of each row of scores.

    Returns:
        (batch, heads, lq, dv) of the dtype of ``query``; with ``return_lse`` also (batch, heads, lq).
        Both are computed in float64 if the cache is, else in float32, which the latter keeps.

    Raises:
        TypeError: dtypes are not those named above, or a cache is not an ndarray.
        ValueError: shapes do not fit together, a cache is strided, a length is negative or exceeds
            its table, or a value is out of its range.
        IndexError: an entry of ``block_tables`` that is needed names no block.
    """
    return _core.decode_attention(
        query,
        key_cache,
        value_cache,
        block_tables,
        lengths,
        key_scales,
        value_scales,
        scale,
        window,
        softcap,
        alibi_slopes,
        sinks,
        return_lse,
    )


def append_to_cache(
    key: ArrayLike,
    value: ArrayLike,
    key_cache: NDArray[Any],
    value_cache: NDArray[Any],
    block_tables: ArrayLike,
    lengths: ArrayLike,
    *,
    counts: ArrayLike | None = None,
    key_scales: NDArray[Any] | None = None,
    value_scales: NDArray[Any] | None = None,
) -> None:
    """Write new keys and values into the blocks of a cache, in place.

    Token ``i`` of sequence ``b`` goes to place ``lengths[b] + i`` (:func:`decode_attention` has the
    layout), rounded to the cache's dtype. An int8 cache takes each row of ``d`` numbers as a scale,
    ``absmax / 127``, and their quotients by it rounded half to even; a row of zeros has the scale 0,
    and a row with a NaN or an infinity has the scale NaN, so that whoever sees the token gets NaN.
    Sequences must not write to a block they share.

    Args:
        key: (batch, kv_heads, n, d), floating-point.
        value: (batch, kv_heads, n, dv), floating-point.
        key_cache, value_cache, block_tables, key_scales, value_scales: as in
            :func:`decode_attention`; the caches and scales are written to.
        lengths: (batch,), integers: the tokens that each sequence has before the call.
        counts: (batch,), integers up to ``n``: only so many tokens of each sequence; all by default.

    Raises:
        TypeError: dtypes are not those named above, or a cache is not an ndarray.
        ValueError: shapes do not fit together, a cache is strided or read-only, or a table is too
            short for the tokens. Nothing has been written then.
        IndexError: an entry of ``block_tables`` that is needed names no block; nothing is written.
    """
    _core.append_to_cache(
        key,
        value,
        key_cache,
        value_cache,
        block_tables,
        lengths,
        counts,
        key_scales,
        value_scales,
    )
