"""elementwise family against a float64 oracle, on every tier and thread count."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from vectile import ops

SIZES = [0, 1, 2, 7, 8, 15, 16, 17, 31, 33, 64, 1009, 70001]
ROOT_2_PI = np.sqrt(2 / np.pi)


def cdf(x):
    return special.ndtr(x)


def pdf(x):
    return np.exp(-x * x / 2) / np.sqrt(2 * np.pi)


def gelu_tanh(x):
    return x * special.expit(2 * ROOT_2_PI * (x + 0.044715 * x**3))


def gelu_tanh_slope(x):
    s = special.expit(2 * ROOT_2_PI * (x + 0.044715 * x**3))
    s1 = special.expit(-2 * ROOT_2_PI * (x + 0.044715 * x**3))
    return s + x * s * s1 * 2 * ROOT_2_PI * (1 + 3 * 0.044715 * x**2)


def silu_slope(x):
    return special.expit(x) * (1 + x * special.expit(-x))


# op: (function, float64 oracle, relative error in eps of the result, absolute error in eps of |x|)
UNARY = {
    "exp": (ops.exp, np.exp, 1, 0),
    "expm1": (ops.expm1, np.expm1, 2, 0),
    "log": (lambda x, **k: ops.log(np.abs(x), **k), lambda x: np.log(np.abs(x)), 2, 0),
    "log1p": (lambda x, **k: ops.log1p(np.abs(x), **k), lambda x: np.log1p(np.abs(x)), 2, 0),
    "tanh": (ops.tanh, np.tanh, 2, 0),
    "sigmoid": (ops.sigmoid, special.expit, 2, 0),
    "erf": (ops.erf, special.erf, 2, 0),
    "sqrt": (lambda x, **k: ops.sqrt(np.abs(x), **k), lambda x: np.sqrt(np.abs(x)), 0.5, 0),
    "absolute": (ops.absolute, np.abs, 0, 0),
    "negative": (ops.negative, np.negative, 0, 0),
    "relu": (ops.relu, lambda x: np.maximum(x, 0), 0, 0),
    "silu": (ops.silu, lambda x: x * special.expit(x), 4, 0),
    "softplus": (ops.softplus, lambda x: np.logaddexp(0, x), 2, 0),
    "gelu": (ops.gelu, lambda x: x * cdf(x), 0, 2),
    "gelu_tanh": (lambda x, **k: ops.gelu(x, "tanh", **k), gelu_tanh, 0, 2),
}
# op: (function of grad and x, float64 derivative, absolute error in eps of |grad|). For those that
# take y the error of y is part of the bound.
GRADIENTS = {
    "tanh": (lambda g, x: ops.tanh_backward(g, ops.tanh(x)), lambda x: 1 - np.tanh(x) ** 2, 8),
    "sigmoid": (
        lambda g, x: ops.sigmoid_backward(g, ops.sigmoid(x)),
        lambda x: special.expit(x) * special.expit(-x),
        4,
    ),
    "relu": (lambda g, x: ops.relu_backward(g, ops.relu(x)), lambda x: x > 0, 0),
    "erf": (ops.erf_backward, lambda x: 2 / np.sqrt(np.pi) * np.exp(-x * x), 8),
    "silu": (ops.silu_backward, silu_slope, 8),
    "softplus": (ops.softplus_backward, special.expit, 4),
    "gelu": (ops.gelu_backward, lambda x: cdf(x) + x * pdf(x), 8),
    "gelu_tanh": (lambda g, x: ops.gelu_backward(g, x, "tanh"), gelu_tanh_slope, 8),
}
BINARY = {
    "add": (ops.add, np.add),
    "subtract": (ops.subtract, np.subtract),
    "multiply": (ops.multiply, np.multiply),
    "divide": (ops.divide, np.divide),
    "maximum": (ops.maximum, np.maximum),
    "minimum": (ops.minimum, np.minimum),
}


def eps(x: np.ndarray) -> float:
    return float(np.finfo(x.dtype).eps)


def sample(rng, size, dtype):
    """Values from 1e-6 to 60 of both signs, most of them of the order of one."""
    x = rng.normal(size=size) * 10.0 ** rng.uniform(-6, 1.3, size=size)
    return np.where(rng.random(size) < 0.5, rng.normal(size=size), x).astype(dtype)


@pytest.mark.sanitize
@pytest.mark.parametrize("name", UNARY)
def test_unary_matches_float64(isa, dtype, rng, name):
    f, oracle, relative, absolute = UNARY[name]
    for size in SIZES:
        x = sample(rng, size, dtype)
        x64 = x.astype(np.float64)
        y, expected = f(x), oracle(x64)
        assert y.dtype == dtype and y.shape == x.shape
        error = np.abs(y - expected)
        allowed = relative * eps(x) * np.abs(expected) + absolute * eps(x) * np.abs(x64)
        # float64 goes to libm, and so does the oracle: both may be off by an ulp.
        assert (error <= allowed + 2 * np.finfo(np.float64).eps * np.abs(x64)).all()


@pytest.mark.sanitize
@pytest.mark.parametrize("name", GRADIENTS)
def test_gradient_matches_float64(isa, dtype, rng, name):
    f, slope, bound = GRADIENTS[name]
    for size in SIZES:
        x, g = sample(rng, size, dtype), rng.normal(size=size).astype(dtype)
        x64, g64 = x.astype(np.float64), g.astype(np.float64)
        error = np.abs(f(g, x) - g64 * slope(x64))
        assert (error <= (bound * eps(x) + 4e-16) * np.abs(g64)).all()


@pytest.mark.parametrize("name", UNARY)
def test_special_values(isa, dtype, name):
    f, oracle, _, _ = UNARY[name]
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e30, -1e30], dtype)
    y = f(x)
    with np.errstate(all="ignore"):
        expected = oracle(x.astype(np.float64)).astype(dtype)
    if name in ("silu", "gelu", "gelu_tanh"):
        expected[2] = expected[6] = 0  # the limit, where x * f(x) is -inf * 0
    np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-7)
    if name in ("tanh", "erf", "negative"):
        np.testing.assert_array_equal(np.signbit(y[3:5]), np.signbit(expected[3:5]))


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_propagate_nan_and_vanish_in_the_tail(isa, dtype, name):
    f, _, _ = GRADIENTS[name]
    x = np.array([np.nan, -np.inf, -1e30, np.inf, 1e30], dtype)
    dx = f(np.ones(5, dtype), x)
    limit = 0 if name in ("tanh", "sigmoid", "erf") else 1
    assert np.isnan(dx[0])
    np.testing.assert_allclose(dx[1:], [0, 0, limit, limit], rtol=1e-6, atol=1e-6)


BROADCASTS = [
    ((), ()),
    ((5,), ()),
    ((0, 3), (1, 3)),
    ((33,), (33,)),
    ((7, 33), (33,)),
    ((7, 33), (7, 1)),
    ((7, 1), (1, 33)),
    ((2, 1, 5, 17), (3, 1, 17)),
    ((4, 1, 3, 1), (1, 2, 1, 5)),
    ((300, 517), (300, 517)),
    ((300, 517), (517,)),
    ((70001,), (1,)),
    ((2, 3, 1, 1), (2, 3, 4, 5)),
    ((1, 1), (1, 1, 1)),
]


@pytest.mark.sanitize
@pytest.mark.parametrize("name", BINARY)
def test_binary_broadcasts(isa, dtype, rng, name):
    f, oracle = BINARY[name]
    for sa, sb in BROADCASTS:
        a, b = rng.normal(size=sa).astype(dtype), rng.normal(size=sb).astype(dtype)
        for u, v in ((a, b), (b, a)):  # one rounding, as NumPy: equal bits
            y = f(u, v)
            assert y.dtype == dtype
            np.testing.assert_array_equal(y, oracle(u, v), strict=True)


@pytest.mark.sanitize
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_strided_operands(data):
    shapes = data.draw(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, max_side=9))
    f, oracle = BINARY[data.draw(st.sampled_from(["subtract", "maximum"]))]
    operands = []
    for shape in shapes.input_shapes:
        order = data.draw(st.permutations(range(len(shape))))  # axis order in memory
        steps = [data.draw(st.sampled_from([1, 1, 2, -1, -3])) for _ in shape]
        base = np.empty([shape[axis] * abs(steps[axis]) for axis in order])
        view = base[(*(slice(None, None, steps[axis]) for axis in order), ...)]
        view = view.transpose(np.argsort(order))
        view[...] = np.random.default_rng(len(operands)).integers(-9, 9, size=shape)
        operands.append(view)
    expected = oracle(*operands)
    np.testing.assert_array_equal(f(*operands), expected, strict=True)
    out = np.empty(expected.shape[::-1]).T
    assert f(*operands, out=out) is out
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(ops.exp(operands[0]), ops.exp(operands[0].copy()))


def test_stride_zero_views(dtype):
    a = np.broadcast_to(np.array([[1.0], [2.0]], dtype), (2, 40))
    np.testing.assert_array_equal(ops.add(a, a), 2 * a)
    np.testing.assert_array_equal(ops.negative(a), -a)


@pytest.mark.parametrize("name", BINARY)
def test_scalar_operands_take_the_array_dtype(isa, dtype, rng, name):
    f, oracle = BINARY[name]
    x = rng.normal(size=(3, 21)).astype(dtype)
    for scalar in (2, 1.5, True, np.float64(0.1), np.float32(0.1), np.int8(3)):
        for u, v in ((x, scalar), (scalar, x)):
            cast = [w if isinstance(w, np.ndarray) else dtype(w) for w in (u, v)]
            np.testing.assert_array_equal(f(u, v), oracle(*cast), strict=True)
    assert f(1, 2.0).dtype == np.float64 and f(1, 2.0) == oracle(1, 2.0)


# x, weight: lines longer than a chunk, lines of every length, single elements, one slope for all
PRELU = [
    ((), ()),
    ((70001,), (1,)),
    ((3, 5), (5,)),
    ((9000, 7), (7,)),
    ((3, 5), ()),
    ((2, 3, 70001), (3,)),
    ((4, 5, 1), (5,)),
    ((50, 37, 7, 7), (37,)),
    ((5, 64, 16), (64,)),
    ((0, 3), (3,)),
    ((2, 3, 0), (3,)),
    ((2, 0, 4), (0,)),
]


@pytest.mark.sanitize
@pytest.mark.parametrize(("shape", "slopes"), PRELU)
def test_prelu_and_its_gradients(isa, dtype, rng, shape, slopes, same_for_any_thread_count):
    x, g = (rng.normal(size=shape).astype(dtype) for _ in range(2))
    w = rng.normal(size=slopes).astype(dtype)
    column = w.reshape(-1, *(1,) * (len(shape) - 2)) if w.size != 1 else w.reshape(())
    expected = np.where(x > 0, x, column * x)
    np.testing.assert_array_equal(ops.prelu(x, w), expected, strict=True)
    out = np.empty(shape[::-1], dtype).T
    assert ops.prelu(x, w, out=out) is out
    np.testing.assert_array_equal(out, expected)
    dx, dw = same_for_any_thread_count(lambda: ops.prelu_backward(g, x, w))
    np.testing.assert_array_equal(dx, np.where(x > 0, g, column * g), strict=True)
    share = np.where(x > 0, 0, g.astype(np.float64) * x)
    axes = tuple(i for i in range(len(shape)) if i != 1 or w.size == 1)
    assert dw.shape == w.shape and dw.dtype == dtype
    # Sums in lanes, then of pieces: well below a chunk's 2**15 roundings one after the other.
    allowed = 1000 * eps(x) * np.abs(share).sum(axes)
    assert (np.abs(dw.ravel() - share.sum(axes)) <= allowed + 1e-30).all()
    np.testing.assert_array_equal(ops.prelu(x.T.copy().T, w), expected)
    again = ops.prelu_backward(g.T.copy().T, x.T.copy().T, np.repeat(w, 2)[::2].reshape(w.shape))
    for a, b in zip(again, (dx, dw), strict=True):
        np.testing.assert_array_equal(a, b)


def test_prelu_of_special_values(isa, dtype):
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0] * 7, dtype)
    y = ops.prelu(x, np.array([0.5], dtype))
    np.testing.assert_array_equal(y, np.where(x > 0, x, x * dtype(0.5)))
    dx, dw = ops.prelu_backward(np.ones_like(x), x, np.array([0.5], dtype))
    np.testing.assert_array_equal(dx, np.where(x > 0, 1, 0.5).astype(dtype))  # 0.5 at 0 and NaN
    assert np.isnan(dw[0])


def test_nan_propagates_through_maximum_at_every_length(isa, dtype):
    for n in (1, 5, 16, 17, 40):
        for i in range(n):
            a, b = np.zeros(n, dtype), np.ones(n, dtype)
            a[i] = np.nan
            for y in (ops.maximum(a, b), ops.maximum(b, a), ops.minimum(a, b), ops.minimum(b, a)):
                np.testing.assert_array_equal(np.isnan(y), np.isnan(a))
            np.testing.assert_array_equal(np.isnan(ops.relu(a)), np.isnan(a))


def test_any_thread_count_gives_the_same_bits(isa, dtype, rng, same_for_any_thread_count):
    x, y = (rng.normal(size=(301, 517)).astype(dtype) for _ in range(2))
    same_for_any_thread_count(lambda: ops.gelu(x))
    same_for_any_thread_count(lambda: ops.add(x, y))
    same_for_any_thread_count(lambda: ops.multiply(x, y[:, :1]))
    same_for_any_thread_count(lambda: ops.multiply(x[:2, 1:], y[0, 1:]))
    same_for_any_thread_count(lambda: ops.gelu_backward(x, y))
    same_for_any_thread_count(lambda: ops.dropout(x, 0.3, 5))


@pytest.mark.sanitize
def test_out_in_place_and_overlapping(isa, rng):
    x = rng.normal(size=(6, 40)).astype(np.float32)
    for f in (ops.exp, ops.gelu, lambda v, out: ops.add(v, v, out=out)):
        expected = f(x, out=np.empty_like(x))
        same = x.copy()
        assert f(same, out=same) is same
        np.testing.assert_array_equal(same, expected)
        for shift in (1, 7, 40):
            memory = np.concatenate([x.ravel(), np.zeros(shift, np.float32)])
            f(memory[:240].reshape(6, 40), out=memory[shift:].reshape(6, 40))
            np.testing.assert_array_equal(memory[shift:].reshape(6, 40), expected)
        square = np.ascontiguousarray(x[:, :6])
        expected = f(square, out=np.empty_like(square))
        f(square, out=square.T)
        np.testing.assert_array_equal(square.T, expected)
    broadcast = x.copy()
    ops.add(broadcast, broadcast[0], out=broadcast)
    np.testing.assert_array_equal(broadcast, x + x[0])


def test_read_only_input_and_output(rng):
    x = rng.normal(size=9)
    x.flags.writeable = False
    np.testing.assert_array_equal(ops.add(x, x), x + x)
    with pytest.raises(ValueError, match="add: out flags: expected a writable array"):
        ops.add(x, x, out=x)


def philox(counter: np.ndarray, seed: int) -> np.ndarray:
    """Philox4x32-10 for 64-bit counters, (n,) -> (4, n); Salmon et al., SC'11, figure 3."""
    low = np.uint64(0xFFFFFFFF)
    c = [counter & low, counter >> np.uint64(32), np.zeros_like(counter), np.zeros_like(counter)]
    key = [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        p0, p1 = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [
            (p1 >> np.uint64(32)) ^ c[1] ^ np.uint64(key[0]),
            p1 & low,
            (p0 >> np.uint64(32)) ^ c[3] ^ np.uint64(key[1]),
            p0 & low,
        ]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return np.array(c)


def test_reference_generator_gives_the_published_numbers():
    numbers = [int(v) for v in philox(np.zeros(1, np.uint64), 0)[:, 0]]
    assert numbers == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]  # Random123's kat_vectors


