"""A training step on a device is that of the CPU: model, loss, gradients and optimiser on the same code."""

import numpy as np
import pytest
from gpu_array import GpuArray
from on_device import needs_device
from test_device import gpu  # noqa: F401  (a fixture)

import vectile
from vectile import nn, optim
from vectile.models import GPT, GPTConfig

pytestmark = needs_device


def trained(model, place, ids, targets):
    """Losses of two steps, the first one's gradients, and parameters after it."""
    model.to(place)
    optimizer = optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    parameters = list(model.parameters())
    loss = model(ids, targets)
    loss.backward()
    optimizer.step()
    kinds = {type(p.data) for p in parameters} | {type(p.grad.data) for p in parameters}
    assert kinds == {np.ndarray if place == "cpu" else GpuArray}
    return (
        [float(loss), float(model(ids, targets))],
        [p.grad.to("cpu").numpy() for p in parameters],
        [p.to("cpu").numpy() for p in parameters],
    )


def agree(on_host, on_gpu, terms):
    """Gradients within the rounding of some ten ops that each add up `terms` products."""
    for a, b in zip(on_host, on_gpu, strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=10 * terms * 2.0**-24 * abs(a).max())


@pytest.mark.parametrize(
    "options", [{}, {"positions": "rotary", "dropout": 0.2}, {"positions": "alibi", "dropout": 0.1}]
)
def test_gpt(gpu, rng, options):  # noqa: F811
    config = GPTConfig(32, context=12, n_layers=2, n_heads=2, d_model=32, **options)
    ids, targets = rng.integers(0, 32, (2, 2, 9))
    found = []
    for place, array in (("cpu", np.asarray), ("cuda", gpu)):
        vectile.manual_seed(0)
        found.append(trained(GPT(config), place, array(ids), array(targets)))
    (losses, grads, values), (on_gpu, gpu_grads, gpu_values) = found
    agree(grads, gpu_grads, 128)
    # The loss after a step, which Adam makes as long for a gradient of rounding's size as for any.
    np.testing.assert_allclose(on_gpu, losses, rtol=1e-5)
    for a, b, g in zip(values, gpu_values, grads, strict=True):
        clear = abs(g) > 1e-3 * abs(g).max()
        np.testing.assert_allclose(b[clear], a[clear], atol=1e-4)


class Attending(nn.Module):
    """Attention with what it has of options, and a Transformer layer over it."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(
            16, 2, 0.2, batch_first=True, sinks=True, window=(4, None), num_kv_heads=1,
            alibi_slopes=nn.alibi_slopes(2), rotary=nn.RotaryEmbedding(8, 16),
        )  # fmt: skip
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, 0.1, batch_first=True)

    def forward(self, x, masks):
        found, weights = self.attention(x, x, x, **masks)
        mask, padding = masks.get("attn_mask"), masks.get("key_padding_mask")
        out = self.layer(x + found, src_mask=mask, src_key_padding_mask=padding)[..., 0]
        return (out * out).mean() + (0 if weights is None else (weights * weights).sum())


@pytest.mark.parametrize("kind", ("bool", "added", "padding", "padding_there", "weights"))
def test_attention_modules(gpu, rng, kind):  # noqa: F811
    x = rng.standard_normal((2, 9, 16)).astype(np.float32)
    mask = rng.random((9, 9)) < 0.4
    mask[3] = True  # a query that sees nothing
    padding = np.arange(9) >= np.array([[5], [9]])
    found = []
    for place, array in (("cpu", np.asarray), ("cuda", gpu)):
        masks = {
            "bool": {"attn_mask": array(mask)},
            "added": {"attn_mask": array(np.where(mask, -np.inf, 0.5).astype(np.float32))},
            "padding": {"key_padding_mask": padding, "attn_mask": mask},  # the host's
            "padding_there": {"key_padding_mask": array(padding)},
            "weights": {"key_padding_mask": padding, "is_causal": True, "need_weights": True},
        }[kind]
        vectile.manual_seed(0)
        found.append(trained(Attending(), place, array(x), {"need_weights": False, **masks}))
    (losses, grads, _), (on_gpu, gpu_grads, _) = found
    np.testing.assert_allclose(on_gpu, losses, rtol=1e-5)
    agree(grads, gpu_grads, 128)


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
        found.append(trained(Perceptron(), place, array(x), array(targets)))
    (losses, grads, _), (on_gpu, gpu_grads, _) = found
    np.testing.assert_allclose(on_gpu, losses, rtol=1e-6)
    agree(grads, gpu_grads, 16)
