"""Products of bytes large enough for the kernels for sm_90a, which the emulation is, in int64."""

import numpy as np
import pytest
from on_device import needs_device, older_device, run
from test_cuda_gemm_s8 import BYTES, close, dense_of, draw, silu, step_of

pytestmark = [needs_device, pytest.mark.usefixtures("few_multiprocessors")]

# A cluster's tile is 256 x 256, a step 128 of k.
SIZES = [(128, 128, 16), (129, 136, 272), (264, 260, 100)]


def centred(x, zero):
    return x.astype(np.int64) - np.asarray(zero).astype(np.int64)


@pytest.mark.parametrize("b_type", BYTES)
@pytest.mark.parametrize("a_type", BYTES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_matmul_integer_is_exact(rng, size, a_type, b_type):
    m, n, k = size
    a, b = draw(rng, (m, k), a_type), draw(rng, (k, n), b_type)
    np.testing.assert_array_equal(run("matmul_integer", a, b), centred(a, 0) @ centred(b, 0))
    za, zb = draw(rng, (m,), a_type), draw(rng, (n,), b_type)
    want = centred(a, za[:, None]) @ centred(b, zb)
    np.testing.assert_array_equal(run("matmul_integer", a, b, za, zb), want)
    want = centred(a, 0) @ centred(b, zb[0])
    np.testing.assert_array_equal(run("matmul_integer", a, b, None, zb[0]), want)


def test_batches(rng):
    m, n, k = 128, 132, 40
    shapes = [((2, m, k), (2, k, n)), ((2, 1, m, k), (2, k, n)), ((2, m, k), (k, n))]
    for a, b in shapes:
        a, b = draw(rng, a, np.uint8), draw(rng, b, np.int8)
        np.testing.assert_array_equal(run("matmul_integer", a, b), centred(a, 0) @ centred(b, 0))
        want = centred(a, 3) @ centred(b, 0)
        np.testing.assert_array_equal(run("matmul_integer", a, b, np.uint8(3)), want)


@pytest.mark.parametrize("y_type", BYTES)
def test_qlinear_matmul(rng, y_type):
    m, n, k = 130, 141, 48
    a, b, za = draw(rng, (m, k), np.uint8), draw(rng, (k, n), np.int8), draw(rng, (), np.uint8)
    zb, zy = draw(rng, (n,), np.int8), draw(rng, (), y_type)
    sa, sb, sy = rng.uniform(0.01, 0.1, m), rng.uniform(0.001, 0.01, n), np.float32(0.3)
    sa, sb = sa.astype(np.float32), sb.astype(np.float32)
    exact = centred(a, za) @ centred(b, zb)
    want = np.rint(exact.astype(np.float32) * (sa[:, None] * (sb / sy))) + np.float32(zy)
    info = np.iinfo(y_type)
    got = run("qlinear_matmul", a, sa, za, b, sb, zb, sy, zy)
    np.testing.assert_array_equal(got, np.clip(want, info.min, info.max).astype(y_type))


@pytest.mark.parametrize("dtype", (np.float32, np.float16, np.float64))
@pytest.mark.parametrize("symmetric", (False, True))
def test_quantized_linear(rng, symmetric, dtype):
    m, n, k = 130, 129, 72
    wide = np.float64 if dtype == np.float64 else np.float32
    x, bias = (rng.normal(0.3, 1, s).astype(dtype) for s in ((m, k), (n,)))
    q = run("quantize_weight", rng.normal(size=(n, k)).astype(wide), symmetric=symmetric)
    dense, exact = dense_of(*q), x.astype(np.float64)
    bound = (0.5 + 1e-3) * step_of(exact, symmetric) * abs(dense).sum(1)
    bound += 16 * float(np.finfo(wide).eps) * (abs(exact) @ abs(dense).T)
    exact = exact @ dense.T + bias.astype(np.float64)
    got = run("quantized_linear", x, *q, bias=bias, activation="silu", symmetric=symmetric)
    assert got.dtype == dtype
    assert close(got, silu(exact), 1.1 * bound, dtype)


def test_kernels_for_older_devices_give_the_same(rng):
    a, b = draw(rng, (200, 130), np.int8), draw(rng, (130, 140), np.int8)
    newest = run("matmul_integer", a, b)
    with older_device():
        np.testing.assert_array_equal(run("matmul_integer", a, b), newest)
