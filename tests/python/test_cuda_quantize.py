"""The quantize family on a device against ONNX's definitions in NumPy, bit for bit."""

import ml_dtypes
import numpy as np
import pytest
from on_device import cuda, dev, host, needs_device, run

pytestmark = needs_device

TYPES = (np.float32, np.float64, np.float16, ml_dtypes.bfloat16)
BYTES = (np.int8, np.uint8)
FLOAT8 = (ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2)
SHAPES = [(), (1,), (17,), (5, 33), (3, 4, 7), (0, 4), (2, 3, 1500)]


def computed(dtype):
    return np.float64 if dtype == np.float64 else np.float32


def quantized(x, scale, zero, kind):
    """round(x / scale) + zero, saturated; x and scale of the type that is computed in."""
    info = np.iinfo(kind)
    return np.clip(np.rint(x / scale) + zero.astype(x.dtype), info.min, info.max).astype(kind)


def numbers(rng, shape, dtype):
    return np.asarray(100 * rng.normal(size=shape)).astype(dtype)


@pytest.mark.parametrize("kind", BYTES)
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_per_tensor(rng, shape, dtype, kind):
    x, scale, zero = numbers(rng, shape, dtype), np.array(0.37, dtype), np.array(5, kind)
    wide = computed(dtype)
    y = run("quantize_linear", x, scale, zero)
    assert y.dtype == kind and y.shape == shape
    want = quantized(x.astype(wide), scale.astype(wide), zero, kind)
    np.testing.assert_array_equal(y, want)
    back = run("dequantize_linear", y, scale, zero)
    assert back.dtype == dtype
    want = ((y.astype(wide) - wide(5)) * scale.astype(wide)).astype(dtype)
    np.testing.assert_array_equal(back, want)
    want = quantized(x.astype(wide), scale.astype(wide), np.array(0), np.uint8)
    np.testing.assert_array_equal(run("quantize_linear", x, scale), want)


@pytest.mark.parametrize("kind", BYTES)
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(1,), (17,), (5, 33), (3, 4, 7), (2, 0, 3), (2, 1100, 3)])
def test_per_axis(rng, shape, dtype, kind):
    x, wide, info = numbers(rng, shape, dtype), computed(dtype), np.iinfo(kind)
    for axis in range(-len(shape), len(shape)):
        n = shape[axis]
        scale = rng.uniform(0.1, 3, n).astype(wide)
        zero = rng.integers(info.min, info.max, n, endpoint=True).astype(kind)
        along = [1] * len(shape)
        along[axis] = n
        s, z = scale.reshape(along), zero.reshape(along)
        y = run("quantize_linear", x, scale, zero, axis)
        np.testing.assert_array_equal(y, quantized(x.astype(wide), s, z, kind))
        back = run("dequantize_linear", y, scale, zero, axis)
        np.testing.assert_array_equal(back, (y.astype(wide) - z.astype(wide)) * s)


@pytest.mark.parametrize("dtype", TYPES)
def test_halves_go_to_even_and_ends_saturate(dtype):
    x = [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.5, 1e4, -1e4, np.inf, -np.inf, np.nan]
    want = [-2, -2, 0, 0, 2, 2, 4, 127, -128, 127, -128, -128]
    one, zero = np.ones((), dtype), np.zeros((), np.int8)
    np.testing.assert_array_equal(run("quantize_linear", np.array(x, dtype), one, zero), want)
    assert run("quantize_linear", np.array([np.nan], dtype), one) == 0


@pytest.mark.parametrize("kind", FLOAT8)
@pytest.mark.parametrize("dtype", TYPES)
def test_float8(rng, dtype, kind):
    most = float(ml_dtypes.finfo(kind).max)
    every = np.arange(256, dtype=np.uint8).view(kind)
    ties = (every[:-1].astype(np.float64) + every[1:].astype(np.float64)) / 2
    x = np.concatenate([ties, ties * (1 + 2.0**-40), numbers(rng, 300, np.float64), [np.nan, 1e9]])
    with np.errstate(over="ignore"):
        x = x.astype(dtype)
    wide = computed(dtype)
    scale, zero = np.array(0.25, wide), np.zeros((), kind)
    y = run("quantize_linear", x, scale, zero)
    assert y.dtype == kind
    exact = np.clip(x.astype(wide) / scale, -most, most).astype(np.float64)
    finite = np.isfinite(exact)
    assert np.isnan(y[~finite].astype(np.float32)).all()
    grid = np.unique(every[np.isfinite(every.astype(np.float32))].astype(np.float64))
    errors = abs(grid - exact[finite][:, None])
    error = abs(y[finite].astype(np.float64) - exact[finite])
    np.testing.assert_array_equal(error, errors.min(1))
    ties = (errors == error[:, None]).sum(1) > 1
    assert ties.any() and (y[finite][ties].view(np.uint8) % 2 == 0).all()
    back = run("dequantize_linear", every, scale, zero)
    np.testing.assert_array_equal(back, every.astype(wide) * scale)


