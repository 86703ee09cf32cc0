"""The Transformer of arXiv 1706.03762, with PyTorch's module names, arguments and masks.

Masks are those of MultiheadAttention: bool True leaves out, floats are added, and `is_causal=True` alone
is enough; a triangle as a mask is the same. Padding at the end of sequences is not computed. Sequences are
(L, N, E), or (N, L, E) with `batch_first`, or (L, E).

With a `cache` (`nn.KVCache`, one of its layers for each layer) the tokens given follow those of earlier
calls, and masks are those of MultiheadAttention with a cache. A decoder's `memory` may be a cache too, that
of its `remember`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from vectile.autograd import Tensor
from vectile.device import as_array, place_of
from vectile.nn import functional as F
from vectile.nn import init
from vectile.nn.activation import fusable, resolve
from vectile.nn.attention import MultiheadAttention, causal_or_mask
from vectile.nn.cache import Cache, KVCache
from vectile.nn.containers import ModuleList
from vectile.nn.layers import Dropout, Linear
from vectile.nn.module import Module
from vectile.nn.norm import LayerNorm

Activation = str | Callable[[Any], Any]
OptionalMask = ArrayLike | None


class _Layer(Module):
    """What encoder and decoder layers share: the feed-forward block and where the norms stand."""

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = "relu",
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        *,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__()
        attentions = ("self_attn", "multihead_attn")[: self._attentions]
        for name in attentions:
            attention = MultiheadAttention(
                d_model, nhead, dropout, bias, batch_first=batch_first, dtype=dtype
            )
            self.add_module(name, attention)
        self.linear1 = Linear(d_model, dim_feedforward, bias, dtype=dtype)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias, dtype=dtype)
        self.norm_first = norm_first
        for i in range(1, len(attentions) + 2):
            norm = LayerNorm(d_model, layer_norm_eps, bias=bias, dtype=dtype)
            self.add_module(f"norm{i}", norm)
            self.add_module(f"dropout{i}", Dropout(dropout))
        self.activation = resolve(activation)

    _attentions = 1
    self_attn: MultiheadAttention

    def residual(self, x: Any, index: int, block: Callable[[Any], Any]) -> Tensor:
        """x + block(norm(x)), or norm(x + block(x)), with norm and dropout number `index`."""
        norm, dropout = self._modules[f"norm{index}"], self._modules[f"dropout{index}"]
        assert norm is not None and dropout is not None
        out: Tensor
        if self.norm_first:
            out = x + dropout(block(norm(x)))
        elif type(norm) is LayerNorm:
            out, _ = norm(dropout(block(x)), x)
        else:
            out = norm(x + dropout(block(x)))
        return out

    def feed_forward(self, x: Any) -> Any:
        """linear2(activation(linear1(x))), with dropout in between."""
        first, dropout = self.linear1, self.dropout
        name = fusable(self.activation)
        if name and dropout.training and dropout.p and type(first) is Linear:
            h = F.linear(x, first._operand())
            return self.linear2(F.bias_activation_dropout(h, first.bias, name, dropout.p))
        return self.linear2(self.dropout(self.activation(self.linear1(x))))


class TransformerEncoderLayer(_Layer):
    """Self-attention and a feed-forward block, each with a residual and a norm (after, or `norm_first`)."""

    def forward(
        self,
        src: Any,
        src_mask: OptionalMask = None,
        src_key_padding_mask: OptionalMask = None,
        is_causal: bool = False,
        *,
        cache: Cache | None = None,
        layer: int = 0,
    ) -> Tensor:
        def attend(x: Any) -> Any:
            return self.self_attn(
                x,
                x,
                x,
                src_key_padding_mask,
                False,
                src_mask,
                is_causal=is_causal,
                cache=cache,
                layer=layer,
            )[0]

        x = self.residual(src, 1, attend)
        return self.residual(x, 2, self.feed_forward)


class TransformerDecoderLayer(_Layer):
    """Self-attention, attention to the encoder's `memory`, and a feed-forward block."""

    _attentions = 2
    multihead_attn: MultiheadAttention

    def forward(
        self,
        tgt: Any,
        memory: Any,
        tgt_mask: OptionalMask = None,
        memory_mask: OptionalMask = None,
        tgt_key_padding_mask: OptionalMask = None,
        memory_key_padding_mask: OptionalMask = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
        *,
        cache: Cache | None = None,
        layer: int = 0,
    ) -> Tensor:
        def attend(x: Any) -> Any:
            return self.self_attn(
                x,
                x,
                x,
                tgt_key_padding_mask,
                False,
                tgt_mask,
                is_causal=tgt_is_causal,
                cache=cache,
                layer=layer,
            )[0]

        def look(x: Any) -> Any:
            if isinstance(memory, Cache):
                return self.multihead_attn(x, cache=memory, layer=layer)[0]
            return self.multihead_attn(
                x,
                memory,
                memory,
                memory_key_padding_mask,
                False,
                memory_mask,
                is_causal=memory_is_causal,
            )[0]

        x = self.residual(tgt, 1, attend)
        x = self.residual(x, 2, look)
        return self.residual(x, 3, self.feed_forward)


class _Stack(Module):
    """`num_layers` deep copies of a layer, and a final norm."""

    def __init__(self, layer: Module, num_layers: int, norm: Module | None = None) -> None:
        super().__init__()
        self.layers = ModuleList(copy.deepcopy(layer) for _ in range(num_layers))
        self.num_layers = num_layers
        self.norm = norm

    def _causal(self, mask: Any, is_causal: bool | None, x: Any) -> tuple[Any, bool]:
        """`causal_or_mask` once for all layers, whose queries and keys are `x`."""
        first = next(iter(self.layers), None)
        if not isinstance(first, _Layer):
            return mask, bool(is_causal)
        length = x.shape[1 if first.self_attn.batch_first and len(x.shape) == 3 else 0]
        return causal_or_mask(mask, bool(is_causal), length, length)

    def _norm(self, x: Tensor) -> Tensor:
        out: Tensor = x if self.norm is None else self.norm(x)
        return out


