"""Reductions over any set of axes.

Arguments are floating-point arrays of any shape and strides. ``axis`` is None (every axis), an
axis or a tuple of axes; ``keepdims`` leaves them as ones; ``out``, of the result's shape and dtype,
is written and returned. Sums are added blockwise in an order that depends on shape and strides only:
bitwise the same for any number of threads, and off by at most 80 eps times the sum of magnitudes.
Errors: TypeError for another dtype; ValueError for an axis out of range or given twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from numpy.typing import ArrayLike, NDArray

from vectile import _core

__all__ = ["global_norm", "max", "mean", "min", "sum", "sum_to"]

Axis = int | tuple[int, ...] | None


def sum(
    x: ArrayLike, axis: Axis = None, keepdims: bool = False, *, out: NDArray[Any] | None = None
) -> NDArray[Any]:
    """Return the sum over ``axis``; 0 for no elements."""
    return _core.sum(x, axis, keepdims, out)


def mean(
    x: ArrayLike, axis: Axis = None, keepdims: bool = False, *, out: NDArray[Any] | None = None
) -> NDArray[Any]:
    """Return the mean over ``axis``; NaN for no elements."""
    return _core.mean(x, axis, keepdims, out)


def max(
    x: ArrayLike, axis: Axis = None, keepdims: bool = False, *, out: NDArray[Any] | None = None
) -> NDArray[Any]:
    """Return the largest element over ``axis``, NaN where there is one; ValueError for no elements."""
    return _core.max(x, axis, keepdims, out)


def min(
    x: ArrayLike, axis: Axis = None, keepdims: bool = False, *, out: NDArray[Any] | None = None
) -> NDArray[Any]:
    """Return the smallest element over ``axis``, NaN where there is one; ValueError for no elements."""
    return _core.min(x, axis, keepdims, out)


def sum_to(x: ArrayLike, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return ``x`` summed over the axes along which an array of ``shape`` broadcasts to ``x``.

    This is the gradient of broadcasting. ValueError unless ``shape`` broadcasts to the shape of ``x``.
    """
    return _core.sum_to(x, shape)


def global_norm(arrays: Iterable[ArrayLike]) -> float:
    """Return the square root of the sum of all squares, in one call; 0.0 for no arrays."""
    return _core.global_norm(arrays)
