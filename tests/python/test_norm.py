"""norm family against a wider oracle, on every tier and thread count."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vectile import ops

SHAPES = [(1,), (7,), (16,), (65,), (31, 33), (3, 1), (2, 3, 5), (67, 128), (2, 1000), (9001,)]
LAYER, RMS = 1e-5, 1e-6
Wide = np.longdouble  # so that the oracle of float64 loses nothing to a large mean


def layer_oracle(x, eps):
    x = x.astype(Wide)
    mean = x.mean(-1, keepdims=True)
    rstd = 1 / np.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + eps)
    return (x - mean) * rstd, mean, rstd


def rms_oracle(x, eps):
    x = x.astype(Wide)
    rstd = 1 / np.sqrt((x * x).mean(-1, keepdims=True) + eps)
    return x * rstd, rstd


def roundings(n):
    """Most roundings a term of a row's sum meets: one accumulator of four (scalar tier) takes
    n / 4 of a block of 4096; 8 cover folding, division, square root and the final products."""
    return min(n, 4096) / 4 + 8


def unit_bound(u, dtype):
    """|error of u = (x - mean) rstd|: the variance and what is added back to the mean are each off by
    roundings(n) eps relative to the mean of |d| rstd <= 1."""
    return roundings(u.shape[-1]) * np.finfo(dtype).eps * (np.abs(u) + 1)


def draw(rng, shape, dtype, mean=0.0):
    x, g = rng.normal(mean, 1, size=shape).astype(dtype), rng.normal(size=shape).astype(dtype)
    w, b = rng.normal(size=shape[-1:]).astype(dtype), rng.normal(size=shape[-1:]).astype(dtype)
    return x, g, w, b


def assert_within(got, expected, bound):
    assert got.shape == expected.shape
    error = np.abs(got - expected)
    assert (error <= bound).all(), f"error {error.max()}, largest allowed {np.max(bound)}"


@pytest.mark.sanitize
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mean", [0.0, 1e4])
def test_forward_matches_oracle(isa, dtype, rng, shape, mean):
    x, _, w, b = draw(rng, shape, dtype, mean)
    eps = np.finfo(dtype).eps
    u, mu, rstd = layer_oracle(x, LAYER)
    for weight, bias in [(w, b), (w, None), (None, b), (None, None)]:
        w64 = 1.0 if weight is None else weight.astype(Wide)
        b64 = 0.0 if bias is None else bias.astype(Wide)
        expected = u * w64 + b64
        bound = unit_bound(u, dtype) * np.abs(w64) + eps * (np.abs(u * w64) + np.abs(expected))
        assert_within(ops.layer_norm(x, weight, bias), expected, bound)
    y, got_mean, got_rstd = ops.layer_norm(x, w, b, return_stats=True)
    assert y.dtype == got_mean.dtype == got_rstd.dtype == dtype
    np.testing.assert_array_equal(y, ops.layer_norm(x, w, b))
    relative = roundings(shape[-1]) * eps
    assert_within(got_mean, mu[..., 0], eps * np.abs(mu[..., 0]) + relative)
    np.testing.assert_allclose(got_rstd, rstd[..., 0], rtol=relative)

    u, rstd = rms_oracle(x, RMS)
    y, got_rstd = ops.rms_norm(x, w, return_stats=True)
    np.testing.assert_allclose(y, u * w, rtol=relative)
    np.testing.assert_allclose(ops.rms_norm(x), u, rtol=relative)
    np.testing.assert_allclose(got_rstd, rstd[..., 0], rtol=relative)


@pytest.mark.sanitize
@pytest.mark.parametrize("shape", [*SHAPES, (3000, 17)])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("mean", [0.0, 100.0])
def test_backward_matches_oracle(isa, dtype, rng, shape, weighted, mean):
    x, g, w, _ = draw(rng, shape, dtype, mean)
    weight = w if weighted else None
    gw = g.astype(Wide) * (w if weighted else 1.0)
    k = roundings(shape[-1]) * np.finfo(dtype).eps
    rows = x.size // shape[-1]
    lead = tuple(range(x.ndim - 1))

    def average(v):
        return v.mean(-1, keepdims=True)

    def check(got_dx, got_dw, u, rstd, dx):
        bound = (
            4
            * k
            * rstd
            * (np.abs(gw) + average(np.abs(gw)) + (np.abs(u) + 1) * average(np.abs(gw * u)))
        )
        assert_within(got_dx, dx, bound + 4 * k * rstd * (np.abs(u) + 1) * average(np.abs(gw)))
        if weighted:
            bound = (rows * np.finfo(dtype).eps + k) * (np.abs(g) * (np.abs(u) + 1)).sum(lead)
            assert_within(got_dw, (g * u).sum(lead), 2 * bound)
        else:
            assert got_dw is None

    u, _, rstd = layer_oracle(x, LAYER)
    _, m, s = ops.layer_norm(x, return_stats=True)
    dx, dw, db = ops.layer_norm_backward(g, x, weight, m, s)
    check(dx, dw, u, rstd, rstd * (gw - average(gw) - u * average(gw * u)))
    if weighted:
        bound = rows * np.finfo(dtype).eps * np.abs(g).sum(lead)
        assert_within(db, g.astype(Wide).sum(lead), bound)
    else:
        assert db is None

    u, rstd = rms_oracle(x, RMS)
    _, s = ops.rms_norm(x, return_stats=True)
    dx, dw = ops.rms_norm_backward(g, x, weight, s)
    check(dx, dw, u, rstd, rstd * (gw - u * average(gw * u)))


def test_backward_is_the_derivative(rng):
    x, g, w, b = draw(rng, (3, 7), np.float64)
    h = 1e-6
    _, m, s = ops.layer_norm(x, w, b, return_stats=True)
    dx, dw, db = ops.layer_norm_backward(g, x, w, m, s)
    for arg, analytic in ((x, dx), (w, dw), (b, db)):
        for i in np.ndindex(arg.shape):
            ends = []
            for step in (h, -h):
                arg[i] += step
                ends.append((g * ops.layer_norm(x, w, b)).sum())
                arg[i] -= step
            assert abs((ends[0] - ends[1]) / (2 * h) - analytic[i]) < 1e-7


def test_any_thread_count_gives_the_same_bits(isa, rng, same_for_any_thread_count):
    x, g, w, b = draw(rng, (3001, 67), np.float32)
    _, m, s = same_for_any_thread_count(lambda: ops.layer_norm(x, w, b, return_stats=True))
    same_for_any_thread_count(lambda: ops.layer_norm_backward(g, x, w, m, s))
    _, s = same_for_any_thread_count(lambda: ops.rms_norm(x, w, return_stats=True))
    same_for_any_thread_count(lambda: ops.rms_norm_backward(g, x, w, s))


@pytest.mark.sanitize
@settings(max_examples=60, deadline=None)
@given(
    x=hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=9),
        elements=st.floats(-50, 50, width=32),
    ),
    data=st.data(),
)
def test_strided_views(x, data):
    view = x.transpose(data.draw(st.permutations(range(x.ndim))))
    view = view[
        tuple(slice(None, None, data.draw(st.sampled_from([1, -1, 2]))) for _ in view.shape)
    ]
    packed = np.ascontiguousarray(view)
    w = np.linspace(-1, 1, 2 * view.shape[-1]).astype(np.float32)[::2]
    results = [ops.layer_norm(v, w, w, return_stats=True) for v in (view, packed)]
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)
    _, m, s = results[0]
    grads = [ops.layer_norm_backward(v, v, w, m, s) for v in (view, packed)]
    for a, b in zip(*grads, strict=True):
        np.testing.assert_array_equal(a, b)


def test_zero_rows_and_nan(isa, dtype):
    x = np.zeros((0, 5), dtype)
    w = np.ones(5, dtype)
    y, m, s = ops.layer_norm(x, w, w, return_stats=True)
    assert y.shape == (0, 5) and m.shape == s.shape == (0,)
    dx, dw, db = ops.layer_norm_backward(x, x, w, m, s)
    assert dx.shape == (0, 5)
    np.testing.assert_array_equal(np.stack([dw, db]), np.zeros((2, 5)))
    assert ops.rms_norm(np.zeros((4, 0), dtype)).shape == (4, 0)
    x = np.ones((3, 21), dtype)
    x[1, 20] = np.nan
    y = ops.layer_norm(x)
    assert np.isnan(y[1]).all()
    np.testing.assert_array_equal(y[::2], 0)
    assert np.isnan(ops.rms_norm(x)[1]).all()


X = np.zeros((2, 3), np.float32)
W, M = np.zeros(3, np.float32), np.zeros(2, np.float32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ops.layer_norm(X.astype(int)), TypeError, "layer_norm: x dtype: expected float16"),
        (
            lambda: ops.layer_norm(np.float32(1)),
            ValueError,
            "layer_norm: x ndim: expected at least 1",
        ),
        (lambda: ops.layer_norm(X, M), ValueError, r"weight shape: expected \(3,\), got \(2,\)"),
        (lambda: ops.layer_norm(X, W, X), ValueError, r"bias shape: expected \(3,\), got \(2, 3\)"),
        (lambda: ops.layer_norm(X, W.astype("f8")), TypeError, "weight dtype: expected float32"),
        (lambda: ops.layer_norm(X, eps=-1), ValueError, "eps value: expected at least 0, got -1"),
        (lambda: ops.rms_norm(X, eps=float("nan")), ValueError, "rms_norm: eps value"),
        (lambda: ops.rms_norm(X, M), ValueError, "rms_norm: weight shape"),
        (lambda: ops.layer_norm_backward(X[:1], X, W, M, M), ValueError, "grad shape"),
        (
            lambda: ops.layer_norm_backward(X, X, W, W, M),
            ValueError,
            r"mean shape: expected \(2,\)",
        ),
        (
            lambda: ops.layer_norm_backward(X, X, W, M, W),
            ValueError,
            r"rstd shape: expected \(2,\)",
        ),
        (lambda: ops.rms_norm_backward(X, X, M, M), ValueError, "weight shape"),
        (lambda: ops.rms_norm_backward(X.astype("f8"), X, W, M), TypeError, "grad dtype"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
