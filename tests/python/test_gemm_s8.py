"""gemm_s8 family: exact int32 oracle, and the stated error of the dynamic linear."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from vectile import _core, ops

SIZES = [
    (0, 3, 4),
    (3, 0, 4),
    (3, 4, 0),
    (1, 1, 1),
    (1, 67, 33),
    (67, 1, 35),
    (13, 31, 7),
    (14, 32, 16),
    (15, 33, 17),
    (29, 65, 303),
    (5, 40, 4099),
    (130, 300, 259),
]
BYTES = [np.int8, np.uint8]


def draw(rng, shape, dtype):
    """Random bytes with the extremes well represented: they are what saturates."""
    info = np.iinfo(dtype)
    x = rng.integers(info.min, info.max, size=shape, endpoint=True)
    edge = rng.choice([info.min, info.max], size=shape)
    return np.where(rng.random(shape) < 0.5, x, edge).astype(dtype)


@pytest.mark.sanitize
@pytest.mark.parametrize("b_type", BYTES)
@pytest.mark.parametrize("a_type", BYTES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_matmul_integer_is_exact(isa, rng, size, a_type, b_type):
    m, n, k = size
    a, b = draw(rng, (m, k), a_type), draw(rng, (k, n), b_type)
    a64, b64 = a.astype(np.int64), b.astype(np.int64)
    got = ops.matmul_integer(a, b)
    assert got.dtype == np.int32
    np.testing.assert_array_equal(got, a64 @ b64)
    np.testing.assert_array_equal(ops.matmul_integer(a, np.asfortranarray(b)), a64 @ b64)
    za, zb = draw(rng, (), a_type), draw(rng, (), b_type)
    got = ops.matmul_integer(a, b, za, zb)
    np.testing.assert_array_equal(got, (a64 - int(za)) @ (b64 - int(zb)))
    za, zb = draw(rng, (m,), a_type), draw(rng, (n,), b_type)
    got = ops.matmul_integer(a, b, za, zb)
    np.testing.assert_array_equal(got, (a64 - za[:, None]) @ (b64 - zb.astype(np.int64)))
    np.testing.assert_array_equal(ops.matmul_integer(a, b, za), (a64 - za[:, None]) @ b64)


def test_extremes_do_not_saturate(isa):
    """255 * -128 summed in pairs leaves int16: the trap of VPMADDUBSW."""
    a = np.full((20, 1000), 255, np.uint8)
    b = np.full((1000, 40), -128, np.int8)
    np.testing.assert_array_equal(ops.matmul_integer(a, b), -32640000)


@pytest.mark.sanitize
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_strided_batches(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    m, n, k = (data.draw(st.integers(0, 40)) for _ in range(3))
    batch_a, batch_b = data.draw(
        st.sampled_from([((), ()), ((2,), ()), ((), (3,)), ((2, 1), (3,))])
    )
    types = st.sampled_from(BYTES)

    def view(batch, rows, columns):
        sr, sc = (data.draw(st.sampled_from([1, -1, 2])) for _ in range(2))
        shape = (*batch, rows * abs(sr), columns * abs(sc))
        x = draw(rng, shape, data.draw(types))
        if data.draw(st.booleans()):
            x = np.ascontiguousarray(x.swapaxes(-1, -2)).swapaxes(-1, -2)
        return x[..., ::sr, ::sc]

    a, b = view(batch_a, m, k), view(batch_b, k, n)
    za, zb = draw(rng, (m,), a.dtype), draw(rng, (n,), b.dtype)
    expected = (a.astype(np.int64) - za[:, None]) @ (b.astype(np.int64) - zb)
    np.testing.assert_array_equal(ops.matmul_integer(a, b, za, zb), expected)


def test_vectors(rng):
    a, b = draw(rng, (30,), np.uint8), draw(rng, (30, 4), np.int8)
    expected = a.astype(np.int64) @ b.astype(np.int64)
    np.testing.assert_array_equal(ops.matmul_integer(a, b), expected)
    np.testing.assert_array_equal(ops.matmul_integer(b.T, a), expected)
    assert ops.matmul_integer(a, a).shape == ()


@pytest.mark.sanitize
@pytest.mark.parametrize("y_type", BYTES)
@pytest.mark.parametrize("a_type", BYTES)
def test_qlinear_matmul(isa, rng, a_type, y_type):
    m, n, k = 37, 50, 130
    a, b = draw(rng, (m, k), a_type), draw(rng, (k, n), np.int8)
    za, zb, zy = draw(rng, (), a_type), draw(rng, (n,), np.int8), draw(rng, (), y_type)
    for sa, sb in [
        (np.float32(0.02), rng.uniform(0.001, 0.01, n).astype(np.float32)),
        (rng.uniform(0.01, 0.1, m).astype(np.float32), np.float32(0.004)),
    ]:
        sy = np.float32(0.3)
        got = ops.qlinear_matmul(a, sa, za, b, sb, zb, sy, zy)
        exact = (a.astype(np.int64) - int(za)) @ (b.astype(np.int64) - zb)
        scale = np.reshape(sa, (-1, 1)) * (sb / sy)
        assert scale.dtype == np.float32
        info = np.iinfo(y_type)
        expected = np.rint(exact.astype(np.float32) * scale) + np.float32(zy)
        np.testing.assert_array_equal(got, np.clip(expected, info.min, info.max).astype(y_type))
        assert got.dtype == y_type


def linear_bound(x, w):
    """half a step of each row of x against |w|, and the rounding of scales, products and the sum:
    a handful of eps of sum |x| |w| plus the step's own error."""
    eps = np.finfo(x.dtype).eps
    x64, w64 = x.astype(np.float64), np.abs(w.astype(np.float64))
    low, high = np.minimum(x64.min(-1, initial=0), 0), np.maximum(x64.max(-1, initial=0), 0)
    step = ((high - low) / 255)[..., None]
    return (0.5 + 256 * 4 * eps) * step * w64.sum(1) + 8 * eps * (np.abs(x64) @ w64.T)


