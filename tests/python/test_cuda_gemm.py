"""Matrix products on a device against float64."""

import ml_dtypes
import numpy as np
import pytest
from on_device import cuda, dev, host, needs_device, run
from scipy import special

pytestmark = [needs_device, pytest.mark.usefixtures("before_hopper", "few_multiprocessors")]

BFLOAT16 = ml_dtypes.bfloat16
TYPES = (np.float32, np.float64, np.float16, BFLOAT16)
LAYOUTS = ("NN", "NT", "TN", "TT")
# (m, n, k): empty, one, primes; blocks of 64, or of 128 from two of them on, plus and minus one;
# a step is 16 or 32 of k. k and n of 8 and more are copied in whole chunks where multiples of it.
SIZES = [
    (0, 3, 4),
    (3, 0, 4),
    (3, 4, 0),
    (1, 1, 1),
    (1, 67, 33),
    (67, 1, 33),
    (16, 8, 16),
    (15, 9, 17),
    (7, 40, 200),
    (64, 64, 31),
    (65, 72, 80),
]
LARGE = [(129, 72, 33), (136, 136, 40), (128, 256, 16)]
# Few blocks and much of k, which is cut into parts: 8, 4 and 2 of float32.
DEEP = [(1, 40, 1088), (65, 3, 1025), (33, 140, 513)]
ACTIVATIONS = {
    None: lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: x * special.ndtr(x),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x * special.expit(x),
    "tanh": np.tanh,
    "sigmoid": special.expit,
}


def eps_of(dtype):
    return float(ml_dtypes.finfo(dtype).eps)


def summed_eps(dtype):
    return eps_of(np.float64 if dtype == np.float64 else np.float32)


def rounding(dtype, x):
    """What one rounding to a half type may do to x."""
    half = dtype in (np.float16, BFLOAT16)
    return (
        eps_of(dtype) / 2 * abs(x) + float(ml_dtypes.finfo(dtype).smallest_subnormal) if half else 0
    )


def operand(rng, rows, columns, dtype, transposed):
    x = rng.normal(size=(columns, rows) if transposed else (rows, columns)).astype(dtype)
    return x.T if transposed else x


def product(a, b):
    """The product in float64, and its error before it is rounded: (k + 2) eps |a| @ |b|."""
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    return a64 @ b64, (a.shape[-1] + 2) * summed_eps(a.dtype) * (abs(a64) @ abs(b64))


def assert_within(got, want, bound):
    assert got.shape == want.shape
    assert (abs(got.astype(np.float64) - want) <= bound).all()


def assert_product(got, a, b, more=0):
    want, bound = product(a, b)
    assert got.dtype == a.dtype
    bound = bound + more * (abs(a.astype(np.float64)) @ abs(b.astype(np.float64)))
    assert_within(got, want, bound + rounding(a.dtype, abs(want) + bound))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_sizes(rng, layout, dtype):
    for m, n, k in SIZES:
        a = operand(rng, m, k, dtype, layout[0] == "T")
        b = operand(rng, k, n, dtype, layout[1] == "T")
        assert_product(run("matmul", a, b), a, b)


