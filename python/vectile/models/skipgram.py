"""Skip-gram word vectors with negative sampling (Mikolov et al., arXiv 1310.4546).

`Vocabulary` counts words, `pairs` draws (centre, context) pairs with subsampling and a dynamic window,
`NoiseSampler` draws negatives, and `SkipGram` is the model: two tables and a logistic loss.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vectile import nn
from vectile.autograd import Tensor
from vectile.device import beside
from vectile.models import checks
from vectile.nn import functional as F

Ids = NDArray[np.int64]


class Vocabulary:
    """The words seen at least `min_count` times, the most frequent first (ties in alphabetical order).

    `words` (list), `index` (word -> id) and `counts` (int64). ValueError when no word is frequent enough.
    """

    def __init__(
        self, words: Iterable[str], min_count: int = 1, max_size: int | None = None
    ) -> None:
        frequent = [(-n, word) for word, n in Counter(words).items() if n >= min_count]
        kept = sorted(frequent)[:max_size]
        if not kept:
            raise ValueError(f"Vocabulary: words: expected one seen {min_count} times, got none")
        self.words = [word for _, word in kept]
        self.index = {word: i for i, word in enumerate(self.words)}
        self.counts = np.array([-n for n, _ in kept], np.int64)

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, words: Iterable[str]) -> Ids:
        """The known words' ids, in order; the others are left out."""
        known = (self.index.get(word) for word in words)
        return np.array([i for i in known if i is not None], np.int64)


def keep_probability(counts: ArrayLike, threshold: float = 1e-5) -> NDArray[np.float64]:
    """min(1, sqrt(t / f)) for words of frequency f = count / sum: frequent words are thinned (eq. 5)."""
    frequency = np.asarray(counts, np.float64)
    frequency = frequency / frequency.sum()
    keep: NDArray[np.float64] = np.minimum(1.0, np.sqrt(threshold / frequency))
    return keep


def pairs(
    ids: ArrayLike,
    window: int,
    generator: np.random.Generator,
    keep: NDArray[np.float64] | None = None,
) -> tuple[Ids, Ids]:
    """(centres, contexts) of one pass over the text `ids`, shuffled.

    Words survive with their probability in `keep` (by id) before windows are laid, so that these reach
    further over frequent words; each centre draws its own reach from 1 … `window`.
    """
    text = np.asarray(ids, np.int64)
    if window < 1:
        raise ValueError(f"pairs: window: expected >= 1, got {window}")
    if keep is not None:
        text = text[generator.random(len(text)) < keep[text]]
    reach = generator.integers(1, window + 1, len(text))
    centres, contexts = [], []
    for distance in range(1, min(window, len(text) - 1) + 1):
        left, right = text[:-distance], text[distance:]
        sees_right = reach[:-distance] >= distance
        sees_left = reach[distance:] >= distance
        centres += [left[sees_right], right[sees_left]]
        contexts += [right[sees_right], left[sees_left]]
    if not centres:
        return text[:0], text[:0]
    joined = np.concatenate(centres), np.concatenate(contexts)
    order = generator.permutation(len(joined[0]))
    return joined[0][order], joined[1][order]


class NoiseSampler:
    """Draws ids with probability proportional to count^power, 3/4 in the paper (section 2.2)."""

    def __init__(self, counts: ArrayLike, power: float = 0.75) -> None:
        weights = np.asarray(counts, np.float64) ** power
        if weights.ndim != 1 or not weights.size or not weights.sum() > 0:
            raise ValueError("NoiseSampler: counts: expected a row with a count above zero")
        self.probability = weights / weights.sum()
        self._edges = np.cumsum(self.probability)[:-1]

    def __call__(self, shape: int | tuple[int, ...], generator: np.random.Generator) -> Ids:
        """int64 ids of `shape`."""
        return np.searchsorted(self._edges, generator.random(shape), side="right").astype(np.int64)


