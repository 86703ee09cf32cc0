"""layer_norm and rms_norm over the last axis, with their backward passes."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike, NDArray

from vectile import _core

__all__ = ["layer_norm", "layer_norm_backward", "rms_norm", "rms_norm_backward"]


def layer_norm(
    x: ArrayLike,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    eps: float = 1e-5,
    *,
    return_stats: bool = False,
) -> Any:
    """Return ``(x - mean) * rstd * weight + bias`` over the last axis, ``rstd = 1/sqrt(var + eps)``.

    Ba, Kiros and Hinton, "Layer Normalization", 2016. Centred two-pass: the variance is that of
    ``x - mean``, and stays accurate where the mean is large beside the spread.

    Args:
        x: float32 or float64, shape (..., n).
        weight: shape (n,), the dtype of ``x``; None means ones.
        bias: shape (n,), the dtype of ``x``; None means zeros.
        eps: added to the (biased) variance; not negative.
        return_stats: also return ``mean`` and ``rstd``, of shape ``x.shape[:-1]``.

    Returns:
        ``y`` of the shape of ``x``, or ``(y, mean, rstd)``.

    Raises:
        TypeError: ``x`` is not float32 or float64, or the dtypes differ.
        ValueError: ``x`` is 0-D, a parameter has another shape than (n,), or ``eps`` is negative.
    """
    return _core.layer_norm(x, weight, bias, eps, return_stats)


def layer_norm_backward(
    grad: ArrayLike, x: ArrayLike, weight: ArrayLike | None, mean: ArrayLike, rstd: ArrayLike
) -> tuple[NDArray[Any], NDArray[Any] | None, NDArray[Any] | None]:
    """Return the gradients ``(dx, dweight, dbias)`` of :func:`layer_norm`.

    ``grad`` has the shape of ``x``; ``mean`` and ``rstd`` are the forward's. Without a weight the
    last two results are None. Errors as for the forward.
    """
    return _core.layer_norm_backward(grad, x, weight, mean, rstd)


def rms_norm(
    x: ArrayLike,
    weight: ArrayLike | None = None,
    eps: float = 1e-6,
    *,
    return_stats: bool = False,
) -> Any:
    """Return ``x * rstd * weight`` over the last axis, ``rstd = 1/sqrt(mean(x**2) + eps)``.

    Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019. Arguments and errors as
    :func:`layer_norm`.

    Returns:
        ``y`` of the shape of ``x``, or ``(y, rstd)`` with ``rstd`` of shape ``x.shape[:-1]``.
    """
    return _core.rms_norm(x, weight, eps, return_stats)


def rms_norm_backward(
    grad: ArrayLike, x: ArrayLike, weight: ArrayLike | None, rstd: ArrayLike
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Return the gradients ``(dx, dweight)`` of :func:`rms_norm`; ``dweight`` is None without weight."""
    return _core.rms_norm_backward(grad, x, weight, rstd)