@pytest.mark.sanitize
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_dynamic_linear_keeps_its_bound(isa, dtype, rng, size):
    m, n, k = size
    x, w, bias = (rng.normal(size=s).astype(dtype) for s in ((m, k), (n, k), (n,)))
    x += rng.normal(size=(m, 1)).astype(dtype)
    q = ops.quantize_weight(w)
    assert q.shape == (n, k) and q.dtype == dtype
    dense = q.dequantize()
    assert dense.dtype == dtype and q.values.dtype == np.int8 and q.scales.shape == (n,)
    np.testing.assert_array_equal(q.values * q.scales[:, None], dense)
    half_step = np.abs(w).max(axis=1, initial=0) / 254 * (1 + 1e-5)
    assert np.all(np.abs(dense - w) <= half_step[:, None])
    expected = x.astype(np.float64) @ dense.astype(np.float64).T
    bound = linear_bound(x, dense)
    assert np.all(np.abs(ops.linear(x, q) - expected) <= bound)
    z = expected + bias
    eps = np.finfo(dtype).eps
    for name, f in {
        "relu": lambda v: np.maximum(v, 0),
        "silu": lambda v: v * special.expit(v),
    }.items():
        got = ops.linear(x, q, bias, activation=name)
        assert np.all(np.abs(got - f(z)) <= 1.1 * bound + 8 * eps * (np.abs(z) + np.abs(bias)))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("low", [0, -128])
def test_dynamic_linear_is_exact_on_its_own_grid(isa, dtype, rng, size, low):
    """Where x and the weight are on the grid that quantisation chooses, only the result is rounded."""
    m, n, k = size
    x = rng.integers(low, low + 255, (m, k), endpoint=True)
    w = rng.integers(-127, 127, (n, k), endpoint=True)
    x[:, :1], x[:, 1:2], w[:, -1:] = low, low + 255, 127
    if k == 1:  # a single value: its row's step is that value's 255th part
        x[:] = 255
    exact = x.astype(np.int64) @ w.T.astype(np.int64)
    got = ops.linear((x / 8).astype(dtype), ops.quantize_weight((w / 32).astype(dtype)))
    np.testing.assert_array_equal(got, exact.astype(dtype) / 256)


