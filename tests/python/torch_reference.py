"""Models beside PyTorch's functions on the same weights, in float64; skips where torch is missing."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is the reference")
f = torch.nn.functional


def prepared(model, seed=0):
    """In float64, with every parameter and statistic away from its initial value."""
    rng = np.random.default_rng(seed)
    for parameter in model.parameters():
        parameter.data = parameter.data + 0.1 * rng.standard_normal(parameter.shape).astype("f4")
    for name, value in model.named_buffers():
        if name.endswith(("mean", "var")):
            value[...] = value + rng.random(value.shape)
    return model.double().eval()


def weights(model):
    return {name: torch.tensor(value) for name, value in model.state_dict().items()}


def close(actual, expected):
    actual, expected = np.asarray(actual), expected.detach().numpy()
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= 1e-10 * max(1.0, np.abs(expected).max())


def images(*shape, seed=1):
    return np.random.default_rng(seed).random(shape)
