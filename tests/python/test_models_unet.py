"""The U-Net: shapes, what it knows about time, and gradients in float64."""

from __future__ import annotations

import numpy as np
import pytest

from vectile import Tensor, models, no_grad, random
from vectile.models.unet import AttentionBlock, timestep_embedding


def make(**options):
    random.manual_seed(0)
    model = models.UNet(**{"width": 4, "groups": 2, **options})
    model.output.weight.data = (
        random.generator().normal(0, 0.1, model.output.weight.shape).astype(np.float32)
    )
    return model


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((3, 1, 8, 8), {}),
        ((2, 3, 12, 8), {"channels": 3, "attention": ()}),
        ((1, 1, 8, 8), {"multipliers": (1, 2, 3), "attention": (0, 2)}),
        ((2, 1, 5, 7), {"multipliers": (1,), "attention": (0,), "dropout": 0.2}),
        ((0, 1, 8, 8), {}),
    ],
)
def test_the_output_has_the_inputs_shape(shape, options, rng):
    x = rng.standard_normal(shape).astype(np.float32)
    out = make(**options)(x, np.arange(shape[0]))
    assert out.shape == shape and np.isfinite(out.numpy()).all()


def test_it_starts_by_guessing_a_constant(rng):
    random.manual_seed(0)
    out = models.UNet(width=8)(rng.standard_normal((2, 1, 8, 8)).astype(np.float32), [3, 9]).numpy()
    assert np.array_equal(out, np.broadcast_to(out[0, 0, 0, 0], out.shape))


def test_embedding_is_the_papers():
    t = np.array([0, 1, 17, 999])
    found = timestep_embedding(t, 6)
    for k in range(3):
        rate = 10000.0 ** (-k / 3)
        assert np.allclose(found[:, k], np.sin(t * rate), atol=1e-6)
        assert np.allclose(found[:, 3 + k], np.cos(t * rate), atol=1e-6)


def test_time_matters_and_rows_do_not_mix(rng):
    model = make()
    x = rng.standard_normal((1, 1, 8, 8)).astype(np.float32).repeat(3, 0)
    with no_grad():
        out = model(x, [5, 80, 5]).numpy()
        alone = model(x[:1], [5]).numpy()
    assert np.allclose(out[0], out[2], atol=1e-6) and not np.allclose(out[0], out[1], atol=1e-4)
    assert np.allclose(out[:1], alone, rtol=1e-4, atol=1e-6)


def test_attention_sees_every_pixel(rng):
    """Moving one pixel changes the outcome at all others; a mirrored picture gives a mirrored outcome."""
    random.manual_seed(0)
    block = AttentionBlock(4, heads=2, groups=2).double()
    x = rng.standard_normal((1, 4, 3, 3))
    moved = x.copy()
    moved[0, :, 0, 0] += 1
    with no_grad():
        out, other, mirrored = (block(Tensor(v)).numpy() for v in (x, moved, x[..., ::-1]))
    assert (np.abs(out - other).max((0, 1)) > 1e-6).all()
    assert np.allclose(mirrored, out[..., ::-1], atol=1e-12)


def test_gradients_against_finite_differences(rng):
    model = make(multipliers=(1, 2), attention=(1,)).double()
    x, weight = rng.standard_normal((2, 2, 1, 4, 4))
    t = np.array([2, 30])

    def loss():
        return (model(x, t) * weight).sum()

    loss().backward()
    for name, parameter in model.named_parameters():
        flat, grad = parameter.data.reshape(-1), parameter.grad.numpy().reshape(-1)
        for i in rng.integers(0, flat.size, 2):
            start, ends = flat[i], []
            for step in (1e-5, -1e-5):
                flat[i] = start + step
                with no_grad():
                    ends.append(loss().item())
            flat[i] = start
            assert np.isclose(grad[i], (ends[0] - ends[1]) / 2e-5, rtol=1e-5, atol=1e-7), name
