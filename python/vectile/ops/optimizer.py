"""Fused multi-tensor optimiser steps: one call updates every parameter in place.

Every list holds one array per parameter, in the same order and of the parameter's shape; parameters
and gradients of a call share a floating-point dtype, and state has it too, or float32 beside float16
and bfloat16: keep it so, for what moments add up is smaller than a half type's last place. Parameters
and state are NumPy arrays that are written in place (any strides); no two of them may share memory.
Empty lists are fine.

Raises, for every function here:
    TypeError: an argument is not a list or tuple of NumPy arrays, or the dtypes differ.
    ValueError: the lengths or shapes differ, an array is read-only, or an option is out of range.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from vectile import _core

__all__ = ["adam_", "adamw_", "rmsprop_", "scale_", "sgd_"]

Arrays = Sequence[NDArray[Any]]


def sgd_(
    params: Arrays,
    grads: Arrays,
    momentum_buffers: Arrays | None = None,
    *,
    lr: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
) -> None:
    """Stochastic gradient descent, ``torch.optim.SGD``'s formula.

    With ``g = grad + weight_decay * p``: ``buffer = momentum * buffer + (1 - dampening) * g``, and
    ``p -= lr * buffer``, or ``p -= lr * (g + momentum * buffer)`` with ``nesterov``. Without momentum
    ``p -= lr * g`` and the buffers are left alone. PyTorch's first step sets the buffer to ``g``: call
    with zeros and ``dampening=0``.
    """
    _core.sgd_(params, grads, momentum_buffers, lr, momentum, dampening, weight_decay, nesterov)


def adam_(
    params: Arrays,
    grads: Arrays,
    exp_avgs: Arrays,
    exp_avg_sqs: Arrays,
    *,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    step: int,
) -> None:
    """Adam (Kingma and Ba, arXiv 1412.6980), ``torch.optim.Adam``'s formula; ``step`` counts from 1.

    With ``g = grad + weight_decay * p``: ``m = beta1 * m + (1 - beta1) * g``,
    ``v = beta2 * v + (1 - beta2) * g**2`` and
    ``p -= lr / (1 - beta1**step) * m / (sqrt(v / (1 - beta2**step)) + eps)``.
    """
    _core.adam_(params, grads, exp_avgs, exp_avg_sqs, lr, beta1, beta2, eps, weight_decay, step)


def adamw_(
    params: Arrays,
    grads: Arrays,
    exp_avgs: Arrays,
    exp_avg_sqs: Arrays,
    *,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    step: int,
) -> None:
    """AdamW (Loshchilov and Hutter, arXiv 1711.05101): :func:`adam_` with decoupled weight decay.

    ``p *= 1 - lr * weight_decay`` first; the gradient is used as it is.
    """
    _core.adamw_(params, grads, exp_avgs, exp_avg_sqs, lr, beta1, beta2, eps, weight_decay, step)


def rmsprop_(
    params: Arrays,
    grads: Arrays,
    square_avgs: Arrays,
    momentum_buffers: Arrays | None = None,
    *,
    lr: float,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
) -> None:
    """RMSprop (Hinton, "Neural Networks for Machine Learning", lecture 6e), PyTorch's formula.

    With ``g = grad + weight_decay * p``: ``v = alpha * v + (1 - alpha) * g**2``,
    ``u = g / (sqrt(v) + eps)``, and ``p -= lr * u``; with momentum ``buffer = momentum * buffer + u``
    and ``p -= lr * buffer``.
    """
    _core.rmsprop_(
        params, grads, square_avgs, momentum_buffers, lr, alpha, eps, weight_decay, momentum
    )


def scale_(arrays: Arrays, factor: float) -> None:
    """Multiply every array by ``factor`` in place (gradient clipping); shapes need not agree."""
    _core.scale_(arrays, factor)
