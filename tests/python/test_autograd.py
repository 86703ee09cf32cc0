"""Gradients: what backward and grad give, and to whom."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import leaf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import vectile as vt
from vectile import random
from vectile.autograd import functional as F


def test_gradients_accumulate_in_leaves_only():
    x = leaf(3)
    y = x * 2
    (y * y).sum().backward()
    first = x.grad.numpy().copy()
    assert y.grad is None and not x.grad.requires_grad
    (x * 2).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), first + 2)
    x.zero_grad()
    assert x.grad is None


def test_a_gradient_already_handed_out_does_not_change():
    x = leaf(3)
    x.sum().backward()
    before = x.grad.numpy()
    x.sum().backward()
    assert before.tolist() == [1, 1, 1] and x.grad.tolist() == [2, 2, 2]


def test_a_leaf_is_its_own_output():
    x = vt.tensor(3.0, requires_grad=True)
    x.backward()
    assert x.grad.item() == 1
    g = np.float32([1, 2])
    y = leaf(2)
    y.backward(g)
    assert y.grad.tolist() == [1, 2] and not np.shares_memory(y.grad.numpy(), g)


def test_backward_asks_for_what_it_needs():
    x = leaf(2)
    with pytest.raises(ValueError, match=r"backward: grad: expected one of shape \(2,\), got None"):
        (x * 2).backward()
    with pytest.raises(ValueError, match=r"backward: grad shape: expected \(2,\), got \(3,\)"):
        (x * 2).backward(np.ones(3))
    with pytest.raises(RuntimeError, match="does not require grad"):
        vt.tensor(1.0).backward()
    y = x * 2
    y.backward([1.0, 3.0])
    assert x.grad.tolist() == [2, 6] and x.grad.dtype == np.float32


def test_grad_leaves_dot_grad_alone_and_reaches_intermediates():
    x, unused = leaf(2), leaf(2)
    y = x * 3
    gx, gy = vt.grad((y * y).sum(), [x, y])
    np.testing.assert_allclose(gy.numpy(), 2 * y.numpy())
    np.testing.assert_allclose(gx.numpy(), 6 * y.numpy())
    assert x.grad is None and not gx.requires_grad
    assert not np.shares_memory(gx.numpy(), gy.numpy())
    with pytest.raises(RuntimeError, match=r"inputs\[1\] was not used"):
        vt.grad((x * 2).sum(), [x, unused])
    assert vt.grad((x * 2).sum(), [x, unused], allow_unused=True)[1] is None
    with pytest.raises(RuntimeError, match=r"inputs\[0\] requires_grad"):
        vt.grad((x * 2).sum(), vt.tensor([1.0, 2.0]))
    with pytest.raises(ValueError, match="grad_outputs length"):
        vt.grad([x.sum(), x.mean()], x, [None])


def test_grad_computes_only_what_leads_to_the_inputs():
    x, w = leaf(2), leaf(2)
    y = x * w
    z = (y * w).sum()
    (gx,) = vt.grad(z, x)
    np.testing.assert_allclose(gx.numpy(), w.numpy() ** 2)
    assert w.grad is None
    assert vt.grad([w, x], x, [np.ones(2), np.ones(2)])[0].tolist() == [1, 1]
    out = vt.grad(x, x, np.float32([5, 6]))[0]
    assert out.tolist() == [5, 6]


def test_several_outputs_add_up():
    x = leaf(2)
    (g,) = vt.grad([x * 2, x.sum()], x, [np.ones(2), None])
    assert g.tolist() == [3, 3]


def test_create_graph_in_backward():
    x = vt.tensor(3.0, requires_grad=True)
    (x * x * x).backward(create_graph=True)
    g, x.grad = x.grad, None
    g.backward()
    assert g.item() == 27 and x.grad.item() == 18


def test_gradient_penalty():
    """A first-order term and a second-order one in one backward, as WGAN-GP does."""
    x, w = leaf(4, 3, dtype=np.float64), leaf(2, 3, dtype=np.float64)

    def loss(w):
        y = F.tanh(F.linear(x, w)).sum()
        (g,) = vt.grad(y, x, create_graph=True)
        return y + ((g * g).sum(1).sqrt() - 1.0).__pow__(2).mean()

    loss(w).backward()
    step = 1e-6
    for i in np.ndindex(w.shape):
        d = np.zeros(w.shape)
        d[i] = step
        up, down = (loss(vt.tensor(w.numpy() + s * d, requires_grad=True)).item() for s in (1, -1))
        assert abs(w.grad.numpy()[i] - (up - down) / (2 * step)) < 1e-7
    assert x.grad is not None


def test_same_leaf_many_times():
    x = leaf(2)
    F.concatenate([x, x, x * x]).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 + 2 * x.numpy())


def test_non_finite_values_show():
    x = vt.tensor([0.0, 1.0], requires_grad=True)
    with np.errstate(all="ignore"):
        y = F.log(x)
        y.sum().backward()
    assert np.isneginf(y.numpy()[0]) and np.isposinf(x.grad.numpy()[0])
    x = vt.tensor([np.nan, 1.0], requires_grad=True)
    with np.errstate(all="ignore"):
        for f in (lambda t: t * t, F.relu, lambda t: F.maximum(t, 0.0), lambda t: t.max(), F.exp):
            assert np.isnan(f(x).numpy()).any()


HIDING = {
    "padding": np.array([[True, True, False, True]]),
    "added": np.array([[0.0, 0.5, -np.inf, 0.0]], np.float32),
    "causal": None,
}


@pytest.mark.parametrize("hiding", HIDING)
@pytest.mark.parametrize("heads", [(2, 2), (4, 2)])
@pytest.mark.parametrize("how", ["fused", "weights", "by parts", "dropout"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_a_mask_hides_reaches_neither_values_nor_gradients(bad, how, heads, hiding):
    hidden = 3 if hiding == "causal" else 2  # from all queries but the last
    seen = slice(0, 3) if hiding == "causal" else slice(None)
    mask = HIDING[hiding]

    def run(value):
        rng = np.random.default_rng(0)
        q = vt.tensor(rng.normal(size=(heads[0], 4, 3)), "float32", requires_grad=True)
        k, v = (
            vt.tensor(rng.normal(size=(heads[1], 4, 3)), "float32", requires_grad=True)
            for _ in range(2)
        )
        with vt.no_grad():
            k[:, hidden] = value
            v[:, hidden] = value
        options = {"is_causal": hiding == "causal"}
        if how == "weights":
            out, weights = F.attention_and_weights(q, k, v, mask, **options)
            out = F.concatenate([out, weights], -1)
        elif how == "by parts":
            learned = np.zeros((1, 4), np.float32) if mask is None else mask
            if learned.dtype == bool:
                learned = np.where(learned, np.float32(0), np.float32(-np.inf))
            out = F.scaled_dot_product_attention(
                q, k, v, vt.tensor(learned, requires_grad=True), **options
            )
        else:
            random.manual_seed(0)
            p = 0.3 if how == "dropout" else 0.0
            out = F.scaled_dot_product_attention(q, k, v, mask, dropout_p=p, **options)
        out = out[:, seen]
        grads = vt.grad((out * out).sum(), [q, k, v])
        return [out, grads[0][:, seen]] if hiding == "causal" else [out, *grads]

    for got, expected in zip(run(bad), run(0.0), strict=True):
        np.testing.assert_allclose(got.numpy(), expected.numpy(), rtol=1e-5, atol=1e-6)


def test_a_visible_value_that_is_not_finite_shows_as_it_does_in_the_fused_kernel():
    rng = np.random.default_rng(0)
    q, k, v = (vt.tensor(rng.normal(size=(5, 3)), "float32") for _ in range(3))
    v[1, 0], v[2, 1], v[1, 2], v[2, 2] = np.nan, -np.inf, np.inf, -np.inf
    with vt.no_grad():
        fused = F.scaled_dot_product_attention(q, k, v)
    parts = F.scaled_dot_product_attention(
        q, k, v, vt.tensor(np.zeros((1, 5), np.float32), requires_grad=True)
    )
    np.testing.assert_array_equal(parts.numpy(), fused.numpy())
    assert np.isnan(parts.numpy()[:, ::2]).all() and np.isneginf(parts.numpy()[:, 1]).all()


def test_ties_share_the_gradient():
    x = vt.tensor([2.0, 2.0, 1.0], requires_grad=True)
    x.max().backward()
    assert x.grad.tolist() == [0.5, 0.5, 0]
    x.grad = None
    F.maximum(x, 2.0).sum().backward()
    assert x.grad.tolist() == [0.5, 0.5, 0]


def test_empty_arrays():
    x = vt.tensor(np.zeros((0, 3), np.float32), requires_grad=True)
    y = (F.tanh(x * 2) + np.ones(3, np.float32)).sum()
    y.backward()
    assert y.item() == 0 and x.grad.shape == (0, 3)


shapes = hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, max_side=3, min_side=0)


@given(shapes, st.sampled_from(["add", "subtract", "multiply", "divide", "maximum", "minimum"]))
@settings(max_examples=150, deadline=None)
def test_broadcasting_is_numpys_and_gradients_have_the_operands_shapes(shapes, name):
    rng = np.random.default_rng(0)
    a, b = (vt.tensor(rng.uniform(1, 2, s), requires_grad=True) for s in shapes.input_shapes)
    y = getattr(F, name)(a, b)
    np.testing.assert_allclose(y.numpy(), getattr(np, name)(a.numpy(), b.numpy()), rtol=1e-15)
    g = rng.standard_normal(y.shape)
    y.backward(g)
    assert a.grad.shape == a.shape and b.grad.shape == b.shape
    # The sum over all elements is the derivative along the constant direction.
    step = 1e-6
    up, down = (getattr(np, name)(a.numpy() + s, b.numpy()) for s in (step, -step))
    expected = float((g * (up - down)).sum()) / (2 * step)
    assert abs(float(a.grad.numpy().sum()) - expected) < 1e-7 * max(1, y.size)


def test_dropout_follows_the_seed():
    x = leaf(64)
    random.manual_seed(3)
    a, b = F.dropout(x, 0.5), F.dropout(x, 0.5)
    state = random.get_state()
    c = F.dropout(x, 0.5)
    vt.manual_seed(3)
    np.testing.assert_array_equal(a.numpy(), F.dropout(x, 0.5).numpy())
    assert (a.numpy() != b.numpy()).any()
    random.set_state(state)
    np.testing.assert_array_equal(c.numpy(), F.dropout(x, 0.5).numpy())
    assert F.dropout(x, 0.5, training=False) is x
    a.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy() != 0, a.numpy() != 0)


def test_linear_refuses_to_differentiate_a_packed_matrix():
    w = vt.ops.pack(leaf(3, 2).numpy())
    with pytest.raises(RuntimeError, match="packed or quantized"):
        F.linear(leaf(2), w)
    with vt.no_grad():
        assert F.linear(leaf(1, 2), w).shape == (1, 3)
    with pytest.raises(ValueError, match="activation"):
        F.linear(leaf(2), leaf(3, 2), activation="swish")


@pytest.mark.parametrize("shape", [(4,), (3, 4)])
@pytest.mark.parametrize("options", [{}, {"is_causal": True, "softcap": 2.0}, {"window": (3, 2)}])
def test_slopes_that_learn_change_no_output(shape, options):
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(3, heads, n, 6)) for heads, n in ((4, 7), (2, 9), (2, 9)))
    slopes = np.abs(rng.normal(size=shape))
    fused = F.scaled_dot_product_attention(q, k, v, alibi_slopes=slopes, **options).numpy()
    learned = vt.tensor(slopes, requires_grad=True)
    out = F.scaled_dot_product_attention(q, k, v, alibi_slopes=learned, **options)
    np.testing.assert_allclose(out.numpy(), fused, rtol=1e-9, atol=1e-11)
    out, lse = F.scaled_dot_product_attention(
        q, k, v, alibi_slopes=learned, return_lse=True, **options
    )
    assert out.requires_grad and lse.shape == out.shape[:-1]
    with vt.no_grad():
        out = F.scaled_dot_product_attention(q, k, v, alibi_slopes=learned, **options)
    assert not out.requires_grad and np.array_equal(out.numpy(), fused)


def test_sinks_that_are_a_leaf():
    """They need not be true as a number, nor does anything else need a gradient."""
    q, k, v = np.random.default_rng(0).normal(size=(3, 1, 7, 6))
    sinks = vt.tensor(np.zeros(1), requires_grad=True)
    F.scaled_dot_product_attention(q, k, v, sinks=sinks).sum().backward()
    assert sinks.grad.numpy().shape == (1,) and sinks.grad.numpy().all()
    heads, many = np.ones((4, 7, 6)), vt.tensor(np.zeros(4), requires_grad=True)
    with vt.no_grad():
        out = F.scaled_dot_product_attention(heads, heads, heads, sinks=many)
    assert not out.requires_grad
