"""Optimiser steps on a device against float64 and the CPU's op."""

import math
from itertools import chain

import ml_dtypes
import numpy as np
import pytest
from on_device import cuda, dev, host, needs_device, needs_emulation

from vectile import _core, nn
from vectile.autograd import Tensor

pytestmark = needs_device

TYPES = (np.float32, np.float64, np.float16, ml_dtypes.bfloat16)
HALF = (np.float16, ml_dtypes.bfloat16)
# Sizes about a chunk: 4096 of float32, 2048 of float64, 8192 of a half type.
SHAPES = [(), (1,), (17, 5), (0, 3), (2047,), (4097,), (3, 2731)]
STEPS = 3


def sgd(p, g, state, t, *, lr, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False):
    g = g + weight_decay * p
    if momentum:
        b = state[0] = momentum * state[0] + (1 - dampening) * g
        g = g + momentum * b if nesterov else b
    return p - lr * g


def adam(p, g, state, t, *, lr, beta1, beta2, eps, weight_decay, decoupled=False):
    if decoupled:
        p = p * (1 - lr * weight_decay)
    else:
        g = g + weight_decay * p
    m = state[0] = beta1 * state[0] + (1 - beta1) * g
    v = state[1] = beta2 * state[1] + (1 - beta2) * g * g
    return p - lr / (1 - beta1**t) * m / (np.sqrt(v / (1 - beta2**t)) + eps)


def adamw(p, g, state, t, **options):
    return adam(p, g, state, t, decoupled=True, **options)


def rmsprop(p, g, state, t, *, lr, alpha, eps, weight_decay, momentum):
    g = g + weight_decay * p
    v = state[0] = alpha * state[0] + (1 - alpha) * g * g
    u = g / (np.sqrt(v) + eps)
    if momentum:
        u = state[1] = momentum * state[1] + u
    return p - lr * u


def sgd_options(lr, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False):
    return dict(
        lr=lr,
        momentum=momentum,
        dampening=dampening,
        weight_decay=weight_decay,
        nesterov=nesterov,
    )


def adam_options(lr=1e-2, beta1=0.9, beta2=0.99, eps=1e-8, weight_decay=0.0):
    return dict(lr=lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay)


# oracle, number of state lists, options in the order of the op's arguments
CASES = {
    "sgd": (sgd, 0, sgd_options(0.1)),
    "sgd_decay": (sgd, 0, sgd_options(0.1, weight_decay=0.01)),
    "sgd_momentum": (sgd, 1, sgd_options(0.1, 0.9, 0.3, 0.01)),
    "sgd_nesterov": (sgd, 1, sgd_options(0.1, 0.9, nesterov=True)),
    "adam": (adam, 2, adam_options(beta1=0.8, weight_decay=0.1)),
    "adam_default": (adam, 2, adam_options(1e-3, beta2=0.999)),
    "adamw": (adamw, 2, adam_options(weight_decay=0.1)),
    "rmsprop": (rmsprop, 1, dict(lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0.01, momentum=0.0)),
    "rmsprop_momentum": (
        rmsprop,
        2,
        dict(lr=1e-2, alpha=0.9, eps=1e-8, weight_decay=0.0, momentum=0.9),
    ),
}


def step(module, case, params, grads, state, t):
    name, options = case.split("_")[0], list(CASES[case][2].values())
    if name.startswith("adam"):
        options.append(t)
    elif (name, len(state)) in (("sgd", 0), ("rmsprop", 1)):
        state = [*state, None]
    assert getattr(module, f"{name}_")(params, grads, *state, *options) is None


def on_device(arrays):
    return [dev(np.array(a)) for a in arrays]  # the emulation writes to NumPy's own memory


def draw(rng, shapes, dtype):
    return [np.asarray(rng.normal(size=s)).astype(dtype) for s in shapes]


def zeros(params, lists, dtype):
    return [[np.zeros(p.shape, dtype) for p in params] for _ in range(lists)]


def step_bound(case, eps, wide):
    """Error of one update: its chain of 12 sums and products rounds relative to the size of the
    update, at most 4 lr here, and p itself twice; momentum adds up 1 / (1 - momentum) such updates.
    A rounded beta2 or alpha is off by eps / (1 - beta2) relative to the v that it leaves. A half type
    rounds p, at most 5 here, to `eps` of it once more."""
    _, _, options = CASES[case]
    slow = options.get("beta2", options.get("alpha", 0.0))
    gain = 1 / (1 - options.get("momentum", 0.0))
    return wide * (6 + options["lr"] * gain * (48 + 1 / (1 - slow))) + (eps > wide) * 2.5 * eps


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("case", CASES)
def test_steps_match_float64(rng, case, dtype):
    oracle, lists, options = CASES[case]
    wide = np.float64 if dtype == np.float64 else np.float32
    params = draw(rng, SHAPES, dtype)
    exact = [p.astype(np.float64) for p in params]
    exact_state = [[np.zeros(p.shape) for _ in range(lists)] for p in params]
    p, state = on_device(params), [on_device(s) for s in zeros(params, lists, wide)]
    for t in range(1, STEPS + 1):
        grads = draw(rng, SHAPES, dtype)
        step(cuda, case, p, on_device(grads), state, t)
        for i, g in enumerate(grads):
            exact[i] = oracle(exact[i], g.astype(np.float64), exact_state[i], t, **options)
    bound = STEPS * step_bound(case, float(ml_dtypes.finfo(dtype).eps), float(np.finfo(wide).eps))
    for got, want in zip(map(host, p), exact, strict=True):
        assert got.dtype == dtype
        np.testing.assert_allclose(got.astype(np.float64), want, rtol=0, atol=bound)


