"""The gemm_s8 family on a device: exact int32 products, and the stated error of linear."""

import ml_dtypes
import numpy as np
import pytest
from on_device import EMULATED, cuda, dev, host, needs_device, run
from scipy import special

pytestmark = [needs_device, pytest.mark.usefixtures("before_hopper", "few_multiprocessors")]

BYTES = [np.int8, np.uint8]
TYPES = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16]
# Tiles are 32 x 32 up to 32 rows and 128 x 128 above, in steps of 64 along k, 8 or 4 under way; few tiles and
# much of k are cut into parts, of whole chunks of 16.
SIZES = [
    (0, 3, 4),
    (3, 0, 4),
    (3, 4, 0),
    (1, 1, 1),
    (1, 67, 33),
    (13, 31, 7),
    (31, 33, 64),
    (32, 32, 80),
    (5, 40, 1100),
    (7, 33, 1072),
    (2, 9, 2064),
    (33, 129, 65),
    (129, 100, 270),
]


def draw(rng, shape, dtype):
    """Random bytes with the extremes well represented: they are what saturates."""
    info = np.iinfo(dtype)
    x = rng.integers(info.min, info.max, size=shape, endpoint=True)
    edge = rng.choice([info.min, info.max], size=shape)
    return np.where(rng.random(shape) < 0.5, x, edge).astype(dtype)


