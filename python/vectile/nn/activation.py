"""Activations as modules; each is its namesake in `vectile.nn.functional` with the options stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import DTypeLike

from vectile.autograd import Tensor
from vectile.nn import functional as F
from vectile.nn.init import empty
from vectile.nn.module import Module, Plain
from vectile.nn.parameter import Parameter


class _Activation(Plain):
    """A function of one Tensor, and its options by name."""

    function: ClassVar[Callable[..., Tensor]]

    def forward(self, x: Any) -> Tensor:
        return self.function(x, **self._values())


class ReLU(_Activation):
    """max(x, 0)."""

    function = staticmethod(F.relu)


class ReLU6(_Activation):
    """min(max(x, 0), 6)."""

    function = staticmethod(F.relu6)


class LeakyReLU(_Activation):
    """x where it is positive, else negative_slope * x."""

    function = staticmethod(F.leaky_relu)
    negative_slope: float

    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__(negative_slope=negative_slope)


class PReLU(Module):
    """x where it is positive, else weight * x with a weight that is learnt (He et al., arXiv 1502.01852).

    `weight` (num_parameters,) starts at `init`; it has one element, or one for each place on axis 1 of x.
    """

    def __init__(
        self, num_parameters: int = 1, init: float = 0.25, *, dtype: DTypeLike | None = None
    ) -> None:
        super().__init__()
        if num_parameters < 1:
            raise ValueError(f"PReLU: num_parameters: expected at least 1, got {num_parameters}")
        self.num_parameters, self.init = num_parameters, init
        self.weight = Parameter(empty(num_parameters, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weight = `init`."""
        self.weight.data[:] = self.init

    def forward(self, x: Any) -> Tensor:
        return F.prelu(x, self.weight)

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"


class ELU(_Activation):
    """x where it is positive, else alpha * (exp(x) - 1)."""

    function = staticmethod(F.elu)
    alpha: float

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__(alpha=alpha)


class CELU(_Activation):
    """x where it is positive, else alpha * (exp(x / alpha) - 1)."""

    function = staticmethod(F.celu)
    alpha: float

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__(alpha=alpha)


class SELU(_Activation):
    """A scaled ELU that keeps mean 0 and variance 1."""

    function = staticmethod(F.selu)


class GELU(_Activation):
    """x * Phi(x), or its tanh approximation (Hendrycks & Gimpel, arXiv 1606.08415)."""

    function = staticmethod(F.gelu)
    approximate: Literal["none", "tanh"]

    def __init__(self, approximate: Literal["none", "tanh"] = "none") -> None:
        if approximate not in ("none", "tanh"):
            raise ValueError(f'GELU: approximate: expected "none" or "tanh", got {approximate!r}')
        super().__init__(approximate=approximate)


class SiLU(_Activation):
    """x * sigmoid(x)."""

    function = staticmethod(F.silu)


class Mish(_Activation):
    """x * tanh(softplus(x))."""

    function = staticmethod(F.mish)


class Hardswish(_Activation):
    """x * relu6(x + 3) / 6."""

    function = staticmethod(F.hardswish)


class Tanh(_Activation):
    """tanh(x)."""

    function = staticmethod(F.tanh)


class Hardtanh(_Activation):
    """x held between two values."""

    function = staticmethod(F.hardtanh)
    min_val: float
    max_val: float

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0) -> None:
        if min_val >= max_val:
            raise ValueError(f"Hardtanh: max_val: expected more than {min_val}, got {max_val}")
        super().__init__(min_val=min_val, max_val=max_val)


class Tanhshrink(_Activation):
    """x - tanh(x)."""

    function = staticmethod(F.tanhshrink)


class Softshrink(_Activation):
    """x moved towards 0 by `lambd`, and 0 within it."""

    function = staticmethod(F.softshrink)
    lambd: float

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__(lambd=lambd)


class Hardshrink(_Activation):
    """0 where |x| is at most `lambd`, else x."""

    function = staticmethod(F.hardshrink)
    lambd: float

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__(lambd=lambd)


class Threshold(_Activation):
    """x where it exceeds `threshold`, else `value`."""

    function = staticmethod(F.threshold)
    threshold: float
    value: float

    def __init__(self, threshold: float, value: float) -> None:
        super().__init__(threshold=threshold, value=value)


class Sigmoid(_Activation):
    """1 / (1 + exp(-x))."""

    function = staticmethod(F.sigmoid)


class Hardsigmoid(_Activation):
    """relu6(x + 3) / 6."""

    function = staticmethod(F.hardsigmoid)


class LogSigmoid(_Activation):
    """log(sigmoid(x))."""

    function = staticmethod(F.logsigmoid)


class Softplus(_Activation):
    """log(1 + exp(x))."""

    function = staticmethod(F.softplus)


class Softsign(_Activation):
    """x / (1 + |x|)."""

    function = staticmethod(F.softsign)


class GLU(_Activation):
    """a * sigmoid(b) for the two halves a, b of x along `dim`."""

    function = staticmethod(F.glu)
    dim: int

    def __init__(self, dim: int = -1) -> None:
        super().__init__(dim=dim)


class _AlongAxis(_Activation):
    dim: int

    def __init__(self, dim: int = -1) -> None:
        super().__init__(dim=dim)

    def forward(self, x: Any) -> Tensor:
        return self.function(x, self.dim)


class Softmax(_AlongAxis):
    """exp(x) / sum(exp(x)) along `dim`."""

    function = staticmethod(F.softmax)


class LogSoftmax(_AlongAxis):
    """log(softmax(x)) along `dim`."""

    function = staticmethod(F.log_softmax)


class Softmin(_AlongAxis):
    """softmax(-x) along `dim`."""

    function = staticmethod(F.softmin)


class Softmax2d(_Activation):
    """Softmax over the channels of x (N, C, H, W) or (C, H, W)."""

    def forward(self, x: Any) -> Tensor:
        if np.ndim(x) not in (3, 4):
            raise ValueError(f"Softmax2d: x rank: expected 3 or 4, got {np.ndim(x)}")
        return F.softmax(x, -3)


_BY_NAME: dict[str, Callable[[Any], Tensor]] = {"relu": F.relu, "gelu": F.gelu, "silu": F.silu}


def resolve(activation: str | Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A callable as it is, or the activation of that name."""
    if callable(activation):
        return activation
    if activation not in _BY_NAME:
        raise ValueError(
            f"activation: expected a callable or one of {sorted(_BY_NAME)}, got {activation!r}"
        )
    return _BY_NAME[activation]


def fusable(activation: Callable[[Any], Any]) -> str | None:
    """The name under which fused ops know a function, None for one that they do not."""
    return next((name for name, f in _BY_NAME.items() if f is activation), None)
