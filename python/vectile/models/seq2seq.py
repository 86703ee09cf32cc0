"""Encoder-decoder networks of recurrent layers: a fixed context, or attention to every source position."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vectile import nn, random
from vectile.autograd import (
    Tensor,
    broadcast_to,
    concatenate,
    expand_dims,
    no_grad,
    softmax,
    stack,
    tanh,
    where,
)
from vectile.nn.utils import evaluating

Score = Literal["dot", "scaled_dot", "general", "additive"]
_CELLS: dict[str, Callable[..., Any]] = {"lstm": nn.LSTM, "gru": nn.GRU}


class Attention(nn.Module):
    """context_t = sum over s of softmax_s(score(query_t, memory_s)) memory_s.

    Scores of a query q and a memory m: "dot" q·m, "scaled_dot" q·m / sqrt(size) (arXiv 1706.03762),
    "general" q·W m (Luong et al., arXiv 1508.04025), "additive" v·tanh(W q + U m) (Bahdanau et al.,
    arXiv 1409.0473), of `units` hidden units. ValueError where a dot product needs equal sizes.
    """

    def __init__(
        self, score: Score, query_size: int, memory_size: int, units: int | None = None
    ) -> None:
        super().__init__()
        if score not in get_args(Score):
            raise ValueError(f"Attention: score: expected one of {get_args(Score)}, got {score!r}")
        if score in ("dot", "scaled_dot") and query_size != memory_size:
            raise ValueError(
                f"Attention: query_size: expected the memory_size {memory_size} for {score!r}, "
                f"got {query_size}"
            )
        self.kind = score
        self.scale = 1.0 / math.sqrt(memory_size) if score == "scaled_dot" else 1.0
        if score == "general":
            self.query = nn.Linear(query_size, memory_size, bias=False)
        elif score == "additive":
            units = memory_size if units is None else units
            self.query = nn.Linear(query_size, units, bias=False)
            self.memory = nn.Linear(memory_size, units)
            self.v = nn.Linear(units, 1, bias=False)

    def keys(self, memory: Tensor) -> Tensor:
        """The part of the score that a memory (batch, source, memory_size) has for itself."""
        keys: Tensor = self.memory(memory) if self.kind == "additive" else memory
        return keys

    def score(self, query: Tensor, keys: Tensor) -> Tensor:
        """(batch, target, source) of queries (batch, target, query_size) and `keys`."""
        if self.kind == "additive":
            hidden = tanh(expand_dims(self.query(query), 2) + expand_dims(keys, 1))
            scores: Tensor = self.v(hidden)[..., 0]
            return scores
        if self.kind == "general":
            query = self.query(query)
        return (query * self.scale) @ keys.swapaxes(1, 2)

    def forward(
        self, query: Tensor, memory: Tensor, keys: Tensor, mask: NDArray[np.bool_]
    ) -> tuple[Tensor, Tensor]:
        """Contexts (batch, target, memory_size) and weights; `mask` (batch, source): True is attended."""
        weights = softmax(where(mask[:, None], self.score(query, keys), -np.inf))
        return weights @ memory, weights


@dataclass(frozen=True)
class Seq2SeqConfig:
    """Sizes and kind of a Seq2Seq; ValueError for what does not fit together.

    `attention` None gives every step the encoder's last state as its context (Cho et al., arXiv 1406.1078).
    `hidden` is divided among the directions of a bidirectional encoder. `input_feeding` gives the decoder
    its last readout as further input (arXiv 1508.04025, section 3.3), which makes training step by step.
    `shared`: one recurrent network encodes and decodes.
    """

    vocab_size: int
    width: int = 128
    hidden: int = 256
    layers: int = 1
    cell: Literal["lstm", "gru"] = "lstm"
    attention: Score | None = "additive"
    bidirectional: bool = True
    input_feeding: bool = False
    shared: bool = False
    dropout: float = 0.1
    pad: int = 0
    bos: int = 1
    eos: int = 2

    def __post_init__(self) -> None:
        for name in ("vocab_size", "width", "hidden", "layers"):
            if getattr(self, name) <= 0:
                raise ValueError(f"Seq2SeqConfig: {name}: expected > 0, got {getattr(self, name)}")
        if self.cell not in _CELLS:
            raise ValueError(
                f"Seq2SeqConfig: cell: expected one of {list(_CELLS)}, got {self.cell!r}"
            )
        if self.bidirectional and self.hidden % 2:
            raise ValueError(
                f"Seq2SeqConfig: hidden: expected an even number for two directions, got {self.hidden}"
            )
        if self.shared and (self.bidirectional or self.input_feeding):
            raise ValueError(
                "Seq2SeqConfig: shared: expected neither bidirectional nor input_feeding, since the "
                "decoder reads one token after another"
            )
        for name in ("pad", "bos", "eos"):
            if not 0 <= getattr(self, name) < self.vocab_size:
                raise ValueError(
                    f"Seq2SeqConfig: {name}: expected in [0, {self.vocab_size}), "
                    f"got {getattr(self, name)}"
                )


@dataclass(frozen=True)
class DecoderState:
    """The decoder's recurrent state and the encoded source, for a number of hypotheses (rows)."""

    hidden: tuple[Tensor, ...]  # h, or h and c: (layers, rows, hidden)
    readout: Tensor  # (rows, width): the last one, for input feeding
    memory: Tensor  # (rows, source, hidden)
    keys: Tensor  # (rows, source, ·)
    mask: NDArray[np.bool_]  # (rows, source)
    sentence: NDArray[np.int64]  # (rows,): the source that a row translates

    def take(self, rows: NDArray[np.int64]) -> DecoderState:
        """The state of hypotheses `rows`."""
        sentence = self.sentence[rows]
        hidden = tuple(part[:, rows] for part in self.hidden)
        taken = replace(self, hidden=hidden, readout=self.readout[rows], sentence=sentence)
        if np.array_equal(sentence, self.sentence):  # as in most steps of a beam search
            return taken
        return replace(taken, memory=self.memory[rows], keys=self.keys[rows], mask=self.mask[rows])