@pytest.mark.parametrize("b_type", BYTES)
@pytest.mark.parametrize("a_type", BYTES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_matmul_integer_is_exact(rng, size, a_type, b_type):
    m, n, k = size
    a, b = draw(rng, (m, k), a_type), draw(rng, (k, n), b_type)
    a64, b64 = a.astype(np.int64), b.astype(np.int64)
    got = run("matmul_integer", a, b)
    assert got.dtype == np.int32
    np.testing.assert_array_equal(got, a64 @ b64)
    za, zb = draw(rng, (m,), a_type), draw(rng, (n,), b_type)
    got = run("matmul_integer", a, b, za, zb)
    np.testing.assert_array_equal(got, (a64 - za[:, None]) @ (b64 - zb.astype(np.int64)))
    if m > 32:
        return
    za, zb = draw(rng, (), a_type), draw(rng, (1,), b_type).astype(np.int64)
    got = run("matmul_integer", a, np.asfortranarray(b), za.astype(np.int32), zb)
    np.testing.assert_array_equal(got, (a64 - int(za)) @ (b64 - zb))
    got = run("matmul_integer", a, b, za)
    np.testing.assert_array_equal(got, (a64 - int(za)) @ b64)
    got = run("matmul_integer", a, b, None, zb)
    np.testing.assert_array_equal(got, a64 @ (b64 - zb))


def test_extremes_do_not_saturate():
    a, b = np.full((3, 2000), 255, np.uint8), np.full((2000, 5), -128, np.int8)
    np.testing.assert_array_equal(run("matmul_integer", a, b), -65280000)
    np.testing.assert_array_equal(run("matmul_integer", a, b.view(np.uint8)), 65280000)


@pytest.mark.parametrize("k", [16, 30, 64])
@pytest.mark.parametrize(
    "batch_a, batch_b", [((), (3,)), ((2,), ()), ((2, 1), (3,)), ((2, 3), (2, 3)), ((0,), ())]
)
def test_batches_and_strides(rng, batch_a, batch_b, k):
    m, n = 9, 20
    for step in (1, -2):
        a = draw(rng, (*batch_a, m, k * abs(step)), np.uint8)[..., ::step]
        b = draw(rng, (*batch_b, k, n * abs(step)), np.int8)[..., ::step]
        za, zb = draw(rng, (m,), a.dtype), draw(rng, (n,), b.dtype)
        want = (a.astype(np.int64) - za[:, None]) @ (b.astype(np.int64) - zb)
        np.testing.assert_array_equal(run("matmul_integer", a, b, za, zb), want)
        column = np.ascontiguousarray(b.swapaxes(-1, -2)).swapaxes(-1, -2)  # (..., n, k) in memory
        np.testing.assert_array_equal(run("matmul_integer", a, column, za[::-1][::-1], zb), want)
        swapped = np.moveaxis(np.moveaxis(b, -1, 0).copy(), 0, -1)
        np.testing.assert_array_equal(run("matmul_integer", a, swapped, za, zb), want)


def test_unaligned_rows(rng):
    base = draw(rng, (40 * 64 + 16,), np.int8)
    for offset in (0, 1, 16):
        a = base[offset : offset + 40 * 64].reshape(40, 64)
        np.testing.assert_array_equal(
            run("matmul_integer", a, a.T), a.astype(int) @ a.T.astype(int)
        )
        part = a[:, 16:48]  # rows further apart than they are long
        want = part.astype(int) @ part.T.astype(int)
        np.testing.assert_array_equal(run("matmul_integer", part, part.T), want)


def test_vectors(rng):
    a, b = draw(rng, (30,), np.uint8), draw(rng, (30, 4), np.int8)
    want = a.astype(np.int64) @ b.astype(np.int64)
    np.testing.assert_array_equal(run("matmul_integer", a, b), want)
    np.testing.assert_array_equal(run("matmul_integer", b.T, a), want)
    assert run("matmul_integer", a, a).shape == ()


@pytest.mark.parametrize("y_type", BYTES)
@pytest.mark.parametrize("a_type", BYTES)
@pytest.mark.parametrize("size", [(7, 33, 130), (65, 50, 33), (0, 4, 3)], ids=str)
def test_qlinear_matmul(rng, size, a_type, y_type):
    m, n, k = size
    a, b = draw(rng, (m, k), a_type), draw(rng, (k, n), np.int8)
    za, zb, zy = draw(rng, (), a_type), draw(rng, (n,), np.int8), draw(rng, (), y_type)
    exact = (a.astype(np.int64) - int(za)) @ (b.astype(np.int64) - zb)
    info = np.iinfo(y_type)
    sy = np.array(0.3, np.float32)
    for sa, sb in [
        (np.array(0.02, np.float32), rng.uniform(0.001, 0.01, n).astype(np.float32)),
        (rng.uniform(0.01, 0.1, m).astype(np.float32), np.array([0.004])),
    ]:
        got = run("qlinear_matmul", a, sa, za, b, sb, zb, sy, zy)
        scale = np.reshape(sa, (-1, 1)) * (sb.astype(np.float32) / sy)
        want = np.rint(exact.astype(np.float32) * scale) + np.float32(zy)
        np.testing.assert_array_equal(got, np.clip(want, info.min, info.max).astype(y_type))
        assert got.dtype == y_type


def dense_of(values, scales, zero_points=None):
    zero = 0 if zero_points is None else np.reshape(zero_points, (-1, 1)).astype(np.float64)
    return (values - zero) * np.reshape(scales, (-1, 1)).astype(np.float64)


def wide_of(dtype):
    return np.float64 if dtype == np.float64 else np.float32


def step_of(x, symmetric):
    """Of each row of x (float64)."""
    low, high = np.minimum(x.min(-1, initial=0), 0), np.maximum(x.max(-1, initial=0), 0)
    step = np.maximum(high, -low) / 127 if symmetric else (high - low) / 255
    return step[:, None]


def close(got, want, bound, dtype):
    """Within the bound, and what rounding to the dtype adds."""
    eps = float(ml_dtypes.finfo(dtype).eps)
    return (abs(got.astype(np.float64) - want) <= bound + eps * (abs(want) + bound) + 1e-7).all()


def silu(x):
    return x * special.expit(x)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_quantized_linear_keeps_its_bound(rng, size, dtype, symmetric):
    m, n, k = size
    wide = wide_of(dtype)
    x, bias = (rng.normal(0.3, 1, s).astype(dtype) for s in ((m, k), (n,)))
    q = run("quantize_weight", rng.normal(size=(n, k)).astype(wide), symmetric=symmetric)
    dense, exact = dense_of(*q), x.astype(np.float64)
    # half a step of each row of x against |w|, and the rounding of scales and of the product
    bound = (0.5 + 1e-3) * step_of(exact, symmetric) * abs(dense).sum(1)
    bound += 16 * float(ml_dtypes.finfo(wide).eps) * (abs(exact) @ abs(dense).T)
    exact = exact @ dense.T
    got = run("quantized_linear", x, *q, symmetric=symmetric)
    assert got.dtype == dtype and got.shape == (m, n)
    assert close(got, exact, bound, dtype)
    if m > 32:
        return
    exact = exact + bias.astype(np.float64)
    for name, f in (("relu", lambda z: np.maximum(z, 0)), ("silu", silu)):
        options = {"bias": bias, "activation": name, "symmetric": symmetric}
        got = run("quantized_linear", x, *q, **options)
        assert close(got, f(exact), 1.1 * bound, dtype)
    got = run("quantized_linear", x, *q, bias.astype(wide), symmetric=symmetric)
    assert close(got, exact, bound, dtype)


@pytest.mark.parametrize("low", [0, -128])
@pytest.mark.parametrize("size", [s for s in SIZES if s[2] > 1], ids=str)
def test_linear_is_exact_on_its_own_grid(rng, size, low):
    """Where x and the weight are on the grid that quantisation chooses, nothing is rounded."""
    m, n, k = size
    x = rng.integers(low, low + 255, (m, k), endpoint=True)
    w = rng.integers(-127, 127, (n, k), endpoint=True)
    x[:, :1], x[:, 1:2], w[:, -1:] = low, low + 255, 127
    q = run("quantize_weight", (w / 32).astype(np.float32))
    np.testing.assert_array_equal(q[0], w)
    got = run("quantized_linear", (x / 8).astype(np.float32), *q)
    np.testing.assert_array_equal(got, x @ w.T / 256)


@pytest.mark.parametrize("k", [511, 4096, 17000])
def test_long_rows(rng, k):
    """Rows that fit the registers of more threads, and that do not fit."""
    x, w = rng.normal(size=(2, k)).astype(np.float32), rng.normal(size=(3, k)).astype(np.float32)
    q = run("quantize_weight", w)
    dense = dense_of(*q)
    bound = 0.51 * step_of(x.astype(np.float64), False) * abs(dense).sum(1)
    got = run("quantized_linear", x, *q)
    assert close(got, x.astype(np.float64) @ dense.T, bound, np.float32)
    again = run("quantized_linear", x, *q, x_scale=np.array(0.02, np.float32))
    codes = np.clip(np.rint(x.astype(np.float64) / 0.02), -128, 127) * 0.02
    # what is a tie up to rounding may go either way
    ties = abs(abs(x / 0.02 - np.rint(x / 0.02)) - 0.5) < 1e-4
    slack = 0.02 * ties @ abs(dense).T + 1e-5 * (abs(x) @ abs(dense).T)
    assert close(again, codes @ dense.T, slack, np.float32)


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("dtype", TYPES[:2])
@pytest.mark.parametrize("size", [(1, 1), (3, 0), (0, 5), (20, 33), (7, 2600)], ids=str)
def test_quantize_weight(rng, size, dtype, symmetric, per_channel):
    w = rng.normal(1, 1, size).astype(dtype) * np.linspace(0.1, 5, size[0], dtype=dtype)[:, None]
    if size == (20, 33):
        w[3], w[4] = np.abs(w[3]), 0
    values, scales, zeros = run("quantize_weight", w, symmetric=symmetric, per_channel=per_channel)
    shape = (size[0],) if per_channel else ()
    assert values.dtype == np.int8 and scales.shape == shape and scales.dtype == dtype
    axis = 1 if per_channel else None
    low, high = np.minimum(w.min(axis, initial=0), 0), np.maximum(w.max(axis, initial=0), 0)
    if symmetric:
        assert zeros is None
        step, zero = np.maximum(-low, high) / dtype(127), 0
    else:
        assert zeros.dtype == np.int8 and zeros.shape == shape
        step = high / dtype(255) - low / dtype(255)
        safe = np.where(step > 0, step, 1)
        np.testing.assert_array_equal(zeros, np.clip(np.rint(-low / safe) - 128, -128, 127))
        zero = np.reshape(zeros.astype(dtype), (-1, 1))
    np.testing.assert_array_equal(scales, np.where(step > 0, step, 1))
    want = np.clip(np.rint(w / np.reshape(scales, (-1, 1))) + zero, -128, 127)
    np.testing.assert_array_equal(values, want)


def test_fixed_range_saturates():
    x = np.array([[-9, -1, 0, 1, 9]], np.float32)
    q = run("quantize_weight", np.eye(5, dtype=np.float32))
    step = np.array(0.015625, np.float32)
    for zero, low in ((np.array(64, np.uint8), 0), (np.array(-64, np.int8), -128)):
        got = run("quantized_linear", x, *q, x_scale=step, x_zero_point=zero)
        want = np.clip(np.rint(x / step) + int(zero), low, low + 255) - int(zero)
        np.testing.assert_allclose(got, want * step, rtol=1e-6)


def test_linear_takes_any_leading_shape(rng):
    x, w = (rng.normal(size=s).astype(np.float32) for s in ((2, 3, 5, 40), (30, 40)))
    q = run("quantize_weight", w)
    want = run("quantized_linear", x.reshape(-1, 40), *q)
    np.testing.assert_array_equal(run("quantized_linear", x, *q), want.reshape(2, 3, 5, 30))
    np.testing.assert_array_equal(run("quantized_linear", x[1, 1, 1], *q), want[21])
    got = run("quantized_linear", x.swapaxes(0, 2), *q)
    np.testing.assert_array_equal(got, want.reshape(2, 3, 5, 30).swapaxes(0, 2))
    one = run("quantize_weight", w, per_channel=False, symmetric=False)
    dense = dense_of(*one)
    bound = 0.51 * step_of(x.reshape(-1, 40).astype(np.float64), False) * abs(dense).sum(1)
    got = run("quantized_linear", x.reshape(-1, 40), *one)
    assert close(got, x.reshape(-1, 40).astype(np.float64) @ dense.T, bound, np.float32)


def test_zero_and_non_finite_rows(rng):
    x, w = (rng.normal(size=s).astype(np.float32) for s in ((5, 33), (20, 33)))
    x[0], x[1], x[2, 3], x[3, 4], w[7] = 0, 1e-42, np.nan, np.inf, 0
    y = run("quantized_linear", x, *run("quantize_weight", w))
    assert (y[:2] == 0).all() and np.isfinite(y[4]).all() and (y[4, 7] == 0)
    assert np.isnan(y[2]).all() and np.isnan(y[3]).all()
    x = np.array([[3e38, -3e38, 1.0]], np.float32)
    y = run("quantized_linear", x, *run("quantize_weight", np.eye(3, dtype=np.float32)))
    np.testing.assert_allclose(y, x, rtol=0, atol=0.51 * 6e38 / 255)
    w[2, 5], w[3, 6] = np.nan, -np.inf
    _, scales, _ = run("quantize_weight", w)
    assert np.isnan(scales[2:4]).all() and np.isfinite(np.delete(scales, [2, 3])).all()


A, B = np.zeros((2, 5), np.int8), np.zeros((5, 3), np.int8)
F = np.float32
X, V, S = np.ones((2, 5), F), np.ones((3, 5), np.int8), np.ones(3, F)
ONE, ZERO = np.ones((), F), np.zeros((), np.int8)


@pytest.mark.parametrize(
    ("name", "arguments", "options", "error", "message"),
    [
        (
            "matmul_integer",
            (A, A),
            {},
            ValueError,
            r"^matmul_integer: b shape: expected \(\.\.\., 5, \*\), got \(2, 5\)$",
        ),
        (
            "matmul_integer",
            (A.astype(F), B),
            {},
            TypeError,
            "matmul_integer: a dtype: expected int8 or uint8, got float32",
        ),
        (
            "matmul_integer",
            (A, B, np.arange(3)),
            {},
            ValueError,
            r"a_zero_point shape: expected \(\) or \(2,\), got \(3,\)",
        ),
        (
            "matmul_integer",
            (A, B, None, ONE),
            {},
            TypeError,
            "b_zero_point dtype: expected an integer type, got float32",
        ),
        (
            "qlinear_matmul",
            (A, ONE, ZERO, B, ONE, ZERO, ONE, np.zeros((), np.int64)),
            {},
            TypeError,
            "y_zero_point dtype: expected int8 or uint8, got int64",
        ),
        (
            "qlinear_matmul",
            (A, S, ZERO, B, ONE, ZERO, ONE, ZERO),
            {},
            ValueError,
            r"a_scale shape: expected \(\) or \(2,\), got \(3,\)",
        ),
        ("quantize_weight", (S,), {}, ValueError, "weight ndim: expected 2, got 1"),
        ("quantize_weight", (B,), {}, TypeError, "weight dtype: expected float32 or float64"),
        (
            "quantized_linear",
            (X[:, :4], V, S),
            {},
            ValueError,
            r"quantized_linear: x shape: expected \(\.\.\., 5\), got \(2, 4\)",
        ),
        (
            "quantized_linear",
            (X.astype(float), V, S),
            {},
            TypeError,
            "quantized_linear: weight dtype: expected float64, got float32",
        ),
        (
            "quantized_linear",
            (X, V.view(np.uint8), S),
            {},
            TypeError,
            "values dtype: expected int8",
        ),
        ("quantized_linear", (X, V, S[:2]), {}, ValueError, r"scales shape: expected \(3,\)"),
        (
            "quantized_linear",
            (X, V, S, np.zeros(3, np.uint8)),
            {},
            TypeError,
            "zero_points dtype: expected int8, got uint8",
        ),
        (
            "quantized_linear",
            (X, V, S, None, S[:2]),
            {},
            ValueError,
            r"bias shape: expected \(3,\), got \(2,\)",
        ),
        (
            "quantized_linear",
            (X, V, S),
            {"x_scale": S},
            ValueError,
            r"x_scale shape: expected \(\)",
        ),
        (
            "quantized_linear",
            (X, V, S),
            {"x_zero_point": ZERO},
            ValueError,
            "x_zero_point value: expected None without x_scale",
        ),
        ("quantized_linear", (X, V, S), {"activation": "no"}, ValueError, "activation value"),
    ],
)
def test_errors(name, arguments, options, error, message):
    with pytest.raises(error, match=message):
        run(name, *arguments, **options)


@pytest.mark.skipif(EMULATED, reason="one after the other in the emulation anyway")
def test_results_repeat(rng):
    x, w = (dev(rng.normal(size=s).astype(F)) for s in ((300, 700), (600, 700)))
    q = cuda.quantize_weight(w)
    first, second = (host(cuda.quantized_linear(x, *q)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
