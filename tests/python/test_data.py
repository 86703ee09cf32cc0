"""The digits and the order of batches."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="the digits come with scikit-learn")

from vectile import data


def test_digits_are_split_the_same_way_every_time():
    from sklearn.datasets import load_digits

    training, held_out = data.digits()
    again, _ = data.digits()
    assert np.array_equal(training.images, again.images)
    assert training.images.shape == (1438, 1, 8, 8) and held_out.images.shape == (359, 1, 8, 8)
    assert training.images.dtype == np.float32 and training.labels.dtype == np.int64
    for part in (training, held_out):
        assert part.images.min() == 0.0 and part.images.max() == 1.0
    share = np.bincount(held_out.labels) / np.bincount(load_digits().target)
    assert np.all(np.abs(share - 0.2) < 0.01)  # every class gives a fifth
    rows = {image.tobytes() for image in np.concatenate([training.images, held_out.images])}
    assert rows == {image.tobytes() for image in (load_digits().images / 16).astype(np.float32)}


def test_larger_digits_are_bilinear():
    small, large = data.digits()[0].images, data.digits(16)[0].images
    assert large.shape == (1438, 1, 16, 16) and large.flags.c_contiguous
    # twice the size: each pixel lies a quarter of the way to its neighbour, and the corner is the corner
    image = small[3, 0].astype(np.float64)
    assert large[3, 0, 0, 0] == small[3, 0, 0, 0]
    near = 0.75 * image[2] + 0.25 * image[3]
    expected = 0.75 * near[4] + 0.25 * near[3]
    assert abs(large[3, 0, 5, 8] - expected) < 1e-6
    assert large.min() >= 0 and large.max() <= 1


def test_shifted_moves_whole_images():
    images = np.random.default_rng(0).random((50, 2, 5, 7), np.float32)
    moved = data.shifted(images, np.random.default_rng(1), 2)
    seen = set()
    for before, after in zip(images, moved, strict=True):
        padded = np.pad(before, ((0, 0), (2, 2), (2, 2)))
        places = [
            (i, j)
            for i in range(5)
            for j in range(5)
            if np.array_equal(padded[:, i : i + 5, j : j + 7], after)
        ]
        assert len(places) == 1
        seen.update(places)
    assert len(seen) > 15
    assert np.array_equal(data.shifted(images, np.random.default_rng(1), 0), images)


def test_shuffled_sees_everything_once_an_epoch():
    batches = data.shuffled(11, 3, np.random.default_rng(0))
    epochs = [np.concatenate(list(islice(batches, 3))) for _ in range(2)]
    for epoch in epochs:
        assert len(np.unique(epoch)) == 9 and epoch.max() <= 10
    assert not np.array_equal(*epochs)
    assert [len(b) for b in islice(data.shuffled(2, 64, np.random.default_rng(0)), 3)] == [2] * 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: data.digits(7), "size"),
        (lambda: data.digits(held_out=0), "held_out"),
        (lambda: next(data.shuffled(0, 4, np.random.default_rng(0))), "count"),
        (lambda: next(data.shuffled(4, 0, np.random.default_rng(0))), "size"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_warped_without_limits_changes_nothing_and_a_shift_moves():
    images = np.random.default_rng(0).random((6, 2, 5, 7), np.float32)
    generator = np.random.default_rng(1)
    assert np.allclose(data.warped(images, generator, 0, 0, 0), images, atol=1e-6)
    warped = data.warped(images, generator)
    assert warped.shape == images.shape and warped.dtype == np.float32
    assert np.abs(warped - images).max() > 0.05 and 0 <= warped.min() and warped.max() <= 1


def test_warped_follows_its_map():
    """A linear picture stays linear: the value under the map's position, wherever no border is touched."""
    y, x = np.meshgrid(np.arange(9.0) - 4, np.arange(9.0) - 4, indexing="ij")
    image = (0.5 + 0.02 * y + 0.05 * x).astype(np.float32)[None, None]
    angle, slant, down, right, tall, wide = _draws(3, 5.0, 0.1, 0.5)
    out = data.warped(image, np.random.default_rng(3), 5.0, 0.1, 0.5)[0, 0]
    rows = (np.cos(angle) * y + np.sin(angle) * x) / tall + down
    columns = (np.cos(angle) * x - np.sin(angle) * y) / wide + slant * y + right
    inside = (np.abs(rows) < 4) & (np.abs(columns) < 4)
    assert inside.sum() > 40
    assert np.abs(out - (0.5 + 0.02 * rows + 0.05 * columns))[inside].max() < 1e-6


def _draws(seed, angle, scale, shift):
    """The parameters in the order in which `warped` draws them, for one image."""
    generator = np.random.default_rng(seed)
    limits = [np.deg2rad(angle), scale, shift, shift, scale, scale]
    turn, slant, down, right, tall, wide = (
        generator.uniform(-v, v, (1, 1, 1)).item() for v in limits
    )
    return turn, slant, down, right, np.exp(tall), np.exp(wide)


def test_diabetes_is_standardised_on_the_training_patients():
    training, held_out = data.diabetes()
    assert training.measured.shape == (354, 10) and held_out.progress.shape == (88, 1)
    assert np.abs(training.measured.mean(0)).max() < 1e-6
    assert np.allclose(training.progress.std(), 1, atol=1e-6)
    with pytest.raises(ValueError, match="held_out"):
        data.diabetes(1.0)
