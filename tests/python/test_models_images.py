"""MLP, autoencoders and ViT: the same numbers as PyTorch's functions on the same weights."""

from __future__ import annotations

import numpy as np
import pytest
from torch_reference import close, f, images, prepared, torch, weights

from vectile import models, nn, random


def test_mlp():
    model = prepared(models.MLP(12, (7, 5), 3, activation=nn.Tanh))
    p, x = weights(model), images(4, 3, 4)
    h = torch.tensor(x).reshape(4, 12)
    for i in range(2):
        h = torch.tanh(f.linear(h, p[f"layers.{i}.weight"], p[f"layers.{i}.bias"]))
    close(model.features(x), h)
    close(model(x), f.linear(h, p["layers.2.weight"], p["layers.2.bias"]))
    assert len(models.MLP(3, (), 2).state_dict()) == 2
    with pytest.raises(ValueError, match="widths"):
        models.MLP(3, 0, 2)


def test_vae_elbo_is_that_of_the_distributions():
    model = prepared(models.VAE((1, 3, 3), (6,), 2))
    x = np.random.default_rng(0).integers(0, 17, (5, 1, 3, 3)) / 16
    random.manual_seed(3)
    fit, divergence = model.elbo(x)
    noise = torch.tensor(random.manual_seed(3).standard_normal((5, 2)))
    mean, log_variance = (torch.tensor(t.numpy()) for t in model.posterior(x))
    q = torch.distributions.Normal(mean, torch.exp(log_variance / 2))
    prior = torch.distributions.Normal(0.0, 1.0)
    close(divergence, torch.distributions.kl_divergence(q, prior).sum(1))
    logits = torch.tensor(model.decode((mean + q.stddev * noise).numpy()).numpy())
    likelihood = torch.distributions.Binomial(16, logits=logits)
    close(fit, likelihood.log_prob(torch.tensor(16 * x)).reshape(5, -1).sum(1))
    assert model.sample(4).shape == (4, 1, 3, 3)
    close(model.encode(x), mean)


def test_vae_gradients_follow_the_drawn_noise():
    model = prepared(models.VAE((1, 2, 2), (3,), 2))
    x = np.random.default_rng(0).integers(0, 17, (3, 1, 2, 2)) / 16

    def loss():
        random.manual_seed(0)
        fit, divergence = model.elbo(x)
        return (divergence - fit).sum()

    loss().backward()
    for parameter in model.parameters():
        index = np.unravel_index(np.abs(parameter.grad.numpy()).argmax(), parameter.shape)
        value, step = parameter.data[index], 1e-6
        ends = []
        for sign in (1, -1):
            parameter.data[index] = value + sign * step
            ends.append(loss().item())
        parameter.data[index] = value
        slope = (ends[0] - ends[1]) / (2 * step)
        assert abs(slope - parameter.grad.numpy()[index]) < 1e-6 * max(1.0, abs(slope))


@pytest.mark.parametrize(("size", "patch", "channels"), [(8, 2, 1), (6, 3, 2)])
def test_vit(size, patch, channels):
    model = prepared(models.ViT(size, patch, channels, 5, d_model=12, n_layers=2, n_heads=3))
    p, x = weights(model), images(2, channels, size, size)
    layer = torch.nn.TransformerEncoderLayer(
        12, 3, 48, 0.0, "gelu", batch_first=True, norm_first=True, dtype=torch.float64
    )
    encoder = torch.nn.TransformerEncoder(
        layer, 2, torch.nn.LayerNorm(12, dtype=torch.float64), enable_nested_tensor=False
    )
    encoder.load_state_dict(
        {k.removeprefix("encoder."): v for k, v in p.items() if k.startswith("encoder.")}
    )
    patches = f.unfold(torch.tensor(x), patch, stride=patch).transpose(1, 2)
    h = f.linear(patches, p["embed.weight"], p["embed.bias"])
    h = torch.cat([p["token"].expand(2, 1, 12), h], 1) + p["positions.weight"]
    close(model(x), f.linear(encoder.eval()(h)[:, 0], p["head.weight"], p["head.bias"]))
    seen = model.attention_weights(x)
    length = 1 + (size // patch) ** 2
    assert seen.shape == (2, 2, 3, length, length) and np.allclose(seen.sum(-1), 1)
    with pytest.raises(ValueError, match="images shape"):
        model(x[:, :, 1:])
    with pytest.raises(ValueError, match="patch"):
        models.ViT(8, 3)
