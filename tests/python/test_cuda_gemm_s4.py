"""The gemm_s4 family on a device: quantised weights, and products with them as they are."""

import ml_dtypes
import numpy as np
import pytest
from on_device import needs_device, run
from scipy import special

pytestmark = needs_device

TYPES = (np.float32, np.float64, np.float16, ml_dtypes.bfloat16)
GROUPS = (32, 64, 128)
# A warp has two columns, 256 along k to a load and 2048 to a turn; 1, 4 or 8 rows share a read.
SIZES = [
    (0, 3, 4),
    (3, 0, 4),
    (3, 4, 0),
    (1, 1, 1),
    (1, 67, 33),
    (2, 16, 32),
    (5, 9, 127),
    (4, 8, 256),
    (8, 7, 257),
    (9, 3, 303),
    (17, 2, 2049),
    (1, 3, 4098),
]


def by_group(x, group):
    """(n, k) -> (n, groups, group), zeros behind the last."""
    padded = np.zeros((len(x), -(-x.shape[1] // group) * group), x.dtype)
    padded[:, : x.shape[1]] = x
    return padded.reshape(len(x), padded.shape[1] // group, group)


def spread(per_group, group, k):
    return np.repeat(per_group, group, axis=-1)[..., :k]


def unpack(packed, k):
    n, row = packed.shape
    return np.stack([packed & 15, packed >> 4], -1).reshape(n, 2 * row)[:, :k].astype(int)


def dense_of(packed, scales, zeros, group, k):
    zero = 8 if zeros is None else spread(zeros, group, k).astype(np.float64)
    return (unpack(packed, k) - zero) * spread(scales, group, k).astype(np.float64)


def wide_of(dtype):
    return np.float64 if dtype == np.float64 else np.float32


def eps_of(dtype):
    return float(ml_dtypes.finfo(dtype).eps)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("dtype", TYPES[:2])
@pytest.mark.parametrize("size", [(0, 3), (3, 0), (1, 1), (7, 33), (5, 300)], ids=str)
def test_quantize_weight(rng, size, dtype, group, symmetric):
    n, k = size
    w = (rng.normal(size=size) + 0.5 * rng.normal(size=(n, 1))).astype(dtype)
    w[-1:] = 0
    packed, scales, zeros = run("quantize_weight_4bit", w, group, symmetric)
    groups = -(-k // group)
    assert packed.dtype == np.uint8 and packed.shape == (n, -(-k // 2))
    assert scales.dtype == dtype and scales.shape == (n, groups)
    parts = by_group(w, group)
    low, high = np.minimum(parts.min(-1, initial=0), 0), np.maximum(parts.max(-1, initial=0), 0)
    if symmetric:
        assert zeros is None
        step, zero = np.maximum(high / dtype(7), -low / dtype(8)), np.full((n, groups), 8)
    else:
        assert zeros.dtype == np.uint8 and zeros.shape == (n, groups)
        step, zero = high / dtype(15) - low / dtype(15), zeros
        safe = np.where(step > 0, step, 1)
        np.testing.assert_array_equal(zeros, np.clip(np.rint(-low / safe), 0, 15))
    np.testing.assert_array_equal(scales, np.where(step > 0, step, 1))
    codes = np.rint(w / spread(scales, group, k)) + spread(zero, group, k)
    np.testing.assert_array_equal(unpack(packed, k), np.clip(codes, 0, 15))
    if k % 2:
        assert (packed[:, -1] >> 4 == 0).all()


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_linear_keeps_its_bound(rng, size, dtype, symmetric):
    m, n, k = size
    group = GROUPS[(m + n) % 3]
    wide = wide_of(dtype)
    x, bias = (rng.normal(size=s).astype(dtype) for s in ((m, k), (n,)))
    q = run("quantize_weight_4bit", rng.normal(0.2, 1, (n, k)).astype(wide), group, symmetric)
    dense, exact = dense_of(*q, group, k), x.astype(np.float64)
    bound = (k + 4) * eps_of(wide) * (abs(exact) @ abs(dense).T)
    exact = exact @ dense.T
    got = run("linear_4bit", x, *q, group_size=group)
    assert got.dtype == dtype and got.shape == (m, n)
    assert (abs(got - exact) <= bound + eps_of(dtype) * abs(exact) + 1e-7).all()
    exact = exact + bias.astype(np.float64)
    bound = 1.1 * bound + 8 * eps_of(wide) * (abs(exact) + abs(bias.astype(np.float64)) + 1)
    for given in (bias, bias.astype(wide)):
        got = run("linear_4bit", x, *q, given, group_size=group, activation="silu")
        want = exact * special.expit(exact)
        assert (abs(got - want) <= bound + eps_of(dtype) * abs(want)).all()


@pytest.mark.parametrize("group", GROUPS)
def test_sums_are_exact(rng, group):
    """On grids of powers of two nothing is rounded."""
    m, n, k = 3, 5, 4 * group + 40
    x = rng.integers(-127, 127, (m, k), endpoint=True)
    packed = rng.integers(0, 255, (n, k // 2), endpoint=True).astype(np.uint8)
    groups = -(-k // group)
    zeros = rng.integers(0, 15, (n, groups), endpoint=True).astype(np.uint8)
    scales = 2.0 ** rng.integers(-3, 0, (n, groups))
    for zero in (zeros, None):
        want = x @ dense_of(packed, scales, zero, group, k).T / 8
        for dtype in TYPES[:2]:
            weight = (packed, scales.astype(dtype), zero)
            got = run("linear_4bit", (x / 8).astype(dtype), *weight, group_size=group)
            np.testing.assert_array_equal(got, want)


def test_strides_and_leading_axes(rng):
    x = rng.normal(size=(2, 3, 80)).astype(np.float32)[..., ::-2]
    packed, scales, _ = run("quantize_weight_4bit", rng.normal(size=(14, 40)), 32, True)
    scales = scales.astype(np.float32)
    dense = dense_of(packed, scales, None, 32, 40)[::2]
    got = run("linear_4bit", x, packed[::2], scales[::2], group_size=32)
    np.testing.assert_allclose(got, x @ dense.T, rtol=1e-5, atol=1e-5)
    flat = rng.normal(size=41).astype(np.float32)[1:]  # no vector may be read from it
    got = run("linear_4bit", flat, packed[::2], scales[::2], group_size=32)
    np.testing.assert_allclose(got, flat @ dense.T, rtol=1e-5, atol=1e-5)


def test_non_finite_numbers(rng):
    w = rng.normal(size=(4, 100)).astype(np.float32)
    w[1, 40], w[2, 99] = np.nan, np.inf
    _, scales, _ = run("quantize_weight_4bit", w, 32, False)
    assert np.isnan(scales[1, 1]) and np.isnan(scales[2, 3]) and np.isnan(scales).sum() == 2
    q = run("quantize_weight_4bit", rng.normal(size=(4, 100)).astype(np.float32), 32, False)
    x = rng.normal(size=(3, 100)).astype(np.float32)
    x[1, 7] = np.nan
    y = run("linear_4bit", x, *q, group_size=32)
    assert np.isnan(y[1]).all() and np.isfinite(y[[0, 2]]).all()


F = np.float32
X, P, S = np.ones((2, 65), F), np.ones((3, 33), np.uint8), np.ones((3, 3), F)


@pytest.mark.parametrize(
    ("name", "arguments", "error", "message"),
    [
        (
            "quantize_weight_4bit",
            (X, 48, True),
            ValueError,
            "quantize_weight: group_size value: expected 32, 64 or 128, got 48",
        ),
        ("quantize_weight_4bit", (X[0], 32, True), ValueError, "weight ndim: expected 2, got 1"),
        ("quantize_weight_4bit", (P, 32, True), TypeError, "weight dtype: expected float32"),
        ("linear_4bit", (P, P, S), TypeError, "x dtype: expected float16"),
        ("linear_4bit", (X, P.astype(np.int8), S), TypeError, "packed dtype: expected uint8"),
        ("linear_4bit", (X, P[:, :32], S), ValueError, r"packed shape: expected \(3, 33\)"),
        ("linear_4bit", (X, P, S[:, :2]), ValueError, r"scales shape: expected \(3, 3\)"),
        ("linear_4bit", (X.astype(float), P, S), TypeError, "weight dtype: expected float64"),
        ("linear_4bit", (X, P, S, S), TypeError, "zero_points dtype: expected uint8"),
        ("linear_4bit", (X, P, S, P), ValueError, r"zero_points shape: expected \(3, 3\)"),
        ("linear_4bit", (X, P, S, None, S[0, :2]), ValueError, r"bias shape: expected \(3,\)"),
    ],
)
def test_errors(name, arguments, error, message):
    options = {"group_size": 32} if name == "linear_4bit" else {}
    with pytest.raises(error, match=message):
        run(name, *arguments, **options)
