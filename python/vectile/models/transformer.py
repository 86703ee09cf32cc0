"""The encoder-decoder Transformer of "Attention Is All You Need" (arXiv 1706.03762), from ids to logits."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vectile import nn
from vectile.autograd import Tensor, no_grad
from vectile.device import as_array, beside, near, place_of
from vectile.nn.utils import evaluating

Array = NDArray[Any]


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes of a TranslationTransformer; ValueError for sizes that do not fit together."""

    vocab_size: int
    d_model: int = 128
    n_heads: int = 4
    n_encoder_layers: int = 2
    n_decoder_layers: int = 2
    d_feedforward: int = 512
    dropout: float = 0.1
    norm_first: bool = False
    context: int = 256
    pad: int = 0
    bos: int = 1
    eos: int = 2

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name not in ("dropout", "norm_first", "pad", "bos", "eos") and value <= 0:
                raise ValueError(f"TransformerConfig: {name}: expected > 0, got {value}")
        for name in ("pad", "bos", "eos"):
            if not 0 <= getattr(self, name) < self.vocab_size:
                raise ValueError(
                    f"TransformerConfig: {name}: expected in [0, {self.vocab_size}), "
                    f"got {getattr(self, name)}"
                )
        if self.d_model % self.n_heads:
            raise ValueError(
                f"TransformerConfig: d_model: expected a multiple of n_heads {self.n_heads}, "
                f"got {self.d_model}"
            )


class AttentionWeights(NamedTuple):
    """Every head's weights; rows attend to columns."""

    encoder: Array  # (layers, batch, heads, source, source)
    decoder: Array  # (layers, batch, heads, target, target)
    cross: Array  # (layers, batch, heads, target, source)


@dataclass(frozen=True)
class DecoderState:
    """Keys and values of every decoder layer, for a number of hypotheses (rows)."""

    past: nn.KVCache  # of the tokens written so far; those after `length` are another state's
    memory: nn.KVCache  # of the source
    length: int = 0

    def take(self, rows: NDArray[np.int64]) -> DecoderState:
        """The state of hypotheses `rows`."""
        return replace(self, past=self.past.take(rows), memory=self.memory.take(rows))


class TranslationTransformer(nn.Module):
    """Next-token logits (batch, target length, vocab_size) from source and target ids.

    Source, target and output share one embedding matrix, scaled by sqrt(d_model) at the input (section 3.4);
    positions are sinusoids. `transformer` has the names and shapes of PyTorch's nn.Transformer. Sources are
    (batch, length), filled up with `pad` behind.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        d = config.d_model
        self.tokens = nn.Embedding(config.vocab_size, d)
        self.positions = nn.SinusoidalPositionalEncoding(d, config.context, config.dropout)
        self.transformer: Any = nn.Transformer(
            d,
            config.n_heads,
            config.n_encoder_layers,
            config.n_decoder_layers,
            config.d_feedforward,
            config.dropout,
            batch_first=True,
            norm_first=config.norm_first,
        )
        self.head = nn.Linear(d, config.vocab_size, bias=False)
        nn.init.normal_(self.tokens.weight, std=1.0 / math.sqrt(d))
        self.head.weight = self.tokens.weight

    def forward(self, source: ArrayLike, target: ArrayLike) -> Tensor:
        """Logits after each token of `target` (batch, length), which begins with `bos`.

        ValueError for shapes that do not fit or sequences longer than `context`, IndexError for unknown ids.
        """
        ids, words = self._ids("source", source), self._ids("target", target)
        if len(ids) != len(words):
            raise ValueError(
                f"TranslationTransformer: target batch: expected {len(ids)}, got {len(words)}"
            )
        padding = ids == self.config.pad
        out = self.transformer(
            self._embed(ids),
            self._embed(words),
            src_key_padding_mask=padding,
            memory_key_padding_mask=padding,
            tgt_is_causal=True,
        )
        logits: Tensor = self.head(out)
        return logits

    # ---- decoding ----------------------------------------------------------------------------------------

    def start(self, source: ArrayLike) -> DecoderState:
        """The encoded `source`, which moves to where the model is, and nothing written yet."""
        ids = near(self._ids("source", source), self.tokens.weight.data)
        padding = ids == self.config.pad
        config, model = self.config, self.transformer
        with no_grad():
            encoded = model.encoder(self._embed(ids), src_key_padding_mask=padding).numpy()
            memory = model.decoder.remember(encoded, padding)
        past = nn.KVCache(
            config.n_decoder_layers,
            config.n_heads,
            config.d_model // config.n_heads,
            config.context,
            len(ids),
            dtype=encoded.dtype,
            device=place_of(encoded),
        )
        return DecoderState(past, memory)

    def advance(self, ids: NDArray[np.int64], state: DecoderState) -> tuple[Array, DecoderState]:
        """Logits (rows, vocab_size) after the tokens `ids` (rows,) that follow what `state` holds.

        Ids may be NumPy's wherever the model is.
        """
        past = state.past
        if (past.lengths != state.length).any():  # another state went on from this one
            past = past.take(range(len(past)))
            past.truncate(state.length)
        with no_grad():
            rows = near(as_array(ids)[:, None], self.tokens.weight.data)
            x = self._embed(rows, state.length)
            out = self.transformer.decoder(x, state.memory, cache=past)
            logits: Array = self.head(out[:, 0]).numpy()
        return logits, replace(state, past=past, length=state.length + 1)

    # ---- looking inside ----------------------------------------------------------------------------------

    def attention_weights(self, source: ArrayLike, target: ArrayLike) -> AttentionWeights:
        """The weights with which `forward` reads `source` (batch, length) and writes `target`."""
        ids, words = self._ids("source", source), self._ids("target", target)
        padding = ids == self.config.pad
        encoder, decoder = self.transformer.encoder, self.transformer.decoder
        found: dict[str, list[Array]] = {"encoder": [], "decoder": [], "cross": []}

        def attend(kind: str, attention: Any, memory: Any = None) -> Callable[[Any], Tensor]:
            def run(x: Any) -> Tensor:
                keys = x if memory is None else memory
                hidden = None if kind == "decoder" else padding
                out, weights = attention(
                    x, keys, keys, hidden, average_attn_weights=False, is_causal=hidden is None
                )
                found[kind].append(weights.numpy())
                return out  # type: ignore[no-any-return]

            return run

        with evaluating(self), no_grad():
            x: Any = self._embed(ids)
            for layer in encoder.layers:
                x = layer.residual(x, 1, attend("encoder", layer.self_attn))
                x = layer.residual(x, 2, layer.feed_forward)
            memory, x = encoder.norm(x), self._embed(words)
            for layer in decoder.layers:
                x = layer.residual(x, 1, attend("decoder", layer.self_attn))
                x = layer.residual(x, 2, attend("cross", layer.multihead_attn, memory))
                x = layer.residual(x, 3, layer.feed_forward)
        return AttentionWeights(**{kind: np.stack(maps) for kind, maps in found.items()})

    def _embed(self, ids: Array, past: int = 0) -> Tensor:
        x: Tensor = self.positions(self.tokens(ids) * math.sqrt(self.config.d_model), past)
        return x

    def _ids(self, name: str, ids: ArrayLike) -> Array:
        array: Array = beside(ids, self.tokens.weight.data)
        if array.ndim != 2:
            raise ValueError(
                f"TranslationTransformer: {name} rank: expected 2 (batch, length), got {array.ndim}"
            )
        if array.shape[1] > self.config.context:
            raise ValueError(
                f"TranslationTransformer: {name} length: expected at most {self.config.context}, "
                f"got {array.shape[1]}"
            )
        return array
