"""Matrix products large enough for the kernels for sm_90a, which the emulation is, against float64."""

import numpy as np
import pytest
from on_device import EMULATED, needs_device, older_device, run
from test_cuda_gemm import (
    ACTIVATIONS,
    BFLOAT16,
    LAYOUTS,
    assert_product,
    assert_sum_rounds,
    assert_within,
    operand,
    product,
    rounding,
    summed_eps,
)

pytestmark = [needs_device, pytest.mark.usefixtures("few_multiprocessors")]

ARITHMETICS = [
    (BFLOAT16, {}),
    (np.float16, {}),
    (np.float32, {}),
    (np.float32, {"compute": "tf32"}),
]
# A cluster's tile is 256 x 256, of float32 256 x 128; a step is 64 of k, of tf32 32, a ring four
# steps or two.
SIZES = [(128, 128, 8), (129, 136, 72), (264, 130, 200), (400, 264, 33)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("arithmetic", ARITHMETICS, ids=str)
def test_integer_products_are_exact(rng, layout, size, arithmetic):
    dtype, options = arithmetic
    m, n, k = size  # sums stay below 2**24: any term left out or added twice shows
    a = np.rint(4 * operand(rng, m, k, np.float32, layout[0] == "T")).astype(dtype)
    b = np.rint(4 * operand(rng, k, n, np.float32, layout[1] == "T")).astype(dtype)
    want = (a.astype(np.float64) @ b.astype(np.float64)).astype(dtype)
    np.testing.assert_array_equal(run("matmul", a, b, **options), want)


@pytest.mark.parametrize("dtype", (BFLOAT16, np.float16, np.float32))
def test_error(rng, dtype):
    a, b = operand(rng, 130, 300, dtype, False), operand(rng, 300, 132, dtype, False)
    assert_product(run("matmul", a, b), a, b)
    if dtype == np.float32:
        assert_product(run("matmul", a, b, compute="tf32"), a, b, 2**-10)


def test_float32_of_many_terms(rng):
    assert_sum_rounds(rng, (128, 64, 4096), 64)


def test_kernels_for_older_devices_give_the_same(rng):
    a, b = operand(rng, 130, 96, np.float32, False), operand(rng, 96, 136, np.float32, True)
    newest = run("matmul", a, b)
    with older_device():
        older = run("matmul", a, b)
    assert_product(newest, a, b)
    assert_product(older, a, b)
    if EMULATED:  # other orders of the same sums: that they differ shows that both ran
        assert (newest != older).any()


def test_float32_keeps_its_24_bits_and_its_infinities(rng):
    a, one = operand(rng, 136, 128, np.float32, False), np.eye(128, dtype=np.float32)
    np.testing.assert_array_equal(run("matmul", a, one), a)
    a[1, 3], a[2, 4], a[3, 5], a[4, :2] = np.inf, -np.inf, np.nan, (np.inf, -np.inf)
    b = np.clip(operand(rng, 128, 128, np.float32, True), -0.4, 0.4)
    with np.errstate(all="ignore"):
        want = (a.astype(np.float64) @ b.astype(np.float64)).astype(np.float32)
    odd = ~np.isfinite(want)
    for options in ({}, {"compute": "tf32"}):
        got = run("matmul", a, b, **options)
        np.testing.assert_array_equal(got[odd], want[odd])
        assert np.isfinite(got[~odd]).all()


@pytest.mark.parametrize("dtype", (BFLOAT16, np.float32))
def test_batches(rng, dtype):
    m, n, k = 128, 129, 24
    for a, b in (
        ((3, m, k), (3, k, n)),
        ((2, 1, m, k), (3, k, n)),
        ((2, 2, 1, m, k), (2, 1, k, n)),
    ):
        x, y = rng.normal(size=a).astype(dtype), rng.normal(size=b).astype(dtype)
        assert_product(run("matmul", x, y), x, y)
        x, y = (z.swapaxes(-1, -2).copy().swapaxes(-1, -2) for z in (x, y))
        assert_product(run("matmul", x, y), x, y)


@pytest.mark.parametrize("dtype", (BFLOAT16, np.float32))
def test_strides(rng, dtype):
    x, y = rng.normal(size=(2, 258, 40)).astype(dtype), rng.normal(size=(2, 40, 258)).astype(dtype)
    views = [
        (x[:, ::2, ::2], y[:, ::2, ::2]),  # nothing dense
        (x[:, ::-1], y[..., ::-1]),
        (x[..., 1:33], y[:, 1:33, 3:]),  # unaligned
        (x[..., 8:40], y[:, 8:40, :200]),  # aligned views
        (x[..., :31], y[:, :31, :133]),  # lines that end within a chunk
        (np.broadcast_to(x[:, :1], x.shape), np.broadcast_to(y[:1], y.shape)),
    ]
    for a, b in views:
        assert_product(run("matmul", a, b), a, b)


@pytest.mark.parametrize("dtype", (BFLOAT16, np.float16, np.float32))
def test_linear(rng, dtype):
    m, n, k = 140, 263, 40
    x, w, bias, residual = (rng.normal(size=s).astype(dtype) for s in ((m, k), (n, k), n, (m, n)))
    want, bound = product(x, w.T)
    z = want + bias.astype(np.float64)
    eps = summed_eps(dtype)
    for name in (None, "gelu"):
        y = ACTIVATIONS[name](z)
        error = 1.13 * (bound + eps * abs(z)) + 8 * eps * (abs(z) + 1)
        y = y + residual.astype(np.float64)
        error = error + eps * abs(y)
        options = {"activation": name} if name else {}
        got = run("linear", x, w, bias, residual=residual, **options)
        assert_within(got, y, error + rounding(dtype, abs(y) + error))


def test_repeated_products_give_the_same_bits(rng):
    a, b = operand(rng, 300, 90, np.float32, False), operand(rng, 90, 150, np.float32, False)
    np.testing.assert_array_equal(run("matmul", a, b), run("matmul", a, b))
