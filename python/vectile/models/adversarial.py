"""What two players minimise: the GAN's losses, Wasserstein's, and the penalties that keep a critic smooth."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from vectile.autograd import Tensor, as_tensor, grad, tensor
from vectile.nn import functional as F
from vectile.random import generator


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """-log D(real) - log(1 - D(fake)), means over logits (Goodfellow et al., arXiv 1406.2661, eq. 1)."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def generator_loss(fake: Tensor) -> Tensor:
    """-log D(fake), the non-saturating form (arXiv 1406.2661, section 3)."""
    return F.softplus(-fake).mean()


def critic_loss(real: Tensor, fake: Tensor) -> Tensor:
    """E f(fake) - E f(real): minus an estimate of the Wasserstein distance (arXiv 1701.07875, eq. 3)."""
    return fake.mean() - real.mean()


def clip_weights_(parameters: Iterable[Tensor], bound: float) -> None:
    """Hold every weight in [-bound, bound], so that the critic is Lipschitz (arXiv 1701.07875, alg. 1)."""
    if not bound > 0:
        raise ValueError(f"clip_weights_: bound: expected > 0, got {bound}")
    for parameter in parameters:
        np.clip(parameter.data, -bound, bound, out=parameter.data)
        parameter.bump_version("clip_weights_")


def gradient_penalty(
    critic: Callable[[Tensor], Tensor],
    real: Any,
    fake: Any,
    mix: Any = None,
) -> Tensor:
    """Mean of (|d critic(x) / dx| - 1)^2 at points x between real and fake images (arXiv 1704.00028, eq. 3).

    `mix` (n,) in [0, 1] places the points; drawn uniformly from `vectile.random` unless given. The result can
    be differentiated with respect to the critic's weights.
    """
    real, fake = (np.asarray(as_tensor(images).numpy()) for images in (real, fake))
    if real.shape != fake.shape:
        raise ValueError(f"gradient_penalty: fake shape: expected {real.shape}, got {fake.shape}")
    if real.ndim < 2 or not real.size:
        raise ValueError(
            f"gradient_penalty: real shape: expected a batch of images, got {real.shape}"
        )
    mix = np.asarray(generator().random(len(real)) if mix is None else mix, real.dtype)
    if mix.shape != (len(real),):
        raise ValueError(f"gradient_penalty: mix shape: expected ({len(real)},), got {mix.shape}")
    share = mix.reshape((-1,) + (1,) * (real.ndim - 1))
    slope = _slope(critic, share * real + (1 - share) * fake)
    return (((_squares(slope) + 1e-12).sqrt() - 1.0) ** 2).mean()


def r1_penalty(critic: Callable[[Tensor], Tensor], real: Any) -> Tensor:
    """Mean of |d critic(x) / dx|^2 at real images (R1: arXiv 1801.04406, eq. 9, without gamma / 2)."""
    return _squares(_slope(critic, as_tensor(real).numpy())).mean()


def _slope(critic: Callable[[Tensor], Tensor], x: Any) -> Tensor:
    """d critic / dx for each image alone, itself differentiable."""
    point = tensor(x, requires_grad=True)
    (slope,) = grad(critic(point).sum(), [point], create_graph=True)
    return slope


def _squares(slope: Tensor) -> Tensor:
    """Each image's squared 2-norm: (n,)."""
    return (slope * slope).reshape((len(slope), -1)).sum(axis=1)
