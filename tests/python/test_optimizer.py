"""Fused optimiser steps against a float64 NumPy oracle and, where it is installed, PyTorch."""

import copy

import numpy as np
import pytest

from vectile import ops

STEPS = 20
SHAPES = [(), (1,), (17, 5), (0, 3), (129,), (64, 33), (40001,)]


def sgd(p, g, state, t, *, lr, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False):
    g = g + weight_decay * p
    if momentum:
        b = state[0] = momentum * state[0] + (1 - (dampening if t > 1 else 0.0)) * g
        g = g + momentum * b if nesterov else b
    return p - lr * g


def adam(
    p, g, state, t, *, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0, decoupled=False
):
    if decoupled:
        p = p * (1 - lr * weight_decay)
    else:
        g = g + weight_decay * p
    m = state[0] = beta1 * state[0] + (1 - beta1) * g
    v = state[1] = beta2 * state[1] + (1 - beta2) * g * g
    return p - lr / (1 - beta1**t) * m / (np.sqrt(v / (1 - beta2**t)) + eps)


def adamw(p, g, state, t, **options):
    return adam(p, g, state, t, decoupled=True, **options)


def rmsprop(p, g, state, t, *, lr, alpha=0.99, eps=1e-8, weight_decay=0.0, momentum=0.0):
    g = g + weight_decay * p
    v = state[0] = alpha * state[0] + (1 - alpha) * g * g
    u = g / (np.sqrt(v) + eps)
    if momentum:
        u = state[1] = momentum * state[1] + u
    return p - lr * u


# oracle, number of state lists, options
CASES = {
    "sgd": (sgd, 0, dict(lr=0.1)),
    "sgd_decay": (sgd, 0, dict(lr=0.1, weight_decay=0.01)),
    "sgd_momentum": (sgd, 1, dict(lr=0.1, momentum=0.9, dampening=0.3, weight_decay=0.01)),
    "sgd_nesterov": (sgd, 1, dict(lr=0.1, momentum=0.9, nesterov=True)),
    "adam": (adam, 2, dict(lr=1e-2, beta1=0.8, beta2=0.99, weight_decay=0.1)),
    "adam_default": (adam, 2, dict(lr=1e-3)),
    "adamw": (adamw, 2, dict(lr=1e-2, weight_decay=0.1)),
    "rmsprop": (rmsprop, 1, dict(lr=1e-2, weight_decay=0.01)),
    "rmsprop_momentum": (rmsprop, 2, dict(lr=1e-2, alpha=0.9, momentum=0.9)),
}


def fused(case, params, grads, state, t, options):
    name = case.split("_")[0]
    if name.startswith("adam"):
        options = {"weight_decay": 0.0, **options, "step": t}
    if name == "sgd" and t == 1:
        options = {**options, "dampening": 0.0}
    getattr(ops, f"{name}_")(params, grads, *state, **options)


def draw(rng, dtype, shapes, lists):
    params = [np.asarray(rng.normal(size=s), dtype) for s in shapes]
    return params, [[np.zeros_like(p) for p in params] for _ in range(lists)]


def step_bound(case, dtype):
    """Error of one update: its chain of 12 sums and products rounds relative to the size of the
    update, at most 4 lr here, and p itself twice; momentum adds up 1 / (1 - momentum) such updates.
    A rounded beta2 or alpha is off by eps / (1 - beta2) relative to the v that it leaves."""
    _, _, options = CASES[case]
    slow = options.get("beta2", options.get("alpha", DEFAULT_SLOW[case.split("_")[0]]))
    gain = 1 / (1 - options.get("momentum", 0.0))
    return np.finfo(dtype).eps * (6 + options["lr"] * gain * (48 + 1 / (1 - slow)))


DEFAULT_SLOW = {"sgd": 0.0, "adam": 0.999, "adamw": 0.999, "rmsprop": 0.99}


@pytest.mark.sanitize
@pytest.mark.parametrize("case", CASES)
def test_many_steps_match_float64(isa, dtype, rng, case):
    oracle, lists, options = CASES[case]
    params, state = draw(rng, dtype, SHAPES, lists)
    wide = [p.astype(np.float64) for p in params]
    wide_state = [[np.zeros(p.shape) for _ in range(lists)] for p in params]
    for t in range(1, STEPS + 1):
        grads = [np.asarray(rng.normal(size=p.shape), dtype) for p in params]
        fused(case, params, grads, state, t, options)
        for i, g in enumerate(grads):
            wide[i] = oracle(wide[i], g.astype(np.float64), wide_state[i], t, **options)
    for i, p in enumerate(params):
        assert p.dtype == dtype
        np.testing.assert_allclose(p, wide[i], rtol=0, atol=STEPS * step_bound(case, dtype))


@pytest.mark.parametrize("case", CASES)
def test_equals_torch(dtype, rng, case):
    torch = pytest.importorskip("torch")
    _, lists, options = CASES[case]
    params, state = draw(rng, dtype, SHAPES, lists)
    theirs = [torch.nn.Parameter(torch.tensor(p)) for p in params]
    renamed = {k: v for k, v in options.items() if not k.startswith("beta")}
    if "adam" in case:
        renamed = {"weight_decay": 0.0, **renamed}
        renamed["betas"] = (options.get("beta1", 0.9), options.get("beta2", 0.999))
    kind = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "rmsprop": "RMSprop"}[
        case.split("_")[0]
    ]
    optimizer = getattr(torch.optim, kind)(theirs, **renamed)
    for t in range(1, STEPS + 1):
        grads = [np.asarray(rng.normal(size=p.shape), dtype) for p in params]
        for p, g in zip(theirs, grads, strict=True):
            p.grad = torch.tensor(g)
        optimizer.step()
        fused(case, params, grads, state, t, options)
    for mine, p in zip(params, theirs, strict=True):
        atol = 2 * STEPS * step_bound(case, dtype)
        np.testing.assert_allclose(mine, p.detach().numpy(), rtol=0, atol=atol)


