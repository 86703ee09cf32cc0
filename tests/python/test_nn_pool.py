"""Pooling and upsampling layers against PyTorch: outputs, indices and gradients."""

from __future__ import annotations

import numpy as np
import pytest

from vectile import nn
from vectile.autograd import Tensor, tensor

torch = pytest.importorskip("torch", reason="PyTorch is the reference for layers")

# float64 on both sides: rounding in sums of a few dozen terms.
TOLERANCE = {"rtol": 1e-11, "atol": 1e-12}

LAYERS = [
    ("MaxPool1d", (3,), {}, (2, 3, 11)),
    ("MaxPool1d", (3, 2, 1), {"return_indices": True}, (3, 11)),
    ("MaxPool2d", (2,), {}, (2, 3, 6, 7)),
    ("MaxPool2d", ((3, 2), (2, 1)), {"padding": (1, 0), "ceil_mode": True}, (2, 3, 6, 7)),
    ("MaxPool2d", (3,), {"dilation": 2, "stride": 1, "return_indices": True}, (3, 7, 8)),
    ("AvgPool1d", (3, 2, 1), {"count_include_pad": False}, (2, 3, 11)),
    ("AvgPool2d", (2,), {}, (2, 3, 6, 7)),
    ("AvgPool2d", (3, 2, 1), {"ceil_mode": True}, (2, 3, 6, 7)),
    ("AvgPool2d", ((2, 3),), {"divisor_override": 5}, (3, 6, 7)),
    ("AdaptiveAvgPool1d", (4,), {}, (2, 3, 11)),
    ("AdaptiveAvgPool2d", (1,), {}, (2, 3, 6, 7)),
    ("AdaptiveAvgPool2d", ((None, 3),), {}, (2, 3, 6, 7)),
    ("AdaptiveMaxPool1d", (4,), {"return_indices": True}, (2, 3, 11)),
    ("AdaptiveMaxPool2d", ((3, None),), {}, (2, 3, 7, 6)),
    ("Upsample", (), {"scale_factor": 2}, (2, 3, 4, 5)),
    ("Upsample", (), {"scale_factor": 2.5, "mode": "nearest-exact"}, (2, 3, 5)),
    ("Upsample", ((7, 3),), {}, (2, 3, 4, 5)),
    ("Upsample", (), {"scale_factor": 2, "mode": "bilinear"}, (2, 3, 4, 5)),
    ("Upsample", (9,), {"mode": "bilinear", "align_corners": True}, (2, 3, 4, 5)),
    ("Upsample", (), {"scale_factor": (1.6, 0.7), "mode": "bilinear"}, (2, 3, 4, 5)),
    ("Upsample", (9,), {"mode": "linear", "align_corners": True}, (2, 3, 4)),
    ("Upsample", (), {"scale_factor": 3, "mode": "bicubic"}, (2, 3, 4, 5)),
    (
        "Upsample",
        (),
        {"scale_factor": 1.7, "mode": "bilinear", "recompute_scale_factor": True},
        (1, 2, 4, 5),
    ),
    ("Upsample", (3,), {"mode": "area"}, (2, 3, 4, 5)),
    ("PixelShuffle", (2,), {}, (2, 8, 3, 4)),
    ("PixelUnshuffle", (3,), {}, (2, 2, 6, 3)),
]


@pytest.mark.parametrize(("name", "args", "options", "shape"), LAYERS)
def test_equals_torch(rng, name, args, options, shape):
    ours, theirs = getattr(nn, name)(*args, **options), getattr(torch.nn, name)(*args, **options)
    x = rng.normal(size=shape)
    a, b = tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, z = ours(a), theirs(b)
    if options.get("return_indices"):
        (y, index), (z, places) = y, z
        assert isinstance(index, Tensor) and index.dtype == np.int64
        np.testing.assert_array_equal(index.numpy(), places.numpy())
        np.testing.assert_array_equal(ours(x)[1].numpy(), places.numpy())
    np.testing.assert_allclose(y.numpy(), z.detach().numpy(), **TOLERANCE)
    g = rng.normal(size=y.shape)
    y.backward(g)
    z.backward(torch.tensor(g))
    np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), **TOLERANCE)
    assert list(ours.state_dict()) == [] and name in repr(ours)


def test_shuffles_undo_each_other(rng):
    x = rng.normal(size=(2, 12, 4, 5)).astype(np.float32)
    up = nn.functional.pixel_shuffle(x, 2)
    np.testing.assert_array_equal(nn.functional.pixel_unshuffle(up, 2).numpy(), x)


X = np.zeros((2, 3, 4, 5), np.float32)
F = nn.functional


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: F.interpolate(X), "size, scale_factor: expected one of them"),
        (lambda: F.interpolate(X, 3, 2.0), "size, scale_factor: expected one of them"),
        (lambda: F.interpolate(X, 3, mode="trilinear"), "mode: expected one of nearest"),
        (lambda: F.interpolate(X, 3, mode="linear"), "x ndim: expected 3 for linear, got 4"),
        (lambda: F.interpolate(X, 3, align_corners=False), "align_corners: expected None"),
        (lambda: F.interpolate(X[0, 0], 3), "x ndim: expected 3 or 4, got 2"),
        (lambda: F.interpolate(X, scale_factor=-1.0), "scale_factor: expected 2 positive"),
        (lambda: F.interpolate(X, scale_factor=0.01), "size value"),
        (lambda: F.adaptive_avg_pool2d(X, (1, 2, 3)), "output_size length: expected 1 or 2"),
        (lambda: F.pixel_shuffle(X, 2), "channels, height, width that 2 fits"),
        (lambda: F.pixel_unshuffle(X, 2), "channels, height, width that 2 fits"),
        (lambda: F.pixel_shuffle(X[0, 0], 1), "x ndim: expected at least 3"),
        (lambda: nn.Sequential(nn.MaxPool2d(7))(X), r"window: expected .* \(in 0\)"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
