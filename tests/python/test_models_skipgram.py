"""Skip-gram: its loss against the paper's formula, its samplers against their laws, and a tiny language."""

from __future__ import annotations

import numpy as np
import pytest

from vectile import checkpoint, optim, random
from vectile.models.skipgram import (
    NoiseSampler,
    SkipGram,
    Vocabulary,
    analogy,
    keep_probability,
    nearest,
    pairs,
    unit,
)


def model(words=7, dim=5, seed=0):
    """In float64, with both tables filled."""
    generator = np.random.default_rng(seed)
    out = SkipGram(words, dim).double()
    for parameter in out.parameters():
        parameter.data = generator.normal(size=parameter.shape)
    return out


@pytest.mark.parametrize("batch, negatives", [(1, 1), (4, 3), (11, 5), (3, 0)])
def test_loss_is_equation_4(batch, negatives, rng):
    m = model()
    c, o, n = (rng.integers(0, 7, shape) for shape in (batch, batch, (batch, negatives)))
    u, v = m.centres.weight.numpy(), m.contexts.weight.numpy()

    def log_sigmoid(x):
        return -np.log1p(np.exp(-x))

    expected = -np.mean(
        [
            log_sigmoid(v[o[i]] @ u[c[i]]) + sum(log_sigmoid(-v[k] @ u[c[i]]) for k in n[i])
            for i in range(batch)
        ]
    )
    assert m.loss(c, o, n).item() == pytest.approx(expected, rel=1e-12)


def test_gradient_is_the_finite_difference(rng):
    m = model()
    c, o, n = rng.integers(0, 7, 6), rng.integers(0, 7, 6), rng.integers(0, 7, (6, 4))
    m.loss(c, o, n).backward()
    h = 1e-5
    for parameter in m.parameters():
        slope = np.empty(parameter.shape)
        for at in np.ndindex(*parameter.shape):
            kept, values = parameter.data[at], []
            for sign in (1, -1):
                parameter.data[at] = kept + sign * h
                values.append(m.loss(c, o, n).item())
            parameter.data[at] = kept
            slope[at] = (values[0] - values[1]) / (2 * h)
        np.testing.assert_allclose(parameter.grad.numpy(), slope, rtol=1e-6, atol=1e-9)


def test_extreme_scores_stay_finite():
    m = model(2, 1)
    m.centres.weight.data = np.array([[1e3], [-1e3]])
    m.contexts.weight.data = np.array([[1e3], [1e3]])
    loss = m.loss([1], [0], [[1]])
    assert loss.item() == pytest.approx(1e6)
    loss.backward()
    assert np.isfinite(m.centres.weight.grad.numpy()).all()


def test_vocabulary_counts_and_encodes():
    words = "b a c a b a d".split()
    v = Vocabulary(words, min_count=2)
    assert v.words == ["a", "b"] and v.counts.tolist() == [3, 2] and len(v) == 2
    assert v.encode(words).tolist() == [1, 0, 0, 1, 0]
    assert Vocabulary(words).words == ["a", "b", "c", "d"]
    assert Vocabulary(words, max_size=1).words == ["a"]


def test_pairs_of_one_window_are_both_neighbours():
    centres, contexts = pairs(np.arange(10), 1, np.random.default_rng(0))
    expected = {(i, j) for i in range(10) for j in (i - 1, i + 1) if 0 <= j < 10}
    found = list(zip(centres.tolist(), contexts.tolist(), strict=True))
    assert len(found) == len(set(found)) and set(found) == expected


def test_a_neighbour_at_distance_d_is_seen_with_its_share():
    n, window = 20_000, 4
    centres, contexts = pairs(np.arange(n), window, np.random.default_rng(0))
    distance = np.bincount(np.abs(centres - contexts), minlength=window + 1)
    assert distance[0] == 0 and len(distance) == window + 1
    for d in range(1, window + 1):
        share = (window - d + 1) / window
        tolerance = 5 * np.sqrt(2 * n * share * (1 - share)) + 2 * window
        assert abs(distance[d] - 2 * n * share) <= tolerance


