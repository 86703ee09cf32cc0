"""A style-based generator (Karras et al., arXiv 1812.04948): noise becomes a style for every layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import ArrayLike

from vectile import nn, random
from vectile.autograd import Tensor, as_tensor
from vectile.models import checks
from vectile.nn import functional as F

SLOPE = 0.2


class MappingNetwork(nn.Module):
    """Noise (n, latent) -> styles w (n, latent): noise at unit mean square, then linear layers."""

    def __init__(self, latent: int, layers: int = 4) -> None:
        super().__init__()
        self.layers: Any = nn.ModuleList(nn.Linear(latent, latent) for _ in range(layers))

    def forward(self, z: Any) -> Tensor:
        z = as_tensor(z)
        h: Tensor = z / ((z * z).mean(axis=1, keepdims=True) + 1e-8).sqrt()
        for layer in self.layers:
            h = F.leaky_relu(layer(h), SLOPE)
        return h


class AdaIN(nn.Module):
    """Each channel at mean 0 and variance 1, then with the gain and bias that the style asks for (eq. 1)."""

    def __init__(self, channels: int, latent: int) -> None:
        super().__init__()
        self.style = nn.Linear(latent, 2 * channels)

    def forward(self, x: Any, w: Tensor) -> Tensor:
        """x (n, channels, height, width), w (n, latent)."""
        style = self.style(w).reshape((-1, 2, x.shape[1], 1, 1))
        out: Tensor = F.instance_norm(x) * (style[:, 0] + 1.0) + style[:, 1]
        return out


class StyleLayer(nn.Module):
    """A convolution, noise in every pixel, leaky ReLU, AdaIN; the first layer has no convolution."""

    def __init__(self, inputs: int | None, outputs: int, latent: int) -> None:
        super().__init__()
        self.conv = None if inputs is None else nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.noise = nn.Parameter(nn.init.empty(1, outputs, 1, 1))
        self.bias = nn.Parameter(nn.init.empty(1, outputs, 1, 1))
        self.adain = AdaIN(outputs, latent)

    def forward(self, x: Any, w: Tensor, noise: Any) -> Tensor:
        """x (n, inputs, h, w), noise (n, 1, h, w)."""
        if self.conv is not None:
            x = self.conv(x)
        out: Tensor = self.adain(F.leaky_relu(x + self.noise * noise + self.bias, SLOPE), w)
        return out


class StyleGenerator(nn.Module):
    """Noise (n, latent) -> images (n, channels, size, size) in [-1, 1], size = 4 * 2^(len(widths) - 1).

    A learned 4 x 4 constant goes through two style layers a resolution; pixels are doubled in between.
    """

    def __init__(
        self,
        latent: int = 32,
        widths: Sequence[int] = (64, 32, 16),
        channels: int = 1,
        mapping_layers: int = 4,
    ) -> None:
        super().__init__()
        checks.integers("StyleGenerator", latent=latent, channels=channels, widths=len(widths))
        checks.integers("StyleGenerator", 0, mapping_layers=mapping_layers)
        for width in widths:
            checks.integers("StyleGenerator", widths=width)
        self.latent = latent
        self.mapping = MappingNetwork(latent, mapping_layers)
        self.constant = nn.Parameter(nn.init.empty(1, widths[0], 4, 4))
        nn.init.normal_(self.constant)
        inputs = [None, *(w for w in widths for _ in range(2))]
        outputs = [w for w in widths for _ in range(2)]
        self.layers: Any = nn.ModuleList(
            StyleLayer(i, o, latent) for i, o in zip(inputs, outputs, strict=False)
        )
        self.output = nn.Conv2d(widths[-1], channels, 1)
        self.apply(_init_)

    def forward(self, z: Any, other: Any = None, crossover: int | None = None) -> Tensor:
        """Images from z; with `other`, layers from number `crossover` on take their style from that noise."""
        z = checks.shaped("StyleGenerator", "z", z, "n", self.latent)
        w, depth = self.mapping(z), len(self.layers)
        if other is None:
            if crossover is not None:
                raise ValueError("StyleGenerator: crossover: expected None without other, got one")
            return self.synthesize([w] * depth)
        cut = depth // 2 if crossover is None else crossover
        if not 0 <= cut <= depth:
            raise ValueError(f"StyleGenerator: crossover: expected in [0, {depth}], got {cut}")
        other = checks.shaped("StyleGenerator", "other", other, len(z), self.latent)
        later = self.mapping(other)
        return self.synthesize([w if i < cut else later for i in range(len(self.layers))])

    def synthesize(
        self, styles: Sequence[Tensor], noise: Sequence[ArrayLike] | None = None
    ) -> Tensor:
        """Images from one style (n, latent) a layer; pixel noise comes from `vectile.random` unless given.

        ValueError unless there are as many styles as layers, and as many noises.
        """
        for name, given in (("styles", styles), ("noise", noise)):
            if given is not None and len(given) != len(self.layers):
                raise ValueError(
                    f"synthesize: {name} length: expected {len(self.layers)}, got {len(given)}"
                )
        x: Any = self.constant
        for i, (layer, w) in enumerate(zip(self.layers, styles, strict=True)):
            if i and i % 2 == 0:
                x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = layer(x, w, self._noise(len(w), i) if noise is None else noise[i])
        return F.tanh(self.output(x))

    def _noise(self, count: int, layer: int) -> Any:
        side = 4 << layer // 2
        shape = (count, 1, side, side)
        return random.generator().standard_normal(shape).astype(self.constant.dtype)


def _init_(module: nn.Module) -> None:
    """Weights that keep the variance: with smaller ones all noise would map to nearly the same style."""
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        nn.init.kaiming_normal_(module.weight, SLOPE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
