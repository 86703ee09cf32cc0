"""Products in 16-bit arithmetic against float64, by their documented bounds: on tiers that have it and on
those that compute in float32 instead."""

import numpy as np
import pytest
from products_16 import DTYPES, LAYOUTS, SIZES, assert_within, operand, product, uses
from test_gemm import ACTIVATIONS

import vectile
from vectile import ops


@pytest.fixture(params=["fp16", "bf16"])
def compute(request):
    return request.param


@pytest.fixture(params=DTYPES, ids=str)
def floating(request):
    return request.param


@pytest.mark.sanitize
def test_matmul(isa, always, compute, floating, rng):
    for m, n, k in SIZES:
        for left, right in LAYOUTS:
            a, b = operand(rng, m, k, floating, left), operand(rng, k, n, floating, right)
            got = ops.matmul(a, b, compute=compute)
            assert got.dtype == floating
            assert_within(got, *product(a, b, compute))


def test_empty(isa, always, compute, floating):
    for m, n, k in [(0, 3, 4), (3, 0, 4), (3, 4, 0)]:
        got = ops.matmul(np.ones((m, k), floating), np.ones((k, n), floating), compute=compute)
        np.testing.assert_array_equal(got.astype(float), np.zeros((m, n)))


def test_small_integers_are_exact(isa, always, compute, floating, rng):
    for m, n, k in SIZES:  # products below 9, sums of 32 of them below 2048
        a = rng.integers(-2, 3, (m, k)).astype(floating)
        b = rng.integers(-2, 3, (k, n)).astype(floating)
        want = (a.astype(float) @ b.astype(float)).astype(floating)
        np.testing.assert_array_equal(ops.matmul(a, b, compute=compute), want)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_linear(isa, always, compute, floating, rng, size):
    m, n, k = size
    x, w = operand(rng, m, k, floating, "N"), operand(rng, n, k, floating, "N")
    bias, residual = (rng.normal(size=s).astype(floating) for s in ((n,), (m, n)))
    want, bound = product(x, w.T, compute)
    for weight in (w, np.asfortranarray(w), ops.pack(w, compute=compute)):
        assert_within(ops.linear(x, weight, compute=compute), want, bound)
        for name, f in ACTIVATIONS.items():
            for r in (None, residual):
                got = ops.linear(x, weight, bias, activation=name, residual=r, compute=compute)
                before = want + bias.astype(float)
                after = f(before) + (0 if r is None else r.astype(float))
                # No activation rises faster than 1.2; float32 itself is within 2^-18 of 1.
                near = 1.2 * bound + 2.0**-18 * (1 + np.abs(before) + np.abs(after))
                assert_within(got, after, near)


def test_batches(isa, always, compute, floating, rng):
    for a, b in [
        ((3, 1, 5, 7), (4, 7, 6)),
        ((6, 16, 16), (6, 16, 16)),
        ((5, 30, 400), (400, 20)),
        ((400,), (2, 400, 20)),
        ((3, 20, 40), (40,)),
        ((0, 3, 4), (4, 5)),
    ]:
        x, y = rng.normal(size=a).astype(floating), rng.normal(size=b).astype(floating)
        got = ops.matmul(x, y, compute=compute)
        left = x[None, :] if x.ndim == 1 else x
        right = y[:, None] if y.ndim == 1 else y
        want, bound = product(left, right, compute)
        shape = np.matmul(x.astype(float), y.astype(float)).shape
        assert_within(got, want.reshape(shape), bound.reshape(shape))
    x = rng.normal(size=(3, 33, 40)).astype(floating).swapaxes(0, 1)
    y = rng.normal(size=(33, 40, 9)).astype(floating)[:, ::-1]
    assert_within(ops.matmul(x, y, compute=compute), *product(x, y, compute))


