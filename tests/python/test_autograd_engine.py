"""Grad mode and the life of a graph: what is kept, what is freed, how deep it may be."""

from __future__ import annotations

import gc
import threading
import weakref

import numpy as np
import pytest
from graphs import leaf

import vectile as vt
from vectile.autograd import functional as F

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
