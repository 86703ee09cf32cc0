"""Activations that are compositions of the kernels' ops, with PyTorch's slopes at their kinks.

Each is written so that no branch overflows where another is chosen: a gradient is finite where the slope is.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vectile.autograd import Tensor, as_tensor
from vectile.autograd import functional as _F

__all__ = [
    "celu",
    "elu",
    "glu",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "logsigmoid",
    "mish",
    "relu6",
    "selu",
    "softmin",
    "softshrink",
    "softsign",
    "tanhshrink",
    "threshold",
]


def elu(x: Any, alpha: float = 1.0) -> Tensor:
    """x where it is positive, else alpha * (exp(x) - 1) (Clevert et al., arXiv 1511.07289)."""
    return _exponential(x, alpha)


def celu(x: Any, alpha: float = 1.0) -> Tensor:
    """x where it is positive, else alpha * (exp(x / alpha) - 1) (Barron, arXiv 1704.07483)."""
    if alpha == 0:
        raise ValueError("celu: alpha: expected another value than 0, got 0")
    return _exponential(x, alpha, 1.0, 1.0 / alpha)


def selu(x: Any) -> Tensor:
    """scale * elu(x, alpha), which keeps mean 0 and variance 1 (Klambauer et al., arXiv 1706.02515)."""
    scale = 1.0507009873554804934193349852946
    return _exponential(x, 1.6732632423543772848170429916717 * scale, scale)


def _exponential(x: Any, alpha: float, slope: float = 1.0, rate: float = 1.0) -> Tensor:
    """slope * x where x is positive, else alpha * (exp(rate * x) - 1)."""
    t = as_tensor(x)
    below = _F.clip(t, high=0.0)
    return _scaled(_F.relu(t), slope) + _scaled(_F.expm1(_scaled(below, rate)), alpha)


def _scaled(x: Tensor, factor: float) -> Tensor:
    return x if factor == 1 else x * factor


def hardtanh(x: Any, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """x held between two values, with slope 0 at either."""
    if min_val > max_val:
        raise ValueError(f"hardtanh: max_val: expected at least min_val {min_val}, got {max_val}")
    t = as_tensor(x)
    held = np.clip(t.data, min_val, max_val).astype(t.dtype, copy=False)
    return _F.where((t.data <= min_val) | (t.data >= max_val), held, t)


def relu6(x: Any) -> Tensor:
    """min(max(x, 0), 6)."""
    return hardtanh(x, 0.0, 6.0)


def hardsigmoid(x: Any) -> Tensor:
    """relu6(x + 3) / 6 (Howard et al., arXiv 1905.02244)."""
    return relu6(as_tensor(x) + 3.0) / 6.0


def hardswish(x: Any) -> Tensor:
    """x * hardsigmoid(x) (Howard et al., arXiv 1905.02244)."""
    return as_tensor(x) * hardsigmoid(x)


def mish(x: Any) -> Tensor:
    """x * tanh(softplus(x)) (Misra, arXiv 1908.08681)."""
    return as_tensor(x) * _F.tanh(_F.softplus(x))


def softsign(x: Any) -> Tensor:
    """x / (1 + |x|)."""
    return as_tensor(x) / (_F.absolute(x) + 1.0)


def logsigmoid(x: Any) -> Tensor:
    """log(sigmoid(x)), without overflow."""
    return -_F.softplus(-as_tensor(x))


def tanhshrink(x: Any) -> Tensor:
    """x - tanh(x)."""
    return as_tensor(x) - _F.tanh(x)


def softshrink(x: Any, lambd: float = 0.5) -> Tensor:
    """x moved towards 0 by `lambd`, and 0 within it."""
    if lambd < 0:
        raise ValueError(f"softshrink: lambd: expected at least 0, got {lambd}")
    return as_tensor(x) - _F.clip(x, -lambd, lambd)


def hardshrink(x: Any, lambd: float = 0.5) -> Tensor:
    """0 where |x| is at most `lambd`, else x."""
    t = as_tensor(x)
    return _F.where(np.abs(t.data) <= lambd, 0.0, t)


def threshold(x: Any, threshold: float, value: float) -> Tensor:
    """x where it exceeds `threshold`, else `value`."""
    t = as_tensor(x)
    return _F.where(t.data <= threshold, value, t)


def glu(x: Any, dim: int = -1) -> Tensor:
    """a * sigmoid(b) for the two halves a, b of x along `dim` (Dauphin et al., arXiv 1612.08083)."""
    t = as_tensor(x)
    if not -t.ndim <= dim < t.ndim:
        raise IndexError(f"glu: dim: expected in [-{t.ndim}, {t.ndim}), got {dim}")
    if t.shape[dim] % 2:
        raise ValueError(f"glu: x length on axis {dim}: expected an even one, got {t.shape[dim]}")
    a, b = _F.split(t, 2, dim)
    return a * _F.sigmoid(b)


def softmin(x: Any, dim: int = -1) -> Tensor:
    """softmax(-x) along `dim`."""
    return _F.softmax(-as_tensor(x), dim)
