"""Padding against PyTorch: modes, pairs of both signs, gradients, layers, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from differences import check_gradient, gradient_of

import vectile as vt
from vectile import nn

torch = pytest.importorskip("torch", reason="PyTorch is the reference")
F = nn.functional
MODES = ["constant", "reflect", "replicate", "circular"]


def compare(ours, theirs, x):
    """Results are the same numbers; gradients are sums of a few."""
    a, b = vt.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, z = ours(a), theirs(b)
    np.testing.assert_array_equal(y.numpy(), z.detach().numpy(), strict=True)
    g = np.random.default_rng(0).normal(size=y.shape).astype(x.dtype)
    y.backward(g)
    z.backward(torch.tensor(g))
    eps = 50 * float(np.finfo(x.dtype).eps)
    np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=eps, atol=eps)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "pair", [(1, 2), (0, 4), (4, 0), (0, 0), (3, 3), (-1, 2), (2, -1), (-1, 4), (-1, -2)]
)
def test_pairs_equal_torch(rng, dtype, mode, pair):
    for shape, pad in [((2, 3, 5), pair), ((0, 2, 5), pair), ((2, 3, 5, 6), (1, 2, *pair))]:
        if mode == "circular" and 0 in shape and min(pair) < 0:
            continue  # PyTorch refuses to crop nothing
        x = rng.normal(size=shape).astype(dtype)
        compare(lambda t: F.pad(t, pad, mode), lambda t: torch.nn.functional.pad(t, pad, mode), x)  # noqa: B023


def test_constant_pads_any_axes(rng, dtype):
    for shape, pad in [
        ((), ()),
        ((3,), (1, 0)),
        ((2, 0), (1, 1)),
        ((2, 3, 4), (0, 1, -1, 0, 2, 2)),
    ]:
        x = rng.normal(size=shape).astype(dtype)
        compare(
            lambda t: F.pad(t, pad, value=-0.5),  # noqa: B023
            lambda t: torch.nn.functional.pad(t, pad, value=-0.5),  # noqa: B023
            x,
        )
    whole = F.pad(np.arange(4), (1, 0))
    np.testing.assert_array_equal(whole.numpy(), [0, 0, 1, 2, 3])


@pytest.mark.parametrize("mode", MODES)
def test_differences(rng, mode):
    def f(x):
        return F.pad(x, (2, 1, -1, 2), mode) ** 2

    x = rng.normal(size=(2, 4, 3))
    check_gradient(f, [x], 1)
    check_gradient(gradient_of(f, 1), [x, rng.normal(size=f(vt.tensor(x)).shape)], 2)


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [(kind, ()) for kind in ("ZeroPad", "ReflectionPad", "ReplicationPad", "CircularPad")]
    + [("ConstantPad", (0.75,))],
)
@pytest.mark.parametrize("axes", [1, 2])
def test_layers_equal_torch(rng, kind, arguments, axes):
    for padding in (1, tuple(range(2 * axes)), (2, 1, 0, 1)[: 2 * axes]):
        ours = getattr(nn, f"{kind}{axes}d")(padding, *arguments)
        theirs = getattr(torch.nn, f"{kind}{axes}d")(padding, *arguments)
        for shape in [(3, 5, 4)[-axes - 1 :], (2, 3, 5, 4)[-axes - 2 :]]:
            compare(ours, theirs, rng.normal(size=shape))
        assert repr(ours) == repr(theirs) and not ours.state_dict()


def test_convolutions_pad_alike(rng):
    x = rng.normal(size=(1, 2, 5, 4)).astype("f4")
    for mode in MODES[1:]:
        layer = nn.Conv2d(2, 3, 3, padding=(2, 1), padding_mode=mode)
        padded = F.pad(x, (1, 1, 2, 2), mode)
        expected = F.conv2d(padded, layer.weight, layer.bias)
        np.testing.assert_array_equal(layer(x).numpy(), expected.numpy())
    with pytest.raises(ValueError, match="conv2d: x"):
        layer(x[0, 0, 0])


X = np.zeros((2, 3, 4), np.float32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: F.pad(X, (1,)), "pad: pad length: expected an even number up to 6, got 1"),
        (lambda: F.pad(X, (1,) * 8), "pad: pad length: expected an even number up to 6, got 8"),
        (
            lambda: F.pad(X, (1, 1), "wrap"),
            "pad: mode: expected one of constant, reflect, .* 'wrap'",
        ),
        (
            lambda: F.pad(X, (1, 1), "reflect", 1.0),
            "pad: value: expected None for reflect, got 1.0",
        ),
        (
            lambda: F.pad(X, (1, 4), "reflect"),
            "pad: pad: expected at most 3 of 'reflect' on an axis of 4, got 4",
        ),
        (lambda: F.pad(X, (5, 0), "circular"), "at most 4 of 'circular' on an axis of 4, got 5"),
        (
            lambda: F.pad(X[..., :0], (1, 0), "replicate"),
            "at most 0 of 'replicate' on an axis of 0",
        ),
        (lambda: F.pad(X, (-3, -2)), "pad: pad: expected at most 4 removed, got 5"),
        (lambda: nn.ZeroPad2d((1, 2)), "ZeroPad2d: padding length: expected 1 or 4, got 2"),
        (lambda: nn.Sequential(nn.ReflectionPad1d(4))(X), r"axis of 4, got 4 \(in 0\)"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
