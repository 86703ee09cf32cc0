"""gemm family against a float64 oracle, on every tier and thread count."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from vectile import _core, ops

# (m, n, k): empty, one, primes, a tile plus and minus one, several blocks of each loop.
SIZES = [
    (0, 3, 4),
    (3, 0, 4),
    (3, 4, 0),
    (1, 1, 1),
    (1, 1, 5000),
    (1, 67, 33),
    (67, 1, 33),
    (4, 4, 4),
    (13, 31, 7),
    (14, 32, 16),
    (15, 33, 17),
    (29, 65, 300),
    (9, 500, 40),
    (500, 9, 40),
    (3, 5, 4099),
    (16, 16, 2500),
    (101, 37, 513),
    (450, 70, 30),
    (64, 640, 260),
    (7, 301, 1001),
]
# Large enough to be cut among threads along m, n or k.
PARALLEL = [(300, 200, 700), (1, 3000, 900), (40, 30, 9000), (900, 7, 800), (5, 3001, 900)]
LAYOUTS = ["NN", "NT", "TN", "TT"]
ACTIVATIONS = {
    None: lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: x * special.ndtr(x),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x * special.expit(x),
    "tanh": np.tanh,
    "sigmoid": special.expit,
}


def operand(rng, rows, columns, dtype, transposed):
    x = rng.normal(size=(columns, rows) if transposed else (rows, columns)).astype(dtype)
    return x.T if transposed else x


def product(a, b):
    """The product in float64 and the documented bound of its error, k eps |a| @ |b|."""
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    k = a.shape[-1]
    return a64 @ b64, k * np.finfo(a.dtype).eps * (np.abs(a64) @ np.abs(b64))


def assert_within(got, expected, bound):
    assert got.shape == expected.shape
    assert np.all(np.abs(got - expected) <= bound)


@pytest.mark.sanitize
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_matmul_matches_float64(isa, dtype, rng, size, layout):
    m, n, k = size
    a = operand(rng, m, k, dtype, layout[0] == "T")
    b = operand(rng, k, n, dtype, layout[1] == "T")
    got = ops.matmul(a, b)
    assert got.dtype == dtype
    assert_within(got, *product(a, b))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", SIZES + PARALLEL, ids=str)
def test_integer_products_are_exact(isa, dtype, rng, size, layout):
    m, n, k = size  # sums stay below 2**24: any term left out or added twice shows
    a = np.rint(8 * operand(rng, m, k, dtype, layout[0] == "T"))
    b = np.rint(8 * operand(rng, k, n, dtype, layout[1] == "T"))
    np.testing.assert_array_equal(ops.matmul(a, b), a.astype(np.float64) @ b.astype(np.float64))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_linear_matches_float64(isa, dtype, rng, size):
    m, n, k = size
    x, w, bias = (rng.normal(size=s).astype(dtype) for s in ((m, k), (n, k), (n,)))
    expected, bound = product(x, w.T)
    eps = np.finfo(dtype).eps
    packed = ops.pack(w)
    assert packed.shape == w.shape and packed.dtype == dtype and packed.nbytes >= w.nbytes
    for weight in (w, packed, np.asfortranarray(w)):
        assert_within(ops.linear(x, weight), expected, bound)
        for name, f in ACTIVATIONS.items():
            z = expected + bias
            # every activation is 1.13-Lipschitz or better and computed to 5 eps of its argument
            error = 1.13 * (bound + eps * np.abs(z)) + 5 * eps * (np.abs(z) + 1)
            assert_within(ops.linear(x, weight, bias, activation=name), f(z), error)


@pytest.mark.sanitize
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_linear_adds_a_residual(isa, dtype, rng, size):
    m, n, k = size
    x, w, bias = (rng.normal(size=s).astype(dtype) for s in ((m, k), (n, k), (n,)))
    residual = rng.normal(size=(m, n)).astype(dtype)
    for weight in (w, ops.pack(w), np.asfortranarray(w), ops.quantize_weight(w)):
        for activation in (None, "silu"):
            plain = ops.linear(x, weight, bias, activation=activation)
            for r in (residual, np.asfortranarray(residual)):
                got = ops.linear(x, weight, bias, activation=activation, residual=r)
                np.testing.assert_array_equal(got, plain + r)  # one rounding more


def test_linear_adds_a_residual_across_a_batch(isa, rng):
    x, w = rng.normal(size=(3, 5, 7)).astype(np.float32), rng.normal(size=(4, 7)).astype(np.float32)
    residual = rng.normal(size=(3, 5, 4)).astype(np.float32)
    for batch in (x, x.swapaxes(0, 1)[::-1].swapaxes(0, 1), x[:, ::-1]):
        got = ops.linear(batch, w, residual=residual)
        np.testing.assert_array_equal(got, ops.linear(batch, w) + residual)
    with pytest.raises(ValueError, match="linear: residual shape"):
        ops.linear(x, w, residual=residual[0])
    with pytest.raises(TypeError, match="linear: residual dtype"):
        ops.linear(x, w, residual=residual.astype(np.float64))
    with pytest.raises(ValueError, match="linear: residual shape"):
        ops.linear(x, ops.quantize_weight(w), residual=residual[..., :3])


def test_any_thread_count_gives_the_same_bits(isa, rng, same_for_any_thread_count):
    for m, n, k in PARALLEL:
        a, b = (rng.normal(size=s).astype(np.float32) for s in ((m, k), (k, n)))
        same_for_any_thread_count(lambda a=a, b=b: ops.matmul(a, b))
        packed = ops.pack(b.T)
        same_for_any_thread_count(lambda a=a, p=packed: ops.linear(a, p, activation="gelu"))
    a, b = (rng.normal(size=s).astype(np.float32) for s in ((64, 33, 20), (64, 20, 17)))
    same_for_any_thread_count(lambda: ops.matmul(a, b))


@pytest.mark.sanitize
@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((5,), (5,)),
        ((5,), (5, 3)),
        ((4, 5), (5,)),
        ((2, 4, 5), (5,)),
        ((5,), (2, 5, 3)),
        ((2, 4, 5), (5, 3)),
        ((4, 5), (2, 5, 3)),
        ((2, 1, 4, 5), (3, 5, 3)),
        ((2, 3, 4, 5), (1, 3, 5, 6)),
        ((0, 4, 5), (5, 3)),
        ((7, 1, 1, 5), (1, 6, 5, 1)),
        ((3, 2, 0), (3, 0, 4)),
        ((100, 8, 8), (100, 8, 8)),
    ],
)
def test_batches_broadcast_as_numpy(isa, dtype, rng, a, b):
    a, b = (rng.normal(size=s).astype(dtype) for s in (a, b))
    assert_within(ops.matmul(a, b), *product(a, b))
    expected = ops.matmul(a, b)
    out = np.full_like(expected, np.nan)
    assert ops.matmul(a, b, out=out) is out
    np.testing.assert_array_equal(out, expected)


STEPS = st.sampled_from([1, -1, 2, -3])


@pytest.mark.sanitize
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_strided_views(data):
    """Any strides, zero and negative ones included, for both operands and for out."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    batch, m, n, k = (data.draw(st.integers(0, top)) for top in (3, 40, 40, 70))

    def view(rows, columns):
        sr, sc = data.draw(STEPS), data.draw(STEPS)
        shape = (batch, rows * abs(sr), columns * abs(sc))
        if transposed := data.draw(st.booleans()):
            shape = (shape[0], shape[2], shape[1])
        x = rng.normal(size=shape).astype(np.float32)
        x = (x.swapaxes(1, 2) if transposed else x)[:, ::sr, ::sc]
        kind = data.draw(st.sampled_from(["dense", "one row", "one batch"]))
        if kind == "one row" and rows:
            x = np.broadcast_to(x[:, :1], x.shape)
        if kind == "one batch" and batch:
            x = np.broadcast_to(x[:1], x.shape)
        return x

    a, b = view(m, k), view(k, n)
    expected, bound = product(a, b)
    assert_within(ops.matmul(a, b), expected, bound)
    out = rng.normal(size=(batch, 2 * m, 2 * n)).astype(np.float32)
    before = out.copy()
    target = out[:, ::2, ::2] if data.draw(st.booleans()) else out[:, ::-2, :n]
    kept = np.ones(out.shape, bool)
    (kept[:, ::2, ::2] if target.strides[2] == 8 else kept[:, ::-2, :n])[...] = False
    assert ops.matmul(a, b, out=target) is target
    assert_within(target, expected, bound)
    np.testing.assert_array_equal(out[kept], before[kept])


