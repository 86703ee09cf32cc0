"""gemm_f8 family: 8-bit floating-point storage with scales, and linear on it."""

import pickle

import ml_dtypes
import numpy as np
import pytest
from scipy import special

from vectile import _core, ops

FORMATS = {
    "float8_e4m3fn": (448.0, 2.0**-4, 2.0**-10),
    "float8_e5m2": (57344.0, 2.0**-3, 2.0**-17),
}
SIZES = [
    (0, 3, 4),
    (3, 0, 4),
    (3, 4, 0),
    (1, 1, 1),
    (1, 67, 33),
    (1, 40, 4099),
    (67, 1, 35),
    (2, 16, 255),
    (5, 33, 257),
    (7, 31, 513),
    (14, 32, 64),
    (97, 48, 300),
    (211, 50, 70),
]


@pytest.mark.sanitize
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_linear_matches_float64(isa, dtype, rng, size, format):
    m, n, k = size
    x, w, bias = (rng.normal(size=s).astype(dtype) for s in ((m, k), (n, k), (n,)))
    w *= 10.0 ** rng.uniform(-3, 3, (n, 1)).astype(dtype)
    q = ops.quantize_weight(w, dtype=format)
    assert q.shape == (n, k) and q.dtype == dtype and q.format == format and q.bits == 8
    assert q.values.dtype == np.dtype(format) and q.scales.shape == (n,) and q.zero_points is None
    dense = q.dequantize()
    assert dense.dtype == dtype
    np.testing.assert_array_equal(q.values.astype(dtype) * q.scales[:, None], dense)
    exact = x.astype(np.float64) @ (q.values.astype(np.float64).T * q.scales.astype(np.float64))
    eps = np.finfo(dtype).eps
    bound = (k + 2) * eps * np.abs(x).astype(np.float64) @ np.abs(dense).T.astype(np.float64)
    assert np.all(np.abs(ops.linear(x, q) - exact) <= bound)
    z = exact + bias
    got = ops.linear(x, q, bias, activation="silu")
    error = 1.1 * bound + 8 * eps * (np.abs(z) + np.abs(bias))
    assert np.all(np.abs(got - z * special.expit(z)) <= error)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("axis", [None, 0, 1, -1])
def test_quantize_fp8_keeps_the_stated_error(isa, dtype, rng, format, axis):
    largest, relative, subnormal = FORMATS[format]
    x = rng.normal(size=(9, 40, 3)).astype(dtype) * 10.0 ** rng.uniform(-6, 3, (9, 40, 3))
    x = x.astype(dtype)
    x[:, 7] = 0
    q, scale = ops.quantize_fp8(x, format, axis)
    assert q.dtype == np.dtype(format) and q.shape == x.shape and scale.dtype == dtype
    assert scale.shape == (() if axis is None else (x.shape[axis],))
    back = ops.dequantize_linear(q, scale, axis=axis)
    steps = scale if axis is None else np.moveaxis(np.ones_like(x), axis, -1) * scale
    steps = steps if axis is None else np.moveaxis(steps, -1, axis)
    error = np.abs(back.astype(np.float64) - x)
    bound = np.maximum(np.abs(x) * relative, steps * subnormal).astype(np.float64)
    assert np.all(error <= bound * (1 + 1e-5))
    top = np.abs(x) if axis is None else np.abs(np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1))
    expected = top.max() / largest if axis is None else top.max(1) / largest
    np.testing.assert_allclose(scale, np.where(expected == 0, 1, expected), rtol=1e-6)


@pytest.mark.parametrize("format", FORMATS)
def test_every_finite_code_is_widened_exactly(isa, format):
    codes = np.arange(256, dtype=np.uint8).view(np.dtype(format))
    codes = codes[np.isfinite(codes.astype(np.float32))]
    weight = np.resize(codes, (50, len(codes)))
    q = ops.Float8Matrix(weight, np.full(50, 0.5, np.float32))
    np.testing.assert_array_equal(q.values.view(np.uint8), weight.view(np.uint8))
    eye = np.eye(len(codes), dtype=np.float32)
    expected = np.repeat(codes.astype(np.float32)[:, None] / 2, 50, 1)
    np.testing.assert_array_equal(ops.linear(eye, q), expected)  # many rows
    for i in (0, 1, 7, 8, 100, len(codes) - 1):  # one row
        np.testing.assert_array_equal(ops.linear(eye[i], q), expected[i])


def test_any_leading_shape_and_strides(rng):
    x, w = (rng.normal(size=s).astype(np.float32) for s in ((2, 3, 5, 40), (30, 40)))
    q = ops.quantize_weight(np.asfortranarray(w), dtype=ml_dtypes.float8_e4m3fn)
    expected = ops.linear(x.reshape(-1, 40), q)
    np.testing.assert_array_equal(ops.linear(x, q), expected.reshape(2, 3, 5, 30))
    np.testing.assert_array_equal(ops.linear(x.swapaxes(0, 2), q), ops.linear(x, q).swapaxes(0, 2))
    again = ops.Float8Matrix(np.asfortranarray(q.values), np.repeat(q.scales, 2)[::2])
    np.testing.assert_array_equal(ops.linear(x, again), ops.linear(x, q))


