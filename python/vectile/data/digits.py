"""Handwritten digits: 1,797 grey images of 8 x 8 pixels that scikit-learn carries in its wheel.

They are the test part of E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI
Machine Learning Repository (1998): 43 writers, 4 x 4 blocks of a 32 x 32 scan counted to 0 … 16.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vectile.extras import require

Images = NDArray[np.float32]

_SPLIT_SEED = 1797


class Digits(NamedTuple):
    """`images` float32 (n, 1, size, size) in [0, 1], ink is 1; `labels` int64 (n,) in 0 … 9."""

    images: Images
    labels: NDArray[np.int64]


def digits(size: int = 8, held_out: float = 0.2) -> tuple[Digits, Digits]:
    """(training, held-out) digits, the same split in every run; each class gives `held_out` of its images.

    `size` 8 is the data as it is; a larger one is interpolated bilinearly. ValueError for a size below 8 or
    a fraction outside (0, 1); MissingExtra without scikit-learn.
    """
    if size < 8:
        raise ValueError(f"digits: size: expected >= 8, got {size}")
    if not 0.0 < held_out < 1.0:
        raise ValueError(f"digits: held_out: expected a fraction in (0, 1), got {held_out}")
    source = require("sklearn.datasets", "the digits data", "recipes")
    pixels, labels = source.load_digits(return_X_y=True)
    images = (pixels.reshape(-1, 1, 8, 8) / 16).astype(np.float32)
    if size != 8:
        weights = bilinear(8, size)
        images = np.ascontiguousarray(weights @ images @ weights.T)
    labels = labels.astype(np.int64)
    held = np.zeros(len(labels), bool)
    generator = np.random.Generator(np.random.Philox(_SPLIT_SEED))
    for label in range(10):
        members = generator.permutation(np.flatnonzero(labels == label))
        held[members[: max(1, round(held_out * len(members)))]] = True
    return Digits(images[~held], labels[~held]), Digits(images[held], labels[held])


def bilinear(source: int, target: int) -> NDArray[np.float32]:
    """(target, source): interpolation weights between pixel centres, the border repeated."""
    position = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    distance = np.abs(position[:, None] - np.arange(source))
    out: NDArray[np.float32] = np.maximum(0, 1 - distance).astype(np.float32)
    return out


def shifted(images: Images, generator: np.random.Generator, pixels: int = 1) -> Images:
    """Each image (n, c, h, w) moved by up to `pixels` up or down and left or right; what enters is 0."""
    count, _, height, width = images.shape
    padded = np.pad(images, ((0, 0), (0, 0), (pixels, pixels), (pixels, pixels)))
    down, right = generator.integers(0, 2 * pixels + 1, size=(2, count, 1))
    rows = (down + np.arange(height))[:, None, :, None]
    columns = (right + np.arange(width))[:, None, None, :]
    channels = np.arange(images.shape[1])[:, None, None]
    out: Images = padded[np.arange(count)[:, None, None, None], channels, rows, columns]
    return out


def warped(
    images: Images,
    generator: np.random.Generator,
    angle: float = 10.0,
    scale: float = 0.1,
    shift: float = 0.5,
) -> Images:
    """Each image (n, c, h, w) under a small affine map of its own, interpolated bilinearly; outside is 0.

    Turned by up to `angle` degrees, stretched in each direction by up to a factor exp(`scale`), slanted by up
    to `scale`, moved by up to `shift` pixels (Simard et al., "Best Practices for Convolutional Neural
    Networks Applied to Visual Document Analysis", ICDAR 2003, section 2).
    """
    count, _, height, width = images.shape

    def draw(limit: float) -> NDArray[np.float64]:
        return generator.uniform(-limit, limit, (count, 1, 1))

    turn, slant, down, right = draw(np.deg2rad(angle)), draw(scale), draw(shift), draw(shift)
    tall, wide = np.exp(draw(scale)), np.exp(draw(scale))
    y = np.arange(height)[:, None] - (height - 1) / 2
    x = np.arange(width) - (width - 1) / 2
    # where each target pixel comes from, in an image with a border of zeros
    rows = (np.cos(turn) * y + np.sin(turn) * x) / tall + down + (height + 1) / 2
    columns = (np.cos(turn) * x - np.sin(turn) * y) / wide + slant * y + right + (width + 1) / 2
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    rows, columns = np.clip(rows, 0, height + 1), np.clip(columns, 0, width + 1)
    top = np.minimum(rows.astype(np.int64), height)
    left = np.minimum(columns.astype(np.int64), width)
    image = np.arange(count)[:, None, None]
    pixels = padded.transpose(0, 2, 3, 1)
    lower, across = (rows - top)[..., None], (columns - left)[..., None]
    upper_row = pixels[image, top, left] * (1 - across) + pixels[image, top, left + 1] * across
    top += 1
    lower_row = pixels[image, top, left] * (1 - across) + pixels[image, top, left + 1] * across
    out = upper_row * (1 - lower) + lower_row * lower
    return np.ascontiguousarray(out.transpose(0, 3, 1, 2), dtype=np.float32)
