"""Choosing the next token from logits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vectile import ops, random
from vectile.device import as_array, to
from vectile.models import checks


class Sampler:
    """Draws token ids from softmax(logits / temperature), cut to `top_k` tokens and to mass `top_p`.

    The nucleus (Holtzman et al., arXiv 1904.09751) is the smallest set of likeliest tokens whose
    probabilities reach `top_p`. ValueError for settings out of range, TypeError for a `top_k` or `seed` that
    is no integer; `owner` is whom they blame.
    """

    def __init__(
        self,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        greedy: bool = False,
        owner: str = "Sampler",
    ) -> None:
        if not temperature > 0.0:
            raise ValueError(f"{owner}: temperature: expected > 0, got {temperature}")
        if top_k is not None:
            checks.integers(owner, top_k=top_k)
        if top_p is not None and not 0.0 < top_p <= 1.0:
            raise ValueError(f"{owner}: top_p: expected in (0, 1], got {top_p}")
        if seed is not None:
            checks.integers(owner, 0, seed=seed)
        self.temperature, self.top_k, self.top_p = temperature, top_k, top_p
        self.greedy = greedy
        self.generator = (
            random.generator() if seed is None else np.random.Generator(np.random.Philox(seed))
        )

    def __call__(self, logits: NDArray[Any]) -> NDArray[np.int64]:
        """Ids (batch,) for logits (batch, vocab), NumPy's for those on a GPU too."""
        if self.greedy:
            best: NDArray[np.int64] = to(logits.argmax(-1), "cpu")
            return best
        scores = to(logits, "cpu").astype(np.float64) / self.temperature
        order = np.argsort(-scores, axis=-1, kind="stable")
        probabilities = ops.softmax(np.take_along_axis(scores, order, -1))
        if self.top_k is not None:
            probabilities[:, self.top_k :] = 0.0
        total = probabilities.sum(-1, keepdims=True)
        mass = np.cumsum(probabilities, -1)
        if self.top_p is not None:  # a token stays if those before it have not reached top_p yet
            probabilities[mass - probabilities >= self.top_p * total] = 0.0
            total = probabilities.sum(-1, keepdims=True)
            mass = np.cumsum(probabilities, -1)
        draw = self.generator.random((len(scores), 1)) * total
        last = (probabilities > 0).sum(-1, keepdims=True) - 1
        rank = np.minimum((mass <= draw).sum(-1, keepdims=True), last)
        ids: NDArray[np.int64] = np.take_along_axis(order, rank, -1)[:, 0]
        return ids


def prompt_rows(owner: str, ids: ArrayLike, max_new_tokens: int) -> NDArray[np.int64]:
    """The prompts (batch, length) of a call of `owner`, GPT.generate for one, whose `ids` may lack the batch.

    TypeError unless all are integers; ValueError for an empty prompt or a negative `max_new_tokens`.
    """
    given = to(as_array(ids), "cpu")
    if given.dtype.kind not in "iu":
        raise TypeError(f"{owner}: ids dtype: expected integers, got {given.dtype}")
    if given.ndim not in (1, 2) or given.size == 0:
        raise ValueError(f"{owner}: ids shape: expected (batch, length), got {given.shape}")
    checks.integers(owner, 0, max_new_tokens=max_new_tokens)
    return np.atleast_2d(given).astype(np.int64)
