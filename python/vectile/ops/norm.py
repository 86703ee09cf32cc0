"""layer_norm and rms_norm over the last axis, batch_norm and group_norm over channels; their backwards."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike, NDArray

from vectile import _core

__all__ = [
    "add_layer_norm",
    "add_rms_norm",
    "batch_norm",
    "batch_norm_backward",
    "group_norm",
    "group_norm_backward",
    "layer_norm",
    "layer_norm_backward",
    "rms_norm",
    "rms_norm_backward",
]


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
        x: floating-point, shape (..., n).
        weight: shape (n,), the dtype of ``x``, or float32 beside a half type; None means ones.
        bias: shape (n,), likewise; None means zeros.
        eps: added to the (biased) variance; not negative.
        return_stats: also return ``mean`` and ``rstd``, of shape ``x.shape[:-1]``.

    Returns:
        ``y`` of the shape of ``x``, or ``(y, mean, rstd)``.

    Raises:
        TypeError: ``x`` is not a floating-point array, or the dtypes differ.
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


def add_layer_norm(
    x: ArrayLike,
    residual: ArrayLike,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    eps: float = 1e-5,
    *,
    return_stats: bool = False,
) -> Any:
    """Return :func:`layer_norm` of ``x + residual``, and that sum, in one pass over memory.

    Arguments and errors as :func:`layer_norm`; ``residual`` has the shape and dtype of ``x``.

    Returns:
        ``(y, sum)``, or ``(y, sum, mean, rstd)``. The gradient of the sum through ``y`` is
        :func:`layer_norm_backward` of ``sum``; ``x`` and ``residual`` both have the sum's.
    """
    return _core.add_layer_norm(x, residual, weight, bias, eps, return_stats)


def add_rms_norm(
    x: ArrayLike,
    residual: ArrayLike,
    weight: ArrayLike | None = None,
    eps: float = 1e-6,
    *,
    return_stats: bool = False,
) -> Any:
    """Return :func:`rms_norm` of ``x + residual``, and that sum, in one pass over memory.

    Arguments and errors as :func:`add_layer_norm`.

    Returns:
        ``(y, sum)``, or ``(y, sum, rstd)``.
    """
    return _core.add_rms_norm(x, residual, weight, eps, return_stats)


def batch_norm(
    x: ArrayLike,
    running_mean: ArrayLike | None = None,
    running_var: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    return_stats: bool = False,
) -> Any:
    """Return ``(x - mean) / sqrt(var + eps) * weight + bias`` channel by channel.

    Ioffe and Szegedy, "Batch Normalization", 2015. In training, mean and (biased) variance are those of
    each channel of ``x``, centred two-pass, and the running statistics, where given, are changed in place:
    ``running += momentum * (found - running)``, with the unbiased variance. Otherwise the running
    statistics are what is used.

    Args:
        x: floating-point, shape (batch, channels, ...).
        running_mean: shape (channels,), of a dtype as for ``weight``; writable in training, required
            otherwise.
        running_var: likewise.
        weight: shape (channels,), the dtype of ``x``, or float32 beside a half type; None means ones.
        bias: shape (channels,); None means zeros.
        training: whether to use the batch's own statistics.
        momentum: the share of the batch in the new running statistics.
        eps: added to the variance; not negative.
        return_stats: also return ``mean`` and ``rstd = 1/sqrt(var + eps)``, of shape (channels,).

    Returns:
        ``y`` of the shape of ``x``, or ``(y, mean, rstd)``.

    Raises:
        TypeError: ``x`` is not a floating-point array, or the dtypes differ.
        ValueError: ``x`` has fewer than two axes, an argument has another shape than (channels,), ``eps``
            is negative, or a channel has a single value in training.
    """
    return _core.batch_norm(
        x, running_mean, running_var, weight, bias, training, momentum, eps, return_stats
    )


def batch_norm_backward(
    grad: ArrayLike,
    x: ArrayLike,
    weight: ArrayLike | None,
    mean: ArrayLike,
    rstd: ArrayLike,
    training: bool,
) -> tuple[NDArray[Any], NDArray[Any] | None, NDArray[Any] | None]:
    """Return the gradients ``(dx, dweight, dbias)`` of :func:`batch_norm`.

    ``mean`` and ``rstd`` are the forward's; unless ``training`` they count as constants. Without a weight
    the last two results are None.
    """
    return _core.batch_norm_backward(grad, x, weight, mean, rstd, training)


def group_norm(
    x: ArrayLike,
    num_groups: int,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    eps: float = 1e-5,
    *,
    return_stats: bool = False,
) -> Any:
    """Normalise each sample over ``num_groups`` groups of adjacent channels.

    Wu and He, "Group Normalization", 2018; as many groups as channels is instance normalisation (Ulyanov et
    al., arXiv 1607.08022). ``x``: (batch, channels, ...), ``weight`` and ``bias``: (channels,) or None.

    Returns:
        ``y`` of the shape of ``x``, or ``(y, mean, rstd)`` with statistics of shape (batch, num_groups).

    Raises:
        TypeError, ValueError: as :func:`batch_norm`, and where ``num_groups`` does not divide the channels.
    """
    return _core.group_norm(x, num_groups, weight, bias, eps, return_stats)


def group_norm_backward(
    grad: ArrayLike,
    x: ArrayLike,
    num_groups: int,
    weight: ArrayLike | None,
    mean: ArrayLike,
    rstd: ArrayLike,
) -> tuple[NDArray[Any], NDArray[Any] | None, NDArray[Any] | None]:
    """Return the gradients ``(dx, dweight, dbias)`` of :func:`group_norm`; None as for batch_norm."""
    return _core.group_norm_backward(grad, x, num_groups, weight, mean, rstd)