def test_int32_dequantizes(rng):
    x = rng.integers(-(2**31), 2**31, size=101, dtype=np.int32)
    for dtype in (np.float32, np.float64):
        got = run("dequantize_linear", x, np.array(0.5, dtype), np.array(7, np.int32))
        np.testing.assert_array_equal(got, (x.astype(dtype) - dtype(7)) * dtype(0.5))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("n", [0, 1, 7, 255, 4099, 20001])
@pytest.mark.parametrize("shift", [0, 300, -300])
def test_dynamic_follows_onnx(rng, n, dtype, shift):
    x = (numbers(rng, n, np.float64) + shift).astype(dtype)
    y, scale, zero = run("dynamic_quantize_linear", x)
    wide = computed(dtype)
    low, high = x.astype(wide).min(initial=0), x.astype(wide).max(initial=0)
    step = high / wide(255) - low / wide(255) if n else wide(1)
    assert scale.shape == zero.shape == () and scale.dtype == wide and zero.dtype == np.uint8
    assert scale == step and zero == np.clip(np.rint(-low / step), 0, 255)
    np.testing.assert_array_equal(y, quantized(x.astype(wide), scale, zero, np.uint8))


def test_dynamic_of_zeros_and_of_no_numbers():
    y, scale, zero = run("dynamic_quantize_linear", np.zeros(9, np.float32))
    assert (y == 0).all() and scale == 1 and zero == 0
    for bad in (np.nan, np.inf, -np.inf):
        x = np.arange(5000, dtype=np.float32)
        x[4321] = bad
        y, scale, zero = run("dynamic_quantize_linear", x)
        assert np.isnan(scale) and zero == 0 and (y == 0).all()


def test_strides(rng):
    x = rng.normal(size=(30, 41)).astype(np.float32)
    view, zero = x.T[::-1, ::2], np.array([3] * 41, np.int8)
    scale = rng.uniform(0.01, 0.1, 82).astype(np.float32)
    got = run("quantize_linear", view, scale[::-2], zero, 0)
    want = quantized(view, scale[::-2, None], zero[:, None], np.int8)
    np.testing.assert_array_equal(got, want)
    flat = x.reshape(-1)[1:]  # rows that no vector may be read from
    got = run("quantize_linear", flat, np.array(0.1, np.float32))
    np.testing.assert_array_equal(got, quantized(flat, np.float32(0.1), np.array(0), np.uint8))


X, ONE = np.ones((2, 3), np.float32), np.ones((), np.float32)


@pytest.mark.parametrize(
    ("name", "arguments", "error", "message"),
    [
        ("quantize_linear", (X.astype(int), ONE), TypeError, "x dtype: expected float16"),
        (
            "quantize_linear",
            (X, np.ones(())),
            TypeError,
            "quantize_linear: scale dtype: expected float32, got float64",
        ),
        (
            "quantize_linear",
            (X, ONE, np.zeros((), np.int32)),
            TypeError,
            "zero_point dtype: expected int8, uint8, float8_e4m3fn or float8_e5m2, got int32",
        ),
        ("quantize_linear", (X, X[0]), ValueError, "axis value: expected an axis for a 1-D scale"),
        (
            "quantize_linear",
            (X, X[0], None, 0),
            ValueError,
            r"scale shape: expected \(2,\), got \(3,\)",
        ),
        (
            "quantize_linear",
            (X, X[0], np.zeros(2, np.int8), 1),
            ValueError,
            r"zero_point shape: expected \(3,\), got \(2,\)",
        ),
        ("quantize_linear", (X, X[0], None, 2), ValueError, "axis value: expected an axis of 2"),
        ("dequantize_linear", (X, ONE), TypeError, "x dtype: expected int8, uint8, int32"),
        (
            "dequantize_linear",
            (X.astype(np.int8), ONE, np.ones((), np.uint8)),
            TypeError,
            "zero_point dtype: expected int8, got uint8",
        ),
        ("dynamic_quantize_linear", (X.astype(int),), TypeError, "x dtype: expected float16"),
        ("dynamic_quantize_linear", (3,), TypeError, "x type: expected an array"),
    ],
)
def test_errors(name, arguments, error, message):
    with pytest.raises(error, match=message):
        run(name, *arguments)


def test_arguments_have_names():
    y = cuda.quantize_linear(x=dev(X), scale=dev(ONE), zero_point=None, axis=None, stream=0)
    assert host(y).dtype == np.uint8
