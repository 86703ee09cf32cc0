"""Diffusion: the forward process' statistics, the posterior's formulas, and both ways of sampling."""

from __future__ import annotations

import numpy as np
import pytest

from vectile import random
from vectile.autograd import Tensor
from vectile.models import Diffusion
from vectile.models.diffusion import cosine_schedule, linear_schedule, sample

SCHEDULES = {"linear": linear_schedule, "cosine": cosine_schedule}


def model(x, t):
    """A stand-in network: some smooth function of the image and the time."""
    return Tensor((np.tanh(x) * (1 + np.asarray(t).reshape(-1, 1) / 50)).astype(x.dtype))


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("steps", [20, 200, 1000])
def test_schedules_end_in_noise(name, steps):
    betas = SCHEDULES[name](steps)
    assert betas.shape == (steps,) and (betas > 0).all() and (betas < 1).all()
    kept = Diffusion(betas).kept
    assert (np.diff(kept) < 0).all() and kept[0] > 0.85 and kept[-1] < 1e-3


def test_the_linear_schedule_is_the_papers():
    assert np.allclose(linear_schedule(1000), np.linspace(1e-4, 0.02, 1000), rtol=1e-12)


def test_noise_has_the_stated_mean_and_variance(rng):
    process, count = Diffusion(linear_schedule(50)), 200_000
    x0 = np.full((count, 1), 0.6)
    for t in (0, 7, 49):
        xt = process.add_noise(x0, t, rng.standard_normal(x0.shape))
        spread = np.sqrt(1 - process.kept[t])
        assert abs(xt.mean() - 0.6 * np.sqrt(process.kept[t])) < 5 * spread / np.sqrt(count)
        assert abs(xt.std() / spread - 1) < 5 / np.sqrt(2 * count)


def test_noise_in_one_go_equals_noise_step_by_step(rng):
    """Means multiply and variances add, whichever way the doses come."""
    process = Diffusion(cosine_schedule(30))
    mean, variance = 1.0, 0.0
    for t, beta in enumerate(process.betas):
        mean, variance = mean * np.sqrt(1 - beta), variance * (1 - beta) + beta
        assert np.isclose(process.add_noise(np.ones(1), t, np.zeros(1))[0], mean)
        assert np.isclose(process.add_noise(np.zeros(1), t, np.ones(1))[0], np.sqrt(variance))


def test_each_row_has_its_own_time(rng):
    process = Diffusion(linear_schedule(40))
    x0, noise = rng.standard_normal((2, 3, 1, 4, 4)).astype(np.float32)
    t = np.array([0, 39, 11])
    together = process.add_noise(x0, t, noise)
    assert together.dtype == np.float32
    for i, own in enumerate(t):
        assert np.array_equal(together[i], process.add_noise(x0[i], own, noise[i]))
        assert np.allclose(process.predict_x0(together, t, noise, clip=False), x0, atol=2e-3)


@pytest.mark.parametrize("t", [0, 1, 17, 39])
def test_the_posterior_is_bayes_rule(t):
    """q(x_{t-1} | x_t, x_0) by completing the square of two Gaussians in x_{t-1}."""
    process = Diffusion(linear_schedule(40))
    x0, xt = np.array([0.3]), np.array([-0.8])
    mean, variance = process.posterior(x0, xt, t)
    before = np.prod(1 - process.betas[:t])
    if t == 0:
        assert np.allclose(mean, x0) and variance == 0
        return
    keep, beta = 1 - process.betas[t], process.betas[t]
    precision = keep / beta + 1 / (1 - before)  # of q(x_t | x_{t-1}) and of q(x_{t-1} | x_0)
    centre = (np.sqrt(keep) * xt / beta + np.sqrt(before) * x0 / (1 - before)) / precision
    assert np.allclose(variance, 1 / precision, rtol=1e-10)
    assert np.allclose(mean, centre, rtol=1e-10)


