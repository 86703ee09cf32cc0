"""BatchNorm, InstanceNorm and GroupNorm against PyTorch: states, outputs, gradients, running statistics."""

from __future__ import annotations

import numpy as np
import pytest

from vectile import nn
from vectile.autograd import tensor

torch = pytest.importorskip("torch", reason="PyTorch is the reference for layers")

# float64 on both sides: rounding in sums of a few hundred terms.
TOLERANCE = {"rtol": 1e-10, "atol": 1e-11}

CASES = [
    ("BatchNorm1d", (5,), {}, (8, 5)),
    ("BatchNorm1d", (5,), {"momentum": None}, (3, 5, 7)),
    ("BatchNorm1d", (5,), {"affine": False, "momentum": 0.3, "eps": 1e-3}, (3, 5, 7)),
    ("BatchNorm2d", (3,), {}, (4, 3, 5, 6)),
    ("BatchNorm2d", (3,), {"track_running_stats": False}, (2, 3, 5, 6)),
    ("BatchNorm2d", (3,), {"momentum": None}, (2, 3, 1, 1)),
    ("InstanceNorm1d", (5,), {}, (3, 5, 7)),
    ("InstanceNorm1d", (5,), {"affine": True}, (5, 7)),
    ("InstanceNorm2d", (3,), {"affine": True, "track_running_stats": True}, (2, 3, 4, 5)),
    ("InstanceNorm2d", (3,), {}, (3, 4, 5)),
    ("GroupNorm", (2, 6), {}, (3, 6, 4, 5)),
    ("GroupNorm", (3, 6), {"affine": False, "eps": 1e-2}, (3, 6)),
    ("GroupNorm", (1, 4), {}, (2, 4, 7)),
]


def pair(name, args, options):
    ours, theirs = getattr(nn, name)(*args, **options), getattr(torch.nn, name)(*args, **options)
    ours.double()
    theirs.double()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for key, value in theirs.state_dict().items():
        np.testing.assert_array_equal(ours.state_dict()[key], value.numpy())
    with torch.no_grad():
        for p in theirs.parameters():
            p.uniform_(-1, 2)
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    return ours, theirs


@pytest.mark.parametrize(("name", "args", "options", "shape"), CASES)
def test_equals_torch(rng, name, args, options, shape):
    ours, theirs = pair(name, args, options)
    for training in (True, True, False, True):
        ours.train(training)
        theirs.train(training)
        x, g = rng.normal(1.5, 2, size=shape), rng.normal(size=shape)
        a, b = tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
        y, z = ours(a), theirs(b)
        np.testing.assert_allclose(y.numpy(), z.detach().numpy(), **TOLERANCE)
        ours.zero_grad()
        theirs.zero_grad()
        y.backward(g)
        z.backward(torch.tensor(g))
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), **TOLERANCE)
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), **TOLERANCE)
        for key, value in theirs.state_dict().items():
            np.testing.assert_allclose(ours.state_dict()[key], value.numpy(), **TOLERANCE)


def test_state_moves_across():
    ours, theirs = pair("BatchNorm2d", (3,), {})
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 4))
    theirs(torch.tensor(x))
    ours.load_state_dict(theirs.state_dict())
    theirs.eval()
    np.testing.assert_allclose(
        ours.eval()(x).numpy(), theirs(torch.tensor(x)).detach().numpy(), **TOLERANCE
    )
    assert ours.num_batches_tracked == 1
    ours.reset_parameters()
    assert ours.num_batches_tracked == 0 and not ours.running_mean.any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: nn.BatchNorm2d(3)(np.zeros((2, 3), "f")),
            "BatchNorm2d: x ndim: expected 4, got 2",
        ),
        (lambda: nn.BatchNorm1d(3)(np.zeros((2, 4), "f")), "x channels: expected 3, got 4"),
        (lambda: nn.BatchNorm1d(3)(np.zeros((1, 3), "f")), "more than 1 in training, got 1"),
        (lambda: nn.InstanceNorm2d(3)(np.zeros((3, 1, 1), "f")), "expected more than 1, got 1"),
        (lambda: nn.GroupNorm(2, 3), "num_groups: expected a divisor of the 3 channels, got 2"),
        (
            lambda: nn.GroupNorm(1, 3)(np.zeros((2, 4), "f")),
            r"expected \(N, 3, ...\), got \(2, 4\)",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
