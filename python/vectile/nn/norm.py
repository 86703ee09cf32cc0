"""LayerNorm and RMSNorm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from vectile.autograd import Tensor
from vectile.nn import functional as F
from vectile.nn import init
from vectile.nn.module import Module
from vectile.nn.parameter import Parameter


def _last_axis(owner: str, normalized_shape: int | Sequence[int]) -> tuple[int, ...]:
    shape = (
        (normalized_shape,)
        if isinstance(normalized_shape, (int, np.integer))
        else tuple(normalized_shape)
    )
    if not shape or any(size < 0 for size in shape):
        raise ValueError(f"{owner}: normalized_shape: expected sizes >= 0, got {normalized_shape}")
    return shape


class LayerNorm(Module):
    """(x - mean) / sqrt(var + eps) * weight + bias over the trailing `normalized_shape` axes."""

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__()
        self.normalized_shape = _last_axis("LayerNorm", normalized_shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        shape = self.normalized_shape
        for name, present in (
            ("weight", elementwise_affine),
            ("bias", elementwise_affine and bias),
        ):
            array = init.empty(*shape, dtype=dtype) if present else None
            self.register_parameter(name, None if array is None else Parameter(array))
        self.reset_parameters()

    weight: Parameter | None
    bias: Parameter | None

    def reset_parameters(self) -> None:
        """Weight one, bias zero."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, x: Any) -> Tensor:
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, affine={self.elementwise_affine}"


class RMSNorm(Module):
    """x / sqrt(mean(x^2) + eps) * weight over the trailing axes (Zhang & Sennrich, arXiv 1910.07467).

    `eps=None` is the dtype's machine epsilon, as in PyTorch.
    """

    weight: Parameter | None

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__()
        self.normalized_shape = _last_axis("RMSNorm", normalized_shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        array = init.empty(*self.normalized_shape, dtype=dtype) if elementwise_affine else None
        self.register_parameter("weight", None if array is None else Parameter(array))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weight one."""
        if self.weight is not None:
            init.ones_(self.weight)

    def forward(self, x: Any) -> Tensor:
        return F.rms_norm(x, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, affine={self.elementwise_affine}"
