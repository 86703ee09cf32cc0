"""What the tests of products in 16-bit arithmetic share: operands, the oracle and its bound."""

import ml_dtypes
import numpy as np

from vectile import _core

BF16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = [np.dtype(np.float32), np.dtype(np.float16), BF16]
# Tiles of 14 rows and 64 or 32 columns, blocks of 32 x 32, pieces of 32, 64, 256 or 512 steps of K.
SIZES = [
    (1, 1, 1),
    (1, 65, 31),
    (3, 5, 7),
    (14, 64, 32),
    (15, 65, 33),
    (13, 63, 31),
    (31, 33, 65),
    (32, 32, 64),
    (33, 31, 127),
    (57, 97, 129),
    (70, 130, 200),
    (130, 40, 700),
    (5, 300, 1030),
    (300, 3, 40),
]
LAYOUTS = ["NN", "NT", "TN", "TT", "SS", "RN", "NR"]
# A piece's products are summed in float16; the second order is in the last digits.
F16_SUMS = 0.017


def uses(compute):
    """Whether the tier in use has that arithmetic and is to use it."""
    return _core.uses_f16() if compute == "fp16" else _core.uses_bf16()


def operand(rng, rows, columns, dtype, layout):
    """Normal numbers: rows, columns, neither axis contiguous, or both reversed."""
    if layout == "T":
        return rng.normal(size=(columns, rows)).astype(dtype).T
    if layout == "S":
        return rng.normal(size=(2 * rows, 3 * columns)).astype(dtype)[::2, ::3]
    x = rng.normal(size=(rows, columns)).astype(dtype)
    return x[::-1, ::-1] if layout == "R" else x


def rounding(want, dtype):
    """How far the nearest number of ``dtype`` can be from one that is as large as ``want``."""
    if dtype == np.float32:
        return np.zeros_like(want)
    info = ml_dtypes.finfo(dtype)
    return np.abs(want) * float(info.eps) / 2 * 1.01 + float(info.smallest_subnormal)


def product(a, b, compute):
    """The product in float64 and the documented bound of its error, before it is rounded."""
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    k = a.shape[-1]
    magnitude = np.abs(a64) @ np.abs(b64)
    sums = np.abs(a64).sum(-1, keepdims=True) + np.abs(b64).sum(-2, keepdims=True)
    if compute == "fp16":
        return a64 @ b64, (F16_SUMS + k * 2.0**-24) * magnitude + 2.0**-25 * (k + sums)
    operands = 0.0 if a.dtype == BF16 else 0.0079  # two roundings of 2^-8
    return a64 @ b64, (operands + k * 2.0**-23) * magnitude + 2.0**-126 * (4 * k + sums)


def assert_within(got, want, bound):
    """``got`` is ``want`` within ``bound`` and the rounding to its own type."""
    assert got.shape == want.shape
    bound = bound + rounding(np.abs(want) + bound, got.dtype)
    worst = np.max(np.abs(got.astype(np.float64) - want) - bound, initial=-np.inf)
    assert worst <= 0, f"beyond the bound by {worst}"
