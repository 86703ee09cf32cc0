"""softmax and log_softmax on a device against float64."""

import ml_dtypes
import numpy as np
import pytest
from on_device import cuda, dev, host, needs_device, run

pytestmark = needs_device

TYPES = (np.float32, np.float64, np.float16, ml_dtypes.bfloat16)
LENGTHS = (1, 2, 7, 31, 32, 33, 255, 513, 1023, 4097, 16385, 20000)


def exact(x, axis=-1):
    x = x.astype(np.float64)
    top = x.max(axis, keepdims=True)
    e = np.exp(x - np.where(np.isinf(top), 0, top))
    total = e.sum(axis, keepdims=True)
    return e / np.where(total == 0, 1, total)


def epsilon(dtype):
    return float(ml_dtypes.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("n", LENGTHS)
def test_rows(rng, n, dtype):
    x = (3 * rng.standard_normal((3, n))).astype(dtype)
    y = run("softmax", x)
    assert y.dtype == x.dtype and y.shape == x.shape
    # exp and the sum's pairs: a few roundings of what it computes in, then one to the type
    bound = epsilon(dtype) + 16 * epsilon(np.float64 if dtype == np.float64 else np.float32)
    want = exact(x)
    tiny = float(ml_dtypes.finfo(dtype).smallest_subnormal)
    assert (abs(y - want) <= bound * want + tiny).all()
    log = run("log_softmax", x).astype(np.float64)
    want = x.astype(np.float64) - x.astype(np.float64).max(-1, keepdims=True)
    want -= np.log(np.exp(want).sum(-1, keepdims=True))
    size = abs(x.astype(np.float64)).max() + abs(want)
    assert (abs(log - want) <= bound * size).all()


@pytest.mark.parametrize(
    "shape, axis", [((4, 5, 6), 0), ((4, 5, 6), 1), ((7, 1), -1), ((0, 4), 1), ((3, 0), 1)]
)
def test_axes_and_empty_arrays(rng, shape, axis):
    x = rng.standard_normal(shape).astype(np.float32)
    y = run("softmax", x, axis)
    assert y.shape == shape
    if x.size:
        np.testing.assert_allclose(y, exact(x, axis), rtol=4e-6)


def test_strides_and_out(rng):
    x = rng.standard_normal((6, 40)).astype(np.float32)
    np.testing.assert_allclose(run("softmax", x[::2, ::-2]), exact(x[::2, ::-2]), rtol=4e-6)
    out = dev(np.full((6, 40), np.nan, np.float32))
    assert cuda.softmax(dev(x), out=out) is out
    np.testing.assert_allclose(host(out), exact(x), rtol=4e-6)


def test_masked_rows_and_nan():
    x = np.array([[-np.inf] * 4, [0, -np.inf, 1, 2], [0, np.nan, 1, 2]], np.float32)
    y = run("softmax", x)
    assert (y[0] == 0).all() and y[1, 1] == 0 and np.isnan(y[2]).all()
    assert (run("log_softmax", x)[0] == -np.inf).all()
    grad = run("softmax_backward", np.ones_like(x), y)
    assert (grad[0] == 0).all()


@pytest.mark.parametrize("n", (1, 33, 1023, 16385))
def test_gradients(rng, n):
    x, g = rng.standard_normal((2, 3, n))
    y = exact(x)
    want = y * (g - (y * g).sum(-1, keepdims=True))
    np.testing.assert_allclose(run("softmax_backward", g, y), want, rtol=1e-12, atol=1e-14)
    log = np.log(y)
    want = g - np.exp(log) * g.sum(-1, keepdims=True)
    np.testing.assert_allclose(run("log_softmax_backward", g, log), want, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((np.zeros(3, np.int32),), r"softmax: x dtype: expected .*, got int32"),
        ((np.zeros((), np.float32),), "softmax: x ndim: expected at least 1, got 0"),
        ((np.zeros((2, 2), np.float32), 2), "softmax: axis value"),
        ((3,), "softmax: x type: expected an array that exports DLPack, got int"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        run("softmax", *arguments)
