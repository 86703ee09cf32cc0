"""BERT: a bidirectional Transformer encoder trained to restore masked tokens (arXiv 1810.04805).

State-dict keys, d = d_model, V = vocab_size (`B.` is "bert." inside a model with a head):

    B.tokens.weight (V, d)   B.positions.weight (context, d)   B.segments.weight (segments, d)
    B.norm.{weight,bias} (d)                               the embeddings' LayerNorm
    B.encoder.layers.I.…                                   as torch.nn.TransformerEncoderLayer
    B.encoder.norm.{weight,bias} (d)                       with norm_first only
    dense.{weight,bias}  norm.{weight,bias}  decoder.{weight,bias}      masked-token head; decoder.weight
                                                                        is B.tokens.weight itself
    pooler.{weight,bias} (d, d)  classifier.{weight,bias} (classes, d)  classification head
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vectile import nn
from vectile.autograd import Tensor, no_grad
from vectile.device import beside
from vectile.nn import functional as F
from vectile.nn.utils import evaluating

IGNORED = -100
"""The target of a position that is not to be predicted: `cross_entropy`'s ignore_index."""


@dataclass(frozen=True)
class BERTConfig:
    """Sizes of a BERT; ValueError for sizes that do not fit together.

    `segments` 0 leaves the segment embedding out; `norm_first` puts the norms before the blocks (with a
    last one after the stack), which trains without a long warm-up (arXiv 2002.04745).
    """

    vocab_size: int
    context: int = 64
    n_layers: int = 4
    n_heads: int = 4
    d_model: int = 128
    d_feedforward: int = 512
    segments: int = 2
    dropout: float = 0.1
    norm_first: bool = False

    def __post_init__(self) -> None:
        for name in ("vocab_size", "context", "n_layers", "n_heads", "d_model", "d_feedforward"):
            if getattr(self, name) <= 0:
                raise ValueError(f"BERTConfig: {name}: expected > 0, got {getattr(self, name)}")
        if self.segments < 0:
            raise ValueError(f"BERTConfig: segments: expected >= 0, got {self.segments}")
        if self.d_model % self.n_heads:
            raise ValueError(
                f"BERTConfig: d_model: expected a multiple of n_heads {self.n_heads}, "
                f"got {self.d_model}"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"BERTConfig: dropout: expected in [0, 1), got {self.dropout}")


class BERT(nn.Module):
    """Hidden states (batch, length, d_model) of ids (batch, length), length <= context.

    Matrices start N(0, 0.02^2) and biases at zero, as in the paper's code.
    """

    def __init__(self, config: BERTConfig) -> None:
        super().__init__()
        self.config = config
        d = config.d_model
        self.tokens = nn.Embedding(config.vocab_size, d)
        self.positions = nn.Embedding(config.context, d)
        self.segments = nn.Embedding(config.segments, d) if config.segments else None
        self.norm = nn.LayerNorm(d)
        self.dropout = nn.Dropout(config.dropout)
        layer = nn.TransformerEncoderLayer(
            d,
            config.n_heads,
            config.d_feedforward,
            config.dropout,
            "gelu",
            batch_first=True,
            norm_first=config.norm_first,
        )
        last = nn.LayerNorm(d) if config.norm_first else None
        self.encoder = nn.TransformerEncoder(layer, config.n_layers, last)
        initialise(self)

    def forward(
        self, ids: ArrayLike, padding: ArrayLike | None = None, segments: ArrayLike | None = None
    ) -> Tensor:
        """`padding` (batch, length) is True where a token is padding, which no other token then sees;
        `segments` (batch, length) numbers each token's sentence, all 0 if left out.

        ValueError for shapes that do not fit, IndexError for ids or segments outside their tables.
        """
        x: Tensor = self.encoder(self._embed(ids, segments), src_key_padding_mask=padding)
        return x

    def attention_weights(
        self, ids: ArrayLike, padding: ArrayLike | None = None, segments: ArrayLike | None = None
    ) -> NDArray[Any]:
        """Every head's weights: (n_layers, batch, heads, length, length), rows attend to columns."""
        found = []
        with evaluating(self), no_grad():
            x = self._embed(ids, segments)
            layers: Any = self.encoder.layers
            for layer in layers:
                seen = layer.norm1(x) if layer.norm_first else x
                attention = layer.self_attn(seen, seen, seen, padding, average_attn_weights=False)
                found.append(attention[1].numpy())
                x = layer(x, src_key_padding_mask=padding)
        return np.stack(found)

    def _embed(self, ids: ArrayLike, segments: ArrayLike | None) -> Tensor:
        array = beside(ids, self.tokens.weight.data)
        if array.ndim != 2:
            raise ValueError(f"BERT: ids rank: expected 2 (batch, length), got {array.ndim}")
        length = array.shape[1]
        if not 0 < length <= self.config.context:
            raise ValueError(f"BERT: ids length: expected 1 to {self.config.context}, got {length}")
        x = self.tokens(array) + self.positions.weight[:length]
        if self.segments is not None:
            which = beside([[0]] if segments is None else segments, array)
            if segments is not None and which.shape != array.shape:
                raise ValueError(f"BERT: segments shape: expected {array.shape}, got {which.shape}")
            x = x + self.segments(which)
        elif segments is not None:
            raise ValueError("BERT: segments: expected None, the model has no segment embedding")
        out: Tensor = self.dropout(self.norm(x))
        return out


