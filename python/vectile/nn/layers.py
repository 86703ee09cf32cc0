"""Linear, Embedding, Dropout, Identity, Flatten and their kin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from numpy.typing import ArrayLike, DTypeLike

from vectile.autograd import Tensor
from vectile.autograd.packed import PackedWeight
from vectile.nn import functional as F
from vectile.nn import init
from vectile.nn.module import Module, Plain
from vectile.nn.parameter import Parameter
from vectile.ops.gemm import Activation


class Linear(Module):
    """y = x @ weight.T + bias for x (..., in_features); weight (out_features, in_features)."""

    fuses_activation = True
    _packed: PackedWeight | None = None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter(init.empty(out_features, in_features, dtype=dtype))
        self.bias = Parameter(init.empty(out_features, dtype=dtype)) if bias else None
        if self.bias is None:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weight and bias ~ U(-b, b), b = 1 / sqrt(in_features), as PyTorch."""
        bound = 1.0 / math.sqrt(max(1, self.in_features))
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Any, activation: Activation | None = None, residual: Any = None) -> Tensor:
        """`activation` names one that `ops.linear` applies while the result is in cache, where it also
        adds `residual`, (..., out_features)."""
        return F.linear(x, self._operand(), self.bias, activation, residual)

    def _operand(self) -> Any:
        """The weight, or its packed copy."""
        packed = self._packed
        return packed if packed is not None and packed.weight is self.weight else self.weight

    def pack(self) -> Linear:
        """Multiply with a packed copy of the weight, made again whenever the weight changes; returns self.

        Worth its memory, as much again as the weight, where one weight serves many calls.
        """
        self._packed = F.pack(self.weight)
        return self

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}"
        )


class Embedding(Module):
    """Rows of weight (num_embeddings, embedding_dim) by integer ids of any shape: ids.shape + (dim,).

    The row `padding_idx`, if given, starts at zero and receives no gradient. IndexError for an id
    outside the table.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        if padding_idx is not None:
            if not -num_embeddings <= padding_idx < num_embeddings:
                raise ValueError(
                    f"Embedding: padding_idx: expected in [-{num_embeddings}, {num_embeddings}), "
                    f"got {padding_idx}"
                )
            padding_idx %= num_embeddings
        self.padding_idx = padding_idx
        self.weight = Parameter(init.empty(num_embeddings, embedding_dim, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weight ~ N(0, 1) with the padding row zero."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            self.weight.data[self.padding_idx] = 0.0

    def forward(self, ids: ArrayLike) -> Tensor:
        return F.embedding(ids, self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"


class Dropout(Module):
    """In training, zeroes each value with probability p and scales the rest by 1 / (1 - p)."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not 0.0 <= p <= 1.0:
            name = type(self).__name__
            raise ValueError(f"{name}: p: expected a probability in [0, 1], got {p}")
        self.p = p

    def forward(self, x: Any) -> Any:
        return F.dropout(x, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class Dropout1d(Dropout):
    """In training, zeroes each channel of x (N, C, L) or (C, L) with probability p and scales the rest."""

    def forward(self, x: Any) -> Any:
        return F.dropout1d(x, self.p, self.training)


class Dropout2d(Dropout):
    """In training, zeroes each channel of x (N, C, H, W) with probability p and scales the rest."""

    def forward(self, x: Any) -> Any:
        return F.dropout2d(x, self.p, self.training)


class Identity(Module):
    """Returns its input; arguments are ignored, so that it can stand in for any layer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, x: Any) -> Any:
        return x


class Flatten(Module):
    """Join the axes start_dim … end_dim into one."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x: Any) -> Tensor:
        return F.flatten(x, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Plain):
    """Split the axis `dim` into axes of lengths `unflattened_size`, one of which may be -1."""

    dim: int
    unflattened_size: tuple[int, ...]

    def __init__(self, dim: int, unflattened_size: Sequence[int]) -> None:
        super().__init__(dim=dim, unflattened_size=tuple(unflattened_size))

    def forward(self, x: Any) -> Tensor:
        return F.unflatten(x, self.dim, self.unflattened_size)
