"""CycleGAN (Zhu et al., arXiv 1703.10593): translators between two sets of pictures that are not paired."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vectile import nn
from vectile.autograd import Tensor, as_tensor
from vectile.models import checks
from vectile.nn import functional as F


class ResidualBlock(nn.Module):
    """x + norm(conv(ReLU(norm(conv(x))))) with instance norms."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(F.instance_norm(self.conv1(x)))
        return x + F.instance_norm(self.conv2(h))


class Translator(nn.Module):
    """Images in [-1, 1] -> images of the same shape: halved once, `blocks` residual blocks, doubled again."""

    def __init__(self, width: int = 16, blocks: int = 3, channels: int = 1) -> None:
        super().__init__()
        checks.integers("CycleGAN", width=width, channels=channels)
        checks.integers("CycleGAN", 0, blocks=blocks)
        self.channels = channels
        self.net = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1, bias=False),
            nn.InstanceNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1, bias=False),
            nn.InstanceNorm2d(2 * width),
            nn.ReLU(),
            *(ResidualBlock(2 * width) for _ in range(blocks)),
            nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1, bias=False),
            nn.InstanceNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, channels, 3, padding=1),
            nn.Tanh(),
        )

    def forward(self, images: Any) -> Tensor:
        x = checks.shaped("CycleGAN", "images", images, "n", self.channels, "height", "width")
        if x.shape[2] % 2 or x.shape[3] % 2:
            raise ValueError(f"CycleGAN: images size: expected even sides, got {x.shape[2:]}")
        out: Tensor = self.net(x)
        return out


class PatchDiscriminator(nn.Module):
    """Images (n, channels, h, w) -> a score for each overlapping patch (n, 1, h/4, w/4)."""

    def __init__(self, width: int = 16, channels: int = 1) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(channels, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1, bias=False),
            nn.InstanceNorm2d(2 * width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 1, 3, padding=1),
        )

    def forward(self, images: Any) -> Tensor:
        out: Tensor = self.net(images)
        return out


class CycleLosses(NamedTuple):
    """What the translators minimise, before weighting, and what they made on the way."""

    adversarial: Tensor
    cycle: Tensor
    identity: Tensor
    fake_a: Tensor
    fake_b: Tensor

    def total(self, cycle: float = 10.0, identity: float = 5.0) -> Tensor:
        """The weighted sum (arXiv 1703.10593, eq. 3 and section 5.2)."""
        return self.adversarial + self.cycle * cycle + self.identity * identity


class CycleGAN(nn.Module):
    """Translators `to_b` and `to_a`, and the discriminators `judge_a` and `judge_b` of what they make."""

    def __init__(self, width: int = 16, blocks: int = 3, channels: int = 1) -> None:
        super().__init__()
        self.to_b = Translator(width, blocks, channels)
        self.to_a = Translator(width, blocks, channels)
        self.judge_a = PatchDiscriminator(width, channels)
        self.judge_b = PatchDiscriminator(width, channels)

    def translator_losses(self, a: Any, b: Any) -> CycleLosses:
        """For a batch of each kind: fool the judges, find the way back, leave one's own kind alone."""
        fake_b, fake_a = self.to_b(a), self.to_a(b)
        return CycleLosses(
            least_squares(self.judge_b(fake_b), 1.0) + least_squares(self.judge_a(fake_a), 1.0),
            cycle_loss(a, self.to_a(fake_b)) + cycle_loss(b, self.to_b(fake_a)),
            cycle_loss(a, self.to_a(a)) + cycle_loss(b, self.to_b(b)),
            fake_a,
            fake_b,
        )

    def judge_loss(self, a: Any, b: Any, fake_a: Any, fake_b: Any) -> Tensor:
        """Real pictures to 1, made ones to 0, by least squares (arXiv 1703.10593, section 4)."""
        pairs = ((self.judge_a, a, fake_a), (self.judge_b, b, fake_b))
        losses = [
            least_squares(j(real), 1.0) + least_squares(j(fake), 0.0) for j, real, fake in pairs
        ]
        return (losses[0] + losses[1]) * 0.5


def least_squares(scores: Tensor, target: float) -> Tensor:
    """Mean (score - target)^2."""
    return ((scores - target) ** 2).mean()


def cycle_loss(original: Any, returned: Tensor) -> Tensor:
    """Mean absolute difference (arXiv 1703.10593, eq. 2)."""
    return F.l1_loss(returned, as_tensor(original))


class ImagePool:
    """The last `size` made pictures, so that a judge also sees old ones (arXiv 1612.07828)."""

    def __init__(self, size: int, generator: np.random.Generator) -> None:
        checks.integers("ImagePool", size=size)
        self.size, self.generator = size, generator
        self.images: list[NDArray[Any]] = []

    def exchange(self, images: NDArray[Any]) -> NDArray[Any]:
        """Keep `images` (n, ...); half of those returned are older ones whose place they took."""
        out = []
        for image in images:
            if len(self.images) < self.size:
                self.images.append(image)
                out.append(image)
            elif self.generator.random() < 0.5:
                place = int(self.generator.integers(self.size))
                out.append(self.images[place])
                self.images[place] = image
            else:
                out.append(image)
        return np.stack(out) if out else images
