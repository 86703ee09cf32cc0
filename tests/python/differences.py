"""Gradients beside central differences in float64."""

from __future__ import annotations

import numpy as np

import vectile as vt

# At h = 1e-5 truncation, h^2/6 f''', and rounding, eps/h f, are both about 1e-11 of f, f''' < 1e3.
STEP, TOLERANCE = 1e-5, 1e-7


def leaves(arrays_):
    return [vt.tensor(a, requires_grad=True) for a in arrays_]


def as_list(result):
    return list(result) if isinstance(result, (list, tuple)) else [result]


def vjp(f, inputs, cotangents, **kwargs):
    return vt.grad(as_list(f(*inputs)), inputs, cotangents, allow_unused=True, **kwargs)


def check_gradient(f, values, seed):
    """Compare the gradient of `f`, for one cotangent, with differences along each input."""
    rng = np.random.default_rng(seed)
    outs = [t.numpy() for t in as_list(f(*leaves(values)))]
    cotangents = [rng.standard_normal(o.shape) for o in outs]
    got = vjp(f, leaves(values), cotangents)

    def value(i, x):
        with vt.enable_grad():  # `f` may itself differentiate
            results = as_list(f(*leaves([*values[:i], x, *values[i + 1 :]])))
        return sum(float((r.numpy() * c).sum()) for r, c in zip(results, cotangents, strict=True))

    for i, x in enumerate(values):
        expected = np.empty_like(x)
        for j in np.ndindex(x.shape):
            up, down = x.copy(), x.copy()
            up[j] += STEP
            down[j] -= STEP
            expected[j] = (value(i, up) - value(i, down)) / (2 * STEP)
        actual = np.zeros_like(x) if got[i] is None else got[i].numpy()
        assert actual.shape == x.shape and actual.dtype == x.dtype
        scale = max(1.0, float(np.abs(expected).max(initial=0)))
        np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE * scale)


def gradient_of(f, count):
    """The function (inputs, cotangents) -> gradients of `f`, for checking the second derivative."""

    def g(*args):
        inputs, cotangents = args[:count], list(args[count:])
        grads = vjp(f, list(inputs), cotangents, create_graph=True)
        return [d for d in grads if d is not None]

    return g
