"""Normalisation over channels with PyTorch's arguments."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from vectile.autograd import Tensor, as_tensor
from vectile.autograd import functional as _F
from vectile.autograd.functional import batch_norm, group_norm
from vectile.device import as_array

__all__ = ["batch_norm", "group_norm", "instance_norm"]


def _move(running: Any, found: NDArray[Any], momentum: float) -> None:
    """Move (channels,) in place towards the average of (batch, channels)."""
    array = as_array(running)
    array += momentum * (found.mean(0) - array)


def instance_norm(
    x: Any,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise every channel of every sample of x (batch, channels, ...) by itself (arXiv 1607.08022).

    Running statistics, where given, move in place towards the batch's average of the samples' means and
    unbiased variances; with `use_input_stats` False they are what is used.
    """
    t = as_tensor(x)
    if not use_input_stats:
        return _F.batch_norm(t, running_mean, running_var, weight, bias, False, momentum, eps)
    if t.ndim < 3:
        raise ValueError(f"instance_norm: x ndim: expected at least 3, got {t.ndim}")
    values = t.data[0, 0].size if t.shape[0] and t.shape[1] else 0
    if values == 1:
        raise ValueError("instance_norm: x values per channel: expected more than 1, got 1")
    axes = tuple(range(2, t.ndim))
    if t.size and running_mean is not None:
        _move(running_mean, t.data.mean(axes), momentum)
    if t.size and running_var is not None:
        _move(running_var, t.data.var(axes, ddof=1), momentum)
    return _F.group_norm(t, t.shape[1], weight, bias, eps)
