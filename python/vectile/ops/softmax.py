"""softmax and log_softmax over one axis, with their backward passes."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike, NDArray

from vectile import _core

__all__ = ["log_softmax", "log_softmax_backward", "softmax", "softmax_backward"]


def softmax(x: ArrayLike, axis: int = -1, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Return exp(x) / sum(exp(x)) along ``axis``, shifted by the maximum so that it never overflows.

    A line that is -inf throughout (fully masked) gives zeros. In float32 an exponential below 2**-126
    is taken for zero.

    Args:
        x: floating-point, at least 1-D.
        axis: the axis that sums to one.
        out: written and returned when given; the shape and dtype of ``x``. May be ``x`` itself.

    Raises:
        TypeError: ``x`` is not a floating-point array, or ``out`` has another dtype.
        ValueError: ``axis`` is out of range, or ``out`` has another shape.
    """
    return _core.softmax(x, axis, out)


def log_softmax(x: ArrayLike, axis: int = -1, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Return log(softmax(x)) without forming the softmax; arguments and errors as :func:`softmax`.

    A line that is -inf throughout stays -inf.
    """
    return _core.log_softmax(x, axis, out)


def softmax_backward(grad: ArrayLike, y: ArrayLike, axis: int = -1) -> NDArray[Any]:
    """Return the gradient of softmax: ``y * (grad - sum(grad * y))``, with ``y`` its result."""
    return _core.softmax_backward(grad, y, axis)


def log_softmax_backward(grad: ArrayLike, y: ArrayLike, axis: int = -1) -> NDArray[Any]:
    """Return the gradient of log_softmax: ``grad - exp(y) * sum(grad)``, with ``y`` its result."""
    return _core.log_softmax_backward(grad, y, axis)
