"""Positions for sequences: the fixed sinusoids, a learned table, and rotations."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from vectile.autograd import Tensor, as_tensor
from vectile.device import as_array, near, to
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


Scaling = Literal["linear", "ntk", "yarn", "llama3"]


def rotary_tables(
    positions: ArrayLike,
    dim: int,
    *,
    base: float = 10000.0,
    scaling: Scaling | None = None,
    factor: float = 1.0,
    original_length: int | None = None,
    low: float | None = None,
    high: float | None = None,
    dtype: DTypeLike = np.float32,
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Cosines and sines (..., dim / 2) of the angles ``position * base^(-2 j / dim)``.

    `scaling` stretches a model's context by `factor`:

    - "linear": positions divided by it (arXiv 2306.15595);
    - "ntk": the base grown so that the lowest frequency is divided by it, the highest kept;
    - "yarn": frequencies that turn less than `low` (1) times within `original_length` divided, those that
      turn more than `high` (32) times kept, a ramp over their index between; both tables times
      ``0.1 log(factor) + 1`` (arXiv 2309.00071);
    - "llama3": the same for `low` (1) and `high` (4), a ramp over the number of turns between.

    ValueError for an odd `dim`, and without `original_length` where it is needed.
    """
    if dim < 0 or dim % 2:
        raise ValueError(f"rotary_tables: dim: expected an even number, got {dim}")
    if scaling not in (None, "linear", "ntk", "yarn", "llama3"):
        raise ValueError(
            f"rotary_tables: scaling: expected 'linear', 'ntk', 'yarn' or 'llama3', got {scaling!r}"
        )
    if scaling in ("yarn", "llama3") and original_length is None:
        raise ValueError(
            f"rotary_tables: original_length: expected a length for {scaling!r}, got None"
        )
    index, magnitude = np.arange(dim // 2), 1.0
    if scaling == "ntk" and dim > 2:
        base *= factor ** (dim / (dim - 2))
    rate = base ** (-2.0 * index / max(dim, 1))
    if scaling == "linear":
        rate = rate / factor
    elif scaling in ("yarn", "llama3"):
        assert original_length is not None
        slow, fast = low or 1.0, high or (32.0 if scaling == "yarn" else 4.0)
        if scaling == "yarn":

            def where(turns: float) -> float:
                """The index, not whole, of the pair that turns so often."""
                return (
                    dim * math.log(original_length / (turns * 2 * math.pi)) / (2 * math.log(base))
                )

            first, last = max(math.floor(where(fast)), 0), min(math.ceil(where(slow)), dim - 1)
            kept = 1 - np.clip((index - first) / max(last - first, 1e-3), 0, 1)
            magnitude = 0.1 * math.log(max(factor, 1.0)) + 1
        else:
            turns = original_length * rate / (2 * math.pi)
            kept = np.clip((turns - slow) / (fast - slow), 0, 1)
        rate = rate * kept + rate / factor * (1 - kept)
    angle = np.asarray(positions, np.float64)[..., None] * rate
    return (np.cos(angle) * magnitude).astype(dtype), (np.sin(angle) * magnitude).astype(dtype)


def alibi_slopes(heads: int) -> np.ndarray[Any, Any]:
    """(heads,): what ALiBi subtracts from a score for each token of distance (arXiv 2108.12409, section 3).

    The slopes are 2^(-8 h / heads) for h from 1, and for a number of heads that is no power of two those of
    the power below, then every other one of the power above.
    """
    power = 2 ** int(math.log2(max(heads, 1)))
    own = 2.0 ** (-8.0 * np.arange(1, power + 1) / power)
    between = 2.0 ** (-4.0 * np.arange(1, 2 * power + 1, 2) / power)
    return np.concatenate([own, between])[:heads].astype(np.float32)


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


class RotaryEmbedding(Module):
    """Queries or keys (..., length, dim) turned by their positions (RoFormer, arXiv 2104.09864).

    Args:
        dim: elements that turn, at most those of a head; even.
        interleaved: pairs are neighbours, else element ``j`` goes with ``j + dim / 2``.
        base, scaling and what belongs to it: as of `rotary_tables`.
    """

    def __init__(
        self,
        dim: int,
        max_len: int = 4096,
        *,
        base: float = 10000.0,
        interleaved: bool = False,
        scaling: Scaling | None = None,
        factor: float = 1.0,
        original_length: int | None = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__()
        self.dim, self.max_len, self.interleaved = dim, max_len, interleaved
        cosine, sine = rotary_tables(
            np.arange(max_len),
            dim,
            base=base,
            scaling=scaling,
            factor=factor,
            original_length=original_length,
            dtype=np.float32 if dtype is None else dtype,
        )
        self.register_buffer("cosine", cosine, persistent=False)
        self.register_buffer("sine", sine, persistent=False)

    cosine: np.ndarray[Any, Any]
    sine: np.ndarray[Any, Any]

    def forward(self, x: Any, offset: ArrayLike = 0) -> Tensor:
        """x (..., length, dim or more) at positions offset … offset + length.

        An array of offsets (batch,) gives each of x (batch, heads, length, dim) its own.
        """
        x = as_tensor(x)
        cosine, sine = self.tables(x.shape[-2], offset)
        out: Tensor = F.rotary_embedding(x, cosine, sine, self.interleaved)
        return out

    def tables(self, length: int, offset: ArrayLike = 0) -> tuple[NDArray[Any], NDArray[Any]]:
        """Cosines and sines (length, dim / 2) of positions offset … offset + length.

        For offsets (batch,) that differ, (batch, 1, length, dim / 2). As `rotary` of
        `scaled_dot_product_attention` they turn queries and keys on the way.
        """
        first = to(as_array(offset), "cpu")
        low, high = (0, 0) if first.size == 0 else (int(first.min()), int(first.max()))
        if low < 0 or high + length > self.max_len:
            raise ValueError(
                f"RotaryEmbedding: x length: expected at most {self.max_len - max(high, 0)} "
                f"from offset {low if low < 0 else high}, got {length}"
            )
        rows: Any = slice(low, low + length)
        if low != high:
            rows = near(first[:, None, None] + np.arange(length), self.cosine)
        return self.cosine[rows], self.sine[rows]

    def extra_repr(self) -> str:
        return f"{self.dim}, max_len={self.max_len}, interleaved={self.interleaved}"
