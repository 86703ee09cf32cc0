"""Denoising diffusion: the noising process, its posterior, and two ways back (DDPM and DDIM).

Arrays x are (n, ...) float32 with data in [-1, 1]; times t are integers in [0, steps), and x_t has t + 1
doses of noise. A model maps (x_t, t) to the noise that is in x_t.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vectile import random
from vectile.autograd import Tensor, no_grad
from vectile.models import checks
from vectile.nn import functional as F

Array = NDArray[Any]
Model = Callable[[Any, Any], Tensor]


def linear_schedule(steps: int) -> Array:
    """Betas from 1e-4 to 0.02, as much noise in any number of steps as in 1000 (arXiv 2006.11239)."""
    checks.integers("linear_schedule", steps=steps)
    scale = 1000 / steps
    return np.minimum(np.linspace(1e-4 * scale, 0.02 * scale, steps), 0.999)


def cosine_schedule(steps: int, offset: float = 0.008) -> Array:
    """Betas whose cumulated product follows a squared cosine (arXiv 2102.09672, eq. 17)."""
    checks.integers("cosine_schedule", steps=steps)
    times = np.arange(steps + 1) / steps
    kept = np.cos((times + offset) / (1 + offset) * np.pi / 2) ** 2
    betas: Array = np.minimum(1 - kept[1:] / kept[:-1], 0.999)
    return betas


class Diffusion:
    """The process q(x_t | x_{t-1}) = N(sqrt(1 - beta_t) x_{t-1}, beta_t) and its reversal.

    ValueError for betas outside (0, 1). Randomness comes from `vectile.random` where no generator is given.
    """

    def __init__(self, betas: ArrayLike) -> None:
        self.betas = np.asarray(betas, np.float64)
        if (
            self.betas.ndim != 1
            or not self.betas.size
            or not np.all((self.betas > 0) & (self.betas < 1))
        ):
            raise ValueError("Diffusion: betas: expected a vector of numbers in (0, 1)")
        self.steps = len(self.betas)
        self.kept = np.cumprod(1 - self.betas)  # the paper's alpha-bar
        self.kept_before = np.append(1.0, self.kept[:-1])

    # ---- forward ---------------------------------------------------------------------------------------

    def add_noise(self, x0: Array, t: ArrayLike, noise: Array) -> Array:
        """x_t = sqrt(kept) x_0 + sqrt(1 - kept) noise, for one t or one per row (arXiv 2006.11239, eq. 4)."""
        if np.shape(noise) != np.shape(x0):
            raise ValueError(
                f"add_noise: noise shape: expected {np.shape(x0)}, got {np.shape(noise)}"
            )
        kept = _rows(self.kept, t, x0)
        xt: Array = np.sqrt(kept) * x0 + np.sqrt(1 - kept) * noise
        return xt

    def loss(self, model: Model, x0: Array, generator: np.random.Generator | None = None) -> Tensor:
        """Mean |noise - model(x_t, t)|^2 at random times (arXiv 2006.11239, eq. 14)."""
        generator = generator or random.generator()
        if not isinstance(x0, np.ndarray) or x0.dtype.kind != "f" or x0.ndim < 2:
            raise TypeError(
                "Diffusion.loss: x0: expected an array (n, …) of floating-point numbers"
            )
        t = generator.integers(0, self.steps, len(x0))
        noise = generator.standard_normal(x0.shape).astype(x0.dtype)
        return F.mse_loss(model(self.add_noise(x0, t, noise), t), noise)

    # ---- backward --------------------------------------------------------------------------------------

    def predict_x0(self, xt: Array, t: ArrayLike, noise: Array, clip: bool = True) -> Array:
        """The data that x_t and its noise come from, held in [-1, 1] if `clip` (arXiv 2006.11239, eq. 15)."""
        kept = _rows(self.kept, t, xt)
        x0: Array = (xt - np.sqrt(1 - kept) * noise) / np.sqrt(kept)
        return np.clip(x0, -1, 1) if clip else x0

    def posterior(self, x0: Array, xt: Array, t: ArrayLike) -> tuple[Array, Array]:
        """Mean and variance of q(x_{t-1} | x_t, x_0) (arXiv 2006.11239, eq. 6 and 7)."""
        beta, kept, before = (_rows(v, t, xt) for v in (self.betas, self.kept, self.kept_before))
        mean = np.sqrt(before) * beta / (1 - kept) * x0
        mean = mean + np.sqrt(1 - beta) * (1 - before) / (1 - kept) * xt
        return mean, (1 - before) / (1 - kept) * beta

    def ddpm(
        self,
        model: Model,
        x: Array,
        generator: np.random.Generator | None = None,
        *,
        clip: bool = True,
    ) -> Iterator[tuple[int, Array]]:
        """Ancestral sampling from noise x: (t, x_{t-1}) for t = steps - 1 … 0 (arXiv 2006.11239, alg. 2)."""
        generator = generator or random.generator()
        for t in reversed(range(self.steps)):
            x0 = self.predict_x0(x, t, self._noise(model, x, t), clip)
            mean, variance = self.posterior(x0, x, t)
            x = mean
            if t:
                x = mean + np.sqrt(variance) * _normal(generator, x)
            yield t, x

    def ddim(
        self,
        model: Model,
        x: Array,
        steps: int | None = None,
        eta: float = 0.0,
        generator: np.random.Generator | None = None,
        *,
        clip: bool = True,
    ) -> Iterator[tuple[int, Array]]:
        """Sampling at `steps` evenly spaced times (all unless given), (t, x) each (arXiv 2010.02502, eq. 12).

        `eta` 0 draws no noise: x decides the sample. `eta` 1 at all times is `ddpm`. ValueError for steps
        outside [1, self.steps] or a negative eta.
        """
        steps = self.steps if steps is None else steps
        if not 1 <= steps <= self.steps:
            raise ValueError(f"ddim: steps: expected in [1, {self.steps}], got {steps}")
        if not eta >= 0:
            raise ValueError(f"ddim: eta: expected >= 0, got {eta}")
        generator = generator or random.generator()
        times = np.linspace(self.steps - 1, 0, steps).round().astype(int).tolist()
        for t, after in zip(times, [*times[1:], -1], strict=True):
            kept, target = float(self.kept[t]), float(self.kept[after]) if after >= 0 else 1.0
            x0 = self.predict_x0(x, t, self._noise(model, x, t), clip)
            noise = (x - math.sqrt(kept) * x0) / math.sqrt(1 - kept)  # what a clipped x_0 leaves
            variance = eta**2 * (1 - target) / (1 - kept) * (1 - kept / target)
            x = math.sqrt(target) * x0 + math.sqrt(max(0.0, 1 - target - variance)) * noise
            if variance > 0:
                x = x + math.sqrt(variance) * _normal(generator, x)
            yield t, x

    def _noise(self, model: Model, x: Array, t: int) -> Array:
        with no_grad():
            out: Array = model(x, np.full(len(x), t)).numpy()
        return out


def sample(chain: Iterator[tuple[int, Array]]) -> Array:
    """The last array of `Diffusion.ddpm` or `Diffusion.ddim`."""
    ((_, x),) = deque(chain, maxlen=1)
    return x


def _rows(values: Array, t: ArrayLike, x: Array) -> Array:
    """values[t] in x's dtype, shaped to multiply x: a number, or one for each row."""
    times = checks.indices("Diffusion", "t", t, len(values))
    if times.shape not in ((), x.shape[:1]):
        raise ValueError(f"Diffusion: t shape: expected () or {x.shape[:1]}, got {times.shape}")
    picked = np.asarray(values[times], x.dtype)
    return picked.reshape(picked.shape + (1,) * (x.ndim - 1)) if picked.ndim else picked


def _normal(generator: np.random.Generator, x: Array) -> Array:
    return generator.standard_normal(x.shape).astype(x.dtype)