@pytest.mark.parametrize("size", LARGE + DEEP, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_integer_products_are_exact(rng, layout, size):
    m, n, k = size  # sums stay below 2**24: any term left out or added twice shows
    for dtype, compute in ((np.float32, None), (np.float32, "tf32"), (BFLOAT16, None)):
        a = np.rint(4 * operand(rng, m, k, np.float32, layout[0] == "T")).astype(dtype)
        b = np.rint(4 * operand(rng, k, n, np.float32, layout[1] == "T")).astype(dtype)
        got = run("matmul", a, b, **({"compute": compute} if compute else {}))
        want = a.astype(np.float64) @ b.astype(np.float64)
        np.testing.assert_array_equal(got, want.astype(dtype))


def test_float32_keeps_its_24_bits(rng):
    # Each operand has all 24 bits set somewhere: what is left out is at most 2 eps, and less on the mean.
    a, b = (operand(rng, 40, 40, np.float32, False) for _ in range(2))
    want = a.astype(np.float64) @ b.astype(np.float64)
    size = abs(a.astype(np.float64)) @ abs(b.astype(np.float64))
    error = abs(run("matmul", a, b) - want) / size
    assert error.max() < 2**-23 and error.mean() < 2**-25
    one = np.eye(40, dtype=np.float32)
    np.testing.assert_array_equal(run("matmul", a, one), a)
    np.testing.assert_array_equal(run("matmul", one, b), b)


def assert_sum_rounds(rng, size, step):
    """Of float32 products of positive numbers, in units of 2^-24 of the largest.

    Additions round every `step` of k: sqrt(k / step) / 3 is the deviation of all their errors, 4.5 of which
    are allowed. Within a step at most 2 are cut off, and half a unit of each sum of 16 on the mean. The
    sum of the small products, at most 2^-7 of all, is cut off 5 times in 16 of k.
    """
    m, n, k = size
    a, b = rng.random((m, k), np.float32), rng.random((k, n), np.float32)
    want = a.astype(np.float64) @ b.astype(np.float64)
    units = 1.5 * np.sqrt(k / step) + 2 + step / 32 + 5 / 16 * k * 2**-7 / 2
    assert abs(run("matmul", a, b) - want).max() < units * 2**-24 * want.max()


def test_float32_of_many_terms(rng):
    assert_sum_rounds(rng, (20, 20, 4096), 16)


@pytest.mark.parametrize("compute", ("tf32", "fp16", "bf16"))
def test_compute(rng, compute):
    for dtype in (np.float32, BFLOAT16, np.float16):
        a, b = operand(rng, 33, 48, dtype, False), operand(rng, 48, 20, dtype, True)
        got = run("matmul", a, b, compute=compute)
        assert_product(got, a, b, 2**-10 if dtype == np.float32 else 0)
        if dtype != np.float32:  # theirs already
            np.testing.assert_array_equal(got, run("matmul", a, b))


def test_infinities_and_nans(rng):
    a, b = operand(rng, 20, 24, np.float32, False), operand(rng, 24, 9, np.float32, False)
    b = np.clip(b, -0.4, 0.4)
    a[1, 3], a[2, 4], a[3, 5], a[4, :2] = np.inf, -np.inf, np.nan, (np.inf, -np.inf)
    a[5, 0], b[0, 0], b[:, 8] = np.inf, 0, 1
    a[7:9] = 0
    a[7, 0] = a[8, :2] = 3.4e38  # with its upper bits rounded it is an infinity; twice it is
    with np.errstate(all="ignore"):
        want = (a.astype(np.float64) @ b.astype(np.float64)).astype(np.float32)
        for compute in (None, "tf32"):
            got = run("matmul", a, b, **({"compute": compute} if compute else {}))
            odd = ~np.isfinite(want)
            np.testing.assert_array_equal(got[odd], want[odd])
            assert np.isfinite(got[~odd]).all()
        np.testing.assert_allclose(run("matmul", a, b)[7], want[7], rtol=3e-7)


def test_accuracy_of_wide_ranges(rng):
    a, b = (operand(rng, 17, 32, np.float32, False) for _ in range(2))
    a *= np.float32(10) ** rng.integers(-18, 18, a.shape).astype(np.float32)
    b = (b * np.float32(10) ** rng.integers(-18, 18, b.shape).astype(np.float32)).T
    assert_product(run("matmul", a, b), a, b)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((5,), (5,)),
        ((5,), (5, 3)),
        ((4, 5), (5,)),
        ((2, 4, 5), (5,)),
        ((5,), (2, 5, 3)),
        ((2, 4, 5), (5, 3)),
        ((3, 1, 4, 8), (2, 8, 16)),
        ((1, 2, 4, 8), (3, 1, 8, 16)),
        ((2, 1, 3, 4, 8), (5, 1, 8, 3)),
        ((0, 4, 5), (5, 3)),
        ((2, 0, 5), (2, 5, 3)),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", TYPES)
def test_numpys_shapes(rng, dtype, a, b):
    x, y = rng.normal(size=a).astype(dtype), rng.normal(size=b).astype(dtype)
    got = run("matmul", x, y)
    want = x.astype(np.float64) @ y.astype(np.float64)
    assert got.shape == want.shape and got.dtype == dtype
    bound = 8 * summed_eps(dtype) * 64
    assert_within(got, want, bound + rounding(dtype, abs(want) + bound))


@pytest.mark.parametrize("dtype", TYPES)
def test_batches_of_much_k(rng, dtype):
    a, b = rng.normal(size=(2, 3, 520)).astype(dtype), rng.normal(size=(2, 520, 9)).astype(dtype)
    assert_product(run("matmul", a, b), a, b)
    a, b = a[0], b[0]
    a[1, 519] = np.inf
    with np.errstate(all="ignore"):
        want = a.astype(np.float64) @ b.astype(np.float64)
    got = run("matmul", a, b)
    np.testing.assert_array_equal(got[~np.isfinite(want)], want[~np.isfinite(want)].astype(dtype))
    assert np.isfinite(got[np.isfinite(want)]).all()


@pytest.mark.parametrize("dtype", TYPES)
def test_strides(rng, dtype):
    x, y = rng.normal(size=(2, 40, 48)).astype(dtype), rng.normal(size=(2, 48, 40)).astype(dtype)
    views = [
        (x[:, ::2, ::2], y[:, ::2, ::3]),  # nothing dense
        (x[:, ::-1], y[..., ::-1]),
        (x[..., 1:33], y[:, 1:33]),  # unaligned rows of A
        (x[..., :32], y[:, :32, 3:]),  # aligned A, unaligned B
        (x[..., 8:40], y[:, 8:40, :24]),  # aligned views
        (x[..., :31], y[:, :31, :23]),  # aligned rows, last chunks in part
        (x.swapaxes(1, 2)[:, :40], y.swapaxes(1, 2)[:, :, :31]),
        (np.broadcast_to(x[:, :1], x.shape), np.broadcast_to(y[:1], y.shape)),
        (x[0, 0], y[:, :, 1::2]),
    ]
    for a, b in views:
        assert_product(run("matmul", a, b), a, b)


def test_out(rng):
    a, b = operand(rng, 20, 24, np.float32, False), operand(rng, 24, 12, np.float32, False)
    out = dev(np.full((20, 12), np.nan, np.float32))
    assert cuda.matmul(dev(a), dev(b), out) is out
    assert_product(host(out), a, b)
    square = operand(rng, 24, 24, np.float32, False)
    want = run("matmul", square, square)
    x = dev(square.copy())
    assert cuda.matmul(x, x, out=x) is x
    np.testing.assert_array_equal(host(x), want)


@pytest.mark.parametrize("shape", [(20, 12), (40, 15), (20, 30)])
def test_out_with_strides(rng, shape):
    a, b = operand(rng, 20, 24, np.float32, False), operand(rng, 24, 12, np.float32, False)
    whole = np.full(shape, 7, np.float32)
    rows, columns = slice(None, None, shape[0] // 20), slice(None, None, shape[1] // 12)
    out = whole[rows, columns][:, :12]
    if dev(out) is not out:
        pytest.skip("device arrays of strides come from elsewhere")
    cuda.matmul(a, b, out)
    assert_product(out, a, b)
    whole[rows, columns][:, :12] = 7
    assert (whole == 7).all()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    "size", [(1, 7, 5), (5, 33, 40), (130, 136, 16), (3, 4, 0), (3, 13, 1100)], ids=str
)
def test_linear(rng, size, dtype):
    m, n, k = size
    x, w, bias, residual = (rng.normal(size=s).astype(dtype) for s in ((m, k), (n, k), n, (m, n)))
    want, bound = product(x, w.T)
    z = want + bias.astype(np.float64)
    eps = summed_eps(dtype)
    names = ACTIVATIONS if m * k < 1000 else ("gelu",)
    for name in names:
        y = ACTIVATIONS[name](z)
        options = {"activation": name} if name else {}
        # every activation is 1.13-Lipschitz or better and computed to 8 eps of its argument
        error = 1.13 * (bound + eps * abs(z)) + 8 * eps * (abs(z) + 1)
        got = run("linear", x, w, bias, **options)
        assert_within(got, y, error + rounding(dtype, abs(y) + error))
        y = y + residual.astype(np.float64)
        error = error + eps * abs(y)
        got = run(
            "linear", x, np.asfortranarray(w), bias, residual=np.asfortranarray(residual), **options
        )
        assert_within(got, y, error + rounding(dtype, abs(y) + error))
    assert_within(run("linear", x, w), want, bound + rounding(dtype, abs(want) + bound))


@pytest.mark.parametrize("shape", [(8,), (2, 3, 8), (0, 8), (3, 0, 8)])
def test_linear_of_any_rank(rng, shape):
    x, w = rng.normal(size=shape).astype(np.float32), rng.normal(size=(5, 8)).astype(np.float32)
    r = rng.normal(size=(*shape[:-1], 5)).astype(np.float32)
    want = x.astype(np.float64) @ w.T.astype(np.float64) + r
    np.testing.assert_allclose(run("linear", x, w, residual=r), want, rtol=1e-5, atol=1e-5)
    if len(shape) == 3:
        x, r, want = (y.swapaxes(0, 1) for y in (x, r, want))
        np.testing.assert_allclose(run("linear", x, w, residual=r), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if name])