@pytest.mark.parametrize("kinds", ("half", "wide", "mixed"))
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("case", CASES)
def test_agrees_with_the_cpu(rng, case, dtype, kinds):
    """The same formula: a contraction apart, and with it a last place of the type."""
    if dtype not in HALF and kinds != "half":
        kinds = "half"
    lists = CASES[case][1]
    shapes = [(5,), (3, 7), (33,)]
    params, grads = draw(rng, shapes, dtype), draw(rng, shapes, dtype)
    state = [[abs(s) for s in draw(rng, shapes, np.float32)] for _ in range(lists)]
    for i, arrays in enumerate(state):
        for j in range(3):
            if kinds == "half" or (kinds == "mixed" and (i + j) % 2):
                arrays[j] = arrays[j].astype(dtype)
    p, s = on_device(params), [on_device(x) for x in state]
    step(cuda, case, p, on_device(grads), s, 3)
    step(_core, case, params, grads, state, 3)
    for got, want in zip(chain(p, *s), chain(params, *state), strict=True):
        eps = float(ml_dtypes.finfo(want.dtype).eps)
        got = host(got).astype(np.float64)
        np.testing.assert_allclose(got, want.astype(np.float64), rtol=4 * eps, atol=4 * eps)


@pytest.mark.parametrize("case", ("sgd", "adamw"))
def test_more_arrays_than_a_table_holds(rng, case):
    shapes = [(i % 5,) for i in range(230)]
    params, grads = draw(rng, shapes, np.float32), draw(rng, shapes, np.float32)
    state = zeros(params, CASES[case][1], np.float32)
    p, s = on_device(params), [on_device(x) for x in state]
    step(cuda, case, p, on_device(grads), s, 1)
    step(_core, case, params, grads, state, 1)
    for got, want in zip(p, params, strict=True):
        np.testing.assert_allclose(host(got), want, rtol=1e-6, atol=1e-7)


@needs_emulation
@pytest.mark.parametrize("dtype", (np.float32, np.float16))
@pytest.mark.parametrize("case", CASES)
def test_strided_and_unaligned_arrays_change_in_place(rng, case, dtype):
    lists = CASES[case][1]
    layouts = [lambda a: a[::2, 1::3], lambda a: a.T, lambda a: a[::-1], lambda a: a[3, 1:]]
    base = draw(rng, [(9, 14)] * 4, dtype)
    grads = draw(rng, [(9, 14)] * 4, dtype)
    store = zeros(base, lists, np.float32)

    def views(arrays):
        return [f(a) for f, a in zip(layouts, arrays, strict=True)]

    want, outside = [v.copy() for v in views(base)], [b.copy() for b in base]
    packed = [[v.copy() for v in views(s)] for s in store]
    step(cuda, case, want, [v.copy() for v in views(grads)], packed, 1)
    step(cuda, case, views(base), views(grads), [views(s) for s in store], 1)
    for got, expected in zip([base, *store], [want, *packed], strict=True):
        for a, b in zip(views(got), expected, strict=True):
            np.testing.assert_array_equal(a, b)
    for f, a, b in zip(layouts, base, outside, strict=True):
        f(a)[...] = 0
        f(b)[...] = 0
        np.testing.assert_array_equal(a, b)  # nothing beside the views was written


@pytest.mark.parametrize("dtype", TYPES)
def test_scale(rng, dtype):
    arrays = draw(rng, SHAPES, dtype)
    on = on_device(arrays)
    assert cuda.scale_(on, 0.3) is None
    _core.scale_(arrays, 0.3)
    for got, want in zip(on, arrays, strict=True):
        np.testing.assert_array_equal(host(got), want)


