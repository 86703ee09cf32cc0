"""Search against the enumeration of every sequence, on a model whose logits are a table of the prefix."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest

from vectile import nn
from vectile.models import search

EOS, BOS = 0, 1


@dataclass(frozen=True)
class Prefixes:
    """What a row has read: its source and the tokens so far."""

    rows: tuple[tuple[int, ...], ...]

    def take(self, rows):
        return Prefixes(tuple(self.rows[i] for i in rows))


class Table(nn.Module):
    """Each prefix has logits of its own, the same every time that it is asked."""

    def __init__(self, vocabulary, seed=0):
        super().__init__()
        self.vocabulary, self.seed = vocabulary, seed
        self.config = SimpleNamespace(bos=BOS, eos=EOS)
        self.modes = []

    def start(self, source):
        self.modes.append(self.training)
        return Prefixes(tuple((int(row[0]),) for row in source))

    def advance(self, ids, state):
        state = Prefixes(tuple((*p, int(i)) for p, i in zip(state.rows, ids, strict=True)))
        return np.array([self.logits(p) for p in state.rows]), state

    def logits(self, prefix):
        key = zlib.crc32(repr((self.seed, *prefix)).encode())
        return 2.0 * np.random.default_rng(key).normal(size=self.vocabulary)

    def log_probability(self, source, ids):
        total, prefix = 0.0, (source, BOS)
        for token in ids:
            logits = self.logits(prefix)
            total += logits[token] - np.logaddexp.reduce(logits)
            prefix = (*prefix, token)
        return total


def every_sequence(vocabulary, length):
    """All that a search may return: ended by eos, or `length` tokens without one."""
    tokens = [t for t in range(vocabulary) if t != EOS]
    for n in range(length):
        for ids in product(tokens, repeat=n):
            yield ids, (*ids, EOS)
    for ids in product(tokens, repeat=length):
        yield ids, ids


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0, 2.5])
@pytest.mark.parametrize(("vocabulary", "length"), [(2, 1), (2, 5), (3, 4), (4, 3), (5, 2)])
def test_a_wide_beam_is_exhaustive(vocabulary, length, alpha):
    for seed in range(3):
        model = Table(vocabulary, seed)
        found = search.beam_search(model, [[7], [8]], vocabulary**length, alpha, length)
        for source, hypotheses in zip((7, 8), found, strict=True):
            wanted = {
                ids: model.log_probability(source, tokens) / ((5 + len(tokens)) / 6) ** alpha
                for ids, tokens in every_sequence(vocabulary, length)
            }
            assert {h.ids for h in hypotheses} == set(wanted)
            for h in hypotheses:
                np.testing.assert_allclose(h.score, wanted[h.ids], rtol=1e-12)
            assert hypotheses[0].ids == max(wanted, key=wanted.get)
            assert sorted((h.score for h in hypotheses), reverse=True) == [
                h.score for h in hypotheses
            ]


@pytest.mark.parametrize("width", [1, 2, 3, 7])
def test_scores_are_those_of_the_sequences(width):
    model = Table(6, seed=1)
    for source, hypotheses in zip(
        range(20), search.beam_search(model, [[i] for i in range(20)], width, 0.7, 6), strict=True
    ):
        assert 1 <= len(hypotheses) <= width
        assert len({h.ids for h in hypotheses}) == len(hypotheses)
        for h in hypotheses:
            ended = [
                tokens
                for tokens in ((*h.ids, EOS), h.ids)
                if np.isclose(model.log_probability(source, tokens), h.log_probability, rtol=1e-12)
            ]
            assert ended and EOS not in h.ids
            assert h.score == h.log_probability / search.length_penalty(len(ended[0]), 0.7)


def test_width_one_is_greedy():
    source = [[i] for i in range(50)]
    for vocabulary, seed in product((2, 3, 9), range(3)):
        model = Table(vocabulary, seed)
        greedy = search.greedy_search(model, source, 8)
        for alpha in (0.0, 1.0):
            beams = search.beam_search(model, source, 1, alpha, 8)
            assert [tuple(ids) for ids in greedy] == [best.ids for (best,) in beams]
        for i, ids in enumerate(greedy):
            prefix = (i, BOS)
            for token in ids:
                assert token == model.logits(prefix).argmax() != EOS
                prefix = (*prefix, token)
            assert len(ids) == 8 or model.logits(prefix).argmax() == EOS


def test_a_batch_gives_what_each_source_gives_alone():
    model = Table(7, seed=3)
    source = [[i] for i in range(11)]
    for width in (1, 4):
        together = search.beam_search(model, source, width, 1.0, 7)
        alone = [search.beam_search(model, [row], width, 1.0, 7)[0] for row in source]
        assert together == alone
    assert search.beam_search(model, np.zeros((0, 1), int), 3) == []
    assert search.greedy_search(model, np.zeros((0, 1), int)) == []


def test_a_beam_finds_what_greedy_misses():
    model, source = Table(6, seed=5), [[i] for i in range(60)]
    one, three = (search.beam_search(model, source, width, 0.0, 5) for width in (1, 3))
    assert sum(h[0].log_probability for h in one) < sum(h[0].log_probability for h in three)


def test_searching_is_without_dropout_and_leaves_the_mode_alone():
    for mode in (True, False):
        model = Table(3)
        model.training = mode
        search.beam_search(model, [[0]], 2)
        search.greedy_search(model, [[0]])
        assert model.modes == [False, False] and model.training is mode


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 0}, "width: expected >= 1, got 0"),
        ({"max_length": 0}, "max_length: expected >= 1, got 0"),
        ({"alpha": -0.1}, "alpha: expected >= 0, got -0.1"),
        ({"alpha": float("nan")}, "alpha: expected >= 0, got nan"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        search.beam_search(Table(3), [[0]], **settings)


@pytest.mark.parametrize("find", [search.greedy_search, search.beam_search])
def test_a_search_may_fill_the_context_but_not_pass_it(find):
    model = Table(3)
    model.config.context = 4
    assert len(find(model, [[0]])) == 1  # by default, no more than it can write
    assert len(find(model, [[0]], max_length=4)) == 1
    with pytest.raises(ValueError, match="max_length: expected at most the 4 tokens of Table's"):
        find(model, [[0]], max_length=5)
    assert len(model.modes) == 2  # nothing was read before the refusal


def test_length_penalty():
    assert search.length_penalty(9, 0.0) == 1.0
    np.testing.assert_allclose(search.length_penalty(7, 0.5), np.sqrt(2.0))
