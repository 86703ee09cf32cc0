"""The elementwise family on a device against wider arithmetic, and its masks against the CPU's."""

import math

import ml_dtypes
import numpy as np
import pytest
from on_device import EMULATED, cuda, dev, host, needs_device, run

from vectile import ops

pytestmark = needs_device

TYPES = (np.float32, np.float64, np.float16, ml_dtypes.bfloat16)
Wide = np.longdouble


def wider(x):
    return np.asarray(x).astype(np.float64).astype(Wide)


def elementwise(f):
    """A function of Python floats on every element; None of a NaN or an overflow stays a NaN."""
    return lambda x: np.array([f(float(v)) for v in x.ravel()], Wide).reshape(x.shape)


erf, erfc = elementwise(math.erf), elementwise(math.erfc)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def cdf(x):
    return erfc(-x / np.sqrt(Wide(2))) / 2


def tanh_argument(x):
    return np.sqrt(2 / Wide(np.pi)) * (x + 0.044715 * x**3)


def gelu_tanh_slope(x):
    t = np.tanh(tanh_argument(x))
    inner = np.sqrt(2 / Wide(np.pi)) * (1 + 3 * 0.044715 * x * x)
    return (1 + t) / 2 + x * (1 - t * t) * inner / 2


FORWARD = {
    "exp": np.exp,
    "log": np.log,
    "tanh": np.tanh,
    "sigmoid": sigmoid,
    "erf": erf,
    "sqrt": np.sqrt,
    "absolute": np.abs,
    "negative": np.negative,
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x * sigmoid(x),
    "softplus": lambda x: np.log1p(np.exp(x)),
    "expm1": np.expm1,
    "log1p": np.log1p,
    "gelu": lambda x: x * cdf(x),
    "gelu_tanh": lambda x: x * (1 + np.tanh(tanh_argument(x))) / 2,
}
SLOPES = {  # from x, or from y where the op takes that
    "tanh": lambda y: 1 - y * y,
    "sigmoid": lambda y: y * (1 - y),
    "relu": lambda y: (y > 0) * 1.0,
    "erf": lambda x: 2 / np.sqrt(Wide(np.pi)) * np.exp(-x * x),
    "silu": lambda x: sigmoid(x) * (1 + x * (1 - sigmoid(x))),
    "softplus": sigmoid,
    "gelu": lambda x: cdf(x) + x * np.exp(-x * x / 2) / np.sqrt(2 * Wide(np.pi)),
    "gelu_tanh": gelu_tanh_slope,
}
BINARY = ("add", "subtract", "multiply", "divide", "maximum", "minimum")


def stored(dtype):
    return float(ml_dtypes.finfo(dtype).eps)


def computed(dtype):
    return stored(dtype if dtype == np.float64 else np.float32)


def assert_near(got, want, dtype, size=0.0, roundings=8):
    """Within one rounding to the type, and a few of what is computed in of terms of `size`."""
    assert got.dtype == dtype and got.shape == want.shape
    bound = stored(dtype) * abs(want) + roundings * computed(dtype) * (abs(want) + size)
    tiny = float(ml_dtypes.finfo(dtype).smallest_subnormal)
    error = abs(wider(got) - want)
    assert (error <= bound + tiny).all(), f"error {error.max()} of {abs(want).max()}"


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", FORWARD)
def test_unary(rng, name, dtype):
    for n in (0, 1, 7, 33, 2051):
        x = (2 * rng.standard_normal(n)).astype(dtype)
        if name in ("log", "sqrt", "log1p"):
            x = abs(x)
        # products with |x| or less of what is absolutely small
        size = abs(wider(x)) if "gelu" in name else 0.0
        assert_near(run(name, x), FORWARD[name](wider(x)), dtype, size)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", SLOPES)
def test_gradients(rng, name, dtype):
    x, g = (2 * rng.standard_normal((2, 3, 89))).astype(dtype)
    v = x if name not in ("tanh", "sigmoid") else FORWARD[name](wider(x)).astype(dtype)
    want = wider(g) * SLOPES[name](wider(v))
    # erf's argument x^2, at most 64, is rounded; others are sums of terms of at most 3
    got = run(f"{name}_backward", g, v)
    assert_near(got, want, dtype, 3 * abs(wider(g)), 72 if name == "erf" else 8)


