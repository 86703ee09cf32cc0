"""Greedy and beam search for encoder-decoder models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vectile import ops
from vectile.autograd import no_grad
from vectile.device import as_array, to
from vectile.models import checks
from vectile.nn import Module
from vectile.nn.utils import evaluating

Ids = NDArray[np.int64]
S = TypeVar("S", bound="State")


class State(Protocol):
    """What a decoder remembers, for a number of hypotheses (rows) at once."""

    def take(self: S, rows: Ids) -> S:
        """The state of the hypotheses `rows`, each of them any number of times."""
        ...


class Decodes(Protocol):
    """A model that writes a sequence token by token.

    `config` names its `bos` and `eos`, and its `context` if it can write no more tokens than that.
    """

    config: Any

    def start(self, source: ArrayLike) -> Any:
        """The State before the first token, one row for each source (batch, length)."""
        ...

    def advance(self, ids: Ids, state: Any) -> tuple[NDArray[Any], Any]:
        """Logits (rows, vocabulary) after each row's newest token `ids` (rows,), and the next State."""
        ...

    def modules(self) -> Iterator[Module]:
        """Itself and its layers, whose mode the search sets: those of an nn.Module."""
        ...


class Hypothesis(NamedTuple):
    """A written sequence, without `bos` and `eos`; `score` is the log-probability over the length penalty."""

    ids: tuple[int, ...]
    log_probability: float
    score: float


def length_penalty(length: int, alpha: float) -> float:
    """((5 + length) / 6)^alpha (Wu et al., arXiv 1609.08144, eq. 14); 1 at alpha 0."""
    penalty: float = ((5.0 + length) / 6.0) ** alpha
    return penalty


def greedy_search(
    model: Decodes, source: ArrayLike, max_length: int | None = None
) -> list[list[int]]:
    """The likeliest token at every step, until `eos` or `max_length`: ids for each source (batch, length).

    `max_length` is 100 by default, or the model's context where that is less. ValueError for a length
    below 1 or above the context.
    """
    max_length = _length("greedy_search", model, max_length)
    with evaluating(model), no_grad():
        state = model.start(source)
        batch = len(as_array(source))
        written: list[list[int]] = [[] for _ in range(batch)]
        active = np.arange(batch)
        ids = np.full(batch, model.config.bos, np.int64)
        for _ in range(max_length):
            if not len(active):
                break
            logits, state = model.advance(ids, state)
            ids = to(logits.argmax(-1), "cpu")
            going = np.flatnonzero(ids != model.config.eos)
            for row in going:
                written[active[row]].append(int(ids[row]))
            if len(going) < len(active):
                active, ids, state = active[going], ids[going], state.take(going)
    return written


def beam_search(
    model: Decodes,
    source: ArrayLike,
    width: int = 4,
    alpha: float = 1.0,
    max_length: int | None = None,
) -> list[list[Hypothesis]]:
    """Up to `width` hypotheses for each source (batch, length), the best score first.

    Each step continues the `width` likeliest unfinished hypotheses. Those among the `width` likeliest
    continuations that end with `eos` are finished; a source is done with `width` of them, or at
    `max_length` (as in `greedy_search`), where the unfinished ones count as they are. `alpha` is the
    strength of `length_penalty`. Width 1 is `greedy_search`; a width that holds every sequence gives the
    best one there is.
    ValueError for a width or length below 1, a length above the model's context, or a negative alpha.
    """
    checks.integers("beam_search", width=width)
    max_length = _length("beam_search", model, max_length)
    if not alpha >= 0:
        raise ValueError(f"beam_search: alpha: expected >= 0, got {alpha}")
    with evaluating(model), no_grad():
        return _beam_search(model, source, width, alpha, max_length)


def _beam_search(
    model: Decodes, source: ArrayLike, width: int, alpha: float, max_length: int
) -> list[list[Hypothesis]]:
    batch, eos = len(as_array(source)), model.config.eos
    finished: list[list[Hypothesis]] = [[] for _ in range(batch)]

    def finish(sentence: int, ids: Ids, value: float, length: int) -> None:
        score = float(value) / length_penalty(length, alpha)
        finished[sentence].append(Hypothesis(tuple(ids.tolist()), float(value), score))

    active = np.arange(batch)  # the sources that are not done: axis 0 of all that follows
    state = model.start(source).take(np.repeat(active, width))
    values = np.full((batch, width), -np.inf)  # log-probabilities; -inf: no hypothesis
    values[:, 0] = 0.0
    written = np.zeros((batch, width, 0), np.int64)
    ids = np.full((batch, width), model.config.bos, np.int64)
    for length in range(1, max_length + 1):
        if not len(active):
            break
        logits, state = model.advance(ids.reshape(-1), state)
        vocabulary = logits.shape[-1]
        continued = to(ops.log_softmax(logits), "cpu").reshape(len(active), width, vocabulary)
        continued = (continued + values[..., None]).reshape(len(active), -1)
        best = _largest(continued, min(2 * width, width * vocabulary))
        values = np.take_along_axis(continued, best, 1)
        parents, ids = np.divmod(best, vocabulary)
        ends = ids == eos
        for row, rank in np.argwhere(ends[:, :width] & (values[:, :width] > -np.inf)):
            finish(active[row], written[row, parents[row, rank]], values[row, rank], length)

        # no more than `width` of them end, one for each hypothesis: as many go on, best first
        going = np.argsort(ends, axis=1, kind="stable")[:, :width]
        values, parents, ids = (np.take_along_axis(a, going, 1) for a in (values, parents, ids))
        written = np.concatenate(
            [np.take_along_axis(written, parents[..., None], 1), ids[..., None]], 2
        )
        left = np.flatnonzero(
            [
                len(finished[sentence]) < width and row.max() > -np.inf
                for sentence, row in zip(active, values, strict=True)
            ]
        )
        rows = (left[:, None] * width + parents[left]).reshape(-1)
        state = state.take(rows)
        active, values, written, ids = active[left], values[left], written[left], ids[left]
    for row, sentence in enumerate(active):
        for rank in np.flatnonzero(values[row] > -np.inf):
            finish(int(sentence), written[row, rank], values[row, rank], max_length)
    return [sorted(found, key=lambda h: -h.score)[:width] for found in finished]


def _largest(values: NDArray[Any], count: int) -> Ids:
    """The places of each row's `count` largest values, largest first."""
    places = np.sort(np.argpartition(-values, count - 1, axis=1)[:, :count], axis=1)
    order = np.argsort(-np.take_along_axis(values, places, 1), axis=1, kind="stable")
    out: Ids = np.take_along_axis(places, order, 1)
    return out


def _length(owner: str, model: Decodes, max_length: int | None) -> int:
    context = getattr(model.config, "context", None)
    if max_length is None:
        return 100 if context is None else min(100, context)
    checks.integers(owner, max_length=max_length)
    if context is not None and max_length > context:
        raise ValueError(
            f"{owner}: max_length: expected at most the {context} tokens of "
            f"{type(model).__name__}'s context, got {max_length}"
        )
    return max_length