def _of_layer(layer: int, cache: Cache | None, memory: Any = None) -> dict[str, Any]:
    """What a layer is told of caches; nothing without one, for layers that know none."""
    cached = cache is not None or isinstance(memory, Cache)
    return {"cache": cache, "layer": layer} if cached else {}


class TransformerEncoder(_Stack):
    """A stack of encoder layers."""

    def forward(
        self,
        src: Any,
        mask: OptionalMask = None,
        src_key_padding_mask: OptionalMask = None,
        is_causal: bool | None = None,
        *,
        cache: Cache | None = None,
    ) -> Tensor:
        x: Tensor = src
        mask, causal = self._causal(mask, is_causal, x)
        for i, layer in enumerate(self.layers):
            x = layer(x, mask, src_key_padding_mask, causal, **_of_layer(i, cache))
        return self._norm(x)


class TransformerDecoder(_Stack):
    """A stack of decoder layers."""

    def forward(
        self,
        tgt: Any,
        memory: Any,
        tgt_mask: OptionalMask = None,
        memory_mask: OptionalMask = None,
        tgt_key_padding_mask: OptionalMask = None,
        memory_key_padding_mask: OptionalMask = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
        *,
        cache: Cache | None = None,
    ) -> Tensor:
        x: Tensor = tgt
        tgt_mask, causal = self._causal(tgt_mask, tgt_is_causal, x)
        for i, layer in enumerate(self.layers):
            x = layer(
                x,
                memory,
                tgt_mask,
                memory_mask,
                tgt_key_padding_mask,
                memory_key_padding_mask,
                causal,
                memory_is_causal,
                **_of_layer(i, cache, memory),
            )
        return self._norm(x)

    def remember(self, memory: Any, memory_key_padding_mask: OptionalMask = None) -> KVCache:
        """The keys and values that the layers make of `memory`, in whose place `forward` takes them.

        memory (S, N, E), or (N, S, E) with `batch_first`; the bool mask (N, S) leaves out where it is True.
        ``take`` gives those of some rows, or several times the same, without a copy.
        """
        layers: Any = self.layers
        attentions: list[MultiheadAttention] = [layer.multihead_attn for layer in layers]
        x, first = as_array(memory), attentions[0]
        x = x if first.batch_first else x.swapaxes(0, 1)
        counts = None
        if memory_key_padding_mask is not None:
            hidden = as_array(memory_key_padding_mask, bool)
            order = np.argsort(
                hidden, axis=1, kind="stable"
            )  # padding to the end: order counts for nothing
            x, counts = np.take_along_axis(x, order[..., None], 1), (~hidden).sum(1)
        cache = KVCache(
            len(attentions),
            first.num_kv_heads,
            first.head_dim,
            max(x.shape[1], 1),
            len(x),
            dtype=x.dtype,
            device=place_of(x),
        )
        for i, attention in enumerate(attentions):
            key, value = attention.project(key=x, value=x)
            cache.append(i, key, value, counts)
        return cache


class Transformer(Module):
    """Encoder and decoder. Every matrix starts Xavier-uniform."""

    def __init__(
        self,
        d_model: int = 512,
        nhead: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = "relu",
        custom_encoder: Module | None = None,
        custom_decoder: Module | None = None,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        *,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__()
        options: Any = (
            d_model,
            nhead,
            dim_feedforward,
            dropout,
            activation,
            layer_norm_eps,
            batch_first,
            norm_first,
            bias,
        )

        def norm() -> LayerNorm:
            return LayerNorm(d_model, layer_norm_eps, bias=bias, dtype=dtype)

        self.encoder = custom_encoder or TransformerEncoder(
            TransformerEncoderLayer(*options, dtype=dtype), num_encoder_layers, norm()
        )
        self.decoder = custom_decoder or TransformerDecoder(
            TransformerDecoderLayer(*options, dtype=dtype), num_decoder_layers, norm()
        )
        self.d_model, self.nhead, self.batch_first = d_model, nhead, batch_first
        for parameter in self.parameters():
            if parameter.ndim > 1:
                init.xavier_uniform_(parameter)

    def forward(
        self,
        src: Any,
        tgt: Any,
        src_mask: OptionalMask = None,
        tgt_mask: OptionalMask = None,
        memory_mask: OptionalMask = None,
        src_key_padding_mask: OptionalMask = None,
        tgt_key_padding_mask: OptionalMask = None,
        memory_key_padding_mask: OptionalMask = None,
        src_is_causal: bool | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """Decoded targets, shaped like `tgt`. ValueError for batch or feature sizes that do not fit."""
        memory = self.encoder(src, src_mask, src_key_padding_mask, src_is_causal)
        out: Tensor = self.decoder(
            tgt,
            memory,
            tgt_mask,
            memory_mask,
            tgt_key_padding_mask,
            memory_key_padding_mask,
            tgt_is_causal,
            memory_is_causal,
        )
        return out

    @staticmethod
    def generate_square_subsequent_mask(size: int, dtype: DTypeLike = np.float32) -> NDArray[Any]:
        """(size, size): 0 on and below the diagonal, -inf above."""
        return np.triu(np.full((size, size), -np.inf, dtype=dtype), 1)