def test_special_values():
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0], np.float32)
    for name in FORWARD:
        y = run(name, x)
        assert np.isnan(y[0]), name
    limits = {"gelu": (np.inf, 0), "gelu_tanh": (np.inf, 0), "silu": (np.inf, 0)}
    limits |= {"sigmoid": (1, 0), "softplus": (np.inf, 0), "relu": (np.inf, 0), "tanh": (1, -1)}
    for name, (right, left) in limits.items():
        y = run(name, x)
        assert y[1] == right and abs(y[2] - left) < 1e-6, name
    ones = np.ones_like(x)
    for name in ("gelu", "gelu_tanh", "silu", "softplus"):
        y = run(f"{name}_backward", ones, x)
        assert np.isnan(y[0]) and y[1] == 1 and y[2] == 0, name
    y = run("relu_backward", ones[:2], x[[0, 3]])
    assert np.isnan(y[0]) and y[1] == 0
    for name in ("maximum", "minimum"):
        assert np.isnan(run(name, x, x[::-1].copy())[0])
        assert np.isnan(run(name, ones, x)[0]) and np.isnan(run(name, x, 1.0)[0])


SHAPES = [
    ((33,), (33,)),
    ((4, 1025), (4, 1025)),
    ((4, 24), (24,)),
    ((4, 24), (4, 1)),
    ((4, 7), (7,)),
    ((3, 1, 8), (5, 1)),
    ((2, 3, 4, 5), (3, 1, 5)),
    ((), (3, 2)),
    ((), ()),
    ((1, 1), (1,)),
    ((0, 3), (3,)),
]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("a_shape, b_shape", SHAPES)
def test_binary(rng, a_shape, b_shape, dtype):
    a = np.asarray(rng.uniform(1, 4, a_shape) * rng.choice([-1, 1], a_shape)).astype(dtype)
    b = np.asarray(rng.uniform(1, 4, b_shape)).astype(dtype)
    for name in BINARY:
        want = np.asarray(getattr(np, name)(wider(a), wider(b)))
        assert_near(run(name, a, b), want, dtype, roundings=1)
        assert_near(run(name, b, a), np.asarray(getattr(np, name)(wider(b), wider(a))), dtype)


@pytest.mark.parametrize("dtype", TYPES)
def test_strides_and_numbers(rng, dtype):
    a = rng.standard_normal((8, 48)).astype(dtype)
    for u, v in [(a[::2, ::3], a[1::2, 1::3]), (a.T, a.T[:, ::-1]), (a[:, 1:], a[:1, 1:])]:
        want = wider(u) + wider(v)
        assert_near(run("add", u, v), want, dtype, roundings=1)
    assert_near(run("exp", a[::-1, 1::2]), np.exp(wider(a[::-1, 1::2])), dtype)
    tenth = 0.1 if dtype == np.float64 else np.float32(0.1)  # not rounded to a half type
    assert_near(run("subtract", 0.1, a), tenth - wider(a), dtype, 1.0)
    assert_near(run("multiply", a[:, ::2], np.float64(3)), 3 * wider(a[:, ::2]), dtype)


