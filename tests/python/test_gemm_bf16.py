"""What is particular to products in bfloat16's own arithmetic; test_gemm_16.py has the rest."""

import ml_dtypes
import numpy as np
from products_16 import BF16, operand, uses

from vectile import ops

COMPUTE = "bf16"


def test_bfloat16_needs_no_permission(isa, always, rng):
    a, b = operand(rng, 70, 130, BF16, "N"), operand(rng, 130, 90, BF16, "T")
    got = ops.matmul(a, b)
    assert got.tobytes() == ops.matmul(a, b, compute=COMPUTE).tobytes()
    packed = ops.pack(b.T)
    if uses(COMPUTE):
        assert packed.nbytes <= 2 * 160 * 96  # two bytes a number, padded
        assert got.tobytes() == ops.linear(a, packed).tobytes()


def test_subnormals_are_zero(isa, always):
    flushed = 0 if uses(COMPUTE) else 1  # float32 keeps them
    tiny = ml_dtypes.finfo(BF16).smallest_subnormal
    a, b = np.full((20, 64), tiny, BF16), np.full((64, 70), 2.0**100, BF16)
    want = np.full((20, 70), 64 * float(tiny) * 2.0**100 * flushed)
    np.testing.assert_array_equal(ops.matmul(a, b).astype(float), want)
    small = np.full((20, 64), 2.0**-64, BF16)
    want = np.full((20, 20), 64 * 2.0**-128 * flushed)
    np.testing.assert_array_equal(ops.matmul(small, small.T).astype(float), want)


def test_overflow_is_infinite(isa, always):
    large = np.full((33, 33), ml_dtypes.finfo(BF16).max, BF16)
    assert np.isinf(ops.matmul(large, large).astype(float)).all()
