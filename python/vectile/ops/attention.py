"""Fused scaled dot-product attention and its backward pass."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike, NDArray

from vectile import _core

__all__ = ["scaled_dot_product_attention", "scaled_dot_product_attention_backward"]


def scaled_dot_product_attention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    attn_mask: ArrayLike | None = None,
    *,
    is_causal: bool = False,
    scale: float | None = None,
    return_lse: bool = False,
    return_weights: bool = False,
) -> Any:
    """Return ``softmax(scale * query @ key.T + mask) @ value`` without forming the score matrix.

    Tiles of scores live in cache only, so memory is linear in the length (FlashAttention-2,
    arXiv 2307.08691). Keys that a causal mask hides are not computed.

    Args:
        query: (..., heads, lq, d), floating-point. A matrix (lq, d) is one head.
        key: (..., kv_heads, lk, d). ``kv_heads`` divides ``heads``: consecutive query heads share
            one (grouped-query attention).
        value: (..., kv_heads, lk, dv); ``dv`` may differ from ``d``.
        attn_mask: broadcasts to (..., heads, lq, lk). bool: True lets the query see the key; the
            dtype of ``query``: added to the scaled scores, where -inf (and what overflows to it)
            masks.
        is_causal: query ``i`` sees keys ``j <= i + lk - lq`` only: the last query sees every key,
            so that new queries follow cached keys. Holds together with ``attn_mask``.
        scale: 1 / sqrt(d) by default.
        return_lse: also return the log of the sum of exponentials of each row of scores,
            (..., heads, lq); the backward pass wants it.
        return_weights: also return the softmax, (..., heads, lq, lk).

    Returns:
        out (..., heads, lq, dv), or a tuple (out[, lse][, weights]). A row that may see no key
        gives zeros, with lse -inf. A key of weight zero contributes nothing, even if its value is
        NaN.

    Arrays are read in place when their last axis is contiguous; others are copied once.

    Raises:
        TypeError: dtypes are not floating-point, or differ.
        ValueError: shapes do not fit together, or ``scale`` is not finite.
    """
    return _core.scaled_dot_product_attention(
        query, key, value, attn_mask, is_causal, scale, return_lse, return_weights
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
    scale: float | None = None,
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return the gradients (dq, dk, dv) of :func:`scaled_dot_product_attention`.

    The weights are computed again from ``lse``, tile by tile (FlashAttention-2, section 3.1.2).
    Query heads that share a key head are summed into it. A fully masked row has no gradient.

    Args:
        grad: the gradient of ``out``, of its shape.
        query, key, value, attn_mask, is_causal, scale: as in the forward call.
        out, lse: what the forward call returned.

    Raises:
        TypeError: dtypes are not floating-point, or differ.
        ValueError: shapes do not fit together, or ``scale`` is not finite.
    """
    return _core.scaled_dot_product_attention_backward(
        grad, query, key, value, out, lse, attn_mask, is_causal, scale
    )