def test_any_thread_count_gives_the_same_bits(isa, rng, same_for_any_thread_count):
    x, w = (rng.normal(size=s).astype(np.float32) for s in ((203, 500), (700, 500)))
    q = ops.quantize_weight(w, dtype="float8_e4m3fn")
    same_for_any_thread_count(lambda: ops.linear(x, q, activation="gelu"))
    same_for_any_thread_count(lambda: ops.linear(x[:1], q))


def test_the_matrix_travels(isa, rng):
    w, x = (rng.normal(size=s).astype(np.float32) for s in ((320, 256), (9, 256)))
    q = ops.quantize_weight(w, dtype="float8_e5m2")
    expected = ops.linear(x, q)
    for other in (ops.Float8Matrix(q.values, q.scales), pickle.loads(pickle.dumps(q))):
        np.testing.assert_array_equal(ops.linear(x, other), expected)
    assert w.size <= q.nbytes < 1.1 * w.size
    assert "shape=(320, 256)" in repr(q) and "float8_e5m2" in repr(q)
    for tier in _core.config()["supported_isas"]:
        _core.set_isa(tier)
        np.testing.assert_array_equal(ops.linear(x, q), expected)


def test_non_finite_input_propagates(isa):
    q = ops.quantize_weight(np.ones((20, 33), np.float32), dtype="float8_e4m3fn")
    x = np.ones((3, 33), np.float32)
    x[0, 4], x[1, 32] = np.nan, np.inf
    for y in (ops.linear(x, q), np.stack([ops.linear(row, q) for row in x])):
        assert np.isnan(y[0]).all() and np.isposinf(y[1]).all() and np.isfinite(y[2]).all()


@pytest.mark.parametrize("half", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("format", FORMATS)
def test_half_types_are_quantised_as_float32(isa, rng, half, format):
    x = rng.normal(size=(9, 70)).astype(half)
    for axis in (None, 0):
        got, want = (ops.quantize_fp8(v, format, axis) for v in (x, x.astype(np.float32)))
        for a, b in zip(got, want, strict=True):
            np.testing.assert_array_equal(a, b, strict=True)


V, S, F = np.zeros((3, 5), ml_dtypes.float8_e4m3fn), np.ones(3, np.float32), np.float32


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: ops.quantize_fp8(np.ones(3, F), "float16"),
            TypeError,
            "quantize_fp8: dtype: expected float8_e4m3fn or float8_e5m2, got float16",
        ),
        (
            lambda: ops.quantize_fp8([1, 2]),
            TypeError,
            "quantize_fp8: x dtype: expected float16, bfloat16, float32 or float64, got int64",
        ),
        (
            lambda: ops.quantize_fp8(np.ones(3, F), axis=1),
            ValueError,
            "quantize_fp8: axis value: expected one of 1 axes, got 1",
        ),
        (
            lambda: ops.quantize_fp8(np.array([1, np.nan], F)),
            ValueError,
            "quantize_fp8: x values: expected finite numbers, got nan",
        ),
        (
            lambda: ops.quantize_weight(np.ones((2, 2), F), 4, dtype="float8_e4m3fn"),
            ValueError,
            "quantize_weight: dtype value: expected None beside other options",
        ),
        (
            lambda: ops.quantize_weight(np.ones(2, F), dtype="float8_e4m3fn"),
            ValueError,
            "quantize_weight: weight ndim: expected 2, got 1",
        ),
        (
            lambda: ops.Float8Matrix(V.astype(np.int8), S),
            TypeError,
            "Float8Matrix: values dtype: expected float8_e4m3fn or float8_e5m2, got int8",
        ),
        (
            lambda: ops.Float8Matrix(np.full((3, 5), np.nan, V.dtype), S),
            ValueError,
            "Float8Matrix: values value: expected finite numbers, got nan or inf",
        ),
        (
            lambda: ops.Float8Matrix(np.full((3, 5), np.inf, ml_dtypes.float8_e5m2), S),
            ValueError,
            "Float8Matrix: values value: expected finite numbers, got nan or inf",
        ),
        (
            lambda: ops.Float8Matrix(V, S[:2]),
            ValueError,
            r"Float8Matrix: scales shape: expected \(3,\), got \(2,\)",
        ),
        (
            lambda: ops.Float8Matrix(V, 0 * S),
            ValueError,
            "Float8Matrix: scales value: expected positive and finite, got 0",
        ),
        (
            lambda: ops.linear(np.ones((2, 4), F), ops.Float8Matrix(V, S)),
            ValueError,
            r"linear: x shape: expected \(\.\.\., 5\), got \(2, 4\)",
        ),
        (
            lambda: ops.linear(np.ones((2, 5)), ops.Float8Matrix(V, S)),
            TypeError,
            "linear: weight dtype: expected float64, got float32",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
