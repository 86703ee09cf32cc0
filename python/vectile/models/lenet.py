"""LeNet-5 (LeCun et al., "Gradient-based learning applied to document recognition", 1998)."""

from __future__ import annotations

from typing import Any

from vectile import nn
from vectile.autograd import Tensor
from vectile.models import checks


class LeNet(nn.Module):
    """Class logits (batch, classes) of images (batch, channels, size, size), size 28 as published or 16.

    Two convolutions of 5 x 5 with 6 and 16 maps, each averaged down by two, and three linear layers; tanh in
    between. Departures: every map of the second convolution sees all six of the first, and the output is
    linear, for a softmax. ValueError for a size from which the convolutions leave nothing.
    """

    def __init__(self, size: int = 28, channels: int = 1, classes: int = 10) -> None:
        super().__init__()
        checks.integers("LeNet", 12, size=size)
        checks.integers("LeNet", channels=channels, classes=classes)
        self.shape, side = (channels, size, size), (size // 2 - 4) // 2
        self.features = nn.Sequential(
            nn.Conv2d(channels, 6, 5, padding=2),
            nn.Tanh(),
            nn.AvgPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.Tanh(),
            nn.AvgPool2d(2),
            nn.Flatten(),
        )
        self.classifier = nn.Sequential(
            nn.Linear(16 * side * side, 120),
            nn.Tanh(),
            nn.Linear(120, 84),
            nn.Tanh(),
            nn.Linear(84, classes),
        )

    def forward(self, images: Any) -> Tensor:
        x = checks.shaped("LeNet", "images", images, "batch", *self.shape)
        out: Tensor = self.classifier(self.features(x))
        return out
