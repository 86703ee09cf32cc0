"""What linear does alike on every quantised weight: residuals, half types, errors."""

import ml_dtypes
import numpy as np
import pytest

from vectile import ops

WEIGHTS = {
    "int8": {},
    "int8 zero points": {"symmetric": False},
    "int4": {"bits": 4, "group_size": 32},
    "int4 zero points": {"bits": 4, "group_size": 64, "symmetric": False},
    "float8": {"dtype": "float8_e4m3fn"},
}
SIZES = [(0, 3, 4), (1, 1, 1), (1, 67, 33), (3, 33, 64), (13, 18, 130), (29, 70, 257), (130, 5, 64)]
HALVES = [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)]

kinds = pytest.mark.parametrize("kind", WEIGHTS)
halves = pytest.mark.parametrize("half", HALVES, ids=str)


def operands(rng, size, dtype=np.float32):
    m, n, k = size
    return (rng.normal(size=s).astype(dtype) for s in ((m, k), (n, k), (n,), (m, n)))


@kinds
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_residual_is_added_last(isa, dtype, rng, kind, size):
    x, w, bias, residual = operands(rng, size, dtype)
    q = ops.quantize_weight(w, **WEIGHTS[kind])
    for options in ({}, {"bias": bias}, {"bias": bias, "activation": "gelu"}):
        plain = ops.linear(x, q, **options)
        got = ops.linear(x, q, **options, residual=residual)
        np.testing.assert_array_equal(got, plain + residual)
        strided = np.repeat(residual, 2, axis=1)[:, ::2]
        np.testing.assert_array_equal(ops.linear(x, q, **options, residual=strided), got)


@kinds
@halves
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_half_types_are_widened_and_rounded_once(isa, rng, kind, half, size):
    x, w, bias, residual = operands(rng, size)
    q = ops.quantize_weight(w, **WEIGHTS[kind])
    x, residual = x.astype(half), residual.astype(half)
    wide, added = x.astype(np.float32), residual.astype(np.float32)
    for b in (None, bias, bias.astype(half)):
        b32 = None if b is None else b.astype(np.float32)
        got = ops.linear(x, q, b, activation="silu", residual=residual)
        expected = ops.linear(wide, q, b32, activation="silu", residual=added)
        assert got.dtype == half
        np.testing.assert_array_equal(got, expected.astype(half))
    got = ops.linear(x[:, None], q)
    np.testing.assert_array_equal(got[:, 0], ops.linear(wide, q).astype(half))
    if isinstance(q, ops.QuantizedMatrix):
        step = np.float32(1 / 32)
        got = ops.quantized_linear(x, q, bias, x_scale=step)
        expected = ops.quantized_linear(wide, q, bias, x_scale=step)
        np.testing.assert_array_equal(got, expected.astype(half))


@kinds
@halves
def test_errors(rng, kind, half):
    x, w, bias, residual = operands(rng, (2, 3, 64))
    q = ops.quantize_weight(w, **WEIGHTS[kind])
    with pytest.raises(ValueError, match=r"linear: residual shape: expected \(2, 3\), got \(3,\)"):
        ops.linear(x, q, residual=bias)
    with pytest.raises(TypeError, match="linear: residual dtype: expected float32, got float64"):
        ops.linear(x, q, residual=residual.astype(np.float64))
    with pytest.raises(TypeError, match=f"linear: residual dtype: expected {half}, got float32"):
        ops.linear(x.astype(half), q, residual=residual)
    with pytest.raises(TypeError, match=f"bias dtype: expected {half} or float32, got float64"):
        ops.linear(x.astype(half), q, bias.astype(np.float64))
    if kind == "float8":
        return
    q = ops.quantize_weight(w.astype(np.float64), **WEIGHTS[kind])
    with pytest.raises(TypeError, match=f"linear: weight dtype: expected {half}, got float64"):
        ops.linear(x.astype(half), q)
