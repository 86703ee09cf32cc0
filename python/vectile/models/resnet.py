"""Residual networks of basic blocks (He et al., arXiv 1512.03385), with torchvision's state_dict keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vectile import nn
from vectile.autograd import Tensor
from vectile.models import checks
from vectile.nn import functional as F


class BasicBlock(nn.Module):
    """relu(x + bn(conv(relu(bn(conv(x)))))) with 3 x 3 convolutions, the first of which may stride.

    Where the shape changes, x goes through `downsample`: a 1 x 1 convolution and a norm.
    """

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        project = stride != 1 or in_channels != channels
        self.downsample: nn.Module | None = (
            nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )
            if project
            else None
        )

    def forward(self, x: Any) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out: Tensor = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + identity)


class ResNet(nn.Module):
    """Class logits (batch, classes) of images (batch, in_channels, height, width).

    Stage i has `blocks[i]` basic blocks of `widths[i]` channels; every stage but the first halves height and
    width. `stem` "large" is 7 x 7 with stride 2 and a max pool, for images of hundreds of pixels; "small" is
    one 3 x 3 convolution (section 4.2). Convolutions start He-normal over the outputs, as torchvision's.
    """

    def __init__(
        self,
        blocks: Sequence[int] = (2, 2, 2, 2),
        widths: Sequence[int] = (64, 128, 256, 512),
        classes: int = 1000,
        in_channels: int = 3,
        stem: str = "large",
    ) -> None:
        super().__init__()
        if len(blocks) != len(widths) or not blocks or min(*blocks, *widths) < 1:
            raise ValueError(
                f"ResNet: blocks and widths: expected as many of each, all >= 1, got {tuple(blocks)} "
                f"and {tuple(widths)}"
            )
        if stem not in ("large", "small"):
            raise ValueError(f'ResNet: stem: expected "large" or "small", got {stem!r}')
        checks.integers("ResNet", classes=classes, in_channels=in_channels)
        self.in_channels, large = in_channels, stem == "large"
        kernel, stride, padding = (7, 2, 3) if large else (3, 1, 1)
        self.conv1 = nn.Conv2d(in_channels, widths[0], kernel, stride, padding, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.maxpool: nn.Module = nn.MaxPool2d(3, 2, 1) if large else nn.Identity()
        self.stages = len(blocks)
        before = widths[0]
        for i, (count, width) in enumerate(zip(blocks, widths, strict=True)):
            first = BasicBlock(before, width, 1 if i == 0 else 2)
            rest = (BasicBlock(width, width) for _ in range(count - 1))
            self.add_module(f"layer{i + 1}", nn.Sequential(first, *rest))
            before = width
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(before, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Any) -> Tensor:
        x = checks.shaped("ResNet", "images", images, "batch", self.in_channels, "height", "width")
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        for i in range(self.stages):
            x = self.get_submodule(f"layer{i + 1}")(x)
        pooled = self.avgpool(x)
        out: Tensor = self.fc(pooled.reshape(pooled.shape[:2]))
        return out


def resnet18(classes: int = 1000, in_channels: int = 3) -> ResNet:
    """ResNet-18: 11,689,512 parameters for 1000 classes; takes torchvision's weights."""
    return ResNet((2, 2, 2, 2), (64, 128, 256, 512), classes, in_channels)


def small_resnet(classes: int = 10, in_channels: int = 1) -> ResNet:
    """Three stages of 16, 32 and 64 channels for images of some ten pixels: 77,754 parameters."""
    return ResNet((1, 1, 1), (16, 32, 64), classes, in_channels, "small")