@pytest.mark.sanitize
@pytest.mark.parametrize("case", CASES)
def test_strided_arrays_change_in_place(rng, case):
    _, lists, options = CASES[case]
    layouts = [lambda a: a[::2, 1::3], lambda a: a.T, lambda a: a[::-1], lambda a: a[3]]
    base = [rng.normal(size=(9, 14)).astype(np.float32) for _ in layouts]
    store = [[np.zeros_like(b) for b in base] for _ in range(lists)]
    grads = [rng.normal(size=(9, 14)).astype(np.float32) for _ in layouts]

    def views(arrays):
        return [f(a) for f, a in zip(layouts, arrays, strict=True)]

    expected = [v.copy() for v in views(base)]
    outside = copy.deepcopy(base)
    packed = [[v.copy() for v in views(s)] for s in store]
    fused(case, expected, [v.copy() for v in views(grads)], packed, 1, options)
    fused(case, views(base), views(grads), [views(s) for s in store], 1, options)
    for got, want in zip(views(base), expected, strict=True):
        np.testing.assert_array_equal(got, want)
    for s, p in zip(store, packed, strict=True):
        for got, want in zip(views(s), p, strict=True):
            np.testing.assert_array_equal(got, want)
    for f, a, b in zip(layouts, base, outside, strict=True):
        f(a)[...] = 0
        f(b)[...] = 0
        np.testing.assert_array_equal(a, b)  # nothing beside the views was written


def test_any_thread_count_gives_the_same_bits(isa, rng, same_for_any_thread_count):
    start, _ = draw(rng, np.float32, [(3,), (70001,), (5, 7), (33000,), (2,)], 0)
    grads = [rng.normal(size=p.shape).astype(np.float32) for p in start]

    def step():
        params, m, v = (copy.deepcopy(start) for _ in range(3))
        v = [abs(x) for x in v]
        ops.adamw_(params, grads, m, v, lr=0.1, step=3)
        return (*params, *m, *v)

    same_for_any_thread_count(step)


def test_scale(isa, dtype, rng):
    arrays, _ = draw(rng, dtype, SHAPES, 0)
    expected = [a * dtype(0.3) for a in arrays]
    assert ops.scale_(arrays, 0.3) is None
    for a, e in zip(arrays, expected, strict=True):
        np.testing.assert_array_equal(a, e)


def test_empty_lists():
    ops.sgd_([], [], lr=0.1)
    ops.adam_((), (), (), (), lr=0.1, step=1)
    ops.rmsprop_([], [], [], [], lr=0.1, momentum=0.5)
    ops.scale_([], 2.0)


A = [np.zeros(3, np.float32), np.zeros((2, 2), np.float32)]
FROZEN = [A[0], np.broadcast_to(np.float32(0), (2, 2))]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ops.sgd_(A, A[:1], lr=1), ValueError, "sgd_: grads length: expected 2, got 1"),
        (lambda: ops.sgd_(A, A[::-1], lr=1), ValueError, r"grads\[0\] shape: expected \(3,\)"),
        (lambda: ops.sgd_(FROZEN, A, lr=1), ValueError, r"params\[1\] flags: expected a writable"),
        (lambda: ops.sgd_(A, [a.astype("f8") for a in A], lr=1), TypeError, r"grads\[0\] dtype"),
        (lambda: ops.sgd_([A[0], A[1].astype("f8")], A, lr=1), TypeError, r"params\[1\] dtype"),
        (
            lambda: ops.sgd_([np.zeros(3, int)], A[:1], lr=1),
            TypeError,
            r"params\[0\] dtype: expected float16",
        ),
        (
            lambda: ops.sgd_([[1.0]], A[:1], lr=1),
            TypeError,
            "params type: expected numpy.ndarray, got list",
        ),
        (lambda: ops.sgd_(A[0], A[0], lr=1), TypeError, "params type: expected a list or tuple"),
        (
            lambda: ops.sgd_(A, [A[0], None], lr=1),
            TypeError,
            "grads type: expected numpy.ndarray, got NoneType",
        ),
        (lambda: ops.sgd_(A, A, lr=-1), ValueError, "lr value: expected at least 0"),
        (lambda: ops.sgd_(A, A, lr=1, momentum=0.5), ValueError, "momentum_buffers value"),
        (lambda: ops.sgd_(A, A, A, lr=1, nesterov=True), ValueError, "nesterov value"),
        (lambda: ops.adam_(A, A, A, A, lr=1, beta1=1, step=1), ValueError, "adam_: beta1 value"),
        (
            lambda: ops.adamw_(A, A, A, A, lr=1, step=0),
            ValueError,
            "adamw_: step value: expected at least 1",
        ),
        (lambda: ops.adam_(A, A, A, A[:1], lr=1, step=1), ValueError, "exp_avg_sqs length"),
        (
            lambda: ops.rmsprop_(A, A, A, lr=1, momentum=0.5),
            ValueError,
            "rmsprop_: momentum_buffers",
        ),
        (lambda: ops.rmsprop_(A, A, A, lr=1, alpha=2), ValueError, "alpha value"),
        (lambda: ops.scale_(FROZEN, 2.0), ValueError, r"scale_: arrays\[1\] flags"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
    for a in A:
        np.testing.assert_array_equal(a, 0)
