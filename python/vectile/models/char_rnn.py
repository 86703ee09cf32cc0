"""A character language model: embedding, recurrent layers, and logits of the next character."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vectile import nn
from vectile.autograd import Tensor, no_grad
from vectile.models.sampling import Sampler, prompt_rows
from vectile.nn import functional as F
from vectile.nn.utils import evaluating

_CELLS: dict[str, Any] = {"lstm": nn.LSTM, "gru": nn.GRU}


@dataclass(frozen=True)
class CharRNNConfig:
    """Sizes of a CharRNN; ValueError for sizes or a cell that there are not."""

    vocab_size: int = 256
    embedding: int = 64
    hidden: int = 256
    n_layers: int = 2
    cell: Literal["lstm", "gru"] = "lstm"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("vocab_size", "embedding", "hidden", "n_layers"):
            if getattr(self, name) <= 0:
                raise ValueError(f"CharRNNConfig: {name}: expected > 0, got {getattr(self, name)}")
        if self.cell not in _CELLS:
            raise ValueError(
                f"CharRNNConfig: cell: expected one of {', '.join(_CELLS)}, got {self.cell!r}"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"CharRNNConfig: dropout: expected in [0, 1), got {self.dropout}")


State = tuple[NDArray[Any], ...]
"""h, or h and c: (n_layers, batch, hidden) each."""


class CharRNN(nn.Module):
    """Logits of the next character, and the state that carries everything read so far.

    Trained by truncated backpropagation through time: each call continues from the state that the one before
    left, as numbers without history (Mikolov et al. 2010). Keys: embedding.weight, rnn.weight_ih_l0 … as in
    torch.nn.LSTM, head.weight, head.bias.
    """

    def __init__(self, config: CharRNNConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.embedding)
        self.rnn: Any = _CELLS[config.cell](
            config.embedding,
            config.hidden,
            config.n_layers,
            batch_first=True,
            dropout=config.dropout,
        )
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.hidden, config.vocab_size)

    def forward(self, ids: ArrayLike, state: State | None = None) -> tuple[Tensor, State]:
        """Logits (batch, length, vocab_size) for ids (batch, length), and the state after the last.

        `state` is that of the call before; None starts from zeros. ValueError for shapes that do not fit.
        """
        array = np.asarray(ids)
        if array.ndim != 2:
            raise ValueError(f"CharRNN: ids rank: expected 2 (batch, length), got {array.ndim}")
        given: Any = state if state is None or self.config.cell == "lstm" else state[0]
        y, final = self.rnn(self.embedding(array), given)
        logits: Tensor = self.head(self.dropout(y))
        parts = final if isinstance(final, tuple) else (final,)
        return logits, tuple(part.numpy() for part in parts)

    def loss(
        self, ids: ArrayLike, targets: ArrayLike, state: State | None = None
    ) -> tuple[Tensor, State]:
        """Mean cross-entropy in nats of `targets` (batch, length), and the state after the last."""
        logits, state = self(ids, state)
        flat = logits.reshape((-1, logits.shape[-1]))
        return F.cross_entropy(flat, np.asarray(targets).reshape(-1)), state

    def generate(
        self,
        ids: ArrayLike,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        greedy: bool = False,
    ) -> NDArray[np.int64]:
        """Continue `ids` (length,) or (batch, length); returns prompt and continuation together.

        Sampling as in `GPT.generate`; every step costs the same, however long the text has grown.
        ValueError for an empty prompt or settings out of range.
        """
        sampler = Sampler(temperature, top_k, top_p, seed, greedy, "CharRNN.generate")
        written, state = [prompt_rows("CharRNN.generate", ids, max_new_tokens)], None
        with evaluating(self), no_grad():
            for _ in range(max_new_tokens):
                logits, state = self(written[-1], state)
                written.append(sampler(logits.numpy()[:, -1])[:, None])
        out = np.concatenate(written, axis=1)
        return out[0] if np.ndim(ids) == 1 else out


def streams(text: ArrayLike, batch: int) -> NDArray[Any]:
    """`text` cut into `batch` rows that are read side by side, (batch, len(text) // batch).

    The columns i … i + n, then i + n … are consecutive pieces of every row, so that a state can be carried
    from one to the next. ValueError when there is not one character a row.
    """
    array = np.asarray(text)
    length = len(array) // batch if batch > 0 else 0
    if length < 1:
        raise ValueError(f"streams: batch: expected 1 to {len(array)} rows, got {batch}")
    return array[: batch * length].reshape(batch, length)
