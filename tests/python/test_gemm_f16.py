"""What is particular to products in AVX512-FP16's arithmetic; test_gemm_16.py has the rest."""

import numpy as np
from products_16 import assert_within, operand, product, uses

from vectile import ops

COMPUTE = "fp16"


def test_overflow_is_infinite(isa, always):
    def full(x, shape=(20, 70)):
        return np.full(shape, x, np.float32)

    beyond = np.inf if uses(COMPUTE) else 1  # float32 has room
    got = ops.matmul(full(300, (20, 50)), full(300, (50, 70)), compute=COMPUTE)
    np.testing.assert_array_equal(got, full(50 * 90000 * beyond))  # 90000 is beyond float16
    got = ops.matmul(full(65520, (20, 50)), full(1, (50, 70)), compute=COMPUTE)
    np.testing.assert_array_equal(got, full(50 * 65520 * beyond))
    # Sums of pieces are float32's: each of 32 is 32768 here.
    got = ops.matmul(full(1024, (20, 512)), full(1, (512, 70)), compute=COMPUTE)
    np.testing.assert_array_equal(got, full(524288))


def test_subnormals_count(isa, always, rng):
    tiny = np.float32(2.0**-24)
    a = tiny * rng.integers(-1000, 1000, (20, 60)).astype(np.float32)
    b = rng.integers(-2, 3, (60, 70)).astype(np.float32)
    assert_within(ops.matmul(a, b, compute=COMPUTE), *product(a, b, COMPUTE))
    got = ops.matmul(np.full((20, 1), tiny), np.ones((1, 70), np.float32), compute=COMPUTE)
    np.testing.assert_array_equal(got, np.full((20, 70), tiny))


def test_error_of_normal_numbers(isa, always, rng):
    a, b = operand(rng, 200, 1000, np.float32, "N"), operand(rng, 1000, 200, np.float32, "N")
    want = a.astype(float) @ b.astype(float)
    error = np.linalg.norm(ops.matmul(a, b, compute=COMPUTE) - want) / np.linalg.norm(want)
    # A random walk of 32 roundings of 2^-12 or so each, and those of the operands.
    assert error <= 2e-3
    assert (error > 1e-4) == uses(COMPUTE)
