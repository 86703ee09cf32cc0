"""Conversion between floating-point storage types."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike, DTypeLike, NDArray

from vectile import _core
from vectile.runtime import named_dtype

__all__ = ["cast"]


def cast(x: ArrayLike, dtype: DTypeLike) -> NDArray[Any]:
    """Return a row-major copy of ``x`` as ``dtype``: ``ndarray.astype`` between floating-point types.

    Widening is exact. Narrowing rounds once, half to even, subnormals included; what is too large
    becomes infinity, and NaN in float8_e4m3fn, which has no infinity and ends at 448. NaN stays NaN.

    Args:
        x: float64, float32, float16, or ``bfloat16``, ``float8_e4m3fn``, ``float8_e5m2`` of
            ``ml_dtypes``; any shape and strides.
        dtype: one of the same, as a dtype, a scalar type or a name.

    Raises:
        TypeError: either type is another one.
    """
    return _core.cast(x, named_dtype(dtype))
