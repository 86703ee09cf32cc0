"""quantize family against ONNX's definitions written in NumPy."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vectile import ops

SHAPES = [(), (1,), (17,), (5, 33), (3, 4, 7), (0, 4), (70001,), (2, 3, 40000)]
TYPES = [np.int8, np.uint8]


def reference(x, scale, zero):
    """round(x / scale) + zero, saturated; the division in the dtype of x."""
    info = np.iinfo(zero.dtype)
    return np.clip(np.rint(x / scale) + zero.astype(x.dtype), info.min, info.max).astype(zero.dtype)


@pytest.mark.sanitize
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_per_tensor(isa, dtype, rng, shape, kind):
    x = (100 * rng.normal(size=shape)).astype(dtype)
    scale, zero = dtype(0.37), kind(5)
    y = ops.quantize_linear(x, scale, zero)
    assert y.dtype == kind
    np.testing.assert_array_equal(y, reference(x, scale, zero))
    back = ops.dequantize_linear(y, scale, zero)
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, (y.astype(dtype) - dtype(5)) * scale)
    np.testing.assert_array_equal(ops.quantize_linear(x, 0.37), reference(x, scale, np.uint8(0)))


@pytest.mark.sanitize
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("shape", [(1,), (17,), (5, 33), (3, 4, 7), (2, 0, 3)], ids=str)
def test_per_axis(isa, dtype, rng, shape, kind):
    x = (100 * rng.normal(size=shape)).astype(dtype)
    info = np.iinfo(kind)
    for axis in range(-len(shape), len(shape)):
        n = shape[axis]
        scale = rng.uniform(0.1, 3, n).astype(dtype)
        zero = rng.integers(info.min, info.max, n, endpoint=True).astype(kind)
        along = [1] * len(shape)
        along[axis] = n
        s, z = scale.reshape(along), zero.reshape(along)
        y = ops.quantize_linear(x, scale, zero, axis)
        np.testing.assert_array_equal(y, reference(x, s, z))
        back = ops.dequantize_linear(y, scale, zero, axis)
        np.testing.assert_array_equal(back, (y.astype(dtype) - z.astype(dtype)) * s)


def test_halves_go_to_even_and_ends_saturate(isa, dtype):
    x = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.5, 1e9, -1e9, np.inf, -np.inf] * 3, dtype)
    expected = [-2, -2, 0, 0, 2, 2, 4, 127, -128, 127, -128] * 3
    np.testing.assert_array_equal(ops.quantize_linear(x, 1.0, np.int8(0)), expected)


def test_int32_dequantizes(isa, dtype, rng):
    x = rng.integers(-(2**31), 2**31, size=100, dtype=np.int32)
    np.testing.assert_array_equal(
        ops.dequantize_linear(x, dtype(0.5)), x.astype(dtype) * dtype(0.5)
    )


@pytest.mark.sanitize
@settings(max_examples=60, deadline=None)
@given(
    x=hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=0, max_dims=3, max_side=40),
        elements=st.floats(-1e6, 1e6, width=32),
    )
)
def test_dynamic_follows_onnx(x):
    y, scale, zero = ops.dynamic_quantize_linear(x)
    low, high = min(x.min(initial=0), 0), max(x.max(initial=0), 0)
    assert y.dtype == np.uint8 and scale.dtype == np.float32 and zero.dtype == np.uint8
    if low == high:
        assert scale == 1 and zero == 0
    else:
        assert scale == np.float32(high) / np.float32(255) - np.float32(low) / np.float32(255) or (
            scale == 1 and high - low < 1e-36
        )
    np.testing.assert_array_equal(y, reference(x, scale, zero))
    error = np.abs(x.astype(np.float64) - scale.astype(np.float64) * (y.astype(np.float64) - zero))
    assert np.all(error <= scale * np.float64(1.001))


@pytest.mark.sanitize
def test_strided_input_and_thread_counts(isa, rng, same_for_any_thread_count):
    x = rng.normal(size=(300, 401)).astype(np.float32)
    zero = np.int8(3)
    view = x.T[::-1, ::2]
    expected = reference(view, np.float32(0.1), zero)
    np.testing.assert_array_equal(ops.quantize_linear(view, 0.1, zero), expected)
    same_for_any_thread_count(lambda: ops.quantize_linear(x, 0.1, zero))
    same_for_any_thread_count(lambda: ops.dynamic_quantize_linear(x))


X = np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: ops.quantize_linear(X.astype(int), 1.0),
            TypeError,
            "quantize_linear: x dtype: expected float16, bfloat16, float32 or float64, got int64",
        ),
        (
            lambda: ops.quantize_linear(X, np.float64(1)),
            TypeError,
            "quantize_linear: scale dtype: expected float32, got float64",
        ),
        (
            lambda: ops.quantize_linear(X, 1.0, np.int32(0)),
            TypeError,
            "zero_point dtype: expected int8, uint8, float8_e4m3fn or float8_e5m2, got int32",
        ),
        (
            lambda: ops.quantize_linear(X, X[0]),
            ValueError,
            "axis value: expected an axis for a 1-D scale, got None",
        ),
        (
            lambda: ops.quantize_linear(X, X[0], axis=0),
            ValueError,
            r"scale shape: expected \(2,\), got \(3,\)",
        ),
        (
            lambda: ops.quantize_linear(X, X[0], np.zeros(2, np.int8), axis=1),
            ValueError,
            r"zero_point shape: expected \(3,\), got \(2,\)",
        ),
        (
            lambda: ops.quantize_linear(X, X[0], axis=2),
            ValueError,
            "axis value: expected an axis of 2 dimensions, got 2",
        ),
        (
            lambda: ops.dequantize_linear(X, 1.0),
            TypeError,
            "x dtype: expected int8, uint8, int32, float8_e4m3fn or float8_e5m2, got float32",
        ),
        (
            lambda: ops.dequantize_linear(X.astype(np.int8), 1.0, np.uint8(1)),
            TypeError,
            "zero_point dtype: expected int8, got uint8",
        ),
        (
            lambda: ops.dynamic_quantize_linear(X * np.nan),
            ValueError,
            "dynamic_quantize_linear: x values: expected finite numbers, got nan",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
