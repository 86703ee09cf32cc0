"""What ops that work row by row share: rows read where they lie, results written around the caches,
rows longer than a cache, and the fusions of several ops."""

import numpy as np
import pytest

from vectile import nn, ops

ACTIVATIONS = (None, "relu", "gelu", "gelu_tanh", "silu", "tanh", "sigmoid")


def apart(rng, dtype):
    """Arrays whose rows are adjacent elements but lie apart: cut, transposed, every other, reversed."""
    x = rng.standard_normal((6, 5, 7, 40)).astype(dtype)
    yield x[..., :33]
    yield x.transpose(0, 2, 1, 3)
    yield x[::-1, :, ::2]
    yield x[:, 1, :, 3:20]
    yield np.broadcast_to(x[0, 0, 0], (3, 4, 40))
    yield x[..., :7]  # short rows, which are packed
    yield x[..., ::2]


def copied(x):
    return np.ascontiguousarray(x)


ROW_OPS = {
    "softmax": ops.softmax,
    "log_softmax": ops.log_softmax,
    "softmax_backward": lambda x: ops.softmax_backward(x, ops.softmax(copied(x))),
    "log_softmax_backward": lambda x: ops.log_softmax_backward(x, ops.log_softmax(copied(x))),
    "layer_norm": ops.layer_norm,
    "rms_norm": ops.rms_norm,
    "gelu": ops.gelu,
    "leaky_relu": ops.leaky_relu,
    "silu_backward": lambda x: ops.silu_backward(x, x),
    "silu_backward of a packed array": lambda x: ops.silu_backward(x, copied(x)),
    "cross_entropy": lambda x: ops.cross_entropy(
        x, np.arange(x[..., 0].size).reshape(x.shape[:-1]) % x.shape[-1], reduction="none"
    ),
    "max": lambda x: ops.max(x, -1),
    "add_layer_norm": lambda x: np.stack(ops.add_layer_norm(x, copied(x))),
    "bias_activation_dropout": lambda x: ops.bias_activation_dropout(
        x, x.reshape(-1, x.shape[-1])[0], "gelu", 0.4, 9
    ),
}


@pytest.mark.sanitize
@pytest.mark.parametrize("name", ROW_OPS)
def test_rows_that_lie_apart_give_what_their_copy_gives(isa, dtype, rng, name):
    for t in (dtype, np.float16):
        for x in apart(rng, t):
            np.testing.assert_array_equal(ROW_OPS[name](x), ROW_OPS[name](copied(x)))


@pytest.mark.sanitize
def test_sums_of_rows_that_lie_apart(isa, dtype, rng):
    for x in apart(rng, dtype):
        for axis in (-1, None, (0, -1), (-1, -2)):
            expected = x.astype(np.longdouble).sum(axis)
            bound = x.size * np.finfo(dtype).eps * 4
            np.testing.assert_allclose(ops.sum(x, axis), expected, rtol=0, atol=bound)


def test_results_beyond_the_caches(isa):
    """Streamed results equal those of a part that is small enough not to be."""
    rng = np.random.default_rng(5)
    rows, n = 4200, 4099  # 69 MB, no row but the first aligned
    x = rng.standard_normal((rows, n), np.float32)
    w, b = rng.standard_normal((2, n), np.float32)
    part = slice(rows - 40, rows)
    for f in (
        ops.softmax,
        ops.log_softmax,
        lambda v: ops.softmax_backward(v, v),
        lambda v: ops.layer_norm(v, w, b),
        lambda v: ops.rms_norm(v, w),
        ops.exp,
        lambda v: ops.tanh_backward(v, v),
        lambda v: ops.add(v, w),
        lambda v: ops.multiply(v, v),
        lambda v: ops.add_layer_norm(v, v, w, b)[0],
    ):
        np.testing.assert_array_equal(f(x)[part], f(x[part]))
    targets = np.arange(rows) % n
    _, lse = ops.cross_entropy(x, targets, return_lse=True)
    args = -100, 0.1, "sum"
    got = ops.cross_entropy_backward(np.float32(1), x, targets, lse, *args)[part]
    expected = ops.cross_entropy_backward(np.float32(1), x[part], targets[part], lse[part], *args)
    np.testing.assert_array_equal(got, expected)
    place = np.empty_like(x)
    assert ops.relu(x, out=place) is place
    np.testing.assert_array_equal(place, np.maximum(x, 0))
    np.testing.assert_array_equal(ops.relu(x, out=x), place)
    images = rng.standard_normal((30, 8, 300, 250), np.float32)
    groups = ops.group_norm(images, 4)
    np.testing.assert_array_equal(groups[3:4], ops.group_norm(images[3:4], 4))


