"""gemm_s4 family: weights in 4 bits; exact group sums, and the stated error of linear."""

import pickle

import numpy as np
import pytest
from scipy import special

from vectile import _core, ops

GROUPS = [32, 64, 128]
SIZES = [
    (0, 3, 4),
    (3, 0, 4),
    (3, 4, 0),
    (1, 1, 1),
    (1, 67, 33),
    (67, 1, 35),
    (2, 16, 32),
    (5, 33, 127),
    (6, 15, 128),
    (7, 31, 129),
    (12, 32, 257),
    (13, 65, 303),
    (25, 17, 1031),
    (3, 40, 4099),
    (97, 48, 64),
    (211, 50, 600),
]


def by_group(x, group):
    """(..., k) -> (..., groups, group), zeros behind the last."""
    groups = -(-x.shape[-1] // group)
    padded = np.zeros((*x.shape[:-1], groups * group), x.dtype)
    padded[..., : x.shape[-1]] = x
    return padded.reshape(*x.shape[:-1], groups, group)


def spread(per_group, group, k):
    return np.repeat(per_group, group, axis=-1)[..., :k]


def linear_bound(x, dense, group):
    """Half a step of every group of x times the group's weights, and float rounding."""
    x, dense, eps = x.astype(np.float64), dense.astype(np.float64), np.finfo(x.dtype).eps
    step = np.abs(by_group(x, group)).max(axis=-1, initial=0) / 127
    rounding = (step.shape[-1] + 4) * eps * np.abs(x) @ np.abs(dense).T
    weights = np.abs(by_group(dense, group)).sum(axis=-1)
    return (1 + 4 * eps) * (step / 2) @ weights.T + rounding + np.finfo(np.float32).tiny


@pytest.mark.sanitize
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_linear_keeps_the_stated_bounds(isa, dtype, rng, size, group, symmetric):
    m, n, k = size
    x, w, bias = (rng.normal(size=s).astype(dtype) for s in ((m, k), (n, k), (n,)))
    w += dtype(0.5) * rng.normal(size=(n, 1)).astype(dtype)
    q = ops.quantize_weight(w, bits=4, group_size=group, symmetric=symmetric)
    groups = -(-k // group)
    assert q.shape == (n, k) and q.dtype == dtype and q.bits == 4 and q.group_size == group
    scales, values, dense = q.scales, q.values, q.dequantize()
    assert scales.shape == (n, groups) and scales.dtype == dense.dtype == dtype
    if symmetric:
        assert q.zero_points is None and values.dtype == np.int8
        codes = values.astype(dtype)
        top = np.maximum(
            by_group(w, group).max(-1, initial=0) / 7, -by_group(w, group).min(-1, initial=0) / 8
        )
    else:
        assert q.zero_points.dtype == values.dtype == np.uint8
        codes = values - spread(q.zero_points, group, k).astype(dtype)
        top = np.ptp(np.append(by_group(w, group), np.zeros((n, groups, 1), dtype), -1), -1) / 15
    np.testing.assert_allclose(scales, top, rtol=2e-6)
    np.testing.assert_array_equal(codes * spread(scales, group, k), dense)
    assert np.all(np.abs(dense - w) <= spread(scales, group, k) / 2 * (1 + 1e-5))

    expected = x.astype(np.float64) @ dense.astype(np.float64).T
    bound = linear_bound(x, dense, group)
    assert np.all(np.abs(ops.linear(x, q) - expected) <= bound)
    z = expected + bias
    eps = np.finfo(dtype).eps
    for name, f in {
        "relu": lambda v: np.maximum(v, 0),
        "silu": lambda v: v * special.expit(v),
    }.items():
        got = ops.linear(x, q, bias, activation=name)
        assert np.all(np.abs(got - f(z)) <= 1.1 * bound + 8 * eps * (np.abs(z) + np.abs(bias)))


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("extreme", [True, False])
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_sums_are_exact(isa, dtype, rng, size, group, extreme, symmetric):
    """With x and the weight on grids of powers of two nothing is rounded, however large the sums."""
    m, n, k = size
    groups = -(-k // group)
    x = rng.integers(-127, 127, (m, k), endpoint=True)
    x[:, ::group] = 127
    codes = rng.integers(0, 15, (n, k), endpoint=True)
    zeros = rng.integers(0, 15, (n, groups), endpoint=True).astype(np.uint8)
    if extreme:
        x = np.where(rng.random((m, 1)) < 0.5, 127, -127) * np.ones((1, k), int)
        codes[:], zeros[:] = np.where(rng.random((n, 1)) < 0.5, 15, 0), 0
    scales = np.full((n, groups), 1 / 32, dtype)
    if symmetric:
        weight = codes - 8
        q = ops.Int4Matrix(weight.astype(np.int8), scales, group_size=group)
        np.testing.assert_array_equal(q.values, weight)
    else:
        weight = codes - spread(zeros, group, k).astype(int)
        q = ops.Int4Matrix(codes.astype(np.uint8), scales, zeros, group)
        np.testing.assert_array_equal(q.values, codes)
        np.testing.assert_array_equal(q.zero_points, zeros)
    np.testing.assert_array_equal(q.scales, scales)
    got = ops.linear((x / 8).astype(dtype), q)
    np.testing.assert_array_equal(got, (x @ weight.T).astype(dtype) / 256)


@pytest.mark.parametrize("symmetric", [True, False])
def test_what_is_on_the_grid_stays(isa, dtype, rng, symmetric):
    w = rng.normal(size=(9, 100)).astype(dtype)
    q = ops.quantize_weight(w, bits=4, group_size=32, symmetric=symmetric)
    again = ops.quantize_weight(q.dequantize(), bits=4, group_size=32, symmetric=symmetric)
    np.testing.assert_allclose(again.dequantize(), q.dequantize(), rtol=4 * np.finfo(dtype).eps)


def test_large_groups_do_not_spoil_small_ones(isa, rng):
    """Each group of x has its own step: an outlier costs its own group only."""
    x = rng.normal(size=(4, 256)).astype(np.float32)
    x[:, 3] = 1e4
    w = rng.normal(size=(24, 256)).astype(np.float32)
    w[:, :32] = 0
    q = ops.quantize_weight(w, bits=4, group_size=32)
    exact = x.astype(np.float64) @ q.dequantize().T.astype(np.float64)
    assert np.abs(ops.linear(x, q) - exact).max() < 1


def test_strided_input_and_any_leading_shape(rng):
    x, w = (rng.normal(size=s).astype(np.float32) for s in ((2, 3, 5, 40), (30, 40)))
    q = ops.quantize_weight(w, bits=4, group_size=32)
    expected = ops.linear(x.reshape(-1, 40), q)
    np.testing.assert_array_equal(ops.linear(x, q), expected.reshape(2, 3, 5, 30))
    np.testing.assert_array_equal(ops.linear(x[1, 1, 1], q), ops.linear(x[1, 1, 1:2], q)[0])
    np.testing.assert_array_equal(ops.linear(x.swapaxes(0, 2), q), ops.linear(x, q).swapaxes(0, 2))
    wide = np.repeat(x, 2, axis=-1)[..., ::-2]
    np.testing.assert_array_equal(ops.linear(wide, q), ops.linear(np.ascontiguousarray(wide), q))
    for strided in (np.asfortranarray(w), np.repeat(w, 3, axis=1)[:, ::3], w[::-1][::-1]):
        again = ops.quantize_weight(strided, bits=4, group_size=32)
        np.testing.assert_array_equal(again.dequantize(), q.dequantize())
    values, scales = np.asfortranarray(q.values), np.asfortranarray(q.scales)
    again = ops.Int4Matrix(values, scales, None, 32)
    np.testing.assert_array_equal(again.dequantize(), q.dequantize())


def test_rows_do_not_depend_on_their_neighbours(isa, rng):
    """One row alone, a few, and many go through different tiles, with the same sums."""
    x, w = (rng.normal(size=s).astype(np.float32) for s in ((130, 515), (70, 515)))
    q = ops.quantize_weight(w, bits=4, group_size=64, symmetric=False)
    whole = ops.linear(x, q)
    for rows in (1, 2, 5, 6, 7, 20):
        np.testing.assert_array_equal(ops.linear(x[:rows], q), whole[:rows])


def test_any_thread_count_gives_the_same_bits(isa, rng, same_for_any_thread_count):
    x, w = (rng.normal(size=s).astype(np.float32) for s in ((203, 500), (700, 500)))
    q = ops.quantize_weight(w, bits=4, group_size=32)
    same_for_any_thread_count(lambda: ops.linear(x, q, activation="gelu"))
    same_for_any_thread_count(lambda: ops.linear(x[:1], q))
    same_for_any_thread_count(
        lambda: ops.quantize_weight(w, bits=4, group_size=128, symmetric=False).dequantize()
    )


@pytest.mark.parametrize("symmetric", [True, False])
def test_the_matrix_travels(isa, rng, symmetric):
    w, x = (rng.normal(size=s).astype(np.float32) for s in ((320, 256), (9, 256)))
    q = ops.quantize_weight(w, bits=4, group_size=64, symmetric=symmetric)
    again = ops.Int4Matrix(q.values, q.scales, q.zero_points, q.group_size)
    copy = pickle.loads(pickle.dumps(q))
    expected = ops.linear(x, q)
    for other in (again, copy):
        np.testing.assert_array_equal(ops.linear(x, other), expected)
    assert w.size / 2 + 4 * w.size / 64 <= q.nbytes < 0.6 * w.size
    assert "shape=(320, 256)" in repr(q) and "group_size=64" in repr(q)
    for tier in _core.config()["supported_isas"]:
        _core.set_isa(tier)
        np.testing.assert_array_equal(ops.linear(x, q), expected)  # keeps its own tier


def test_zero_tiny_and_non_finite_rows(isa, rng):
    x, w = (rng.normal(size=s).astype(np.float32) for s in ((6, 70), (20, 70)))
    x[0] = 0
    x[1] = 1e-42
    x[2, 3] = np.nan
    x[3, 66] = np.inf
    x[4, 5] = 1e37
    w[7] = 0
    w[8] = 1e-42
    for symmetric in (True, False):
        q = ops.quantize_weight(w, bits=4, group_size=32, symmetric=symmetric)
        y = ops.linear(x, q)
        assert np.all(y[:2] == 0) and np.isfinite(y[4:]).all()
        assert np.isnan(y[2:4]).all()
        assert np.all(y[4:, 7:9] == 0)


X, V, S, F = (
    np.zeros((2, 40), np.float32),
    np.zeros((3, 40), np.int8),
    np.ones((3, 2), np.float32),
    np.float32,
)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: ops.quantize_weight(np.ones((2, 2), F), bits=3),
            ValueError,
            "quantize_weight: bits value: expected 4 or 8, got 3",
        ),
        (
            lambda: ops.quantize_weight(np.ones((2, 2), F), group_size=32),
            ValueError,
            "quantize_weight: group_size value: expected None with 8 bits, got 32",
        ),
        (
            lambda: ops.quantize_weight(np.ones((2, 2), F), bits=4, per_channel=False),
            ValueError,
            "quantize_weight: per_channel value: expected True with 4 bits, got False",
        ),
        (
            lambda: ops.quantize_weight(np.ones((2, 2), F), bits=4, group_size=48),
            ValueError,
            "quantize_weight: group_size value: expected 32, 64 or 128, got 48",
        ),
        (
            lambda: ops.quantize_weight(np.ones(3, F), bits=4),
            ValueError,
            "quantize_weight: weight ndim: expected 2, got 1",
        ),
        (
            lambda: ops.quantize_weight(V, bits=4),
            TypeError,
            "quantize_weight: weight dtype: expected float32 or float64, got int8",
        ),
        (
            lambda: ops.quantize_weight(np.array([[1, np.nan]], F), bits=4),
            ValueError,
            "quantize_weight: weight values: expected finite numbers, got nan",
        ),
        (
            lambda: ops.quantize_weight(np.array([[1, -np.inf]], F), bits=4, symmetric=False),
            ValueError,
            "quantize_weight: weight values: expected finite numbers, got inf",
        ),
        (
            lambda: ops.Int4Matrix(V.astype(np.uint8), S),
            TypeError,
            "Int4Matrix: values dtype: expected int8, got uint8",
        ),
        (
            lambda: ops.Int4Matrix(V + 8, S),
            ValueError,
            "Int4Matrix: values value: expected -8 to 7, got 8",
        ),
        (
            lambda: ops.Int4Matrix(V.astype(np.uint8) + 16, S, np.zeros((3, 2), np.uint8)),
            ValueError,
            "Int4Matrix: values value: expected 0 to 15, got 16",
        ),
        (
            lambda: ops.Int4Matrix(V.astype(np.uint8), S, np.full((3, 2), 16, np.uint8)),
            ValueError,
            "Int4Matrix: zero_points value: expected 0 to 15, got 16",
        ),
        (
            lambda: ops.Int4Matrix(V.astype(np.uint8), S, np.zeros(3, np.uint8)),
            ValueError,
            r"Int4Matrix: zero_points shape: expected \(3, 2\), got \(3,\)",
        ),
        (
            lambda: ops.Int4Matrix(V.astype(np.uint8), S, np.zeros((3, 2), np.int8)),
            TypeError,
            "Int4Matrix: zero_points dtype: expected uint8, got int8",
        ),
        (
            lambda: ops.Int4Matrix(V, S[:, :1]),
            ValueError,
            r"Int4Matrix: scales shape: expected \(3, 2\), got \(3, 1\)",
        ),
        (
            lambda: ops.Int4Matrix(V, 0 * S),
            ValueError,
            "Int4Matrix: scales value: expected positive and finite, got 0",
        ),
        (
            lambda: ops.linear(X[:, :39], ops.Int4Matrix(V, S)),
            ValueError,
            r"linear: x shape: expected \(\.\.\., 40\), got \(2, 39\)",
        ),
        (
            lambda: ops.linear(X.astype(np.float64), ops.Int4Matrix(V, S)),
            TypeError,
            "linear: weight dtype: expected float64, got float32",
        ),
        (
            lambda: ops.linear(X, ops.Int4Matrix(V, S), np.zeros(2, F)),
            ValueError,
            r"linear: bias shape: expected \(3,\), got \(2,\)",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
