"""Gradient clipping, and a model's mode while it is evaluated."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vectile import device, ops
from vectile.autograd import Tensor
from vectile.nn.module import Module


class _Tree(Protocol):
    def modules(self) -> Iterator[Module]: ...


@contextmanager
def evaluating(model: _Tree) -> Iterator[None]:
    """Within, the whole model is in eval mode; afterwards each part is in the mode that it was in."""
    modes = [(module, module.training) for module in model.modules()]
    for module, _ in modes:
        module.training = False
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> float | Tensor:
    """Scale all gradients together so that their joint `norm_type`-norm is at most `max_norm`.

    Returns the norm before clipping: a float, or for the 2-norm on a GPU a Tensor there, which nothing waits
    for unless `error_if_nonfinite`. ValueError for a `norm_type` that is not positive, RuntimeError for a NaN
    or infinite norm if asked to.
    """
    if not norm_type > 0:
        raise ValueError(f"clip_grad_norm_: norm_type: expected > 0, got {norm_type}")
    grads = _gradients(parameters)
    if not grads:
        return 0.0
    arrays = [grad.data for grad in grads]
    fused = norm_type == 2 and not error_if_nonfinite and device.on_device(arrays[0])
    if fused:
        norm: float | Tensor = Tensor(device.call("clip_grad_norm_", arrays, max_norm))
    else:
        norm = _norm(arrays, norm_type)
        if error_if_nonfinite and not math.isfinite(norm):
            raise RuntimeError(f"clip_grad_norm_: norm: expected a finite value, got {norm}")
        scale = max_norm / (norm + 1e-6)
        if scale >= 1.0:
            return norm
        ops.scale_(arrays, scale)  # by NaN too, as in PyTorch: a broken step stays visible
    for grad in grads:
        grad.bump_version("clip_grad_norm_")
    return norm


def _norm(arrays: list[NDArray[Any]], p: float) -> float:
    """The p-norm of all elements together; sums in float64, scaled so that no power overflows."""
    if p == 2:
        return ops.global_norm(arrays)
    largest = float(np.max([float(np.abs(a).max()) for a in arrays if a.size], initial=0.0))
    if p == math.inf or not 0 < largest < math.inf:
        return largest
    total = sum(float((np.abs(a / largest, dtype=np.float64) ** p).sum()) for a in arrays)
    return float(largest * total ** (1 / p))


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Clamp every gradient element to [-clip_value, clip_value]."""
    if not clip_value >= 0:
        raise ValueError(f"clip_grad_value_: clip_value: expected >= 0, got {clip_value}")
    for grad in _gradients(parameters):
        np.clip(grad.data, -clip_value, clip_value, out=grad.data)
        grad.bump_version("clip_grad_value_")


def _gradients(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    tensors = [parameters] if isinstance(parameters, Tensor) else parameters
    return [tensor.grad for tensor in tensors if tensor.grad is not None]
