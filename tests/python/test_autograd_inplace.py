"""Changes in place: recorded where they can be, noticed where they would make a gradient wrong."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import leaf

import vectile as vt
from vectile import nn
from vectile.autograd import functional as F


def test_in_place_arithmetic_is_recorded():
    x = leaf(3)
    y = x * 2
    same = y
    y += 1
    y *= 3
    y -= x
    y /= 2
    assert y is same
    np.testing.assert_allclose(y.numpy(), ((x.numpy() * 2 + 1) * 3 - x.numpy()) / 2)
    y.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), [2.5, 2.5, 2.5])


def test_in_place_results_keep_shape_and_dtype():
    y = vt.tensor([1.0])
    with pytest.raises(ValueError, match=r"add_: result shape: expected \(1,\), got \(2,\)"):
        y += vt.tensor([1.0, 2.0])
    z = vt.tensor([1, 2])
    with pytest.raises(TypeError, match="div_: result dtype: expected int64, got float64"):
        z /= 2


CHANGES = {
    "add_": lambda y: y.add_(1),
    "mul_": lambda y: y.mul_(2.0),
    "__setitem__": lambda y: y.__setitem__(0, 5.0),
    "copy_": lambda y: y.copy_(np.zeros(3, np.float32)),
    "zero_": lambda y: y.zero_(),
    "fill_": lambda y: y.fill_(3),
    "data": lambda y: setattr(y, "data", np.zeros(3, np.float32)),
    "bump_version": lambda y: y.bump_version(),
    "sub_": lambda y: y.detach().sub_(1),
    "div_": lambda y: y[1:].detach().div_(2),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("grad_mode", [True, False])
def test_a_change_of_a_saved_operand_is_noticed(change, grad_mode):
    x = leaf(3)
    y = x * 2
    z = F.log(y).sum()
    if grad_mode:
        CHANGES[change](y)
    else:
        with vt.no_grad():
            CHANGES[change](y)
    with pytest.raises(
        RuntimeError, match=rf"log needs saved operand 0 .* {change} changed it .*version"
    ):
        z.backward()


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_a_saved_result_is_noticed(change):
    x = leaf(3)
    y = F.exp(x)
    z = (y + 1).sum()
    with vt.no_grad():
        CHANGES[change](y)
    with pytest.raises(RuntimeError, match=rf"exp needs its result .* {change} changed it"):
        z.backward()


ROWS = np.array([[0, 2], [1, 1]])
HIDDEN = np.array([[True, False], [True, True]])
BIAS = np.array([[0.0, -np.inf], [1.0, 0.5]], np.float32)

# what an op keeps of an operand that has no gradient: (op, operand, what it becomes)
KEPT = {
    "where": (lambda x, c: F.where(c, x[:2, :2], 0.0), HIDDEN),
    "getitem": (lambda x, i: x[i], ROWS),
    "getitem_mask": (lambda x, m: x[:2, :2][m], HIDDEN),
    "getitem_pair": (lambda x, i: x[i, i], ROWS[0]),
    "take": (lambda x, i: x.take(i, 1), ROWS[0]),
    "gather": (lambda x, i: F.gather(x[:2], i, 1), ROWS),
    "embedding": (lambda x, i: F.embedding(i, x), ROWS),
    "padded_embedding": (lambda x, i: nn.functional.embedding(i, x, 2), ROWS),
    "setitem": (lambda x, i: F.setitem(x, i, x[:1]), ROWS[0]),
    "assignment": (lambda x, i: _assigned(x * 1, i), ROWS[0]),
    "cross_entropy": (lambda x, t: F.cross_entropy(x[:2], t), ROWS[0]),
    "nll_loss": (lambda x, t: nn.functional.nll_loss(x[:2], t), ROWS[0]),
    "attention_bool": (lambda x, m: _attention(x, m), HIDDEN),
    "attention_float": (lambda x, m: _attention(x, m), BIAS),
    "attention_repeated": (lambda x, m: _attention(x, F.broadcast_to(m, (2, 2))), BIAS[1:]),
}


def _assigned(y, index):
    y[index] = y[:1] * 3
    return y


def _attention(x, mask):
    return F.scaled_dot_product_attention(x[:2], x[1:], x[1:], mask)


@pytest.mark.parametrize("name", KEPT)
@pytest.mark.parametrize("form", [np.array, vt.tensor])
@pytest.mark.parametrize("order", [1, 2])
def test_what_an_op_keeps_may_change_before_backward(name, form, order):
    f, values = KEPT[name]

    def gradient(change):
        x, operand = leaf(3, 3), form(values)
        y = f(x, operand)
        y = (y * y).sum()
        if order == 2:
            (g,) = vt.grad(y, x, create_graph=True)
            y = (g * g).sum()
        if change:
            operand[...] = 1 - np.asarray(operand)[::-1]
        (g,) = vt.grad(y, x)
        return g.numpy()

    np.testing.assert_array_equal(gradient(True), gradient(False))


def test_a_change_that_no_rule_minds_is_fine():
    x = leaf(3)
    y = x * 2
    z = (y + 1).sum()
    y.zero_()
    z.backward()
    assert x.grad.tolist() == [2, 2, 2]


def test_a_change_before_saving_is_fine():
    x = leaf(3)
    y = x + 0
    y += 1
    y[0] = 4.0
    (y * y).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * np.float32([0, 1.25, 1.375]))


def test_leaves_change_only_without_grad():
    x = leaf(3)
    for change in (
        lambda: x.add_(1),
        lambda: x.__setitem__(0, 1.0),
        lambda: x[1:].zero_(),
        x.zero_,
    ):
        with pytest.raises(RuntimeError, match="leaf that requires grad"):
            change()
    with vt.no_grad():
        x += 1
        x[0] = 7.0
    assert x.requires_grad and x.is_leaf and x.tolist() == [7, 1.25, 1.375]
    (x * 2).sum().backward()
    assert x.grad.tolist() == [2, 2, 2]


def test_assignment_carries_gradients():
    x, v = leaf(2, 3), leaf(3)
    y = x * 2
    y[1] = v
    y[0, 1:] = v[:2] * 3
    (y * y).sum().backward()
    a, b = x.numpy(), v.numpy()
    np.testing.assert_allclose(x.grad.numpy(), [[8 * a[0, 0], 0, 0], [0, 0, 0]])
    np.testing.assert_allclose(v.grad.numpy(), 2 * b + 18 * np.float32([b[0], b[1], 0]))


def test_assignment_into_a_buffer():
    w = leaf(2)
    rows = vt.tensor(np.zeros((3, 2), np.float32))
    for i in range(3):
        rows[i] = w * (i + 1)
    rows[0] += w
    rows[1:, 0] *= 2
    assert rows.requires_grad
    rows.sum().backward()
    np.testing.assert_array_equal(w.grad.numpy(), [2 + 4 + 6, 2 + 2 + 3])


def test_assignment_broadcasts_and_drops_leading_ones():
    v = leaf(1, 1, 2)
    y = vt.tensor(np.zeros((3, 2), np.float32))
    y[...] = v
    y[0] = v[0]
    y.sum().backward()
    assert v.grad.numpy().shape == (1, 1, 2) and v.grad.tolist() == [[[3, 3]]]


def test_assignment_casts_to_the_targets_dtype():
    v = leaf(2, dtype=np.float64)
    y = vt.tensor(np.zeros(2, np.float32))
    y[:] = v
    y.sum().backward()
    assert y.dtype == np.float32 and v.grad.dtype == np.float64


def test_a_change_through_a_slice_reaches_the_base():
    x = leaf(4)
    y = x * 1
    v = y[1:3]
    u = v[:1]
    u *= 3
    np.testing.assert_allclose(y.numpy(), x.numpy() * [1, 3, 1, 1])
    (y * np.float32([1, 10, 100, 1000])).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [1, 30, 100, 1000])


def test_a_stale_view_is_refused():
    x = leaf(4)
    y = x * 1
    v = y[1:]
    y *= 2
    with pytest.raises(RuntimeError, match="take the view again"):
        v * 1
    (y[1:] * 1).sum().backward()
    assert x.grad.tolist() == [0, 2, 2, 2]


def test_a_change_through_a_transposed_view_is_refused():
    y = leaf(2, 3) * 1
    with pytest.raises(RuntimeError, match="reshaped or transposed"):
        y.T.mul_(2)
    with vt.no_grad():
        y.T.mul_(2)
    assert y.numpy()[0, 0] == 0.25


def test_a_history_cannot_be_written_into_somebody_elses_array():
    a = np.zeros((2, 2), np.float32)
    y = vt.Tensor(a[0])
    with pytest.raises(RuntimeError, match="belongs to another array"):
        y[:] = leaf(2)


def test_optimizer_steps_between_forward_and_backward_are_noticed():
    w = leaf(3)
    loss = (w * w).sum()
    w.data[...] -= 0.1
    w.bump_version("sgd_")
    with pytest.raises(RuntimeError, match="sgd_ changed it in place"):
        loss.backward()