@pytest.mark.sanitize
@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (3, 0), (0, 5), (20, 33), (70, 260)], ids=str)
def test_quantize_weight_keeps_half_a_step(isa, dtype, rng, size, symmetric, per_channel):
    w = rng.normal(1, 1, size).astype(dtype) * np.linspace(0.1, 5, size[0], dtype=dtype)[:, None]
    if size == (20, 33):
        w[3], w[4] = np.abs(w[3]), 0
    q = ops.quantize_weight(w, symmetric=symmetric, per_channel=per_channel)
    shape = (size[0],) if per_channel else ()
    assert q.scales.shape == shape and q.scales.dtype == dtype and q.values.shape == size
    axis = 1 if per_channel else None
    low, high = w.min(axis, initial=0), w.max(axis, initial=0)
    if symmetric:
        assert q.zero_points is None
        step, zero = np.maximum(-low, high) / 127, 0
    else:
        assert q.zero_points.dtype == np.int8 and q.zero_points.shape == shape
        step, zero = high / 255 - low / 255, np.reshape(q.zero_points.astype(int), (-1, 1))
    np.testing.assert_allclose(q.scales, np.where(step > 0, step, 1), rtol=1e-6)
    scale = np.reshape(q.scales, (-1, 1))
    dense = q.dequantize()
    np.testing.assert_array_equal(dense, (q.values - zero).astype(dtype) * scale)
    assert np.all(np.abs(dense.astype(np.float64) - w) <= scale * (0.5 + 1e-4))


def quantized(x, scale, zero, low):
    """ONNX's QuantizeLinear in float64, half to even."""
    return np.clip(np.rint(x.astype(np.float64) / scale) + zero, low, low + 255) - zero


@pytest.mark.sanitize
@pytest.mark.parametrize("asymmetric_weight", [False, True])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_quantized_linear_keeps_its_bound(isa, dtype, rng, size, asymmetric_weight):
    """Every way to quantise x, on weights with and without zero points."""
    m, n, k = size
    x, w, bias = (rng.normal(0.3, 1, s).astype(dtype) for s in ((m, k), (n, k), (n,)))
    q = ops.quantize_weight(w, symmetric=not asymmetric_weight, per_channel=not asymmetric_weight)
    dense = q.dequantize().astype(np.float64)
    exact = x.astype(np.float64) @ dense.T + bias
    top = np.abs(x).max(1, initial=0)[:, None]
    eps = np.finfo(dtype).eps
    rounding = 600 * eps * (top * np.abs(dense).sum(1) + np.abs(bias))
    bound = 0.5 * top / 127 * np.abs(dense).sum(1) + rounding
    got = ops.quantized_linear(x, q, bias, symmetric=True)
    assert got.dtype == dtype and np.all(np.abs(got - exact) <= bound)
    np.testing.assert_array_equal(ops.quantized_linear(x, q, bias), ops.linear(x, q, bias))
    for zero, low in ((None, 0), (np.uint8(100), 0), (np.int8(-20), -128)):
        z = 128 if zero is None else int(zero)
        scale = dtype(np.abs(x).max(initial=0) / 90 + 0.01)
        got = ops.quantized_linear(x, q, bias, x_scale=scale, x_zero_point=zero, activation="relu")
        # A tie may go either way, since the kernel multiplies by 1 / scale: one step of one weight.
        expected = quantized(x, float(scale), z, low) * float(scale) @ dense.T + bias
        ties = np.abs(np.abs(x / scale - np.rint(x / scale)) - 0.5) < 1e-4
        slack = ties.astype(np.float64) @ np.abs(dense).T * float(scale) + 2 * rounding
        assert np.all(np.abs(got - np.maximum(expected, 0)) <= slack)


def test_static_quantisation_saturates(isa):
    x = np.array([[-9, -1, 0, 1, 9]], np.float32)
    q = ops.quantize_weight(np.eye(5, dtype=np.float32))
    got = ops.quantized_linear(x, q, x_scale=np.float32(0.015625), x_zero_point=np.uint8(64))
    np.testing.assert_allclose(got, [[-1, -1, 0, 1, 191 / 64]], rtol=1e-6)