class Seq2Seq(nn.Module):
    """Next-token logits (batch, target length, vocab_size) from source and target ids.

    An embedding that source, target and output share, an encoder, a decoder that starts from the encoder's
    last state, and for every step the readout tanh(W [state; context]) (arXiv 1508.04025, eq. 5), which the
    output layer turns into logits. Sources are (batch, length), filled up with `pad` behind.
    """

    def __init__(self, config: Seq2SeqConfig) -> None:
        super().__init__()
        self.config = config
        width, hidden, layers = config.width, config.hidden, config.layers
        self.tokens = nn.Embedding(config.vocab_size, width)
        self.dropout = nn.Dropout(config.dropout)

        def recurrent(inputs: int, units: int, bidirectional: bool) -> Any:
            between = config.dropout if layers > 1 else 0.0
            return _CELLS[config.cell](
                inputs,
                units,
                layers,
                batch_first=True,
                dropout=between,
                bidirectional=bidirectional,
            )

        units = hidden // 2 if config.bidirectional else hidden
        self.encoder = recurrent(width, units, config.bidirectional)
        fed = width if config.input_feeding else 0
        self.decoder = self.encoder if config.shared else recurrent(width + fed, hidden, False)
        self.attention = (
            None if config.attention is None else Attention(config.attention, hidden, hidden)
        )
        self.readout = nn.Linear(2 * hidden, width)
        self.head = nn.Linear(width, config.vocab_size)
        nn.init.normal_(self.tokens.weight, std=1.0 / math.sqrt(width))
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]
        self.head.weight = self.tokens.weight

    def forward(self, source: ArrayLike, target: ArrayLike, teacher_forcing: float = 1.0) -> Tensor:
        """Logits after each token of `target` (batch, length), which begins with `bos`.

        With probability 1 - `teacher_forcing` a step reads not the target's token but the likeliest by the
        step before (scheduled sampling, Bengio et al., arXiv 1506.03099). ValueError for shapes that do not
        fit, IndexError for unknown ids.
        """
        words = self._ids("target", target)
        state = self._encode(source)
        if len(words) != len(state.sentence):
            raise ValueError(
                f"Seq2Seq: target batch: expected {len(state.sentence)}, got {len(words)}"
            )
        if not 0.0 <= teacher_forcing <= 1.0:
            raise ValueError(f"Seq2Seq: teacher_forcing: expected in [0, 1], got {teacher_forcing}")
        if teacher_forcing == 1.0 and not self.config.input_feeding:
            states, _ = self._decode(self._embed(words), state.hidden)
            return self._logits(self._read(states, state)[0])
        logits: list[Tensor] = []
        for t in range(words.shape[1]):
            ids = words[:, t]
            if t and teacher_forcing < 1.0:
                told = random.generator().random(len(ids)) < teacher_forcing
                ids = np.where(told, ids, logits[-1].numpy().argmax(-1))
            step, state, _ = self._step(ids, state)
            logits.append(step)
        return stack(logits, 1)

    # ---- decoding ----------------------------------------------------------------------------------------

    def start(self, source: ArrayLike) -> DecoderState:
        """The encoded `source`, and nothing written yet."""
        with no_grad():
            return self._encode(source)

    def advance(
        self, ids: NDArray[np.int64], state: DecoderState
    ) -> tuple[NDArray[Any], DecoderState]:
        """Logits (rows, vocab_size) after the tokens `ids` (rows,) that follow what `state` has read."""
        with no_grad():
            logits, state, _ = self._step(np.asarray(ids), state)
        return logits.numpy(), state

    def attention_weights(self, source: ArrayLike, target: ArrayLike) -> NDArray[Any]:
        """The weights (batch, target, source) with which `forward` reads `source` and writes `target`.

        ValueError for a model with a fixed context.
        """
        if self.attention is None:
            raise ValueError("attention_weights: attention: expected a score, got a fixed context")
        words, found = self._ids("target", target), []
        with evaluating(self), no_grad():
            state = self._encode(source)
            for ids in words.T:
                _, state, weights = self._step(ids, state)
                assert weights is not None
                found.append(weights[:, 0].numpy())
        return np.stack(found, 1)

    # ---- the parts ---------------------------------------------------------------------------------------

    def _encode(self, source: ArrayLike) -> DecoderState:
        ids = self._ids("source", source)
        mask = ids != self.config.pad
        memory, last = self.encoder(self._embed(ids), lengths=mask.sum(1))
        last = last if isinstance(last, tuple) else (last,)
        if self.config.bidirectional:  # both directions of a layer make one state
            layers, batch, hidden = self.config.layers, len(ids), self.config.hidden
            last = tuple(
                part.reshape((layers, 2, batch, hidden // 2))
                .swapaxes(1, 2)
                .reshape((layers, batch, hidden))
                for part in last
            )
        keys = memory
        if self.attention is None:  # all that the decoder gets: the last state of the last layer
            memory = keys = expand_dims(last[0][-1], 1)
        else:
            keys = self.attention.keys(memory)
        readout = Tensor(np.zeros((len(ids), self.config.width), self.tokens.weight.dtype))
        return DecoderState(last, readout, memory, keys, mask, np.arange(len(ids)))

    def _step(
        self, ids: NDArray[np.int64], state: DecoderState
    ) -> tuple[Tensor, DecoderState, Tensor | None]:
        """Logits after one token, the next state, and the attention's weights (batch, 1, source)."""
        x = self._embed(ids[:, None])
        if self.config.input_feeding:
            x = concatenate([x, expand_dims(state.readout, 1)], -1)
        states, hidden = self._decode(x, state.hidden)
        readout, weights = self._read(states, state)
        logits = self._logits(readout)[:, 0]
        return logits, replace(state, hidden=hidden, readout=readout[:, 0]), weights

    def _decode(self, x: Tensor, hidden: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        states, last = self.decoder(x, hidden if len(hidden) > 1 else hidden[0])
        return states, last if isinstance(last, tuple) else (last,)

    def _read(self, states: Tensor, encoded: DecoderState) -> tuple[Tensor, Tensor | None]:
        """Readouts (batch, target, width) of decoder states, and the attention's weights."""
        weights = None
        if self.attention is None:
            context = broadcast_to(encoded.memory, states.shape)
        else:
            context, weights = self.attention(states, encoded.memory, encoded.keys, encoded.mask)
        joined = concatenate([states, context], -1)
        return self.readout(self.dropout(joined), activation="tanh"), weights

    def _logits(self, readout: Tensor) -> Tensor:
        logits: Tensor = self.head(self.dropout(readout))
        return logits

    def _embed(self, ids: NDArray[Any]) -> Tensor:
        x: Tensor = self.dropout(self.tokens(ids) * math.sqrt(self.config.width))
        return x

    def _ids(self, name: str, ids: ArrayLike) -> NDArray[Any]:
        array = np.asarray(ids)
        if array.ndim != 2 or array.shape[1] == 0:
            raise ValueError(
                f"Seq2Seq: {name} shape: expected (batch, length > 0), got {array.shape}"
            )
        return array


# ---- schedules of teacher forcing (arXiv 1506.03099, section 2.4) ----------------------------------------


def linear_decay(step: int, steps: int, floor: float = 0.0) -> float:
    """From 1 at step 0 down to `floor` at `steps`, and there on."""
    if steps < 1:
        raise ValueError(f"linear_decay: steps: expected >= 1, got {steps}")
    return max(floor, 1.0 - (1.0 - floor) * step / steps)


def exponential_decay(step: int, k: float) -> float:
    """k^step, for k < 1."""
    if not 0.0 < k < 1.0:
        raise ValueError(f"exponential_decay: k: expected in (0, 1), got {k}")
    return float(k**step)


def inverse_sigmoid_decay(step: int, k: float) -> float:
    """k / (k + exp(step / k)), for k >= 1: near 1 at first, one half at step k log k."""
    if not k >= 1.0:
        raise ValueError(f"inverse_sigmoid_decay: k: expected >= 1, got {k}")
    return k / (k + math.exp(min(step / k, 700.0)))