@pytest.mark.parametrize("most", (0.5, 1e6))
@pytest.mark.parametrize("dtype", TYPES)
def test_clip_grad_norm(rng, dtype, most):
    shapes = [*SHAPES, *[(i % 3,) for i in range(250)]]
    grads = draw(rng, shapes, dtype)
    on = on_device(grads)
    norm = host(cuda.clip_grad_norm_(on, most))
    assert norm.shape == () and norm.dtype == (np.float64 if dtype == np.float64 else np.float32)
    exact = math.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in grads))
    np.testing.assert_allclose(norm, exact, rtol=2 * float(np.finfo(norm.dtype).eps))
    factor, eps = min(1, most / (exact + 1e-6)), float(ml_dtypes.finfo(dtype).eps)
    tiny = float(ml_dtypes.finfo(dtype).smallest_subnormal)
    for got, g in zip(map(host, on), grads, strict=True):
        want = g.astype(np.float64) * factor
        np.testing.assert_allclose(got.astype(np.float64), want, rtol=2 * eps, atol=tiny)
        assert factor < 1 or (got == g).all()


def test_clip_grad_norm_agrees_with_nn(rng):
    grads = draw(rng, [(40, 3), (7,)], np.float32)
    grads[0][0, 0] = 1e30  # its square is beyond float32
    on, theirs = on_device(grads), []
    for g in grads:
        theirs.append(Tensor(np.zeros_like(g), requires_grad=True))
        theirs[-1].grad = Tensor(g.copy())
    want = nn.utils.clip_grad_norm_(theirs, 1.0)
    assert host(cuda.clip_grad_norm_(on, 1.0)) == np.float32(want)
    for got, t in zip(map(host, on), theirs, strict=True):
        np.testing.assert_allclose(got, t.grad.numpy(), rtol=2.0**-22)
    broken = on_device([np.array([1, np.nan], np.float32), np.ones(3, np.float32)])
    assert np.isnan(host(cuda.clip_grad_norm_(broken, 1.0)))
    assert all(np.isnan(host(x)).all() for x in broken)


def test_empty_lists():
    cuda.sgd_([], [], None, *sgd_options(0.1).values())
    cuda.adam_((), (), (), (), *adam_options().values(), 1)
    cuda.scale_([], 2.0)
    empty = on_device([np.zeros((0, 3), np.float32)])
    cuda.scale_(empty, 2.0)
    assert host(cuda.clip_grad_norm_(empty, 2.0)) == 0


A = [np.zeros(3, np.float32), np.zeros((2, 2), np.float32)]
FROZEN = [A[0], np.broadcast_to(np.float32(0), (2, 2))]
SGD, ADAM = [1.0, 0.0, 0.0, 0.0, False], [1.0, 0.9, 0.99, 1e-8, 0.0]


@needs_emulation
@pytest.mark.parametrize(
    ("name", "arguments", "error", "message"),
    [
        ("sgd_", (A, A[:1], None, *SGD), ValueError, "grads length: expected 2, got 1"),
        ("sgd_", (A, A[::-1], None, *SGD), ValueError, r"grads\[0\] shape: expected \(3,\)"),
        ("sgd_", (FROZEN, A, None, *SGD), ValueError, r"params\[1\] flags: expected a writable"),
        ("sgd_", (A, [a.astype("f8") for a in A], None, *SGD), TypeError, r"grads\[0\] dtype"),
        ("sgd_", ([A[0].astype(int)], A[:1], None, *SGD), TypeError, r"params\[0\] dtype"),
        ("sgd_", ([[1.0]], A[:1], None, *SGD), TypeError, "params type: expected an array"),
        ("sgd_", (A[0], A[0], None, *SGD), TypeError, "params type: expected a list or tuple"),
        ("sgd_", (A, A, None, -1.0, *SGD[1:]), ValueError, "lr value: expected at least 0"),
        ("sgd_", (A, A, None, 1.0, 0.5, 0.0, 0.0, False), ValueError, "momentum_buffers value"),
        ("sgd_", (A, A, A, 1.0, 0.0, 0.0, 0.0, True), ValueError, "nesterov value"),
        ("adam_", (A, A, A, A, 1.0, 1.0, *ADAM[2:], 1), ValueError, "beta1 value"),
        ("adamw_", (A, A, A, A, *ADAM, 0), ValueError, "step value: expected at least 1"),
        ("adam_", (A, A, A, A[:1], *ADAM, 1), ValueError, "exp_avg_sqs length"),
        ("rmsprop_", (A, A, A, None, 1.0, 0.9, 0.0, 0.0, 0.5), ValueError, "momentum_buffers"),
        ("rmsprop_", (A, A, A, None, 1.0, 2.0, 0.0, 0.0, 0.0), ValueError, "alpha value"),
        ("scale_", (FROZEN, 2.0), ValueError, r"arrays\[1\] flags"),
        ("clip_grad_norm_", ([], 2.0), ValueError, "grads length: expected at least 1, got 0"),
    ],
)
def test_bad_input(name, arguments, error, message):
    with pytest.raises(error, match=f"{name}: {message}"):
        getattr(cuda, name)(*arguments)
    for a in A:
        np.testing.assert_array_equal(a, 0)