def test_linear_takes_any_leading_shape(rng):
    x, w = (rng.normal(size=s).astype(np.float32) for s in ((2, 3, 5, 40), (30, 40)))
    q = ops.quantize_weight(w)
    expected = ops.linear(x.reshape(-1, 40), q)
    np.testing.assert_array_equal(ops.linear(x, q), expected.reshape(2, 3, 5, 30))
    np.testing.assert_array_equal(ops.linear(x[1, 1, 1], q), ops.linear(x[1, 1, 1:2], q)[0])
    np.testing.assert_array_equal(ops.linear(x.swapaxes(0, 2), q), ops.linear(x, q).swapaxes(0, 2))


def test_any_thread_count_gives_the_same_bits(isa, rng, same_for_any_thread_count):
    a, b = draw(rng, (300, 700), np.int8), draw(rng, (700, 600), np.int8)
    same_for_any_thread_count(lambda: ops.matmul_integer(a, b))
    x, w = (rng.normal(size=s).astype(np.float32) for s in ((300, 500), (700, 500)))
    q = ops.quantize_weight(w)
    same_for_any_thread_count(lambda: ops.linear(x, q, activation="gelu"))
    same_for_any_thread_count(lambda: ops.quantize_weight(w).dequantize())
    skew = ops.quantize_weight(w, symmetric=False)
    same_for_any_thread_count(lambda: ops.quantized_linear(x, skew, symmetric=True))


def test_quantized_matrix_travels(isa, rng):
    w, x = (rng.normal(size=s).astype(np.float32) for s in ((128, 128), (9, 128)))
    q = ops.quantize_weight(w)
    again = ops.QuantizedMatrix(q.values, q.scales)
    copy = pickle.loads(pickle.dumps(q))
    expected = ops.linear(x, q)
    for other in (again, copy):
        np.testing.assert_array_equal(ops.linear(x, other), expected)
    assert w.size < q.nbytes < 1.1 * w.size  # a byte a value, and a few a row
    skew = ops.quantize_weight(w, symmetric=False, per_channel=False)
    copy = pickle.loads(pickle.dumps(skew))
    np.testing.assert_array_equal(ops.linear(x, copy), ops.linear(x, skew))
    np.testing.assert_array_equal(copy.zero_points, skew.zero_points)
    assert "shape=(128, 128)" in repr(q)
    for tier in _core.config()["supported_isas"]:
        _core.set_isa(tier)
        np.testing.assert_array_equal(ops.linear(x, q), expected)  # keeps its own tier


def test_zero_and_non_finite_rows(isa, rng):
    x, w = (rng.normal(size=s).astype(np.float32) for s in ((5, 33), (20, 33)))
    x[0] = 0
    x[1] = 1e-42
    x[2, 3] = np.nan
    x[3, 4] = np.inf
    w[7] = 0
    y = ops.linear(x, ops.quantize_weight(w))
    assert np.all(y[:2] == 0) and np.isfinite(y[4]).all()
    assert np.isnan(y[2]).all() and not np.isfinite(y[3]).any()
    assert np.all(y[4, 7] == 0)


def test_a_row_over_the_whole_range_stays_finite(isa):
    x = np.array([[3e38, -3e38, 1.0]], np.float32)
    y = ops.linear(x, ops.quantize_weight(np.eye(3, dtype=np.float32)))
    step = 6e38 / 255  # of the quantised row
    np.testing.assert_allclose(y, x, rtol=0, atol=0.51 * step)


@pytest.mark.parametrize(
    "cls", [_core.PackedMatrix, _core.QuantizedMatrix, _core.Int4Matrix, _core.Float8Matrix]
)
def test_an_object_from_new_alone_raises(cls):
    empty = cls.__new__(cls)
    for use in (
        lambda: empty.shape,
        lambda: empty.nbytes,
        lambda: repr(empty),
        lambda: pickle.dumps(empty),
        lambda: ops.linear(np.ones((2, 2), F), empty),
    ):
        with pytest.raises(TypeError):
            use()