def test_out(rng):
    a = rng.standard_normal((8, 40)).astype(np.float32)
    out = dev(a.copy())
    assert cuda.add(out, 1, out=out) is out
    np.testing.assert_array_equal(host(out), a + 1)
    if EMULATED:  # NumPy's memory: an `out` that overlaps an operand, and one with strides
        b = np.arange(64, dtype=np.float32)
        cuda.add(b[:-1], b[1:], out=b[1:])
        np.testing.assert_array_equal(b[1:], 2 * np.arange(63) + 1)
        cuda.negative(a, out=out[:, ::-1])
        np.testing.assert_array_equal(out, -a[:, ::-1])


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape, weights", [((3, 4, 5), 4), ((9, 7), 7), ((3, 4, 5), 1), ((6,), 1)])
def test_slopes(rng, shape, weights, dtype):
    x, g = rng.standard_normal((2, *shape)).astype(dtype)
    w = rng.standard_normal(weights).astype(dtype)
    along = wider(w).reshape(-1, *[1] * (len(shape) - 2)) if weights > 1 else wider(w)
    positive, u = wider(x) > 0, wider(x)
    assert_near(run("prelu", x, w), np.where(positive, u, u * along), dtype)
    dx, dweight = run("prelu_backward", g, x, w)
    assert_near(dx, np.where(positive, 1, along) * wider(g), dtype)
    share = np.where(positive, 0, wider(g) * u)
    axes = tuple(i for i in range(len(shape)) if i != 1 or weights == 1)
    want = share.sum(axes).reshape(w.shape)
    assert_near(dweight, want, dtype, abs(share).sum(axes).reshape(w.shape), 16)
    assert_near(run("leaky_relu", x, 0.25), np.where(positive, u, u / 4), dtype)
    want = np.where(positive, 1, 0.25) * wider(g)
    assert_near(run("leaky_relu_backward", g, x, 0.25), want, dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("p", (0.0, 0.3, 1.0))
def test_dropout_is_the_cpus(rng, p, dtype):
    for n, seed in [(1, 0), (63, 7), (64, 2**64 - 1), (1000, 2**40 + 3)]:
        x = (rng.standard_normal(n) + 4).astype(dtype)
        got, want = run("dropout", x, p, seed), ops.dropout(x, p, seed)
        np.testing.assert_array_equal(got == 0, want == 0)
        assert_near(got, wider(want), dtype)


ACTIVATIONS = (None, "relu", "gelu", "gelu_tanh", "silu", "tanh", "sigmoid")


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_fused(rng, activation, dtype):
    for shape in [(5, 7), (9, 40), (300, 3)]:
        x, g = rng.standard_normal((2, *shape)).astype(dtype)
        b = rng.standard_normal(shape[-1]).astype(dtype)
        for bias, p in [(b, 0.25), (None, 0.5), (b, 0.0), (b, 1.0)]:
            got = run("bias_activation_dropout", x, bias, activation, p, 11)
            want = ops.bias_activation_dropout(x, bias, activation, p, 11)
            assert_near(got, wider(want), dtype, 8.0)
            got = run("bias_activation_dropout_backward", g, x, bias, activation, p, 11)
            want = ops.bias_activation_dropout_backward(g, x, bias, activation, p, 11)
            assert_near(got[0], wider(want[0]), dtype, 8.0)
            if bias is None:
                assert got[1] is None
                continue
            size = abs(wider(want[0])).sum(0)  # each term of dbias was rounded to dx's type
            bound = (stored(dtype) + 64 * computed(dtype)) * (size + 8 * len(x))
            assert (abs(wider(got[1]) - wider(want[1])) <= bound).all()


X = np.zeros((2, 3), np.float32)


@pytest.mark.parametrize(
    "name, arguments, message",
    [
        ("exp", (np.zeros(3, np.int32),), r"exp: x dtype: expected .*, got int32"),
        ("tanh_backward", (X[:1], X), "tanh_backward: grad shape"),
        ("add", (X, X.astype(np.float64)), "add: b dtype"),
        ("add", (X, X[:, :2]), "add: b shape: expected one that broadcasts with"),
        ("add", (1.0, 2.0), "add: a type: expected an array"),
        ("prelu", (X, X[0, :2]), "prelu: weight length"),
        ("dropout", (X, 1.5, 0), "dropout: p value"),
        ("dropout", (X, 0.5, -1), "dropout: seed value|negative"),
        ("dropout", (X, 0.5, 2**64), "dropout: seed value"),
        ("bias_activation_dropout", (X, None, "swish", 0.5, 0), "activation value"),
        ("bias_activation_dropout", (X, X[0, :2], None, 0.5, 0), "bias shape"),
    ],
)
def test_errors(name, arguments, message):
    with pytest.raises((TypeError, ValueError, OverflowError), match=message):
        run(name, *arguments)
