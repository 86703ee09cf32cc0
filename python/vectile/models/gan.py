"""Generators and discriminators of small grey images: fully connected, and convolutional (DCGAN).

Pictures are (n, channels, size, size) in [-1, 1], the range of tanh. A discriminator gives one score an
image: a logit for the GAN's losses, any number for a Wasserstein critic.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vectile import nn
from vectile.autograd import Tensor, concatenate
from vectile.models import checks
from vectile.nn import functional as F

SLOPE = 0.2
"""Of every leaky ReLU here (Radford et al., arXiv 1511.06434, section 3)."""


class MLPGenerator(nn.Module):
    """Noise (n, latent) -> images: two hidden layers (Goodfellow et al., arXiv 1406.2661)."""

    def __init__(
        self, latent: int = 32, hidden: int = 256, size: int = 8, channels: int = 1
    ) -> None:
        super().__init__()
        sizes = {"latent": latent, "hidden": hidden, "size": size, "channels": channels}
        checks.integers("MLPGenerator", **sizes)
        self.latent, self.shape = latent, (channels, size, size)
        self.input = nn.Linear(latent, hidden)
        self.hidden = nn.Linear(hidden, hidden)
        self.output = nn.Linear(hidden, math.prod(self.shape))

    def forward(self, z: Any) -> Tensor:
        z = checks.shaped("MLPGenerator", "z", z, "n", self.latent)
        h = F.leaky_relu(self.input(z), SLOPE)
        h = F.leaky_relu(self.hidden(h), SLOPE)
        return F.tanh(self.output(h)).reshape((-1, *self.shape))


class MLPDiscriminator(nn.Module):
    """Images -> scores (n,), with dropout as in the paper."""

    def __init__(
        self, hidden: int = 256, size: int = 8, channels: int = 1, dropout: float = 0.3
    ) -> None:
        super().__init__()
        checks.integers("MLPDiscriminator", hidden=hidden, size=size, channels=channels)
        self.shape = (channels, size, size)
        self.input = nn.Linear(channels * size * size, hidden)
        self.hidden = nn.Linear(hidden, hidden)
        self.output = nn.Linear(hidden, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, images: Any) -> Tensor:
        x = F.flatten(checks.shaped("MLPDiscriminator", "images", images, "n", *self.shape), 1)
        h = self.dropout(F.leaky_relu(self.input(x), SLOPE))
        h = self.dropout(F.leaky_relu(self.hidden(h), SLOPE))
        scores: Tensor = self.output(h)
        return scores.reshape((-1,))


class DCGenerator(nn.Module):
    """Noise (n, latent) -> 16 x 16 images by transposed convolutions: 1 -> 4 -> 8 -> 16 pixels.

    With `classes`, it also takes labels (n,), one-hot beside the noise (Mirza & Osindero, arXiv 1411.1784).
    """

    def __init__(
        self, latent: int = 32, width: int = 32, channels: int = 1, classes: int = 0
    ) -> None:
        super().__init__()
        checks.integers("DCGenerator", latent=latent, width=width, channels=channels)
        checks.integers("DCGenerator", 0, classes=classes)
        self.latent, self.classes = latent, classes
        self.net = nn.Sequential(
            nn.ConvTranspose2d(latent + classes, 2 * width, 4, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1),
            nn.Tanh(),
        )
        self.apply(dcgan_init_)

    def forward(self, z: Any, labels: ArrayLike | None = None) -> Tensor:
        z = checks.shaped("DCGenerator", "z", z, "n", self.latent)
        known = one_hot("DCGenerator", labels, len(z), self.classes)
        if known is not None:
            z = concatenate([z, known.astype(z.dtype)], 1)
        out: Tensor = self.net(z.reshape((*z.shape, 1, 1)))
        return out


class DCDiscriminator(nn.Module):
    """16 x 16 images -> scores (n,) by strided convolutions: 16 -> 8 -> 4 -> 1 pixel.

    With `classes`, it also takes labels (n,): one constant plane a class beside the image. `batch_norm` False
    makes a critic: a gradient penalty needs scores that depend on their own image alone (arXiv 1704.00028).
    """

    def __init__(
        self,
        width: int = 32,
        channels: int = 1,
        classes: int = 0,
        batch_norm: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        checks.integers("DCDiscriminator", width=width, channels=channels)
        checks.integers("DCDiscriminator", 0, classes=classes)
        self.channels, self.classes = channels, classes
        self.net = nn.Sequential(
            nn.Conv2d(channels + classes, width, 4, stride=2, padding=1),
            nn.LeakyReLU(SLOPE),
            nn.Dropout(dropout),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1, bias=not batch_norm),
            nn.BatchNorm2d(2 * width) if batch_norm else nn.Identity(),
            nn.LeakyReLU(SLOPE),
            nn.Dropout(dropout),
            nn.Conv2d(2 * width, 1, 4),
        )
        if batch_norm:
            self.apply(dcgan_init_)

    def forward(self, images: Any, labels: ArrayLike | None = None) -> Tensor:
        x = checks.shaped("DCDiscriminator", "images", images, "n", self.channels, 16, 16)
        known = one_hot("DCDiscriminator", labels, len(x), self.classes)
        if known is not None:
            planes = np.broadcast_to(known[:, :, None, None], (*known.shape, 16, 16))
            x = concatenate([x, planes.astype(x.dtype)], 1)
        scores: Tensor = self.net(x)
        return scores.reshape((-1,))


def one_hot(
    owner: str, labels: ArrayLike | None, count: int, classes: int
) -> NDArray[np.float32] | None:
    """(count, classes), 1 at each label; None for a network without classes.

    ValueError for labels where there are no classes, for missing ones or another number of them, TypeError
    unless they are integers, IndexError for one outside [0, classes).
    """
    if not classes:
        if labels is not None:
            raise ValueError(f"{owner}: labels: expected None, the network has no classes")
        return None
    if labels is None:
        raise ValueError(f"{owner}: labels: expected integers below {classes}, got None")
    index = checks.indices(owner, "labels", labels, classes)
    if index.shape != (count,):
        raise ValueError(f"{owner}: labels shape: expected ({count},), got {index.shape}")
    out: NDArray[np.float32] = np.eye(classes, dtype=np.float32)[index]
    return out


def dcgan_init_(module: nn.Module) -> None:
    """Convolutions ~ N(0, 0.02^2), batch-norm gains ~ N(1, 0.02^2) (arXiv 1511.06434, section 4)."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d) and module.weight is not None:
        nn.init.normal_(module.weight, 1.0, 0.02)
