"""MultiheadAttention with PyTorch's parameters, masks and layouts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from vectile.autograd import Tensor, as_tensor
from vectile.autograd.functional import attention_and_weights
from vectile.nn import functional as F
from vectile.nn import init
from vectile.nn.layers import Linear
from vectile.nn.module import Module
from vectile.nn.parameter import Parameter
from vectile.runtime import is_floating

Mask = Any
"""An ndarray, or a Tensor whose gradient is wanted."""


class MultiheadAttention(Module):
    """Attention of `num_heads` heads over projected query, key and value (arXiv 1706.03762, 3.2.2).

    Inputs are (L, N, E), or (N, L, E) with `batch_first`, or (L, E) without a batch. Keys and values may
    have features of their own (`kdim`, `vdim`). Dropout applies to the attention weights.
    """

    in_proj_weight: Parameter | None
    q_proj_weight: Parameter | None
    k_proj_weight: Parameter | None
    v_proj_weight: Parameter | None
    in_proj_bias: Parameter | None

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        *,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__()
        if num_heads <= 0 or embed_dim <= 0 or embed_dim % num_heads:
            raise ValueError(
                f"MultiheadAttention: embed_dim: expected a positive multiple of num_heads "
                f"{num_heads}, got {embed_dim}"
            )
        self.embed_dim, self.num_heads, self.head_dim = embed_dim, num_heads, embed_dim // num_heads
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self.dropout, self.batch_first = dropout, batch_first
        packed = self.kdim == self.vdim == embed_dim
        shapes = {
            "in_proj_weight": (3 * embed_dim, embed_dim) if packed else None,
            "q_proj_weight": None if packed else (embed_dim, embed_dim),
            "k_proj_weight": None if packed else (embed_dim, self.kdim),
            "v_proj_weight": None if packed else (embed_dim, self.vdim),
            "in_proj_bias": (3 * embed_dim,) if bias else None,
        }
        for name, shape in shapes.items():
            array = None if shape is None else Parameter(init.empty(*shape, dtype=dtype))
            self.register_parameter(name, array)
        self.out_proj = Linear(embed_dim, embed_dim, bias=bias, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Input projections Xavier-uniform, biases zero."""
        for weight in (
            self.in_proj_weight,
            self.q_proj_weight,
            self.k_proj_weight,
            self.v_proj_weight,
        ):
            if weight is not None:
                init.xavier_uniform_(weight)
        for bias in (self.in_proj_bias, self.out_proj.bias):
            if bias is not None:
                init.zeros_(bias)

    def forward(
        self,
        query: Any,
        key: Any,
        value: Any,
        key_padding_mask: ArrayLike | None = None,
        need_weights: bool = True,
        attn_mask: ArrayLike | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """(output like query, weights or None).

        Args:
            key_padding_mask: (N, S), or (S,) without a batch; bool True leaves a key out, floats are added.
            attn_mask: (L, S) or (N * num_heads, L, S); bool True leaves a pair out, floats are added;
                a Tensor may require grad.
            is_causal: leave out keys after the query (lengths aligned at the end); needs no `attn_mask`.
            need_weights: also return the weights, (N, L, S) averaged over heads or (N, heads, L, S) with
                `average_attn_weights=False`; False never forms them.

        A query that may see no key gets a zero attention output (PyTorch: NaN). ValueError for shapes that
        do not fit.
        """
        same = query is key and key is value
        query = as_tensor(query)
        key, value = (query, query) if same else (as_tensor(key), as_tensor(value))
        batched = query.ndim == 3
        self._check(query, key, value)
        if not batched:
            query, key, value = (t.reshape((1, *t.shape)) for t in (query, key, value))
        elif not self.batch_first:
            query, key, value = (t.swapaxes(0, 1) for t in (query, key, value))
        n, length = query.shape[:2]
        mask = self._mask(attn_mask, key_padding_mask, n, length, key.shape[1], query.dtype)

        dropout = self.dropout if self.training else 0.0

        if same:
            key = value = query
        q, k, v = self.project(query, key, value)
        weights = None
        options: Any = {"dropout_p": dropout, "is_causal": is_causal}
        if need_weights:
            heads, weights = attention_and_weights(q, k, v, mask, **options)
        else:
            heads = F.scaled_dot_product_attention(q, k, v, mask, **options)
        out = self.join(heads)

        if not batched:
            out = out.reshape(out.shape[1:])
        elif not self.batch_first:
            out = out.swapaxes(0, 1)
        if weights is None:
            return out, None
        if average_attn_weights:
            weights = weights.mean(1)
        return out, weights if batched else weights.reshape(weights.shape[1:])

    def _check(self, query: Tensor, key: Tensor, value: Tensor) -> None:
        batch = 0 if self.batch_first else 1
        length = 1 - batch if query.ndim == 3 else 0
        for name, tensor, dim in (
            ("query", query, self.embed_dim),
            ("key", key, self.kdim),
            ("value", value, self.vdim),
        ):
            if tensor.ndim not in (2, 3) or tensor.ndim != query.ndim:
                expected = "2 or 3" if tensor is query else f"{query.ndim}, as query"
                raise ValueError(
                    f"MultiheadAttention: {name} rank: expected {expected}, got {tensor.ndim}"
                )
            if tensor.shape[-1] != dim:
                raise ValueError(
                    f"MultiheadAttention: {name} features: expected {dim}, got {tensor.shape[-1]}"
                )
            if query.ndim == 3 and tensor.shape[batch] != query.shape[batch]:
                raise ValueError(
                    f"MultiheadAttention: {name} batch: "
                    f"expected {query.shape[batch]}, got {tensor.shape[batch]}"
                )
        if key.shape[length] != value.shape[length]:
            raise ValueError(
                f"MultiheadAttention: value length: "
                f"expected {key.shape[length]}, got {value.shape[length]}"
            )

    def project(self, query: Any = None, key: Any = None, value: Any = None) -> list[Tensor]:
        """Those given of query, key and value (N, length, features) as (N, heads, length, head_dim)."""
        e, packed, bias = self.embed_dim, self.in_proj_weight, self.in_proj_bias
        if packed is not None and query is not None and query is key and key is value:
            n, length = query.shape[:2]
            parts = F.linear(query, packed, bias)
            parts = parts.reshape((n, length, 3, self.num_heads, self.head_dim))
            return [parts[:, :, i].swapaxes(1, 2) for i in range(3)]
        rows = [slice(i * e, (i + 1) * e) for i in range(3)]
        weights = (
            [self.q_proj_weight, self.k_proj_weight, self.v_proj_weight]
            if packed is None
            else [packed[part] for part in rows]
        )
        biases = [None if bias is None else bias[part] for part in rows]
        projected = [
            F.linear(x, w, b)
            for x, w, b in zip((query, key, value), weights, biases, strict=True)
            if x is not None
        ]
        return [
            t.reshape((*t.shape[:2], self.num_heads, self.head_dim)).swapaxes(1, 2)
            for t in projected
        ]

    def join(self, heads: Any) -> Tensor:
        """The output (N, length, embed_dim) for what the heads found, (N, heads, length, head_dim)."""
        n, _, length, _ = heads.shape
        out: Tensor = self.out_proj(heads.swapaxes(1, 2).reshape((n, length, self.embed_dim)))
        return out

    def _mask(
        self,
        attn_mask: ArrayLike | None,
        padding: ArrayLike | None,
        n: int,
        length: int,
        keys: int,
        dtype: np.dtype[Any],
    ) -> Mask | None:
        """Both masks as one that broadcasts to (N, heads, L, S): bool True = attend, or added floats."""
        parts: list[Mask] = []
        if attn_mask is not None:
            array = _as_mask("attn_mask", attn_mask, dtype)
            shapes = [(length, keys), (n * self.num_heads, length, keys)]
            if array.shape not in shapes:
                raise ValueError(
                    f"MultiheadAttention: attn_mask shape: expected {shapes[0]} or {shapes[1]}, "
                    f"got {array.shape}"
                )
            heads = (n, self.num_heads) if array.ndim == 3 else (1, 1)
            parts.append(array.reshape(*heads, length, keys))
        if padding is not None:
            array = _as_mask("key_padding_mask", padding, dtype)
            if array.shape != (n, keys) and not (n == 1 and array.shape == (keys,)):
                raise ValueError(
                    f"MultiheadAttention: key_padding_mask shape: expected {(n, keys)}, "
                    f"got {array.shape}"
                )
            parts.append(array.reshape(n, 1, 1, keys))
        if not parts:
            return None
        if all(part.dtype == bool for part in parts):
            return ~(parts[0] if len(parts) == 1 else parts[0] | parts[1])
        added = [_additive(part, dtype) if part.dtype == bool else part for part in parts]
        return added[0] if len(added) == 1 else added[0] + added[1]

    def extra_repr(self) -> str:
        return f"embed_dim={self.embed_dim}, num_heads={self.num_heads}, dropout={self.dropout}"


def _as_mask(name: str, mask: ArrayLike | Tensor, dtype: np.dtype[Any]) -> Mask:
    array = mask if isinstance(mask, Tensor) and mask.requires_grad else np.asarray(mask)
    if array.dtype == bool:
        return array
    if not is_floating(array.dtype):
        raise TypeError(
            f"MultiheadAttention: {name} dtype: expected bool or float, got {array.dtype}"
        )
    return array.astype(dtype)


def _additive(left_out: Mask, dtype: np.dtype[Any]) -> Mask:
    """-inf where `left_out`, else 0."""
    return np.where(left_out, dtype.type(-np.inf), dtype.type(0.0))
