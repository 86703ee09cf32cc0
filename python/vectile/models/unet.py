"""A small U-Net that predicts the noise in an image and knows how much it is (arXiv 2006.11239, app. B)."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vectile import nn
from vectile.autograd import Tensor, concatenate
from vectile.models import checks
from vectile.nn import functional as F


def timestep_embedding(t: ArrayLike, dim: int) -> NDArray[np.float32]:
    """Times (n,) -> (n, dim): sines, then cosines, of t at rates 1 … 1/10000 (arXiv 1706.03762)."""
    half = dim // 2
    rates = np.exp(-math.log(10000.0) * np.arange(half) / half)
    angles = np.asarray(t, np.float64)[:, None] * rates
    return np.concatenate([np.sin(angles), np.cos(angles)], 1).astype(np.float32)


class ResidualBlock(nn.Module):
    """norm, SiLU, conv; plus the time's embedding; norm, SiLU, dropout, conv; plus the input."""

    def __init__(
        self, inputs: int, outputs: int, time: int, groups: int = 8, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time = nn.Linear(time, outputs)
        self.norm2 = nn.GroupNorm(groups, outputs)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """x (n, inputs, h, w), time (n, time) -> (n, outputs, h, w)."""
        h = self.conv1(F.silu(self.norm1(x))) + self.time(time)[:, :, None, None]
        out: Tensor = self.conv2(self.dropout(F.silu(self.norm2(h)))) + self.skip(x)
        return out


class AttentionBlock(nn.Module):
    """Self-attention among all pixels of a feature map, added to it."""

    def __init__(self, channels: int, heads: int = 1, groups: int = 8) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(groups, channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        n, c, height, width = x.shape
        pixels = self.norm(x).reshape((n, c, height * width)).swapaxes(1, 2)
        mixed = self.out(F.packed_self_attention(self.qkv(pixels), self.heads))
        out: Tensor = x + mixed.swapaxes(1, 2).reshape((n, c, height, width))
        return out


class UNet(nn.Module):
    """(x_t, t) -> the noise in x_t, of x's shape (n, channels, h, w).

    A level of `width * multipliers[i]` channels halves the picture `i` times; h and w must allow it.
    Levels in `attention` add self-attention to their blocks.
    """

    def __init__(
        self,
        channels: int = 1,
        width: int = 32,
        multipliers: Sequence[int] = (1, 2),
        attention: Collection[int] = (1,),
        groups: int = 8,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        checks.integers("UNet", channels=channels, groups=groups, multipliers=len(multipliers))
        checks.integers("UNet", 2, width=width)
        if width % 2:
            raise ValueError(f"UNet: width: expected an even number, got {width}")
        for multiplier in multipliers:
            checks.integers("UNet", multipliers=multiplier)
        if not set(attention) <= set(range(len(multipliers))):
            raise ValueError(
                f"UNet: attention: expected levels below {len(multipliers)}, got {sorted(attention)}"
            )
        self.channels = channels
        widths, time = [width * m for m in multipliers], 4 * width
        self.width, self.attention = width, frozenset(attention)

        def block(inputs: int, outputs: int) -> ResidualBlock:
            return ResidualBlock(inputs, outputs, time, groups, dropout)

        def attend(level: int) -> nn.Module:
            return (
                AttentionBlock(widths[level], groups=groups)
                if level in self.attention
                else nn.Identity()
            )

        levels = range(len(widths))
        self.time = nn.Sequential(nn.Linear(width, time), nn.SiLU(), nn.Linear(time, time))
        self.input = nn.Conv2d(channels, width, 3, padding=1)
        self.down: Any = nn.ModuleList(block(widths[max(0, i - 1)], widths[i]) for i in levels)
        self.down_attention: Any = nn.ModuleList(attend(i) for i in levels)
        self.shrink: Any = nn.ModuleList(
            nn.Conv2d(w, w, 3, stride=2, padding=1) for w in widths[:-1]
        )
        self.middle = block(widths[-1], widths[-1])
        self.up: Any = nn.ModuleList(block(2 * w, w) for w in widths)
        self.up_attention: Any = nn.ModuleList(attend(i) for i in levels)
        self.grow: Any = nn.ModuleList(
            nn.Conv2d(widths[i + 1], widths[i], 3, padding=1) for i in levels[:-1]
        )
        self.norm = nn.GroupNorm(groups, width)
        self.output = nn.Conv2d(width, channels, 3, padding=1)
        nn.init.zeros_(self.output.weight)

    def forward(self, x: Any, t: ArrayLike) -> Tensor:
        levels, halves = range(len(self.down)), 2 ** len(self.shrink)
        x = checks.shaped("UNet", "x", x, "n", self.channels, "height", "width")
        if x.shape[2] % halves or x.shape[3] % halves:
            raise ValueError(
                f"UNet: x size: expected multiples of {halves} for {len(levels)} levels, "
                f"got {x.shape[2:]}"
            )
        if np.shape(t) != (len(x),):
            raise ValueError(f"UNet: t shape: expected ({len(x)},), got {np.shape(t)}")
        h = self.input(x)
        time = F.silu(self.time(timestep_embedding(t, self.width).astype(h.dtype)))
        seen = []
        for i in levels:
            h = self.down_attention[i](self.down[i](h, time))
            seen.append(h)
            if i < len(self.shrink):
                h = self.shrink[i](h)
        h = self.middle(h, time)
        for i in reversed(levels):
            h = self.up_attention[i](self.up[i](concatenate([h, seen[i]], 1), time))
            if i:
                h = self.grow[i - 1](F.interpolate(h, scale_factor=2, mode="nearest"))
        out: Tensor = self.output(F.silu(self.norm(h)))
        return out