@pytest.mark.sanitize
def test_out_may_overlap_an_operand(rng):
    a = rng.normal(size=(20, 20)).astype(np.float32)
    expected = ops.matmul(a, a)
    same = a.copy()
    assert ops.matmul(same, same, out=same) is same
    np.testing.assert_array_equal(same, expected)
    memory = np.concatenate([a.ravel(), np.zeros(7, np.float32)])
    ops.matmul(memory[:400].reshape(20, 20), a, out=memory[7:].reshape(20, 20))
    np.testing.assert_array_equal(memory[7:].reshape(20, 20), expected)


def test_nan_and_infinity_reach_their_rows_only(isa, dtype, rng):
    a, b = (rng.normal(size=s).astype(dtype) for s in ((30, 50), (50, 40)))
    a[3, 7], a[11, 2] = np.nan, np.inf
    c = ops.matmul(a, b)
    assert np.isnan(c[3]).all() and np.isinf(c[11]).all()
    rest = np.delete(c, [3, 11], axis=0)
    assert np.isfinite(rest).all()
    assert np.isnan(ops.linear(a, b.T, activation="relu")[3]).all()


def test_a_packed_weight_keeps_its_tier(isa, rng):
    w, x = (rng.normal(size=s).astype(np.float32) for s in ((70, 300), (20, 300)))
    packed = ops.pack(w)
    expected = ops.linear(x, packed)
    others = [tier for tier in _core.config()["supported_isas"] if tier != isa]
    fresh = []
    for tier in others:
        _core.set_isa(tier)
        np.testing.assert_array_equal(ops.linear(x, packed), expected)
        fresh.append(np.array_equal(ops.linear(x, ops.pack(w)), expected))
    assert not all(fresh) or not others  # some other tier rounds otherwise: the bits can tell