@pytest.mark.parametrize("clip", [True, False])
def test_ddim_with_full_noise_at_every_time_is_ddpm(rng, clip):
    process, x = Diffusion(linear_schedule(60)), rng.standard_normal((5, 3))
    ddpm = list(process.ddpm(model, x, np.random.default_rng(3), clip=clip))
    ddim = list(process.ddim(model, x, eta=1.0, generator=np.random.default_rng(3), clip=clip))
    assert [t for t, _ in ddpm] == [t for t, _ in ddim] == list(range(59, -1, -1))
    for (_, a), (_, b) in zip(ddpm, ddim, strict=True):
        assert np.allclose(a, b, rtol=1e-9, atol=1e-9)
    other = sample(process.ddim(model, x, eta=0.5, generator=np.random.default_rng(3), clip=clip))
    assert not np.allclose(other, ddpm[-1][1])


def test_ddims_noise_has_the_papers_deviation(rng):
    """Equation 16 of arXiv 2010.02502, seen as the spread of one step from one place."""
    process, count = Diffusion(linear_schedule(60)), 20_000
    x = np.full((count, 1), 0.4)
    for eta in (0.5, 1.0):
        chain = process.ddim(model, x, 2, eta, np.random.default_rng(1))
        first = next(chain)[1]
        kept, after = process.kept[59], process.kept[0]
        sigma = eta * np.sqrt((1 - after) / (1 - kept) * (1 - kept / after))
        assert abs(first.std() / sigma - 1) < 5 / np.sqrt(2 * count)


def test_ddim_without_noise_is_decided_by_where_it_starts(rng):
    process, x = Diffusion(linear_schedule(60)), rng.standard_normal((4, 2)).astype(np.float32)
    first = list(process.ddim(model, x, 7))
    random.generator().standard_normal(5)
    again = list(process.ddim(model, x, 7))
    assert len(first) == 7 and first[0][0] == 59 and first[-1][0] == 0
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(first, again, strict=True))
    assert first[-1][1].dtype == np.float32


@pytest.mark.parametrize("how", ["ddpm", "ddim"])
def test_a_perfect_model_finds_the_distribution(how):
    """Data N(0.5, 0.2^2) has a known best guess of the noise; samples must have that mean and deviation."""
    process, count = Diffusion(linear_schedule(1000)), 4000

    def exact(x, t):
        kept = process.kept[t[0]]
        spread = kept * 0.04 + 1 - kept
        return Tensor(np.sqrt(1 - kept) * (x - np.sqrt(kept) * 0.5) / spread)

    generator = np.random.default_rng(0)
    x = generator.standard_normal((count, 1))
    if how == "ddpm":
        found = sample(process.ddpm(exact, x, generator, clip=False))
    else:
        found = sample(process.ddim(exact, x, 100, clip=False))
    error = 5 * 0.2 / np.sqrt(count)  # five standard errors, and 0.005 for a time in finite steps
    assert abs(found.mean() - 0.5) < error + 0.005
    assert abs(found.std() - 0.2) < error / np.sqrt(2) + 0.005


def test_the_loss_of_a_model_that_says_zero_is_the_noise(rng):
    process = Diffusion(linear_schedule(50))
    x0 = rng.standard_normal((64, 1, 8, 8)).astype(np.float32)
    loss = process.loss(lambda x, t: Tensor(np.zeros_like(x)), x0, np.random.default_rng(0))
    assert abs(loss.item() - 1) < 5 * np.sqrt(2 / x0.size)
    random.manual_seed(4)
    seeded = [process.loss(model, x0[:, 0, 0]).item()]
    random.manual_seed(4)
    assert seeded == [process.loss(model, x0[:, 0, 0]).item()]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Diffusion([0.1, 1.0]), "betas: expected a vector of numbers in"),
        (lambda: Diffusion([[0.1]]), "betas: expected a vector"),
        (lambda: next(Diffusion([0.1]).ddim(model, np.zeros((1, 1)), 2)), "steps: expected in"),
        (lambda: next(Diffusion([0.1]).ddim(model, np.zeros((1, 1)), eta=-1)), "eta: expected"),
    ],
)
def test_bad_settings_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
