"""Autoencoders of images: the plain one, and the variational one (Kingma & Welling, arXiv 1312.6114)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vectile import nn, random
from vectile.autograd import Tensor, exp, no_grad, tensor
from vectile.autograd import sum as total
from vectile.device import as_array, beside, near
from vectile.models import checks
from vectile.models.mlp import MLP
from vectile.nn import functional as F


class Autoencoder(nn.Module):
    """Images (batch, *shape) through a code (batch, latent) and back, as logits of pixels in [0, 1].

    The decoder mirrors the encoder: `hidden` are the encoder's widths.
    """

    def __init__(
        self,
        shape: Sequence[int] = (1, 8, 8),
        hidden: Sequence[int] = (128, 64),
        latent: int = 2,
    ) -> None:
        super().__init__()
        for size in shape:
            checks.integers(type(self).__name__, shape=size)
        checks.integers(type(self).__name__, latent=latent)
        self.shape, self.latent = tuple(shape), latent
        size, hidden = math.prod(shape), tuple(hidden)
        self.encoder = MLP(size, hidden, self._codes * latent, activation=nn.GELU)
        self.decoder = MLP(latent, hidden[::-1], size, activation=nn.GELU)

    _codes = 1  # numbers that the encoder gives for each latent dimension

    def encode(self, x: Any) -> Tensor:
        """The code (batch, latent) of images."""
        code: Tensor = self.encoder(x)
        return code

    def decode(self, z: Any) -> Tensor:
        """Pixel logits (batch, *shape) of codes; their sigmoid is the image."""
        flat: Tensor = self.decoder(z)
        return flat.reshape((flat.shape[0], *self.shape))

    def forward(self, x: Any) -> Tensor:
        return self.decode(self.encode(x))


class VAE(Autoencoder):
    """The encoder gives a normal distribution of codes, q(z | x); the prior p(z) is N(0, I)."""

    _codes = 2

    def posterior(self, x: Any) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z | x), each (batch, latent)."""
        both: Tensor = self.encoder(x)
        return both[:, : self.latent], both[:, self.latent :]

    def encode(self, x: Any) -> Tensor:
        """The mean of q(z | x)."""
        return self.posterior(x)[0]

    def elbo(self, x: Any, counts: int = 16) -> tuple[Tensor, Tensor]:
        """(E_q[log p(x | z)], KL(q || p)) in nats, each (batch,); their difference is the ELBO (eq. 3).

        A pixel counts how many of `counts` points carry ink, so p(x | z) is binomial and log p(x) is a
        likelihood. The expectation takes one draw z = mean + deviation * noise (eq. 4). ValueError for pixels
        outside [0, 1].
        """
        checks.integers("VAE.elbo", counts=counts)
        pixels = as_array(x)
        if not np.all((pixels >= 0) & (pixels <= 1)):
            raise ValueError("VAE.elbo: x values: expected pixels in [0, 1], got others")
        mean, log_variance = self.posterior(x)
        noise = near(random.generator().standard_normal(mean.shape).astype(mean.dtype), mean.data)
        logits = self.decode(mean + exp(0.5 * log_variance) * noise)
        target = as_array(x, mean.dtype)
        entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        fit = tensor(_log_choose(target, counts)) - counts * total(
            entropy.reshape((len(target), -1)), 1
        )
        divergence = 0.5 * total(exp(log_variance) + mean * mean - 1.0 - log_variance, 1)
        return fit, divergence

    def sample(self, count: int) -> NDArray[Any]:
        """`count` images in [0, 1] decoded from the prior."""
        checks.integers("VAE.sample", 0, count=count)
        z = random.generator().standard_normal((count, self.latent))
        with no_grad():
            weight = self.decoder.layers[0].weight
            z = near(z.astype(weight.dtype), weight.data)
            return F.sigmoid(self.decode(tensor(z))).numpy()


def _log_choose(x: NDArray[Any], counts: int) -> NDArray[Any]:
    """(batch,): the sum over pixels of log C(counts, x * counts)."""
    table = [math.log(math.comb(counts, k)) for k in range(counts + 1)]
    index = np.rint(x * counts).astype(np.int64).reshape(len(x), -1)
    out: NDArray[Any] = beside(table, x, x.dtype)[index].sum(1)
    return out
