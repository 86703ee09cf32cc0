"""batch_norm and group_norm on a device against the CPU's ops in float64."""

import ml_dtypes
import numpy as np
import pytest
from on_device import cuda, needs_device, needs_emulation, run

from vectile import ops

pytestmark = needs_device

TYPES = (np.float32, np.float64, np.float16, ml_dtypes.bfloat16)
# runs of one element, by warps and by blocks
SHAPES = [(4, 6, 5, 2), (3, 2, 7), (5, 4), (1, 2, 1031), (40, 1), (2, 10, 1)]
EPS = 1e-3


def wide(x):
    return None if x is None else np.asarray(x).astype(np.float64)


def draw(rng, shape, dtype):
    x, g = rng.normal(2, 1, shape).astype(dtype), rng.normal(size=shape).astype(dtype)
    w, b = rng.normal(size=(2, shape[1])).astype(dtype)
    return x, g, w, b


def assert_near(got, want, dtype, size=1.0):
    """Within roundings of what it was computed in, and one to the type."""
    assert got.dtype == dtype and got.shape == want.shape
    single = dtype if dtype == np.float64 else np.float32
    bound = 128 * np.finfo(single).eps * (abs(want) + size)
    bound += float(ml_dtypes.finfo(dtype).eps) * abs(want)
    error = abs(wide(got) - want)
    assert (error <= bound).all(), f"error {error.max()}, allowed {np.max(bound)}"


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_batch_norm(rng, shape, dtype):
    x, g, w, b = draw(rng, shape, dtype)
    single = dtype if dtype == np.float64 else np.float32
    for weight, bias, stored in [(w, b, dtype), (None, None, single)]:
        got = run("batch_norm", x, None, None, weight, bias, True, 0.3, EPS, True)
        args = map(wide, (x, None, None, weight, bias))
        want = ops.batch_norm(*args, True, 0.3, EPS, return_stats=True)
        for y, expected, kind in zip(got, want, (dtype, single, single), strict=True):
            assert_near(y, expected, kind, 4)
        stats = got[1:]
        for training in (True, False):
            got = run("batch_norm_backward", g, x, weight, *stats, training)
            args = map(wide, (g, x, weight, *stats))
            want = ops.batch_norm_backward(*args, training)
            assert_near(got[0], want[0], dtype, 8)
            for y, expected in zip(got[1:], want[1:], strict=True):
                assert (y is None) == (expected is None)
                if y is not None:
                    assert_near(y, expected, dtype, 4 * x[:, 0].size)
        running = [rng.uniform(1, 2, shape[1]).astype(stored) for _ in range(2)]
        got = run("batch_norm", x, *running, weight, bias, eps=EPS, return_stats=True)
        args = map(wide, (x, *running, weight, bias))
        want = ops.batch_norm(*args, eps=EPS, return_stats=True)
        for y, expected, kind in zip(got, want, (dtype, single, single), strict=True):
            assert_near(y, expected, kind, 4)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_group_norm(rng, shape, dtype):
    x, g, w, b = draw(rng, shape, dtype)
    single = dtype if dtype == np.float64 else np.float32
    for groups in {1, 2 if shape[1] % 2 == 0 else 1, shape[1]}:
        got = run("group_norm", x, groups, w, b, EPS, True)
        want = ops.group_norm(wide(x), groups, wide(w), wide(b), EPS, return_stats=True)
        # rstd of groups that hardly vary is as large as eps allows
        scale = 4 * want[2].max()
        assert_near(got[0], want[0], dtype, 4 * scale)
        assert_near(got[1], want[1], single)
        assert_near(got[2], want[2], single, want[2].max())
        stats = got[1:]
        got = run("group_norm_backward", g, x, groups, w, *stats)
        want = ops.group_norm_backward(wide(g), wide(x), groups, wide(w), *map(wide, stats))
        assert_near(got[0], want[0], dtype, 4 * scale * scale)
        for y, expected in zip(got[1:], want[1:], strict=True):
            assert_near(y, expected, dtype, 4 * scale * x[:, 0].size)
        assert run("group_norm_backward", g, x, groups, None, *stats)[1:] == (None, None)


def test_large_mean(rng):
    x = rng.normal(1e4, 1, (6, 3, 50)).astype(np.float32)
    want = ops.batch_norm(wide(x), training=True)
    assert abs(run("batch_norm", x, training=True) - want).max() < 1e-5


@needs_emulation
@pytest.mark.parametrize("dtype", (np.float32, np.float64, np.float16))
def test_running_statistics_move_in_place(rng, dtype):
    x = rng.normal(2, 1, (4, 3, 5)).astype(dtype)
    mean, var = rng.uniform(1, 2, (2, 6)).astype(dtype)
    moved = [wide(mean[::2]), wide(var[::2])]
    untouched = mean[1::2].copy()
    cuda.batch_norm(x, mean[::2], var[::2], training=True, momentum=0.3)
    ops.batch_norm(wide(x), *moved, training=True, momentum=0.3)
    assert_near(mean[::2], moved[0], dtype)
    assert_near(var[::2], moved[1], dtype)
    np.testing.assert_array_equal(mean[1::2], untouched)
    with pytest.raises(ValueError, match="running_var flags: expected a writable array"):
        var.flags.writeable = False
        cuda.batch_norm(x, mean[::2], var[::2], training=True)


@pytest.mark.parametrize("shape", [(0, 3), (2, 3, 0), (2, 0, 4)])
def test_empty(shape):
    x, ones = np.empty(shape), np.ones(shape[1])
    y, mean, rstd = run("batch_norm", x, ones, ones, ones, ones, return_stats=True)
    assert y.shape == shape and mean.shape == rstd.shape == ones.shape
    np.testing.assert_allclose(mean, ones)
    y, mean, rstd = run("batch_norm", x, training=True, return_stats=True)
    assert y.shape == shape and not mean.any()
    for a in run("batch_norm_backward", x, x, ones, mean, rstd, True)[1:]:
        assert not a.any()
    y, mean, _ = run("group_norm", x, 1, return_stats=True)
    assert y.shape == shape and mean.shape == (shape[0], 1)


X = np.zeros((2, 4, 3), np.float32)


@pytest.mark.parametrize(
    "name, arguments, message",
    [
        ("batch_norm", (X[0, 0], None, None, None, None, True), "batch_norm: x ndim"),
        ("batch_norm", (X,), "running_mean value: expected an array unless training"),
        ("batch_norm", (X[:1, :, :1], None, None, None, None, True), "values per channel"),
        ("batch_norm", (X, None, None, X[0, 0], None, True), "batch_norm: weight shape"),
        ("group_norm", (X, 3), "group_norm: num_groups value: expected a divisor of the 4"),
        ("group_norm", (X, 2, None, None, -1.0), "group_norm: eps value"),
        ("group_norm_backward", (X, X, 2, None, X[0, 0], X[0, 0]), "mean shape"),
    ],
)
def test_errors(name, arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        run(name, *arguments)
