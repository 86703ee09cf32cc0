"""MultiheadAttention with PyTorch's parameters, masks and layouts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from vectile.autograd import Tensor, as_tensor
from vectile.autograd.functional import attention_and_weights
from vectile.autograd.tensor import array_of
from vectile.device import as_array, to
from vectile.nn import functional as F
from vectile.nn import init
from vectile.nn.cache import Cache
from vectile.nn.layers import Linear
from vectile.nn.module import Module
from vectile.nn.parameter import Parameter
from vectile.nn.positional import RotaryEmbedding
from vectile.ops.attention import Window
from vectile.runtime import is_floating

Mask = Any
"""An ndarray, or a Tensor whose gradient is wanted."""


class MultiheadAttention(Module):
    """Attention of `num_heads` heads over projected query, key and value (arXiv 1706.03762, 3.2.2).

    Inputs are (L, N, E), or (N, L, E) with `batch_first`, or (L, E) without a batch. Keys and values may
    have features of their own (`kdim`, `vdim`). Dropout applies to the attention weights.

    Args:
        num_kv_heads: heads of keys and values, a divisor of `num_heads`: consecutive query heads share one
            (arXiv 2305.13245). Their rows of the input projection are fewer.
        window, softcap, alibi_slopes: as in `functional.scaled_dot_product_attention`. Slopes (num_heads,)
            that are a Parameter learn.
        sinks: each head learns the score of a key whose value is zero.
        rotary: turns queries and keys by their positions; of `head_dim` at most.
    """

    in_proj_weight: Parameter | None
    q_proj_weight: Parameter | None
    k_proj_weight: Parameter | None
    v_proj_weight: Parameter | None
    in_proj_bias: Parameter | None
    alibi_slopes: Any
    sinks: Parameter | None

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
        num_kv_heads: int | None = None,
        window: Window | None = None,
        softcap: float | None = None,
        alibi_slopes: ArrayLike | Tensor | None = None,
        sinks: bool = False,
        rotary: RotaryEmbedding | None = None,
    ) -> None:
        super().__init__()
        if num_heads <= 0 or embed_dim <= 0 or embed_dim % num_heads:
            raise ValueError(
                f"MultiheadAttention: embed_dim: expected a positive multiple of num_heads "
                f"{num_heads}, got {embed_dim}"
            )
        self.num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        if self.num_kv_heads <= 0 or num_heads % self.num_kv_heads:
            raise ValueError(
                f"MultiheadAttention: num_kv_heads: expected a divisor of num_heads {num_heads}, "
                f"got {num_kv_heads}"
            )
        self.embed_dim, self.num_heads, self.head_dim = embed_dim, num_heads, embed_dim // num_heads
        if rotary is not None and rotary.dim > self.head_dim:
            raise ValueError(
                f"MultiheadAttention: rotary dim: expected at most the head's {self.head_dim}, "
                f"got {rotary.dim}"
            )
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self.dropout, self.batch_first = dropout, batch_first
        self.window, self.softcap = window, softcap
        packed = self.kdim == self.vdim == embed_dim
        kv_dim = self.num_kv_heads * self.head_dim
        total = embed_dim + 2 * kv_dim
        shapes = {
            "in_proj_weight": (total, embed_dim) if packed else None,
            "q_proj_weight": None if packed else (embed_dim, embed_dim),
            "k_proj_weight": None if packed else (kv_dim, self.kdim),
            "v_proj_weight": None if packed else (kv_dim, self.vdim),
            "in_proj_bias": (total,) if bias else None,
            "sinks": (num_heads,) if sinks else None,
        }
        for name, shape in shapes.items():
            array = None if shape is None else Parameter(init.empty(*shape, dtype=dtype))
            self.register_parameter(name, array)
        if isinstance(alibi_slopes, Parameter):
            self.register_parameter("alibi_slopes", alibi_slopes)
        else:
            self.register_buffer("alibi_slopes", array_of(alibi_slopes), persistent=False)
        self.rotary = rotary
        self.out_proj = Linear(embed_dim, embed_dim, bias=bias, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Input projections Xavier-uniform, biases and sinks zero."""
        for weight in (
            self.in_proj_weight,
            self.q_proj_weight,
            self.k_proj_weight,
            self.v_proj_weight,
        ):
            if weight is not None:
                init.xavier_uniform_(weight)
        for zero in (self.in_proj_bias, self.out_proj.bias, self.sinks):
            if zero is not None:
                init.zeros_(zero)

    def forward(
        self,
        query: Any,
        key: Any = None,
        value: Any = None,
        key_padding_mask: ArrayLike | None = None,
        need_weights: bool = True,
        attn_mask: ArrayLike | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
        *,
        cache: Cache | None = None,
        layer: int = 0,
    ) -> tuple[Tensor, Tensor | None]:
        """(output like query, weights or None).

        Args:
            key_padding_mask: (N, S), or (S,) without a batch; bool True leaves a key out, floats are added.
                Keys left out at the end of each sequence are not computed.
            attn_mask: (L, S) or (N * num_heads, L, S); bool True leaves a pair out, floats are added;
                a Tensor may require grad. A triangle above the diagonal is `is_causal`.
            is_causal: leave out keys after the query (lengths aligned at the end); needs no `attn_mask`.
            need_weights: also return the weights, (N, L, S) averaged over heads or (N, heads, L, S) with
                `average_attn_weights=False`; False never forms them.
            cache: the tokens follow those that `layer` of it holds: keys and values are added to it, each
                query sees those up to its own, and a bool `key_padding_mask` says where a sequence's new
                tokens end. Without `key` and `value` nothing is added, and queries see all that it holds.
                No weights, no dropout, no gradient.

        A query that may see no key gets a zero attention output (PyTorch: NaN). ValueError for shapes that
        do not fit.
        """
        same = query is key and key is value
        recall = key is None and value is None and cache is not None
        query = as_tensor(query)
        if same or recall:
            key = value = query
        else:
            key, value = as_tensor(key), as_tensor(value)
        batched = query.ndim == 3
        self._check(query, key, value, recall)
        if not batched:
            query, key, value = (t.reshape((1, *t.shape)) for t in (query, key, value))
        elif not self.batch_first:
            query, key, value = (t.swapaxes(0, 1) for t in (query, key, value))
        if same:
            key = value = query

        weights = None
        if cache is not None:
            options = self._score_options()
            if recall:
                (q,) = self.project(query)
                heads = cache.attend(layer, q, is_causal=is_causal, **options)
            else:
                n, length = query.shape[:2]
                counts = self._new_tokens(attn_mask, key_padding_mask, n, length)
                q, k, v = self.project(query, key, value)
                q, k = self._turned(q, k, cache.lengths, cache.lengths)
                heads = cache.step(layer, q, k, v, counts, **options)
        else:
            n, length, keys = query.shape[0], query.shape[1], key.shape[1]
            attn_mask, is_causal = causal_or_mask(attn_mask, is_causal, length, keys)
            mask, lengths = self._mask(attn_mask, key_padding_mask, n, length, keys, query.dtype)
            options = {
                "dropout_p": self.dropout if self.training else 0.0,
                "is_causal": is_causal,
                "key_lengths": lengths,
                **self._score_options(),
            }
            q, k, v = self.project(query, key, value)
            if self.rotary is not None and length <= keys:
                options["rotary"] = self.rotary.tables(keys)
                options["rotary_interleaved"] = self.rotary.interleaved
            else:
                q, k = self._turned(q, k, 0, length - keys)
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

    def _score_options(self) -> dict[str, Any]:
        """What is set of the options that change scores."""
        names = ("window", "softcap", "alibi_slopes", "sinks")
        given = {name: getattr(self, name) for name in names}
        return {name: value for name, value in given.items() if value is not None}

    def _turned(self, q: Tensor, k: Tensor, first_q: Any, first_k: Any) -> tuple[Tensor, Tensor]:
        """Queries and keys at positions from `first_q` and `first_k`."""
        if self.rotary is None:
            return q, k
        return self.rotary(q, first_q), self.rotary(k, first_k)

    def _new_tokens(
        self, attn_mask: ArrayLike | None, padding: ArrayLike | None, n: int, length: int
    ) -> NDArray[np.int64] | None:
        """(N,): how many of the tokens that go into a cache are a sequence's own; None for all."""
        mask = None if attn_mask is None else to(as_array(attn_mask), "cpu")
        if causal_or_mask(mask, True, length, length)[0] is not None:
            raise ValueError(
                "MultiheadAttention: attn_mask: expected None or a triangle with a cache"
            )
        if padding is None:
            return None
        array = self._padding(padding, n, length, np.dtype(np.float32))
        lengths = key_lengths(to(array, "cpu"))
        if lengths is None:
            raise ValueError(
                "MultiheadAttention: key_padding_mask: expected bool, True at the end, with a cache"
            )
        return lengths

    def _check(self, query: Tensor, key: Tensor, value: Tensor, query_only: bool = False) -> None:
        batch = 0 if self.batch_first else 1
        length = 1 - batch if query.ndim == 3 else 0
        for name, tensor, dim in (
            ("query", query, self.embed_dim),
            ("key", key, self.embed_dim if query_only else self.kdim),
            ("value", value, self.embed_dim if query_only else self.vdim),
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
        kv = self.num_kv_heads * self.head_dim
        rows = [slice(0, e), slice(e, e + kv), slice(e + kv, e + 2 * kv)]
        if packed is not None and query is not None and query is key and key is value:
            parts = F.linear(query, packed, bias)
            return [self._split(parts[..., part]) for part in rows]
        weights = (
            [self.q_proj_weight, self.k_proj_weight, self.v_proj_weight]
            if packed is None
            else [packed[part] for part in rows]
        )
        biases = [None if bias is None else bias[part] for part in rows]
        return [
            self._split(F.linear(x, w, b))
            for x, w, b in zip((query, key, value), weights, biases, strict=True)
            if x is not None
        ]

    def _split(self, x: Tensor) -> Tensor:
        """(N, length, heads * head_dim) as (N, heads, length, head_dim)."""
        n, length, width = x.shape
        parts: Tensor = x.reshape((n, length, width // self.head_dim, self.head_dim))
        return parts.swapaxes(1, 2)

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
    ) -> tuple[Mask | None, NDArray[np.int64] | None]:
        """A mask that broadcasts to (N, heads, L, S), bool True = attend or added floats, and key lengths."""
        parts: list[Mask] = []
        lengths = None
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
            array = self._padding(padding, n, keys, dtype)
            lengths = key_lengths(array)
            if lengths is None:
                parts.append(array.reshape(n, 1, 1, keys))
        if not parts:
            return None, lengths
        if all(part.dtype == bool for part in parts):
            return ~(parts[0] if len(parts) == 1 else parts[0] | parts[1]), lengths
        added = [_additive(part, dtype) if part.dtype == bool else part for part in parts]
        return added[0] if len(added) == 1 else added[0] + added[1], lengths

    def _padding(self, padding: ArrayLike, n: int, keys: int, dtype: np.dtype[Any]) -> Mask:
        """The padding mask as (N, S)."""
        array = _as_mask("key_padding_mask", padding, dtype)
        if array.shape != (n, keys) and not (n == 1 and array.shape == (keys,)):
            raise ValueError(
                f"MultiheadAttention: key_padding_mask shape: expected {(n, keys)}, "
                f"got {array.shape}"
            )
        return array.reshape(n, keys)

    def extra_repr(self) -> str:
        return f"embed_dim={self.embed_dim}, num_heads={self.num_heads}, dropout={self.dropout}"


def causal_or_mask(mask: Any, is_causal: bool, length: int, keys: int) -> tuple[Any, bool]:
    """`mask` and `is_causal`, or (None, True) for a square mask of what is above the diagonal."""
    if mask is None or length != keys or (isinstance(mask, Tensor) and mask.requires_grad):
        return mask, is_causal
    array = as_array(mask)
    if array.shape != (length, keys) or not (array.dtype == bool or is_floating(array.dtype)):
        return mask, is_causal
    hidden: Any = True if array.dtype == bool else -np.inf
    if length > 1 and array[0, -1] != hidden:  # most others, at once
        return mask, is_causal
    above = np.triu(np.full_like(array, hidden), 1)
    return (None, True) if np.array_equal(array, above) else (mask, is_causal)


def key_lengths(padding: Any) -> NDArray[np.int64] | None:
    """(N,): the keys before a padding (N, S) that is bool and at the end of each row; None for another."""
    if isinstance(padding, Tensor) or padding.dtype != bool:
        return None
    keys = padding.shape[1]
    lengths: NDArray[np.int64] = keys - padding.sum(1)
    places = np.arange(keys, like=padding)
    return lengths if np.array_equal(padding, places >= lengths[:, None]) else None


def _as_mask(name: str, mask: ArrayLike | Tensor, dtype: np.dtype[Any]) -> Mask:
    array = mask if isinstance(mask, Tensor) and mask.requires_grad else as_array(mask)
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