@pytest.mark.sanitize
@pytest.mark.parametrize("seed", [0, 1, 2**40 + 5, 2**64 - 1])
def test_dropout_follows_philox(isa, dtype, rng, seed):
    for n in (0, 1, 63, 64, 65, 1000, 70001):
        x = rng.normal(size=n).astype(dtype)
        blocks = -(-n // 64)
        words = philox(np.arange(16 * blocks, dtype=np.uint64), seed)
        words = words.reshape(4, blocks, 16).transpose(1, 0, 2).ravel()[:n]
        for p in (0.0, 0.1, 0.5, 0.999):
            scale = dtype(1 / (1 - p))
            expected = np.where(words >= np.uint64(p * 2**32), x * scale, dtype(0))
            np.testing.assert_array_equal(ops.dropout(x, p, seed), expected)


def test_dropout_of_everything_and_of_special_values(isa, dtype):
    x = np.full(1000, np.nan, dtype)
    np.testing.assert_array_equal(ops.dropout(x, 1.0, 3), 0)
    y = ops.dropout(x, 0.5, 3)
    assert 400 < (y == 0).sum() < 600 and np.isnan(y[y != 0]).all()
    mask = ops.dropout(np.ones((10, 100), dtype), 0.5, 3)
    np.testing.assert_array_equal(mask.ravel() == 0, y == 0)
    np.testing.assert_array_equal(ops.dropout(np.ones((100, 10), dtype).T, 0.5, 3), mask)


F32, F64 = np.zeros((2, 3), np.float32), np.zeros((2, 3))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ops.exp(np.zeros(3, np.int32)), TypeError, "exp: x dtype: expected float16"),
        (
            lambda: ops.exp(3),
            TypeError,
            "exp: x dtype: expected float16, bfloat16, float32 or float64, got int64",
        ),
        (lambda: ops.exp(F32, out=F64), TypeError, "exp: out dtype: expected float32, got float64"),
        (lambda: ops.exp(F32, out=F32[:1]), ValueError, r"exp: out shape: expected \(2, 3\), got"),
        (lambda: ops.add(F32, F64), TypeError, "add: b dtype: expected float32, got float64"),
        (lambda: ops.add(F32, "a"), TypeError, "add: b dtype: expected"),
        (lambda: ops.add(F32, 2j), TypeError, "add: b dtype: expected .* got complex128"),
        (lambda: ops.add(F32, None), TypeError, "add: b dtype: expected .* got object"),
        (
            lambda: ops.add(F32, np.zeros(2, np.float32)),
            ValueError,
            r"add: b shape: expected one that broadcasts with \(2, 3\), got \(2,\)",
        ),
        (lambda: ops.gelu(F32, "fast"), ValueError, "gelu: approximate value: expected 'none' or"),
        (lambda: ops.gelu_backward(F32, F32, "x"), ValueError, "gelu_backward: approximate value"),
        (lambda: ops.gelu_backward(F32, F64, "none"), TypeError, "gelu_backward: grad dtype"),
        (lambda: ops.tanh_backward(F32[0], F32), ValueError, "tanh_backward: grad shape: expected"),
        (lambda: ops.erf_backward(F32, F32 > 0), TypeError, "erf_backward: x dtype: expected"),
        (lambda: ops.prelu(F32, F64[0]), TypeError, "prelu: weight dtype: expected float32, got"),
        (
            lambda: ops.prelu(F32, F32[0, :2]),
            ValueError,
            "prelu: weight length: expected 1 or x's channels, 3, got 2",
        ),
        (lambda: ops.prelu(F32[0], F32[0]), ValueError, "prelu: weight length: expected 1 or"),
        (lambda: ops.prelu(F32, F32), ValueError, "prelu: weight rank: expected at most 1, got 2"),
        (
            lambda: ops.prelu_backward(F32[:1], F32, F32[0]),
            ValueError,
            r"prelu_backward: grad shape: expected \(2, 3\), got \(1, 3\)",
        ),
        (lambda: ops.prelu_backward(F64, F32, F32[0]), TypeError, "prelu_backward: grad dtype"),
        (lambda: ops.dropout(F32, 1.5, 0), ValueError, "dropout: p value: expected 0 <= p <= 1"),
        (lambda: ops.dropout(F32, float("nan"), 0), ValueError, "dropout: p value: expected"),
        (lambda: ops.dropout(F32, 0.5, -1), ValueError, "dropout: seed value: expected 0 to"),
        (lambda: ops.dropout(F32, 0.5, 2**64), ValueError, "dropout: seed value: expected 0 to"),
        (lambda: ops.dropout(F32, 0.5, 1.5), TypeError, "integer"),
        (lambda: ops.dropout(F32 > 0, 0.5, 1), TypeError, "dropout: x dtype: expected float16"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