F32 = np.float32


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: ops.matmul(np.zeros((2, 5), F32), np.zeros((4, 3), F32)),
            ValueError,
            r"^matmul: b shape: expected \(\.\.\., 5, \*\), got \(4, 3\)$",
        ),
        (
            lambda: ops.matmul(np.zeros(5, F32), np.zeros(4, F32)),
            ValueError,
            r"^matmul: b shape: expected \(5,\), got \(4,\)$",
        ),
        (
            lambda: ops.matmul(np.zeros((2, 3, 4), F32), np.zeros((5, 4, 3), F32)),
            ValueError,
            r"b batch shape: expected one that broadcasts with \(2,\), got \(5,\)",
        ),
        (
            lambda: ops.matmul(np.zeros((2, 5), F32), np.zeros((5, 3))),
            TypeError,
            "matmul: b dtype: expected float32, got float64",
        ),
        (
            lambda: ops.matmul(np.zeros((2, 5), int), np.zeros((5, 3), int)),
            TypeError,
            "a dtype: expected float16, bfloat16, float32 or float64, got int64",
        ),
        (lambda: ops.matmul(F32(1), np.zeros(1, F32)), ValueError, "a ndim: expected at least 1"),
        (
            lambda: ops.matmul(
                np.zeros((2, 5), F32), np.zeros((5, 3), F32), out=np.zeros((2, 2), F32)
            ),
            ValueError,
            r"out shape: expected \(2, 3\), got \(2, 2\)",
        ),
        (
            lambda: ops.matmul(np.zeros((2, 5), F32), np.zeros((5, 3), F32), out=np.zeros((2, 3))),
            TypeError,
            "out dtype: expected float32, got float64",
        ),
        (
            lambda: ops.linear(np.zeros((2, 5), F32), np.zeros((3, 4), F32)),
            ValueError,
            r"linear: x shape: expected \(\.\.\., 4\), got \(2, 5\)",
        ),
        (
            lambda: ops.linear(np.zeros((2, 5), F32), np.zeros((3, 5), F32), np.zeros(4, F32)),
            ValueError,
            r"linear: bias shape: expected \(3,\), got \(4,\)",
        ),
        (
            lambda: ops.linear(np.zeros((2, 5), F32), np.zeros((3, 5), F32), activation="swish"),
            ValueError,
            "linear: activation value: expected None, 'relu', .* got 'swish'",
        ),
        (
            lambda: ops.linear(np.zeros((2, 5)), ops.pack(np.zeros((3, 5), F32))),
            TypeError,
            "linear: weight dtype: expected float64, got float32",
        ),
        (lambda: ops.pack(np.zeros(3, F32)), ValueError, "pack: weight ndim: expected 2, got 1"),
        (
            lambda: ops.pack(np.zeros((3, 3), int)),
            TypeError,
            "pack: weight dtype: expected float16",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_result_too_large_is_refused():
    huge = np.broadcast_to(np.float32(0), (2**40, 2**20))
    with pytest.raises((MemoryError, OverflowError, ValueError)):
        ops.matmul(huge, huge.T)
