"""Rotary position embedding: pairs of elements turned by an angle of their position."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike, NDArray

from vectile import _core

__all__ = ["rotary_embedding"]


def rotary_embedding(
    x: ArrayLike,
    cosine: ArrayLike,
    sine: ArrayLike,
    *,
    interleaved: bool = False,
    inverse: bool = False,
) -> NDArray[Any]:
    """Turn pair ``j`` of each row of `x` by the angle of (cosine[..., j], sine[..., j]).

    A pair (a, b) becomes (a cos - b sin, b cos + a sin) (RoFormer, arXiv 2104.09864, eq. 34).

    Args:
        x: (..., length, n), floating-point.
        cosine, sine: (..., length, pairs), ``2 * pairs <= n``; leading axes broadcast to those of
            `x`. The dtype of `x`, or float32 beside a half type. Elements after the pairs stay.
        interleaved: pair ``j`` is (x[2 j], x[2 j + 1]), as in RoFormer and GPT-J; else
            (x[j], x[pairs + j]), as in GPT-NeoX and Llama's Hugging Face weights.
        inverse: turn the other way; this is also the gradient.

    Returns:
        An array like `x`. Rows are read in place when the last axis of `x` is contiguous.

    Raises:
        TypeError: dtypes are not floating-point, or differ.
        ValueError: shapes do not fit together.
    """
    return _core.rotary_embedding(x, cosine, sine, interleaved, inverse)
