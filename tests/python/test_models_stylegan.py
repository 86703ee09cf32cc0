"""The style-based generator: AdaIN's statistics, which layer takes which style, and where noise enters."""

from __future__ import annotations

import numpy as np
import pytest

from vectile import Tensor, models, no_grad, random
from vectile.models.stylegan import AdaIN, MappingNetwork


def make(seed=0, noisy=False):
    random.manual_seed(seed)
    generator = models.StyleGenerator(latent=6, widths=(8, 6, 4), mapping_layers=2)
    if noisy:
        for layer in generator.layers:
            layer.noise.data[:] = 0.5
    return generator


def test_adain_gives_every_channel_the_styles_mean_and_deviation(rng):
    random.manual_seed(0)
    layer = AdaIN(3, 5).double()
    x, w = rng.normal(4, 3, (2, 3, 8, 8)), rng.standard_normal((2, 5))
    style = w @ layer.style.weight.data.T + layer.style.bias.data
    found = layer(x, Tensor(w)).numpy()
    assert np.allclose(found.mean((2, 3)), style[:, 3:], atol=1e-12)
    variance = x.var((2, 3))
    expected = np.abs(1 + style[:, :3]) * np.sqrt(variance / (variance + 1e-5))
    assert np.allclose(found.std((2, 3)), expected, rtol=1e-9)


def test_the_mapping_sees_the_direction_of_the_noise_only(rng):
    random.manual_seed(0)
    mapping = MappingNetwork(6, 3)
    z = rng.standard_normal((4, 6)).astype(np.float32)
    assert np.allclose(mapping(z).numpy(), mapping(7 * z).numpy(), rtol=1e-4, atol=1e-6)


def test_shape_range_and_seed(rng):
    z = rng.standard_normal((3, 6)).astype(np.float32)
    made = [make(seed, noisy=True)(z).numpy() for seed in (1, 1, 2)]
    assert made[0].shape == (3, 1, 16, 16) and np.abs(made[0]).max() <= 1
    assert np.array_equal(made[0], made[1]) and not np.array_equal(made[0], made[2])


def test_noise_is_off_at_first_and_changes_every_image_once_it_is_on(rng):
    z = rng.standard_normal((2, 6)).astype(np.float32)
    for noisy in (False, True):
        generator = make(noisy=noisy)
        with no_grad():
            assert np.array_equal(generator(z).numpy(), generator(z).numpy()) is not noisy
            w = generator.mapping(z)
            pixels = [np.zeros((2, 1, side, side), np.float32) for side in (4, 4, 8, 8, 16, 16)]
            fixed = [generator.synthesize([w] * 6, pixels).numpy() for _ in range(2)]
        assert np.array_equal(*fixed)


@pytest.mark.parametrize("crossover", range(7))
def test_layers_from_the_crossover_on_follow_the_other_noise(crossover, rng):
    generator = make()
    z, other = rng.standard_normal((2, 2, 6)).astype(np.float32)
    with no_grad():
        first, second = generator.mapping(z), generator.mapping(other)
        expected = generator.synthesize([first] * crossover + [second] * (6 - crossover))
        found = generator(z, other, crossover)
        assert np.array_equal(found.numpy(), expected.numpy())
        assert np.array_equal(found.numpy(), generator(z).numpy()) == (crossover == 6)
        assert np.array_equal(found.numpy(), generator(other).numpy()) == (crossover == 0)


def test_every_weight_gets_a_gradient(rng):
    generator = make(noisy=True)
    generator(rng.standard_normal((3, 6)).astype(np.float32)).sum().backward()
    for name, parameter in generator.named_parameters():
        assert parameter.grad is not None and np.isfinite(parameter.grad.numpy()).all(), name


def test_a_wrong_number_of_styles_is_refused(rng):
    generator = make()
    with pytest.raises(ValueError, match="styles length: expected 6, got 5"):
        generator.synthesize([generator.mapping(np.ones((1, 6), np.float32))] * 5)