@pytest.mark.parametrize("n", [8192, 8193, 65_536, 65_537])
def test_a_row_gives_the_same_bits_in_any_company(isa, n):
    rng = np.random.default_rng(6)
    x = np.resize(rng.normal(0, 4, (50, n)).astype(np.float32), (70_000_000 // 4 // n, n))
    for f in (ops.softmax, ops.log_softmax):
        np.testing.assert_array_equal(f(x)[:50], f(x[:50]))


@pytest.mark.parametrize("n", [4096, 4097, 8193, 65_537, 200_003])
@pytest.mark.parametrize("rising", [False, True])
def test_long_rows(isa, dtype, rng, n, rising):
    """A sum of exponentials that is rescaled as the maximum rises, NaN and masked blocks included."""
    x = rng.normal(0, 3, (3, n)).astype(dtype)
    if rising:
        x += np.linspace(-40, 40, n, dtype=dtype)
    x[1, : n - 96] = -np.inf  # whole blocks of it
    wide = x.astype(np.longdouble)
    e = np.exp(wide - wide.max(-1, keepdims=True))
    total = e.sum(-1, keepdims=True)
    eps = np.finfo(dtype).eps
    with np.errstate(divide="ignore"):
        expected = wide - wide.max(-1, keepdims=True) - np.log(total)
    # x - max is rounded at its own size, a sum once for each term of a block and for each block.
    reach = np.where(np.isfinite(wide), np.abs(wide - wide.max(-1, keepdims=True)), 0).max()
    rtol = float(eps * (reach + (4096 + n // 4096) / 2 + 12))
    np.testing.assert_allclose(ops.softmax(x), e / total, rtol=rtol, atol=1e-37)
    got = ops.log_softmax(x)
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(np.isfinite(got), finite)
    error = np.abs(got[finite] - expected[finite])
    assert (error <= 4 * eps * (np.abs(expected[finite]) + 50)).all()
    x[2, n // 2] = np.nan
    assert np.isnan(ops.softmax(x)[2]).all() and np.isnan(ops.log_softmax(x)[2]).all()
    x[2] = np.nan
    assert np.isnan(ops.softmax(x)[2]).all()
    x[2] = -np.inf
    assert (ops.softmax(x)[2] == 0).all() and (ops.log_softmax(x)[2] == -np.inf).all()


def test_long_rows_for_any_thread_count(isa, rng, same_for_any_thread_count):
    x = rng.standard_normal((40, 70_001), np.float32)
    same_for_any_thread_count(lambda: ops.softmax(x))
    same_for_any_thread_count(lambda: ops.softmax(x[:, 5:60_000]))
    same_for_any_thread_count(lambda: ops.cross_entropy(x[:, :4000], np.arange(40)))


@pytest.mark.sanitize
@pytest.mark.parametrize("shape", [(0, 4), (3, 1), (5, 7), (2, 3, 65), (700, 100), (3, 9001)])
def test_add_norm_is_add_then_norm(isa, dtype, rng, shape):
    x, r = rng.standard_normal((2, *shape)).astype(dtype)
    w, b = rng.standard_normal((2, shape[-1])).astype(dtype)
    for weight, bias in [(w, b), (None, None)]:
        expected = ops.layer_norm(x + r, weight, bias, return_stats=True)
        y, total, mean, rstd = ops.add_layer_norm(x, r, weight, bias, return_stats=True)
        for got, e in zip((y, mean, rstd), expected, strict=True):
            np.testing.assert_array_equal(got, e)
        np.testing.assert_array_equal(total, x + r)
        expected = ops.rms_norm(x + r, weight, return_stats=True)
        y, total, rstd = ops.add_rms_norm(x, r, weight, return_stats=True)
        np.testing.assert_array_equal(y, expected[0])
        np.testing.assert_array_equal(rstd, expected[1])
        np.testing.assert_array_equal(total, x + r)


@pytest.mark.sanitize
@pytest.mark.parametrize("shape", [(0, 4), (1,), (5, 7), (2, 3, 65), (90, 1000), (3, 9001)])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_bias_activation_dropout_is_its_parts(isa, dtype, rng, shape, activation):
    x, g = rng.standard_normal((2, *shape)).astype(dtype)
    bias = rng.standard_normal(shape[-1]).astype(dtype)
    functions = {
        None: lambda v: v,
        "gelu_tanh": lambda v: ops.gelu(v, "tanh"),
    }
    f = functions.get(activation) or getattr(ops, activation)
    for b, p in [(bias, 0.3), (None, 0.3), (bias, 0.0), (bias, 1.0)]:
        u = x if b is None else x + b
        got = ops.bias_activation_dropout(x, b, activation, p, 11)
        np.testing.assert_array_equal(got, ops.dropout(f(u), p, 11))
        dx, db = ops.bias_activation_dropout_backward(g, x, b, activation, p, 11)
        d = ops.dropout(g, p, 11)
        if activation in ("relu", "tanh", "sigmoid"):
            d = getattr(ops, activation + "_backward")(d, f(u))
        elif activation == "gelu_tanh":
            d = ops.gelu_backward(d, u, "tanh")
        elif activation:
            d = getattr(ops, activation + "_backward")(d, u)
        np.testing.assert_array_equal(dx, d)
        assert (db is None) == (b is None)
        if b is not None:
            np.testing.assert_array_equal(db, ops.sum_to(d, b.shape))


def test_fusions_for_any_thread_count(isa, rng, same_for_any_thread_count):
    x, r = rng.standard_normal((2, 513, 301), np.float32)
    b = r[0].copy()
    same_for_any_thread_count(lambda: ops.add_layer_norm(x, r, b, b))
    same_for_any_thread_count(lambda: ops.bias_activation_dropout(x, b, "gelu", 0.2, 3))
    same_for_any_thread_count(lambda: ops.bias_activation_dropout_backward(r, x, b, "silu", 0.2, 3))


X = np.zeros((3, 4), np.float32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ops.add_layer_norm(X, X[:2]), ValueError, "add_layer_norm: residual shape:"),
        (
            lambda: ops.add_rms_norm(X, X.astype(np.float64)),
            TypeError,
            "add_rms_norm: residual dtype: expected float32, got float64",
        ),
        (lambda: ops.add_layer_norm(X, X, X[0, :3]), ValueError, "add_layer_norm: weight shape:"),
        (
            lambda: ops.bias_activation_dropout(X, None, "swish"),
            ValueError,
            "bias_activation_dropout: activation value: expected None, 'relu'",
        ),
        (
            lambda: ops.bias_activation_dropout(X, X[0, :3]),
            ValueError,
            "bias_activation_dropout: bias shape:",
        ),
        (
            lambda: ops.bias_activation_dropout(X, p=1.5),
            ValueError,
            "bias_activation_dropout: p value: expected 0 <= p <= 1, got 1.5",
        ),
        (
            lambda: ops.bias_activation_dropout(X, seed=-1),
            (ValueError, OverflowError),
            "seed|negative|unsigned",
        ),
        (
            lambda: ops.bias_activation_dropout_backward(X[:2], X, None, None, 0.1, 0),
            ValueError,
            "bias_activation_dropout_backward: grad shape:",
        ),
        (lambda: ops.bias_activation_dropout(X[0, 0]), ValueError, "x ndim: expected at least 1"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("norm_first", [False, True])
def test_transformer_layer_is_the_same_with_and_without_fusion(norm_first, rng):
    """A norm and an activation that fusions do not know give the unfused layer."""
    import vectile as vt

    vt.manual_seed(0)
    layer = nn.TransformerEncoderLayer(
        16, 2, 24, dropout=0.2, batch_first=True, norm_first=norm_first, dtype=np.float64
    )
    x = rng.standard_normal((2, 5, 16))
    results = []
    for fused in (True, False):
        if not fused:
            layer.activation = lambda v: nn.functional.relu(v)
            for name in ("norm1", "norm2"):
                plain = getattr(layer, name)
                setattr(layer, name, type("Plain", (type(plain),), {})(16, dtype=np.float64))
        vt.manual_seed(3)
        layer.zero_grad()
        y = layer(x)
        y.sum().backward()
        results.append((y.numpy(), layer.linear1.bias.grad.numpy().copy()))
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_a_fused_layer_multiplies_with_its_packed_weight(monkeypatch, rng):
    layer = nn.TransformerEncoderLayer(16, 2, 24, dropout=0.2, batch_first=True)
    layer.linear1.pack()
    seen, linear = [], nn.functional.linear

    def spy(x, weight, *rest):
        seen.append(weight)
        return linear(x, weight, *rest)

    monkeypatch.setattr(nn.functional, "linear", spy)
    layer(rng.standard_normal((2, 5, 16)).astype(np.float32))
    assert any(w is layer.linear1._packed for w in seen)
