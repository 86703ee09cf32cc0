"""A training step on a device is that of the CPU: model, loss, gradients and optimiser on the same code."""

import numpy as np
from gpu_array import GpuArray
from on_device import needs_device
from test_device import gpu  # noqa: F401  (a fixture)

import vectile
from vectile import nn, optim
from vectile.models import GPT, GPTConfig

pytestmark = needs_device


def trained(model, place, ids, targets, steps=2):
    """Losses, gradients of the last step, and parameters after it."""
    model.to(place)
    optimizer = optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(ids, targets)
        loss.backward()
        losses.append(float(loss))
        optimizer.step()
    parameters = list(model.parameters())
    kinds = {type(p.data) for p in parameters} | {type(p.grad.data) for p in parameters}
    assert kinds == {np.ndarray if place == "cpu" else GpuArray}
    return (
        losses,
        [p.grad.to("cpu").numpy() for p in parameters],
        [p.to("cpu").numpy() for p in parameters],
    )


def test_gpt(gpu, rng):  # noqa: F811
    config = GPTConfig(32, context=12, n_layers=2, n_heads=2, d_model=32)
    ids, targets = rng.integers(0, 32, (2, 2, 9))
    found = []
    for place, array in (("cpu", np.asarray), ("cuda", gpu)):
        vectile.manual_seed(0)
        found.append(trained(GPT(config), place, array(ids), array(targets)))
    (losses, grads, values), (on_gpu, gpu_grads, gpu_values) = found
    np.testing.assert_allclose(on_gpu, losses, rtol=1e-5)
    for a, b in zip(grads, gpu_grads, strict=True):
        np.testing.assert_allclose(b, a, atol=2e-5 * max(1e-3, abs(a).max()), rtol=2e-3)
    for a, b in zip(values, gpu_values, strict=True):
        # Adam's first steps are the signs of gradients, whichever their size
        assert np.mean(abs(a - b) > 1e-3) < 0.01


class Perceptron(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(7, 16), nn.LayerNorm(16), nn.Linear(16, 3)

    def forward(self, x, targets):
        hidden = nn.functional.gelu(self.norm(self.first(x)))
        return nn.functional.cross_entropy(self.last(hidden), targets)


def test_perceptron(gpu, rng):  # noqa: F811
    x, targets = rng.standard_normal((5, 7)).astype(np.float32), rng.integers(0, 3, 5)
    found = []
    for place, array in (("cpu", np.asarray), ("cuda", gpu)):
        vectile.manual_seed(0)
        found.append(trained(Perceptron(), place, array(x), array(targets), steps=1))
    (losses, grads, _), (on_gpu, gpu_grads, _) = found
    np.testing.assert_allclose(on_gpu, losses, rtol=1e-6)
    for a, b in zip(grads, gpu_grads, strict=True):
        np.testing.assert_allclose(b, a, atol=1e-6)