A, B = np.zeros((2, 5), np.int8), np.zeros((5, 3), np.int8)
F = np.float32
Q = ops.quantize_weight(np.ones((3, 5), F))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: ops.matmul_integer(A, A),
            ValueError,
            r"^matmul_integer: b shape: expected \(\.\.\., 5, \*\), got \(2, 5\)$",
        ),
        (
            lambda: ops.matmul_integer(A.astype(F), B),
            TypeError,
            "matmul_integer: a dtype: expected int8 or uint8, got float32",
        ),
        (
            lambda: ops.matmul_integer(A, B, a_zero_point=[1, 2, 3]),
            ValueError,
            r"a_zero_point shape: expected \(\) or \(2,\), got \(3,\)",
        ),
        (
            lambda: ops.matmul_integer(A, B, b_zero_point=128),
            ValueError,
            "b_zero_point value: expected one of int8, got 128",
        ),
        (
            lambda: ops.matmul_integer(A, B, b_zero_point=0.5),
            TypeError,
            "b_zero_point dtype: expected an integer type, got float64",
        ),
        (
            lambda: ops.qlinear_matmul(A, 1.0, 0, B, 1.0, 0, 1.0, 0),
            TypeError,
            "y_zero_point dtype: expected int8 or uint8, got int64",
        ),
        (
            lambda: ops.qlinear_matmul(A, [1.0] * 3, 0, B, 1.0, 0, 1.0, np.int8(0)),
            ValueError,
            r"a_scale shape: expected \(\) or \(2,\), got \(3,\)",
        ),
        (
            lambda: ops.quantize_weight(np.zeros(3, F)),
            ValueError,
            "quantize_weight: weight ndim: expected 2, got 1",
        ),
        (
            lambda: ops.quantize_weight(np.full((2, 2), np.nan, F)),
            ValueError,
            "quantize_weight: weight values: expected finite numbers, got nan",
        ),
        (
            lambda: ops.quantize_weight(B),
            TypeError,
            "quantize_weight: weight dtype: expected float32 or float64, got int8",
        ),
        (
            lambda: ops.linear(np.zeros((2, 4), F), ops.quantize_weight(np.ones((3, 5), F))),
            ValueError,
            r"linear: x shape: expected \(\.\.\., 5\), got \(2, 4\)",
        ),
        (
            lambda: ops.linear(np.zeros((2, 5)), ops.quantize_weight(np.ones((3, 5), F))),
            TypeError,
            "linear: weight dtype: expected float64, got float32",
        ),
        (
            lambda: ops.QuantizedMatrix(A, np.zeros(2, F)),
            ValueError,
            "QuantizedMatrix: scales value: expected positive and finite, got 0",
        ),
        (
            lambda: ops.QuantizedMatrix(A, np.ones(3, F)),
            ValueError,
            r"QuantizedMatrix: scales shape: expected \(2,\), got \(3,\)",
        ),
        (
            lambda: ops.QuantizedMatrix(A, np.ones(2, F), np.zeros(2, np.uint8)),
            TypeError,
            "QuantizedMatrix: zero_points dtype: expected int8, got uint8",
        ),
        (
            lambda: ops.QuantizedMatrix(A, np.ones((), F), np.zeros(2, np.int8)),
            ValueError,
            r"QuantizedMatrix: zero_points shape: expected \(\), got \(2,\)",
        ),
        (
            lambda: ops.quantized_linear(np.ones((2, 5), F), Q, x_scale=[1.0, 2.0]),
            ValueError,
            r"quantized_linear: x_scale shape: expected \(\), got \(2,\)",
        ),
        (
            lambda: ops.quantized_linear(np.ones((2, 5), F), Q, x_scale=0.0),
            ValueError,
            "quantized_linear: x_scale value: expected positive and finite, got 0",
        ),
        (
            lambda: ops.quantized_linear(np.ones((2, 5), F), Q, x_zero_point=np.uint8(3)),
            ValueError,
            "quantized_linear: x_zero_point value: expected None without x_scale",
        ),
        (
            lambda: ops.quantized_linear(np.ones((2, 5), F), Q, x_scale=1.0, x_zero_point=3),
            TypeError,
            "quantized_linear: x_zero_point dtype: expected int8 or uint8, got int64",
        ),
        (
            lambda: ops.quantized_linear(np.ones((2, 5)), Q),
            TypeError,
            "quantized_linear: weight dtype: expected float64, got float32",
        ),
        (
            lambda: ops.quantized_linear(np.ones((2, 4), F), Q),
            ValueError,
            "quantized_linear: x shape: expected",
        ),
        (
            lambda: ops.quantized_linear(np.ones((2, 5), F), B),
            TypeError,
            "incompatible function arguments",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