def test_subsampling_thins_before_the_window():
    text = np.tile([0, 1, 0, 2], 500)
    keep = np.array([0.0, 1.0, 1.0])
    centres, contexts = pairs(text, 1, np.random.default_rng(0), keep)
    assert set(zip(centres.tolist(), contexts.tolist(), strict=True)) == {(1, 2), (2, 1)}
    np.testing.assert_allclose(keep_probability([90, 10], 0.1), [np.sqrt(0.1 / 0.9), 1.0])


@pytest.mark.parametrize("text", [[], [3], [3, 4]])
def test_texts_shorter_than_a_window(text):
    centres, contexts = pairs(np.array(text, int), 5, np.random.default_rng(0))
    assert len(centres) == len(contexts) == (2 if len(text) == 2 else 0)


def test_noise_follows_the_power_law():
    counts = np.array([1, 16, 0, 81])
    noise = NoiseSampler(counts)
    np.testing.assert_allclose(noise.probability, np.array([1, 8, 0, 27]) / 36)
    draws = noise((100, 400), np.random.default_rng(0))
    assert draws.shape == (100, 400) and draws.dtype == np.int64
    share = np.bincount(draws.ravel(), minlength=4) / draws.size
    assert share[2] == 0
    np.testing.assert_allclose(share, noise.probability, atol=5 * np.sqrt(0.25 / draws.size))
    assert (NoiseSampler([5])(3, np.random.default_rng(0)) == 0).all()


def train(seed):
    """Words 2i and 2i + 1 stand beside each other, and never beside another word."""
    random.manual_seed(seed)
    generator = np.random.default_rng(seed)
    m = SkipGram(8, 6)
    optimiser = optim.Adam(m.parameters(), lr=0.05)
    noise = NoiseSampler(np.ones(8))
    for _ in range(150):
        first = generator.integers(0, 8, 64)
        optimiser.zero_grad()
        loss = m.loss(first, first ^ 1, noise((64, 3), generator))
        loss.backward()
        optimiser.step()
    return m, loss.item()


def test_learns_which_words_stand_together():
    m, loss = train(0)
    scores = m(np.arange(8), np.tile(np.arange(8), (8, 1))).numpy()
    assert np.array_equal(scores.argmax(1), np.arange(8) ^ 1)
    assert loss < 0.5 * 4 * np.log(2)
    other, again = train(0)
    assert loss == again and np.array_equal(m.vectors(), other.vectors())


def test_checkpoint_round_trip(tmp_path):
    m = model()
    checkpoint.save(tmp_path / "m.safetensors", m.state_dict(), {"kind": "skipgram"})
    other = model(seed=1)
    other.load_state_dict(checkpoint.load(tmp_path / "m.safetensors")[0])
    assert np.array_equal(m.vectors(), other.vectors())


def test_neighbours_and_analogies():
    plane = unit(np.array([[1.0, 0], [1, 1], [0, 1], [-1, 0], [1, 0.1], [0, 0]]))
    assert [i for i, _ in nearest(plane, plane[0], 3)] == [0, 4, 1]
    assert nearest(plane, 2 * plane[0], 1, without=(0,))[0] == (4, pytest.approx(plane[4, 0]))
    assert len(nearest(plane, plane[0], 99, without=(0, 1))) == 4
    assert not plane[5].any()
    # a, b = c, d: b - a + c points at d
    square = unit(np.array([[1.0, 0, 0.2], [1, 1, 0.2], [0, 0, 1], [0.1, 1, 1], [-1, 0, 0]]))
    assert analogy(square, 0, 1, 2)[0][0] == 3


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: SkipGram(0, 3), ValueError, "vocab_size, dim: expected >= 1, got 0 and 3"),
        (lambda: SkipGram(3, 2)([0, 1], [0, 1]), ValueError, r"contexts shape: expected \(B, C\)"),
        (lambda: SkipGram(3, 2)([0], [[3]]), IndexError, "embedding: ids"),
        (lambda: SkipGram(3, 2)([-1], [[0]]), IndexError, "embedding: ids"),
        (lambda: pairs([1, 2], 0, np.random.default_rng(0)), ValueError, "window: expected >= 1"),
        (lambda: Vocabulary(["a"], min_count=2), ValueError, "expected one seen 2 times"),
        (lambda: NoiseSampler([0, 0]), ValueError, "counts: expected a row with a count"),
    ],
)
def test_wrong_arguments_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()
