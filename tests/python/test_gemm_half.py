"""Products of half types in float32: that of the widened operands, bit for bit, rounded once."""

import ml_dtypes
import numpy as np
import pytest
from test_gemm import ACTIVATIONS, LAYOUTS, PARALLEL, SIZES

from vectile import _core, ops

HALVES = [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)]


@pytest.fixture(params=HALVES, ids=str)
def half(request):
    return request.param


@pytest.fixture(autouse=True)
def widened():
    """Also where bfloat16 has arithmetic of its own; test_gemm_16.py is about that."""
    _core.set_always_16(False)
    yield
    _core.set_always_16(None)


def normal(rng, half, *shape):
    return rng.normal(size=shape).astype(half)


def operand(rng, half, rows, columns, layout):
    """Values of a half type: rows, columns, neither axis contiguous, or both reversed."""
    if layout == "T":
        return normal(rng, half, columns, rows).T
    if layout == "S":
        return normal(rng, half, 2 * rows, 3 * columns)[::2, ::3]
    x = normal(rng, half, rows, columns)
    return x[::-1, ::-1] if layout == "R" else x


def widen(x):
    """The same numbers in float32 at the same strides, by which kernels are chosen."""
    if x is None:
        return None
    base = x if x.base is None else x.base
    if x.dtype != base.dtype:
        return x.astype(np.float32)
    strides = [2 * s for s in x.strides]
    wide = base.astype(np.float32)
    offset = 2 * (x.ctypes.data - base.ctypes.data) if x.size else 0
    return np.ndarray(x.shape, np.float32, wide, offset, strides)


def bits(x):
    return np.ascontiguousarray(x).view(np.uint16)


def assert_rounded(got, wide):
    """`got` is float32 `wide` in its type."""
    assert got.shape == wide.shape
    np.testing.assert_array_equal(bits(got), bits(ops.cast(wide, got.dtype)))


@pytest.mark.sanitize
@pytest.mark.parametrize("layout", [*LAYOUTS, "SS", "RR", "NS", "RT"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_matmul_is_float32_rounded_once(isa, half, rng, size, layout):
    m, n, k = size
    a = operand(rng, half, m, k, layout[0])
    b = operand(rng, half, k, n, layout[1])
    # Both orders of memory of the result: the plan may compute its transpose.
    for c in (np.empty((m, n), half), np.empty((n, m), half).T):
        c[:] = 7
        assert ops.matmul(a, b, out=c) is c
        assert_rounded(c, ops.matmul(widen(a), widen(b)))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_integer_products_are_exact(isa, half, rng, size, layout):
    m, n, k = size  # the sums are exact, and the oracle needs no kernel of ours
    a = np.rint(2 * operand(rng, half, m, k, layout[0]).astype(float)).astype(half)
    b = np.rint(2 * operand(rng, half, k, n, layout[1]).astype(float)).astype(half)
    want = (a.astype(np.float64) @ b.astype(np.float64)).astype(half)
    np.testing.assert_array_equal(bits(ops.matmul(a, b)), bits(want))


@pytest.mark.parametrize("size", [*SIZES, *PARALLEL], ids=str)
def test_linear_is_float32_finished_and_rounded_once(isa, half, rng, size):
    m, n, k = size
    x, w = normal(rng, half, m, k), normal(rng, half, n, k)
    bias, residual = normal(rng, half, n), normal(rng, half, m, n)
    packed, wide_packed = ops.pack(w), ops.pack(widen(w))
    assert packed.dtype == half
    layouts = [(w, widen(w)), (np.asfortranarray(w), np.asfortranarray(widen(w)))]
    for weight, wide in [*layouts, (packed, wide_packed)]:
        assert_rounded(ops.linear(x, weight), ops.linear(widen(x), wide))
        for name in ACTIVATIONS if m * n * k < 1 << 18 else (None, "silu"):
            for r in (None, residual):
                got = ops.linear(x, weight, bias, activation=name, residual=r)
                want = ops.linear(widen(x), wide, widen(bias), activation=name, residual=widen(r))
                assert_rounded(got, want)


def test_batches(isa, half, rng):
    for a, b in [
        (normal(rng, half, 3, 1, 5, 7), normal(rng, half, 4, 7, 6)),
        (normal(rng, half, 6, 16, 16), normal(rng, half, 6, 16, 16)),
        (normal(rng, half, 5, 30, 400), normal(rng, half, 400, 20)),
        (normal(rng, half, 400), normal(rng, half, 2, 400, 20)),
        (normal(rng, half, 3, 33, 40).swapaxes(0, 1), normal(rng, half, 33, 40, 9)[:, ::-1]),
        (normal(rng, half, 0, 3, 4), normal(rng, half, 4, 5)),
        (normal(rng, half, 40), normal(rng, half, 40)),
    ]:
        assert_rounded(np.asarray(ops.matmul(a, b)), np.asarray(ops.matmul(widen(a), widen(b))))


def test_out_may_be_strided_and_overlap(isa, half, rng):
    a, b = normal(rng, half, 40, 40), normal(rng, half, 40, 40)
    want = ops.matmul(widen(a), widen(b))
    for out in (np.zeros((40, 80), half)[:, ::2], np.zeros((40, 40), half)[::-1], a):
        assert ops.matmul(a, b, out=out) is out
        assert_rounded(out, want)


@pytest.mark.parametrize(
    "size", [*PARALLEL, (1500, 900, 800), (64, 5000, 500), (9000, 30, 40)], ids=str
)
def test_threads(half, rng, same_for_any_thread_count, size):
    m, n, k = size
    for layout in ("NN", "NT", "TN"):
        a, b = operand(rng, half, m, k, layout[0]), operand(rng, half, k, n, layout[1])
        got = same_for_any_thread_count(lambda a=a, b=b: ops.matmul(a, b).view(np.uint16))
        assert_rounded(got.view(half), ops.matmul(widen(a), widen(b)))


def test_special_values(isa, half, rng):
    a, b = normal(rng, half, 20, 50), normal(rng, half, 50, 30)
    tiny = ml_dtypes.finfo(half).smallest_subnormal
    a[1, 2], a[3, 4], b[5, 6], a[7, :], b[:, 8] = np.nan, np.inf, -np.inf, tiny, 1
    got, want = ops.matmul(a, b), ops.matmul(widen(a), widen(b))
    assert np.isnan(got[1].astype(float)).all() and np.isinf(got[:, 6].astype(float)).any()
    number = ~np.isnan(want)
    np.testing.assert_array_equal(np.isnan(got.astype(float)), ~number)
    np.testing.assert_array_equal(bits(got)[number], bits(ops.cast(want, half))[number])
    large = np.full((9, 9), ml_dtypes.finfo(half).max, half)
    assert np.isinf(ops.matmul(large, large).astype(float)).all()
