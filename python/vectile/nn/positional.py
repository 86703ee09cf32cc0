"""Positions for sequences: the fixed sinusoids and a learned table."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from vectile.autograd import Tensor, as_tensor
from vectile.nn import functional as F
from vectile.nn import init
from vectile.nn.module import Module
from vectile.nn.parameter import Parameter


def sinusoids(length: int, dim: int, dtype: DTypeLike = np.float32) -> np.ndarray[Any, Any]:
    """(length, dim): sin(t / 10000^(2i/dim)) in column 2i, cos in 2i+1 (arXiv 1706.03762, 3.5)."""
    rate = np.exp(np.arange(0, dim, 2) * (-math.log(10000.0) / max(dim, 1)))
    angle = np.arange(length)[:, None] * rate
    table = np.empty((length, dim), dtype=dtype)
    table[:, 0::2] = np.sin(angle)
    table[:, 1::2] = np.cos(angle[:, : dim // 2])
    return table


class _Positions(Module):
    """Adds row t of a (max_len, dim) table to position t of x (N, L, dim), or (L, N, dim)."""

    def __init__(self, dim: int, max_len: int, dropout: float, batch_first: bool) -> None:
        super().__init__()
        self.dim, self.max_len = dim, max_len
        self.dropout, self.batch_first = dropout, batch_first

    def _add(self, x: Any, table: Any, offset: int) -> Tensor:
        x = as_tensor(x)
        if x.ndim not in (2, 3):
            raise ValueError(f"positions: x rank: expected 2 or 3, got {x.ndim}")
        length = x.shape[0] if x.ndim == 2 or not self.batch_first else x.shape[1]
        if offset < 0 or offset + length > self.max_len:
            raise ValueError(
                f"positions: x length: expected at most {self.max_len - max(offset, 0)} "
                f"from offset {offset}, got {length}"
            )
        rows = table[offset : offset + length]
        if x.ndim == 3 and not self.batch_first:
            rows = rows[:, None, :]
        out: Tensor = F.dropout(x + rows, self.dropout, self.training)
        return out

    def extra_repr(self) -> str:
        return f"{self.dim}, max_len={self.max_len}"


class SinusoidalPositionalEncoding(_Positions):
    """x + the fixed sinusoids of "Attention Is All You Need", then dropout."""

    def __init__(
        self,
        dim: int,
        max_len: int = 5000,
        dropout: float = 0.0,
        batch_first: bool = True,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(dim, max_len, dropout, batch_first)
        table = sinusoids(max_len, dim, np.float32 if dtype is None else dtype)
        self.register_buffer("table", table, persistent=False)

    table: np.ndarray[Any, Any]

    def forward(self, x: Any, offset: int = 0) -> Tensor:
        return self._add(x, self.table, offset)


class LearnedPositionalEmbedding(_Positions):
    """x + a trained table (max_len, dim), initialised N(0, 0.02^2), then dropout."""

    def __init__(
        self,
        dim: int,
        max_len: int,
        dropout: float = 0.0,
        batch_first: bool = True,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(dim, max_len, dropout, batch_first)
        self.weight = Parameter(init.empty(max_len, dim, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        init.normal_(self.weight, std=0.02)

    def forward(self, x: Any, offset: int = 0) -> Tensor:
        return self._add(x, self.weight, offset)