def test_out_may_be_strided_and_overlap(isa, always, compute, floating, rng):
    a, b = operand(rng, 40, 40, floating, "N"), operand(rng, 40, 40, floating, "N")
    want, bound = product(a, b, compute)
    for out in (
        np.zeros((40, 40), floating),
        np.zeros((40, 80), floating)[:, :40],
        np.zeros((40, 80), floating)[:, ::2],
        np.zeros((40, 40), floating)[::-1],
        np.zeros((40, 40), floating).T,
        a,
    ):
        assert ops.matmul(a, b, out=out, compute=compute) is out
        assert_within(out, want, bound)


@pytest.mark.parametrize("size", [(300, 200, 700), (700, 30, 300), (40, 900, 500)], ids=str)
def test_threads(isa, always, compute, floating, rng, same_for_any_thread_count, size):
    m, n, k = size
    for layout in ("NN", "NT", "TN"):
        a = operand(rng, m, k, floating, layout[0])
        b = operand(rng, k, n, floating, layout[1])
        packed = ops.pack(b.T, compute=compute)
        first = same_for_any_thread_count(lambda a=a, b=b: ops.matmul(a, b, compute=compute))
        again = same_for_any_thread_count(lambda a=a, p=packed: ops.linear(a, p))
        if uses(compute):  # in float32, a packed weight is cut into other pieces
            assert first.tobytes() == again.tobytes()
        assert_within(first, *product(a, b, compute))


def test_nan_and_infinity(isa, always, compute, floating, rng):
    a, b = operand(rng, 20, 50, floating, "N"), operand(rng, 50, 70, floating, "N")
    a[1, 2], a[3, 4], b[5, 6] = np.nan, np.inf, -np.inf
    got = ops.matmul(a, b, compute=compute).astype(float)
    with np.errstate(invalid="ignore"):
        want = np.matmul(a.astype(float), b.astype(float))
    number = np.isfinite(want)
    np.testing.assert_array_equal(np.isfinite(got), number)
    np.testing.assert_array_equal(got[~number], want[~number])


def test_what_the_unit_does_not_take(isa, compute):
    a, b = np.ones((3, 4)), np.ones((4, 5))
    with pytest.raises(
        TypeError,
        match=f"matmul: a dtype: expected float32, float16 or bfloat16 for compute='{compute}', "
        "got float64",
    ):
        ops.matmul(a, b, compute=compute)
    with pytest.raises(TypeError, match="linear: x dtype"):
        ops.linear(a, b.T, compute=compute)
    with pytest.raises(TypeError, match="pack: weight dtype"):
        ops.pack(a, compute=compute)
    for op, arguments in (("matmul", (a, b)), ("linear", (a, b.T)), ("pack", (a,))):
        with pytest.raises(
            ValueError, match=f"{op}: compute value: expected None, 'fp16' or 'bf16', got 'int8'"
        ):
            getattr(ops, op)(*arguments, compute="int8")


def test_a_packed_weight_keeps_its_arithmetic(isa, compute, rng):
    x, w = operand(rng, 40, 64, np.float32, "N"), operand(rng, 70, 64, np.float32, "N")
    packed, plain = ops.pack(w, compute=compute), ops.pack(w)
    assert (packed.compute, plain.compute) == (compute, None)
    assert packed.nbytes < plain.nbytes or not uses(compute)
    np.testing.assert_array_equal(ops.linear(x, packed), ops.linear(x, packed, compute=compute))
    other = "bf16" if compute == "fp16" else "fp16"
    with pytest.raises(ValueError, match=f"expected None or '{compute}', as weight was packed"):
        ops.linear(x, packed, compute=other)
    with pytest.raises(ValueError, match="expected None, as weight was packed, got"):
        ops.linear(x, plain, compute=compute)
    with pytest.raises(ValueError, match="expected None beside a quantised weight, got"):
        ops.linear(x, ops.quantize_weight(w), compute=compute)


def test_the_configuration_says_what_runs(isa, compute):
    assert (compute in vectile.config()["arithmetic_16"]) == uses(compute)
