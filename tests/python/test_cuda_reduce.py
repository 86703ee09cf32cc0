"""sum, mean, max and min on a device against float64."""

import ml_dtypes
import numpy as np
import pytest
from on_device import cuda, dev, host, needs_device, run

pytestmark = needs_device

TYPES = (np.float32, np.float64, np.float16, ml_dtypes.bfloat16)
CASES = [  # rows by warps and blocks, chunks; columns alone and in vectors, narrow, in chunks
    ((3, 1), -1),
    ((5, 7), -1),
    ((9, 1023), -1),
    ((2, 1025), -1),
    ((2, 8193), -1),
    ((17000,), None),
    ((1, 5), 0),
    ((131, 33), 0),
    ((129, 264), 0),
    ((300, 37), 0),
    ((4100, 2), 0),
    ((1000, 3), 0),
    ((3, 11, 16), 1),
    ((4, 5, 6), (0, 2)),
    ((4, 5, 6), None),
    ((2, 3, 4, 5), (1, 3)),
    ((4, 1, 6), 1),
    ((), None),
]


def widened(x):
    return x.astype(np.float64)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape, axis", CASES)
def test_against_numpy(rng, shape, axis, dtype):
    x = np.asarray(rng.standard_normal(shape)).astype(dtype)
    wide = widened(x)
    stored = float(ml_dtypes.finfo(dtype).eps)
    computed = stored if dtype == np.float64 else float(np.finfo(np.float32).eps)
    for keepdims in (False, True):
        for name in ("max", "min"):
            y = run(name, x, axis, keepdims)
            want = getattr(np, name)(wide, axis, keepdims=keepdims)
            assert y.dtype == x.dtype and y.shape == np.shape(want)
            np.testing.assert_array_equal(widened(y), want)
        for name in ("sum", "mean"):
            y = run(name, x, axis, keepdims)
            want = getattr(np, name)(wide, axis, keepdims=keepdims)
            assert y.dtype == x.dtype and y.shape == np.shape(want)
            # no term meets more than 64 additions
            bound = 64 * computed * getattr(np, name)(abs(wide), axis, keepdims=keepdims)
            assert (abs(widened(y) - want) <= bound + stored * abs(want)).all()


def test_nan_and_infinities():
    x = np.array([[1, np.nan, 2], [np.inf, 0, 1], [-np.inf] * 3], np.float32)
    for axis in (0, 1):
        for name in ("sum", "max", "min"):
            with np.errstate(invalid="ignore"):
                want = getattr(np, name)(x, axis)
            np.testing.assert_array_equal(run(name, x, axis), want)


def test_strides_out_and_order(rng):
    x = rng.standard_normal((6, 40, 3))
    view = x[::2, ::-2].transpose(2, 0, 1)
    np.testing.assert_allclose(run("sum", view, (0, 2)), view.sum((0, 2)), rtol=1e-13, atol=1e-14)
    out = dev(np.full((40,), np.nan))
    assert cuda.mean(dev(x), (0, 2), out=out) is out
    np.testing.assert_allclose(host(out), x.mean((0, 2)), rtol=1e-13, atol=1e-14)
    y = x.astype(np.float32)
    np.testing.assert_array_equal(run("sum", y, 0), run("sum", y, 0))


@pytest.mark.parametrize("dtype", TYPES)
def test_unaligned_rows(rng, dtype):
    x = rng.integers(-8, 8, (1, 3000)).astype(dtype)[:, 1:]
    np.testing.assert_array_equal(widened(run("sum", x, 1)), widened(x).sum(1).astype(dtype))
    np.testing.assert_array_equal(widened(run("max", x.reshape(-1, 1))), 7)


@pytest.mark.parametrize("shape, axis", [((0, 3), 0), ((3, 0), 0), ((0,), None), ((2, 0, 3), 1)])
def test_empty(shape, axis):
    x = np.empty(shape, np.float32)
    y = x.sum(axis)
    np.testing.assert_array_equal(run("sum", x, axis), y)
    gone = x.size == 0 and y.size > 0
    np.testing.assert_array_equal(run("mean", x, axis), np.full_like(y, np.nan if gone else 0))
    if gone:
        with pytest.raises(ValueError, match="max: x shape: expected at least one element"):
            run("max", x, axis)


def test_sum_to(rng):
    x = rng.standard_normal((4, 5, 6))
    for shape in [(5, 6), (1, 6), (6,), (4, 1, 6), (), (4, 5, 6), (1, 1, 1)]:
        lead = tuple(range(3 - len(shape)))
        ones = tuple(i + 3 - len(shape) for i, n in enumerate(shape) if n == 1)
        want = x.sum(lead + ones).reshape(shape)
        np.testing.assert_allclose(run("sum_to", x, shape), want, rtol=1e-13, atol=1e-14)
    with pytest.raises(ValueError, match="sum_to: shape value: expected one that broadcasts to"):
        run("sum_to", x, (2, 6))


def test_global_norm(rng):
    arrays = [
        rng.standard_normal((3, 5)).astype(np.float32),
        1e30 * rng.standard_normal(9001).astype(np.float32),
        np.empty((0, 2)),
        rng.standard_normal((4, 6)).astype(np.float16)[::2],
    ]
    want = np.sqrt(sum((widened(a) ** 2).sum() for a in arrays))
    norm = host(cuda.global_norm([dev(a) for a in arrays]))
    assert norm.shape == () and norm.dtype == np.float64
    np.testing.assert_allclose(norm, want, rtol=1e-13)
    assert host(cuda.global_norm([])) == 0


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((np.zeros(3, np.int32),), r"sum: x dtype: expected .*, got int32"),
        ((np.zeros((2, 2), np.float32), 2), "sum: axis value"),
        ((np.zeros((2, 2), np.float32), (0, -2)), "sum: axis value: expected distinct axes"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        run("sum", *arguments)