class SkipGram(nn.Module):
    """Two tables of `vocab_size` vectors: `centres.weight` are the word vectors, `contexts.weight` the other
    side. The first starts U(-1/2d, 1/2d) and the second at zero, as in word2vec."""

    def __init__(self, vocab_size: int, dim: int) -> None:
        super().__init__()
        if vocab_size < 1 or dim < 1:
            raise ValueError(
                f"SkipGram: vocab_size, dim: expected >= 1, got {vocab_size} and {dim}"
            )
        self.centres = nn.Embedding(vocab_size, dim)
        self.contexts = nn.Embedding(vocab_size, dim)
        nn.init.uniform_(self.centres.weight, -0.5 / dim, 0.5 / dim)
        nn.init.zeros_(self.contexts.weight)

    def forward(self, centres: ArrayLike, contexts: ArrayLike) -> Tensor:
        """Scores (B, C): the product of each centre (B,) with its own candidates (B, C)."""
        candidates = beside(contexts, self.contexts.weight.data)
        if candidates.ndim != 2 or np.shape(centres) != candidates.shape[:1]:
            raise ValueError(
                f"SkipGram: contexts shape: expected (B, C) for centres (B,), got "
                f"{candidates.shape} for {np.shape(centres)}"
            )
        rows: Tensor = self.contexts(candidates)
        scores: Tensor = (rows @ self.centres(beside(centres, rows.data))[:, :, None]).squeeze(-1)
        return scores

    def loss(self, centres: ArrayLike, contexts: ArrayLike, negatives: ArrayLike) -> Tensor:
        """Mean over the pairs of -log s(x) - sum_k log s(-x_k), in nats (eq. 4, s the logistic function).

        centres and contexts (B,), negatives (B, K). True and false contexts share one gather, one product
        and one loss: -log s(-x) = softplus(x), and softplus(-x) = softplus(x) - x for the true one.
        """
        wrong, true = (beside(ids, self.contexts.weight.data) for ids in (negatives, contexts))
        if wrong.ndim != 2 or true.shape != wrong.shape[:1]:
            raise ValueError(
                f"SkipGram: negatives shape: expected (B, K) for contexts (B,), got {wrong.shape} for "
                f"{true.shape}"
            )
        right = true[:, None]
        scores: Tensor = self(centres, np.concatenate([right, wrong], axis=1))
        return (F.softplus(scores).sum() - scores[:, 0].sum()) * (1.0 / max(1, len(right)))

    def vectors(self) -> NDArray[Any]:
        """The word vectors with length 1: (vocab_size, dim)."""
        return unit(self.centres.weight.numpy())


def unit(rows: NDArray[Any]) -> NDArray[Any]:
    """Rows divided by their 2-norm; zero rows stay zero."""
    norm = np.linalg.norm(rows, axis=-1, keepdims=True)
    out: NDArray[Any] = rows / np.where(norm > 0, norm, 1.0)
    return out


def nearest(
    vectors: NDArray[Any], query: NDArray[Any], count: int, without: Sequence[int] = ()
) -> list[tuple[int, float]]:
    """(id, cosine) of the `count` unit `vectors` (n, d) with the largest cosine to `query` (d,).

    IndexError for an id in `without` outside [0, n).
    """
    checks.integers("nearest", 0, count=count)
    left_out = checks.indices("nearest", "without", list(without), len(vectors))
    cosine = vectors @ unit(query)
    cosine[left_out] = -np.inf
    best = np.argsort(-cosine, kind="stable")[:count]
    return [(int(i), float(cosine[i])) for i in best if cosine[i] > -np.inf]


def analogy(
    vectors: NDArray[Any], a: int, b: int, c: int, count: int = 1
) -> list[tuple[int, float]]:
    """a is to b as c is to …: nearest to b - a + c among unit vectors, without these three (3CosAdd).

    IndexError for an id outside [0, n).
    """
    for name, word in (("a", a), ("b", b), ("c", c)):
        checks.indices("analogy", name, word, len(vectors))
    return nearest(vectors, vectors[b] - vectors[a] + vectors[c], count, (a, b, c))
