"""Tensor as a user meets it: protocols, operators, grad mode, the life of a graph, changes in place."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import vectile as vt
from vectile import random
from vectile.autograd import functional as F


def leaf(*shape, dtype=np.float32):
    values = np.arange(1, 1 + int(np.prod(shape)), dtype=dtype).reshape(shape)
    return vt.tensor(values / 8, requires_grad=True)


# ---- construction and protocols ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (1.5, np.float32),
        ([1.0, 2.0], np.float32),
        ([[1.0], [2]], np.float32),
        ([1, 2], np.int64),
        (True, np.bool_),
        (np.float64(1), np.float64),
        ([np.float64(1)], np.float64),
        (np.zeros(2), np.float64),
        (np.zeros(2, np.float32), np.float32),
        (np.zeros(2, np.uint8), np.uint8),
        ([], np.float32),
        ([[]], np.float32),
    ],
)
def test_tensor_keeps_array_dtypes_and_makes_python_floats_float32(data, dtype):
    assert vt.tensor(data).dtype == dtype
    assert vt.tensor(data, dtype="float64").dtype == np.float64


def test_tensor_copies_and_the_class_shares():
    a = np.zeros(3)
    assert not np.shares_memory(vt.tensor(a).numpy(), a)
    assert vt.Tensor(a).numpy() is a


def test_describes_itself():
    x = vt.tensor([[1.0, 2.0]], requires_grad=True)
    assert (x.shape, x.ndim, x.size, x.nbytes, len(x)) == ((1, 2), 2, 2, 8, 1)
    assert repr(x) == "tensor([[1., 2.]], requires_grad=True)"
    assert repr(x * 2) == "tensor([[2., 4.]], op=multiply)"
    assert repr(vt.tensor(np.ones(1))) == "tensor([1.], dtype=float64)"
    assert x.is_leaf and not (x * 2).is_leaf
    assert f"{vt.tensor(0.25):.3f}" == "0.250"
    assert x.tolist() == [[1.0, 2.0]]


def test_array_protocols():
    x = leaf(2, 3)
    assert np.asarray(x) is x.numpy()
    assert not np.shares_memory(np.array(x), x.numpy())
    assert np.asarray(x, np.float64).dtype == np.float64
    with pytest.raises(ValueError, match="copy"):
        x.__array__(np.float64, copy=False)
    assert np.shares_memory(np.from_dlpack(x.detach()), x.numpy())
    assert x.__dlpack_device__() == (1, 0)
    with pytest.raises(BufferError, match=r"detach\(\)"):
        x.__dlpack__()


def test_scalar_conversions():
    x = vt.tensor(2.5, requires_grad=True)
    assert (float(x), int(x), bool(x), x.item()) == (2.5, 2, True, 2.5)
    assert [10, 20, 30][vt.tensor(1)] == 20
    with pytest.raises(ValueError):
        leaf(2).item()
    with pytest.raises(ValueError):
        bool(leaf(2))
    with pytest.raises(TypeError):
        len(x)
    with pytest.raises(TypeError):
        iter(x)


def test_iteration_and_membership():
    x = leaf(3, 2)
    rows = list(x)
    assert len(rows) == 3 and all(r.shape == (2,) for r in rows)
    (rows[0] * rows[2]).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [x.numpy()[2], [0, 0], x.numpy()[0]])
    assert 0.25 in x and 9.0 not in x


def test_ndarray_on_the_left():
    x = leaf(2, 3)
    a = np.ones((2, 3), np.float32)
    for result in (a + x, a - x, a * x, a / x, a**x, np.ones((4, 2), np.float32) @ x):
        assert type(result) is vt.Tensor and result.requires_grad and result.dtype == np.float32
    assert type(np.float64(2) * x) is vt.Tensor and (np.float64(2) * x).dtype == np.float32


def test_comparisons_have_no_history_and_hash_is_identity():
    x, y = leaf(3), leaf(3)
    for result in (x == y, x != 1, x < y, x <= 0.25, x > y, x >= 0.2):
        assert result.dtype == np.bool_ and not result.requires_grad
    assert len({x, y, x}) == 2
    assert (~((x > 0.2) & (x < 0.3) | (x == 3.0))).tolist() == [True, False, True]


def test_scalars_do_not_upcast():
    x = leaf(2)
    one = np.float64(1)
    for r in (x + 1, 2.0 * x, x / one, x - np.int64(1), -x, x + True, one - x, x @ x * one):
        assert r.dtype == np.float32
    for r in (x**one, x ** np.int64(3), one**x, x**2, x**0.5, 2**x, x ** np.float32(1.5)):
        assert r.dtype == np.float32
    for r in (F.clip(x, one, None), F.where(x > 0, x, one), F.maximum(x, one), F.pad(x, 1, one)):
        assert r.dtype == np.float32


def test_integers_join_a_float_operand():
    x = leaf(3)
    mask = np.array([True, False, True])
    y = x * mask + np.arange(3) + vt.tensor([1, 2, 3]) + [0.5, 0.5, 0.5]
    y = F.where(mask, y ** np.array([1, 2, 1]), np.arange(3))
    y = F.concatenate([y, np.arange(2), F.stack([y[0], 3])])
    assert y.dtype == np.float32
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [2, 0, 1])
    z = vt.tensor([1, 2, 3])
    z[0] = x[0] * 40
    assert z.tolist() == [5, 2, 3] and not z.requires_grad


def test_integer_arithmetic_is_numpys():
    x = vt.tensor([1, 2, 3])
    assert (
        (x + 1).dtype == np.int64 and (x / 2).dtype == np.float64 and (-x).tolist() == [-1, -2, -3]
    )
    assert x.sum().item() == 6 and x.max().item() == 3


def test_two_float_dtypes_are_an_error():
    with pytest.raises(
        TypeError, match="add: operand dtypes: expected the same, got float32 and float64"
    ):
        leaf(2) + np.ones(2)
    for op in (F.power, F.maximum, lambda a, b: F.where(np.ones(2, bool), a, b)):
        with pytest.raises(TypeError, match="float32 and float64"):
            op(leaf(2), np.ones(2))
    for op in (F.concatenate, F.stack):
        with pytest.raises(TypeError, match="float32 and float64"):
            op([leaf(2), np.ones(2)])
    with pytest.raises(TypeError, match="float64"):
        leaf(2, 2) @ np.ones((2, 2))


def test_incompatible_shapes_are_an_error():
    with pytest.raises(ValueError):
        leaf(2) + leaf(3)
    with pytest.raises(ValueError):
        leaf(2, 3) @ leaf(2, 3)


def test_only_floats_can_require_grad():
    for make in (
        lambda: vt.tensor([1, 2], requires_grad=True),
        lambda: vt.tensor(1).requires_grad_(),
    ):
        with pytest.raises(
            TypeError, match="requires_grad: expected float32 or float64, got int64"
        ):
            make()
    assert not (leaf(2).astype("int64")).requires_grad
    with pytest.raises(TypeError, match="data"):
        leaf(2).data = [1, 2]


def test_copies():
    x = leaf(2)
    x.grad = vt.tensor([1.0, 1.0])
    y = copy.deepcopy(x)
    assert y.requires_grad and y.grad.tolist() == [1.0, 1.0]
    assert not np.shares_memory(x.numpy(), y.numpy())
    z = pickle.loads(pickle.dumps(x))
    assert z.requires_grad and z.tolist() == x.tolist() and z.grad is None
    with pytest.raises(RuntimeError, match="leaf"):
        copy.deepcopy(x * 2)
    with pytest.raises(RuntimeError, match="leaf"):
        pickle.dumps(x * 2)
    w = copy.copy(x)
    assert w.requires_grad and not w.is_leaf


def test_a_subclass_with_attributes_copies_whole():
    class Parameter(vt.Tensor):
        pass

    p = Parameter(np.ones(2, np.float32), requires_grad=True)
    p.name = "weight"
    q = copy.deepcopy(p)
    assert type(q) is Parameter and q.name == "weight" and q.requires_grad
    (p * 3).sum().backward()
    assert p.grad.tolist() == [3.0, 3.0] and type(p * 3) is vt.Tensor


# ---- gradients -----------------------------------------------------------------------------------------


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


@given(
    hnp.array_shapes(min_dims=1, max_dims=4, max_side=4).flatmap(
        lambda s: st.tuples(
            st.just(s), hnp.basic_indices(s, allow_newaxis=True, allow_ellipsis=True)
        )
    )
)
@settings(max_examples=100, deadline=None)
def test_basic_indexing_is_numpys(case):
    shape, index = case
    x = leaf(*shape)
    y = x[index]
    np.testing.assert_array_equal(y.numpy(), x.numpy()[index])
    y.sum().backward()
    expected = np.zeros(shape, np.float32)
    expected[index] = 1
    np.testing.assert_array_equal(x.grad.numpy(), expected)


# ---- grad mode -----------------------------------------------------------------------------------------


def test_no_grad_and_enable_grad():
    x = leaf(2)
    assert vt.is_grad_enabled()
    with vt.no_grad():
        assert not vt.is_grad_enabled() and not (x * 2).requires_grad
        with vt.enable_grad():
            assert (x * 2).requires_grad
        assert not (x * 2).requires_grad
    assert (x * 2).requires_grad

    @vt.no_grad()
    def f(t):
        """Doc."""
        return t * 2

    assert not f(x).requires_grad and f.__doc__ == "Doc." and vt.is_grad_enabled()
    guard = vt.no_grad()
    with guard, guard:
        pass
    assert vt.is_grad_enabled()
    with pytest.raises(KeyError), vt.no_grad():
        raise KeyError
    assert vt.is_grad_enabled()


def test_grad_mode_is_per_thread():
    seen = []

    def other():
        seen.append(vt.is_grad_enabled())
        with vt.no_grad():
            ready.set()
            go.wait(10)
        seen.append(vt.is_grad_enabled())

    ready, go = threading.Event(), threading.Event()
    thread = threading.Thread(target=other)
    with vt.no_grad():
        thread.start()
        assert ready.wait(10)
        go.set()
        thread.join()
    assert seen == [True, True]
    assert vt.is_grad_enabled()


def test_threads_build_and_walk_their_own_graphs():
    x = leaf(8)
    results = [None] * 4

    def work(i):
        for _ in range(50):
            y = x
            for _ in range(20):
                y = F.tanh(y * (i + 1.0))
            (results[i],) = vt.grad(y.sum(), x)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    for i in range(4):
        parallel = results[i].numpy().copy()
        work(i)
        np.testing.assert_array_equal(parallel, results[i].numpy())


def test_detach_shares_memory():
    x = leaf(2)
    y = (x * 2).detach()
    assert not y.requires_grad and y.is_leaf
    d = x.detach()
    assert np.shares_memory(d.numpy(), x.numpy())


# ---- the life of a graph -------------------------------------------------------------------------------


def test_second_backward_says_so():
    x = leaf(2)
    y = F.exp(x).sum()
    y.backward(retain_graph=True)
    y.backward()
    for again in (y.backward, lambda: vt.grad(y, x), lambda: vt.grad(y, x, create_graph=True)):
        with pytest.raises(RuntimeError, match=r"already been freed; pass retain_graph=True"):
            again()
    np.testing.assert_allclose(x.grad.numpy(), 2 * np.exp(x.numpy()), rtol=1e-6)


def test_backward_frees_what_was_saved():
    x = leaf(4)
    y = F.exp(x * 2)
    kept = weakref.ref(y)
    z = (y * y).sum()
    del y
    assert kept() is not None  # saved by the product
    z.backward()
    assert kept() is None


def test_dropping_the_result_frees_the_graph_without_the_collector():
    gc.disable()
    try:
        x = leaf(4)
        y = F.softmax(F.tanh(F.linear(x, leaf(3, 4), None, "relu")))
        kept = weakref.ref(y)
        z = F.layer_norm(y.reshape(1, 3)[:, ::-1]).sum()
        del y
        del z
        assert kept() is None
    finally:
        gc.enable()


def test_intermediates_that_no_rule_needs_are_not_kept():
    x = leaf(4)
    y = x + 1
    kept = weakref.ref(y)
    z = (y + 2).sum()
    del y
    assert kept() is None
    z.backward()


DEEP = {
    "add": lambda y: y + 1,
    "multiply_saving_tensors": lambda y: y * np.ones(1, np.float32) * 1.0,
    "tanh_saving_its_result": F.tanh,
    "views": lambda y: y[:],
    "silu_saving_its_operand": F.silu,
}


@pytest.mark.parametrize("name", DEEP)
@pytest.mark.parametrize("fate", ["backward", "drop", "second order", "untracked"])
def test_graphs_of_100000_ops_need_no_stack(name, fate):
    """In a thread with a stack of 256 KiB, where recursion over the graph would crash."""
    failures = []

    def work():
        try:
            n = 100_000 if fate != "second order" else 10_000
            x = vt.tensor(np.ones(1, np.float32), requires_grad=fate != "untracked")
            y = x
            for _ in range(n):
                y = DEEP[name](y)
            if fate == "backward":
                y.backward()
                assert x.grad.shape == (1,)
            elif fate == "second order":
                (g,) = vt.grad(y, x, create_graph=True)
                if g.requires_grad:
                    g.backward()
            del y
        except BaseException as e:
            failures.append(e)

    before = threading.stack_size(256 * 1024)
    try:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    assert not failures


def test_an_error_in_the_walk_leaves_grad_mode_as_it_was():
    x = leaf(2)
    y = F.exp(x)
    y += 1
    with pytest.raises(RuntimeError):
        y.sum().backward(create_graph=True)
    assert vt.is_grad_enabled()


# ---- changes in place ----------------------------------------------------------------------------------


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


# ---- shapes, splitting, randomness -----------------------------------------------------------------------


def test_views_share_memory_and_copies_do_not():
    x = leaf(2, 3, 4)
    for v in (x[1], x.T, x.reshape(6, 4), x.swapaxes(0, 1), x.expand_dims(0), F.flip(x, 0), x.mT):
        assert np.shares_memory(v.numpy(), x.numpy())
    for c in (x[[0, 1]], x.copy(), x.take([0], 1), F.pad(x, 1)):
        assert not np.shares_memory(c.numpy(), x.numpy())


def test_split_is_numpys_and_missing_pieces_are_zero():
    x = leaf(2, 6)
    for sections in (3, [1, 4], [2], 1):
        for ours, theirs in zip(
            x.split(sections, 1), np.split(x.numpy(), sections, 1), strict=True
        ):
            np.testing.assert_array_equal(ours.numpy(), theirs)
    q, _, v = x.split(3, -1)
    (q * v).sum().backward()
    assert x.grad.numpy()[:, 2:4].tolist() == [[0, 0], [0, 0]]
    with pytest.raises(ValueError):
        x.split(4, 1)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 0, 3, 2)])
def test_slices_and_whole_add_up_in_any_order(order):
    x = leaf(3, 4)
    for y in (x * 1, x):  # at a node and at a leaf
        x.grad = None
        terms = [
            lambda y=y: y[0].sum(),
            lambda y=y: (y * 2).sum(),
            lambda y=y: (y[:, 1:] * 3).sum(),
            lambda y=y: y[np.array([0, 0])].sum(),
        ]
        total = terms[order[0]]()
        for i in order[1:]:
            total = total + terms[i]()
        total.backward()
        expected = np.full((3, 4), 2.0)
        expected[0] += 3
        expected[:, 1:] += 3
        np.testing.assert_array_equal(x.grad.numpy(), expected)


def test_transpose_takes_axes_or_a_sequence():
    x = leaf(2, 3, 4)
    assert x.transpose(2, 0, 1).shape == x.transpose((2, 0, 1)).shape == x.permute(-1, 0, 1).shape
    assert x.transpose().shape == x.T.shape == (4, 3, 2)
    assert x.reshape(4, -1).shape == x.reshape((4, 6)).shape == (4, 6) and x.flatten().shape == (
        24,
    )


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
