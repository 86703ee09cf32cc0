"""Fusions of several row-wise ops are what their parts give, one after another."""

import numpy as np
import pytest

from vectile import nn, ops

ACTIVATIONS = (None, "relu", "gelu", "gelu_tanh", "silu", "tanh", "sigmoid")


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
