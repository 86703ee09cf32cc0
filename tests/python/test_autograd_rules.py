"""Every rule against central differences in float64, and its gradient against differences again."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from differences import as_list, check_gradient, gradient_of, leaves, vjp

import vectile as vt
from vectile import autograd as ag
from vectile.autograd import arrays, composite, rules
from vectile.autograd import functional as F
from vectile.autograd.tape import Node


def normal(*shape):
    return lambda rng: rng.standard_normal(shape)


def positive(*shape):
    return lambda rng: rng.uniform(0.5, 2.0, shape)


def inside(*shape):
    return lambda rng: rng.uniform(0.1, 0.9, shape)


def apart(*shape):
    """Away from 0 and from each other, so that no kink or tie lies within a step."""
    return lambda rng: rng.permutation(np.linspace(-2.05, 2.1, int(np.prod(shape)))).reshape(shape)


IDS = np.array([[0, 2, 2], [3, 0, 1]])
TARGETS = np.array([1, -100, 4, 0])
LENGTHS = np.array([2, 0, 3])
TURN = np.exp(1j * np.arange(6.0).reshape(3, 2))
MASK = np.array([[True, False, True], [True, True, False], [False, False, False]])
BIAS = np.array([[0.0, -1.0, 0.5], [-np.inf, 0.2, 0.0], [0.3, 0.1, -0.2]])

# name: (function of Tensors, the inputs' distributions)
CASES = {
    "add": (lambda a, b: a + b, normal(2, 3), normal(3)),
    "add_same": (lambda a: a + a, normal(2, 3)),
    "subtract": (lambda a, b: a - b, normal(2, 1), normal(3)),
    "multiply": (lambda a, b: a * b, normal(2, 3), normal(2, 1)),
    "multiply_scalar": (lambda a: 2.5 * a * 3, normal(2, 3)),
    "multiply_array": (lambda a: np.arange(3.0) * a, normal(2, 3)),
    "square": (lambda a: a * a, normal(2, 3)),
    "divide": (lambda a, b: a / b, normal(2, 3), positive(3)),
    "divide_scalar": (lambda a: a / 3 + 2 / a, positive(2, 3)),
    "power": (lambda a, b: a**b, positive(2, 3), normal(3)),
    "power_square": (lambda a: a**2, normal(2, 3)),
    "power_cube": (lambda a: a**3, normal(2, 3)),
    "power_inverse": (lambda a: a**-1, positive(2, 3)),
    "power_base": (lambda a: 2.0**a, normal(2, 3)),
    "power_zero": (lambda a: a**0 + a**1, normal(2, 3)),
    "negative": (lambda a: -a, normal(2, 3)),
    "absolute": (abs, apart(2, 3)),
    "maximum": (F.maximum, apart(2, 3), lambda rng: np.array([0.01, 0.02, 0.03])),
    "minimum": (F.minimum, apart(2, 3), lambda rng: np.array([0.01, 0.02, 0.03])),
    "maximum_scalar": (lambda a: F.maximum(a, 0.01) + F.minimum(-0.01, a), apart(2, 3)),
    "matmul": (lambda a, b: a @ b, normal(3, 4), normal(4, 2)),
    "matmul_vectors": (lambda a, b: a @ b, normal(4), normal(4)),
    "matmul_vector_matrix": (lambda a, b: a @ b, normal(4), normal(2, 4, 3)),
    "matmul_matrix_vector": (lambda a, b: a @ b, normal(2, 3, 4), normal(4)),
    "matmul_batch": (lambda a, b: a @ b, normal(2, 3, 4), normal(4, 2)),
    "matmul_broadcast": (lambda a, b: a @ b, normal(2, 1, 3, 4), normal(3, 4, 2)),
    "exp": (F.exp, normal(2, 3)),
    "expm1": (F.expm1, normal(2, 3)),
    "log": (F.log, positive(2, 3)),
    "log1p": (F.log1p, positive(2, 3)),
    "sqrt": (F.sqrt, positive(2, 3)),
    "sin": (F.sin, normal(2, 3)),
    "cos": (F.cos, normal(2, 3)),
    "tanh": (F.tanh, normal(2, 3)),
    "sigmoid": (F.sigmoid, normal(2, 3)),
    "erf": (F.erf, normal(2, 3)),
    "relu": (F.relu, apart(2, 3)),
    "gelu": (F.gelu, normal(2, 3)),
    "gelu_tanh": (lambda a: F.gelu(a, "tanh"), normal(2, 3)),
    "silu": (F.silu, normal(2, 3)),
    "softplus": (F.softplus, normal(2, 3)),
    "clip": (lambda a: F.clip(a, -1.0, 1.0) + F.clip(a, high=0.01), apart(2, 3)),
    "copy": (lambda a: a.copy() * a, normal(2, 3)),
    "where": (lambda a, b: F.where(MASK, a, b), normal(3, 3), normal(3)),
    "where_scalar": (lambda a: F.where(MASK, 0.0, a) + F.where(MASK, a, 1), normal(3, 3)),
    "bias_activation_dropout": (
        lambda a, b: F.bias_activation_dropout(a, b, "gelu", 0.4, seed=3),
        normal(4, 5),
        normal(5),
    ),
    **{
        f"bias_{name}_dropout": (
            lambda a, b, name=name: F.bias_activation_dropout(a, b, name, 0.3, seed=5),
            normal(3, 4),
            normal(4),
        )
        for name in ("relu", "gelu_tanh", "silu", "tanh", "sigmoid")
    },
    "dropout_alone": (lambda a: F.bias_activation_dropout(a, None, None, 0.3, 5), normal(3, 4)),
    "dropout": (lambda a: F.dropout(a, 0.4, seed=3), normal(4, 5)),
    "sum": (lambda a: a.sum(), normal(2, 3)),
    "sum_axis": (lambda a: a.sum(1), normal(2, 3)),
    "sum_axes": (lambda a: a.sum((0, -1), keepdims=True), normal(2, 3, 2)),
    "sum_inner": (lambda a: a.sum((0, 2)), normal(2, 3, 2)),
    "mean": (lambda a: a.mean(), normal(2, 3)),
    "mean_axis": (lambda a: a.mean(0), normal(2, 3)),
    "max": (lambda a: a.max(), apart(2, 3)),
    "max_axis": (lambda a: a.max(1), apart(2, 3)),
    "min_axis": (lambda a: a.min(0, keepdims=True), apart(2, 3)),
    "var": (lambda a: a.var(1, ddof=1), normal(2, 4)),
    "std": (lambda a: a.std(), normal(2, 4)),
    "logsumexp": (lambda a: F.logsumexp(a, 1), normal(2, 4)),
    "cumsum": (lambda a: a.cumsum(1), normal(2, 4)),
    "sum_to": (lambda a: F.sum_to(a, (3, 1)), normal(2, 3, 4)),
    "broadcast_to": (lambda a: a.broadcast_to((2, 3, 4)), normal(3, 1)),
    "reshape": (lambda a: a.reshape(3, -1), normal(2, 6)),
    "transpose": (lambda a: a.transpose(1, 2, 0), normal(2, 3, 4)),
    "T": (lambda a: a.T, normal(2, 3)),
    "swapaxes": (lambda a: a.swapaxes(0, -1), normal(2, 3, 4)),
    "expand_dims": (lambda a: F.squeeze(a.expand_dims((0, 2)), 0), normal(2, 3)),
    "flip": (lambda a: F.flip(a, 1), normal(2, 3)),
    "getitem": (lambda a: a[1:, None, ::-2], normal(3, 4)),
    "getitem_scalar": (lambda a: a[1, -1], normal(3, 4)),
    "getitem_rows": (lambda a: a[IDS], normal(4, 2)),
    "getitem_elements": (lambda a: a[IDS], normal(4)),
    "getitem_blocks": (lambda a: a[np.array([3, -1])], normal(4, 2, 2)),
    "getitem_negative_rows": (lambda a: a[np.array([-1, 0, -1])], normal(4, 2)),
    "getitem_uint8_rows": (lambda a: a[np.array([0, 255, 2], np.uint8)], normal(260, 1)),
    "getitem_int8_rows": (lambda a: a[np.array([-1, 127, 5], np.int8)], normal(150, 1)),
    "getitem_pairs": (lambda a: a[[0, 0, 2], [1, 1, -1]], normal(3, 4)),
    "getitem_mask": (lambda a: a[MASK], normal(3, 3)),
    "take": (lambda a: a.take([2, 0, 2], 1) * 1.0, normal(2, 3)),
    "take_flat": (lambda a: a.take(IDS), normal(2, 3)),
    "gather": (lambda a: F.gather(a, IDS, 1), normal(2, 4)),
    "concatenate": (lambda a, b: F.concatenate([a, b, a], -1), normal(2, 3), normal(2, 1)),
    "stack": (lambda a, b: F.stack([a, b], 1), normal(2, 3), normal(2, 3)),
    "split": (lambda a: F.split(a, [1, 3], 1), normal(2, 4)),
    "split_some": (lambda a: F.split(a, 3, -1)[1] * 2.0, normal(2, 6)),
    "pad": (lambda a: F.pad(a, ((1, 0), (0, 2)), 0.5), normal(2, 3)),
    "setitem": (lambda a, b: F.setitem(a, (0, slice(1)), b), normal(2, 3), normal(1)),
    "linear": (lambda x, w, b: F.linear(x, w, b), normal(2, 3, 4), normal(5, 4), normal(5)),
    "linear_vector": (lambda x, w: F.linear(x, w), normal(4), normal(3, 4)),
    "linear_residual": (
        lambda x, w, b, r: F.linear(x, w, b, None, r),
        normal(2, 3, 4),
        normal(5, 4),
        normal(5),
        normal(2, 3, 5),
    ),
    "linear_tanh_residual": (
        lambda x, w, r: F.linear(x, w, None, "tanh", r),
        normal(2, 4),
        normal(3, 4),
        normal(2, 3),
    ),
    "linear_packed": (lambda x, w: F.linear(x, F.pack(w)), normal(2, 4), normal(3, 4)),
    "linear_tanh": (
        lambda x, w, b: F.linear(x, w, b, "tanh"),
        normal(2, 4),
        normal(3, 4),
        normal(3),
    ),
    "linear_sigmoid": (lambda x, w: F.linear(x, w, None, "sigmoid"), normal(2, 4), normal(3, 4)),
    "linear_relu": (lambda x, w: F.linear(x, w, None, "relu"), normal(2, 4), normal(3, 4)),
    "conv2d": (
        lambda x, w, b: F.conv2d(x, w, b, (2, 1), (1, 0), (1, 2)),
        normal(2, 2, 5, 4),
        normal(3, 2, 2, 2),
        normal(3),
    ),
    "conv2d_groups": (
        lambda x, w: F.conv2d(x, w, None, 1, "same", 1, 2),
        normal(4, 3, 3),
        normal(2, 2, 2, 2),
    ),
    "conv1d_tanh": (
        lambda x, w, b: F.conv1d(x, w, b, 1, 1, activation="tanh"),
        normal(2, 2, 4),
        normal(2, 2, 3),
        normal(2),
    ),
    "conv1d_silu": (
        lambda x, w: F.conv1d(x, w, activation="silu"),
        normal(1, 2, 4),
        normal(2, 2, 3),
    ),
    "conv_transpose2d": (
        lambda x, w, b: F.conv_transpose2d(x, w, b, 2, 1, 1, 2, (1, 2)),
        normal(2, 2, 3, 2),
        normal(2, 2, 2, 3),
        normal(4),
    ),
    "conv_transpose1d_sigmoid": (
        lambda x, w, b: F.conv_transpose1d(x, w, b, 3, activation="sigmoid"),
        normal(2, 3),
        normal(2, 2, 2),
        normal(2),
    ),
    "linear_gelu": (lambda x, w: F.linear(x, w, None, "gelu"), normal(2, 4), normal(3, 4)),
    "linear_gelu_tanh": (
        lambda x, w: F.linear(x, w, None, "gelu_tanh"),
        normal(2, 4),
        normal(3, 4),
    ),
    "linear_silu": (lambda x, w: F.linear(x, w, None, "silu"), normal(2, 4), normal(3, 4)),
    "softmax": (F.softmax, normal(2, 4)),
    "softmax_axis": (lambda a: F.softmax(a, 0), normal(3, 2)),
    "log_softmax": (lambda a: F.log_softmax(a, 0), normal(3, 2)),
    "prelu": (F.prelu, apart(2, 3, 2), normal(3)),
    "prelu_columns": (F.prelu, apart(4, 3), normal(3)),
    "prelu_one_slope": (F.prelu, apart(2, 3, 2), normal(1)),
    "leaky_relu": (lambda a: F.leaky_relu(a, 0.2), apart(2, 3)),
    "batch_norm": (
        lambda x, w, b: F.batch_norm(x, None, None, w, b, True),
        normal(2, 3, 2, 2),
        normal(3),
        normal(3),
    ),
    "batch_norm_plain": (lambda x: F.batch_norm(x, training=True), normal(4, 3)),
    "batch_norm_bias": (
        lambda x, b: F.batch_norm(x, None, None, None, b, True),
        normal(3, 2, 2),
        normal(2),
    ),
    "batch_norm_running": (
        lambda x, w, b: F.batch_norm(x, np.array([0.5, -1.0]), np.array([2.0, 0.3]), w, b),
        normal(3, 2, 2),
        normal(2),
        normal(2),
    ),
    "group_norm": (
        lambda x, w, b: F.group_norm(x, 2, w, b),
        normal(2, 4, 3),
        normal(4),
        normal(4),
    ),
    "group_norm_plain": (lambda x: F.group_norm(x, 1), normal(2, 3, 2, 2)),
    "max_pool": (lambda x: F.max_pool(x, (2, 2), 1, 1), apart(1, 2, 3, 4)),
    "adaptive_max_pool": (lambda x: F.adaptive_max_pool(x, (3,)), apart(2, 7)),
    "avg_pool": (
        lambda x: F.avg_pool(x, (3, 2), 2, 1, count_include_pad=False),
        normal(1, 2, 5, 4),
    ),
    "adaptive_avg_pool": (lambda x: F.adaptive_avg_pool(x, (2, 3)), normal(2, 1, 5, 4)),
    "interpolate_nearest": (lambda x: F.interpolate(x, (5, 3)), normal(1, 2, 2, 4)),
    "interpolate_linear": (lambda x: F.interpolate(x, (7,), "linear"), normal(2, 3)),
    "interpolate_cubic": (lambda x: F.interpolate(x, (2, 5), "cubic", True), normal(1, 3, 3)),
    "add_layer_norm": (F.add_layer_norm, normal(2, 3, 4), normal(2, 3, 4), normal(4), normal(4)),
    "add_layer_norm_one_row": (F.add_layer_norm, normal(3, 4), normal(4)),
    "add_rms_norm": (F.add_rms_norm, normal(3, 4), normal(3, 4), normal(4)),
    "layer_norm": (F.layer_norm, normal(2, 3, 4), normal(4), normal(4)),
    "layer_norm_plain": (F.layer_norm, normal(3, 4)),
    "layer_norm_bias": (lambda x, b: F.layer_norm(x, None, b), normal(2, 3, 4), normal(4)),
    "rms_norm": (F.rms_norm, normal(2, 3, 4), normal(4)),
    "rms_norm_plain": (F.rms_norm, normal(3, 4)),
    "embedding": (lambda w: F.embedding(IDS, w), normal(5, 3)),
    "mean_squared_error": (F.mean_squared_error, normal(3, 4), normal(3, 4)),
    "binary_cross_entropy": (F.binary_cross_entropy, inside(3, 4), inside(3, 4)),
    "cross_entropy": (lambda a: F.cross_entropy(a, TARGETS), normal(4, 5)),
    "cross_entropy_sum": (
        lambda a: F.cross_entropy(a, TARGETS, -100, 0.1, "sum"),
        normal(4, 5),
    ),
    "cross_entropy_none": (
        lambda a: F.cross_entropy(a, TARGETS, label_smoothing=0.2, reduction="none"),
        normal(4, 5),
    ),
    "attention": (
        F.scaled_dot_product_attention,
        normal(2, 3, 2),
        normal(2, 4, 2),
        normal(2, 4, 3),
    ),
    "attention_self": (
        lambda x: F.scaled_dot_product_attention(x, x, x, scale=0.3),
        normal(1, 3, 2),
    ),
    "attention_causal": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        normal(2, 2, 2),
        normal(2, 3, 2),
        normal(2, 3, 2),
    ),
    "attention_grouped": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        normal(1, 4, 2, 2),
        normal(1, 2, 2, 2),
        normal(1, 2, 2, 2),
    ),
    "attention_bool_mask": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, MASK),
        normal(2, 3, 2),
        normal(2, 3, 2),
        normal(2, 3, 2),
    ),
    "attention_float_mask": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, BIAS),
        normal(2, 3, 2),
        normal(2, 3, 2),
        normal(2, 3, 2),
    ),
    "rotary_embedding": (
        lambda x: F.rotary_embedding(x, TURN.real.copy(), TURN.imag.copy(), True),
        normal(2, 3, 5),
    ),
    "rnn_tanh": (
        lambda x, h, w, u, b, c: F.rnn(x, h, w, u, b, c),
        *(normal(3, 2, 2), normal(2, 3), normal(3, 2), normal(3, 3), normal(3), normal(3)),
    ),
    "rnn_relu": (
        lambda x, w, u, b: F.rnn(x, None, w, u, b, nonlinearity="relu", reverse=True),
        *(normal(2, 2, 2), normal(3, 2), normal(3, 3), positive(3)),
    ),
    "lstm": (
        F.lstm,
        *(normal(2, 2, 2), normal(2, 2), normal(2, 2)),
        *(normal(8, 2), normal(8, 2), normal(8), normal(8)),
    ),
    "lstm_lengths": (
        lambda x, c, w, u: F.lstm(x, None, c, w, u, reverse=True, lengths=LENGTHS),
        *(normal(3, 3, 1), normal(3, 2), normal(8, 1), normal(8, 2)),
    ),
    "gru": (
        F.gru,
        *(normal(2, 2, 2), normal(2, 2), normal(6, 2), normal(6, 2), normal(6), normal(6)),
    ),
    "gru_lengths": (
        lambda x, h, w, u: F.gru(x, h, w, u, lengths=LENGTHS),
        *(normal(3, 3, 1), normal(3, 2), normal(6, 1), normal(6, 2)),
    ),
    "attention_learned_mask": (
        lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, m, dropout_p=0.0),
        normal(2, 3, 2),
        normal(2, 3, 2),
        normal(2, 3, 2),
        normal(3, 3),
    ),
    "attention_learned_slopes": (
        lambda q, k, v, s: F.scaled_dot_product_attention(q, k, v, alibi_slopes=s, softcap=3.0),
        *(normal(2, 2, 2), normal(1, 3, 2), normal(1, 3, 2), positive(2)),
    ),
    "attention_slopes_of_a_batch": (
        lambda q, k, v, s, m: F.scaled_dot_product_attention(
            q, k, v, is_causal=True, window=(2, 0), alibi_slopes=s, sinks=m
        ),
        *(normal(2, 2, 3, 2), normal(2, 2, 3, 2), normal(2, 2, 3, 2), normal(2, 2), normal(2)),
    ),
}


def draw(name):
    rng = np.random.default_rng(len(name))
    f, *inputs = CASES[name]
    return f, [make(rng) for make in inputs]


@pytest.mark.parametrize("name", CASES)
def test_first_order(name):
    f, values = draw(name)
    check_gradient(f, values, 1)


@pytest.mark.parametrize("name", CASES)
def test_second_order(name):
    f, values = draw(name)
    outs = as_list(f(*leaves(values)))
    rng = np.random.default_rng(2)
    cotangents = [rng.standard_normal(o.shape) for o in outs]
    check_gradient(gradient_of(f, len(values)), [*values, *cotangents], 3)


def graph_of(tensors):
    """The names of the rules below `tensors`."""
    seen, stack = {}, [t._node for t in tensors if t._node is not None]
    while stack:
        node = stack.pop()
        if node not in seen:
            seen[node] = node.rule
            stack.extend(e for e in node.edges if isinstance(e, Node))
    return set(seen.values())


def public_rules():
    functions = inspect.getmembers(rules, inspect.isfunction)
    return {f for name, f in functions if not name.startswith("_")}


def test_every_rule_is_in_the_table():
    # astype changes the dtype, which differences in float64 cannot see: it has its own test below. to
    # moves to a GPU: see test_device.
    used = {rules.astype, rules.to}
    for name in CASES:
        f, values = draw(name)
        inputs = leaves(values)
        outs = as_list(f(*inputs))
        used |= graph_of(outs)
        ones = [vt.tensor(np.ones(o.shape), requires_grad=True) for o in outs]
        used |= graph_of(g for g in vjp(f, inputs, ones, create_graph=True) if g is not None)
    assert used == public_rules()


def test_both_namespaces_have_what_the_rules_call():
    names = set()
    for rule in [*public_rules(), rules._fit]:
        names |= {n for n in rule.__code__.co_names if f"k.{n}(" in inspect.getsource(rule)}
    assert len(names) > 30
    for n in names:
        assert callable(getattr(arrays, n)) and callable(getattr(composite, n)), n


def test_astype_carries_the_gradient_back_in_the_operands_dtype():
    x = vt.tensor([1.0, 2.0], requires_grad=True)
    (g,) = vt.grad((x.astype("float64") ** 2).sum(), x, create_graph=True)
    np.testing.assert_array_equal(g.numpy(), np.float32([2, 4]))
    assert g.dtype == np.float32
    (h,) = vt.grad(g.sum(), x)
    np.testing.assert_array_equal(h.numpy(), np.float32([2, 2]))


def test_third_order():
    f, values = (lambda x: ag.tanh(x) * F.gelu(x)), [np.linspace(-1, 1, 5)]
    second = gradient_of(gradient_of(f, 1), 2)
    rng = np.random.default_rng(0)
    check_gradient(second, [*values, *(rng.standard_normal(5) for _ in range(2))], 1)


@pytest.mark.parametrize("name", CASES)
def test_leaf_gradients_own_their_memory(name):
    f, values = draw(name)
    inputs = leaves(values)
    outs = as_list(f(*inputs))
    seeds = [np.ones(o.shape) for o in outs]
    for out, seed in zip(outs, seeds, strict=True):
        out.backward(seed, retain_graph=True)
    held = [a for t in inputs for a in (t.grad, t) if a is not None] + outs
    held = [t.numpy() for t in held] + seeds
    grads = [t.grad.numpy() for t in inputs if t.grad is not None]
    for g in grads:
        assert sum(np.shares_memory(g, other) for other in held) == 1  # itself
        assert g.flags.writeable