def test_activations_at_their_limits(name):
    x = np.array([[np.inf], [-np.inf], [np.nan], [1e30], [-1e30], [0]], np.float32)
    one = np.ones((1, 1), np.float32)
    y = run("linear", x, one, activation=name)[:, 0]
    low = -1 if name == "tanh" else 0
    high = 1 if name in ("tanh", "sigmoid") else np.inf
    assert y[0] == high and y[1] == low and np.isnan(y[2]) and y[4] == low
    assert y[3] == min(high, np.float32(1e30)) and y[5] == (0.5 if name == "sigmoid" else 0)


def test_repeated_products_give_the_same_bits(rng):
    a, b = operand(rng, 70, 90, np.float32, False), operand(rng, 90, 50, np.float32, False)
    np.testing.assert_array_equal(run("matmul", a, b), run("matmul", a, b))


def f32(*shape):
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    ("op", "arguments", "options", "error", "message"),
    [
        (
            "matmul",
            (f32(2, 3), f32(4, 2)),
            {},
            ValueError,
            r"matmul: b shape: expected \(\.\.\., 3, \*\)",
        ),
        ("matmul", (f32(), f32(2)), {}, ValueError, "matmul: a ndim"),
        ("matmul", (f32(2, 3, 3), f32(3, 3, 3)), {}, ValueError, "matmul: b batch shape"),
        ("matmul", (f32(2, 2), np.zeros((2, 2))), {}, TypeError, "matmul: b dtype"),
        ("matmul", (np.zeros((2, 2), np.int32),) * 2, {}, TypeError, "matmul: a dtype"),
        ("matmul", (f32(2, 2), f32(2, 2), f32(2, 3)), {}, ValueError, "matmul: out shape"),
        (
            "matmul",
            (f32(2, 2), f32(2, 2)),
            {"compute": "int8"},
            ValueError,
            "'bf16' or 'tf32', got 'int8'",
        ),
        ("matmul", (np.zeros((2, 2)),) * 2, {"compute": "tf32"}, TypeError, "for compute='tf32'"),
        (
            "linear",
            (f32(2, 3), f32(4, 2)),
            {},
            ValueError,
            r"linear: x shape: expected \(\.\.\., 2\)",
        ),
        ("linear", (f32(2, 3), f32(4)), {}, ValueError, "linear: weight ndim"),
        ("linear", (f32(2, 3), f32(4, 3), f32(3)), {}, ValueError, "linear: bias shape"),
        (
            "linear",
            (f32(2, 3), f32(4, 3)),
            {"residual": f32(4)},
            ValueError,
            "linear: residual shape",
        ),
        (
            "linear",
            (f32(2, 3), f32(4, 3)),
            {"activation": "mish"},
            ValueError,
            "linear: activation",
        ),
    ],
)
def test_errors(op, arguments, options, error, message):
    with pytest.raises(error, match=message):
        run(op, *arguments, **options)