class BERTMaskedLM(nn.Module):
    """Token logits by a dense layer, GELU, LayerNorm and the token embedding itself, transposed."""

    def __init__(self, bert: BERT) -> None:
        super().__init__()
        d, vocabulary = bert.config.d_model, bert.config.vocab_size
        self.bert = bert
        self.dense = nn.Linear(d, d)
        self.norm = nn.LayerNorm(d)
        self.decoder = nn.Linear(d, vocabulary)
        initialise(self.dense)
        initialise(self.decoder)
        self.decoder.weight = bert.tokens.weight

    def forward(
        self,
        ids: ArrayLike,
        targets: ArrayLike | None = None,
        padding: ArrayLike | None = None,
        segments: ArrayLike | None = None,
    ) -> Tensor:
        """Logits (batch, length, vocab_size), or with `targets` the mean cross-entropy in nats over the
        positions whose target is not -100; only these go through the head."""
        hidden = self.bert(ids, padding, segments)
        return self.logits(hidden) if targets is None else self.loss(hidden, targets)

    def loss(self, hidden: Tensor, targets: ArrayLike) -> Tensor:
        """The loss from the encoder's hidden states, for an encoder that serves other heads too."""
        wanted = beside(targets, hidden.data)
        if wanted.shape != hidden.shape[:2]:
            raise ValueError(
                f"BERTMaskedLM: targets shape: expected {hidden.shape[:2]}, got {wanted.shape}"
            )
        chosen = np.flatnonzero(wanted != IGNORED)
        rows = hidden.reshape((-1, hidden.shape[-1]))[chosen]
        return F.cross_entropy(self.logits(rows), wanted.reshape(-1)[chosen])

    def logits(self, hidden: Tensor) -> Tensor:
        """(…, vocab_size) from hidden states (…, d_model)."""
        out: Tensor = self.decoder(self.norm(F.gelu(self.dense(hidden))))
        return out


class BERTClassifier(nn.Module):
    """Class logits (batch, classes) from the first token's hidden state: a tanh layer, then a linear one."""

    def __init__(self, bert: BERT, classes: int) -> None:
        super().__init__()
        if classes < 1:
            raise ValueError(f"BERTClassifier: classes: expected >= 1, got {classes}")
        d = bert.config.d_model
        self.bert = bert
        self.pooler = nn.Linear(d, d)
        self.dropout = nn.Dropout(bert.config.dropout)
        self.classifier = nn.Linear(d, classes)
        initialise(self.pooler)
        initialise(self.classifier)

    def forward(
        self,
        ids: ArrayLike,
        targets: ArrayLike | None = None,
        padding: ArrayLike | None = None,
        segments: ArrayLike | None = None,
    ) -> Tensor:
        """Logits, or with `targets` (batch,) the mean cross-entropy in nats."""
        pooled = self.pool(self.bert(ids, padding, segments))
        logits: Tensor = self.classifier(self.dropout(pooled))
        return logits if targets is None else F.cross_entropy(logits, beside(targets, logits.data))

    def pool(self, hidden: Tensor) -> Tensor:
        """One vector (batch, d_model) in (-1, 1) for each sequence, from the first hidden state."""
        out: Tensor = self.pooler(hidden[:, 0], "tanh")
        return out


def mask_tokens(
    ids: ArrayLike,
    mask_id: int,
    vocab_size: int,
    generator: np.random.Generator,
    special: tuple[int, ...] = (),
    probability: float = 0.15,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(inputs, targets) for masked-token training of `ids` of any shape (arXiv 1810.04805, section 3.1).

    Each token that is not `special` is chosen with `probability`; of those chosen, 80% become `mask_id`,
    10% a token drawn uniformly from those not special, and 10% stay. Targets are the ids where chosen and
    -100 elsewhere. ValueError for a probability outside (0, 1], or when every token is special.
    """
    if not 0.0 < probability <= 1.0:
        raise ValueError(f"mask_tokens: probability: expected in (0, 1], got {probability}")
    original = np.asarray(ids, np.int64)
    ordinary = np.setdiff1d(np.arange(vocab_size), (*special, mask_id))
    if not len(ordinary):
        raise ValueError("mask_tokens: special: expected some tokens that are not, got all of them")
    chosen = generator.random(original.shape) < probability
    chosen &= ~np.isin(original, special)
    fate = generator.random(original.shape)
    replaced = ordinary[generator.integers(0, len(ordinary), original.shape)]
    inputs = np.where(chosen & (fate < 0.8), mask_id, original)
    inputs = np.where(chosen & (fate >= 0.8) & (fate < 0.9), replaced, inputs)
    return inputs, np.where(chosen, original, IGNORED)


def initialise(module: nn.Module) -> None:
    """Matrices ~ N(0, 0.02^2), biases zero; LayerNorm's weights stay 1."""
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.02)
