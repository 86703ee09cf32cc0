"""batch_norm and group_norm against a wider oracle, on every tier and thread count."""

import numpy as np
import pytest

from vectile import ops

EPS = 1e-5
Wide = np.longdouble  # so that the oracle of float64 loses nothing to a large mean

# (batch, channels, ...): one value per channel and many, rows of a few elements and of many.
SHAPES = [
    (2, 1),
    (7, 5),
    (300, 17),
    (3, 4, 1),
    (2, 3, 5),
    (33, 2, 7, 7),
    (5, 3, 16, 17),
    (2, 2, 4099),
]
GROUPS = [(2, 4, 3, 2), (1, 6, 7, 7), (3, 6, 300), (5, 12, 1), (2, 2, 65, 64)]


def batch_axes(x):
    return (0, *range(2, x.ndim))


def per_channel(v, ndim):
    return v.reshape((-1,) + (1,) * (ndim - 2))


def oracle(x, axes):
    """((x - mean) rstd, mean, rstd, biased variance) over `axes`, which are kept."""
    x = x.astype(Wide)
    mean = x.mean(axes, keepdims=True)
    var = ((x - mean) ** 2).mean(axes, keepdims=True)
    rstd = 1 / np.sqrt(var + EPS)
    return (x - mean) * rstd, mean, rstd, var


def roundings(n):
    """Most roundings a term of a sum over n values meets: one accumulator of two takes at most 4096
    values in lanes of one (scalar tier); 8 cover folding, square root and the final products."""
    return min(n, 4096) + 8


def assert_within(got, expected, bound):
    assert got.shape == expected.shape
    error = np.abs(got - expected)
    assert (error <= bound).all(), f"error {error.max()}, largest allowed {np.max(bound)}"


def draw(rng, shape, dtype, mean):
    x, g = (rng.normal(m, 1, size=shape).astype(dtype) for m in (mean, 0.0))
    w, b = (rng.normal(size=shape[1]).astype(dtype) for _ in range(2))
    return x, g, w, b


def check_forward(y, u, w, b, k, dtype):
    eps = np.finfo(dtype).eps
    w, b = (per_channel(v.astype(Wide), u.ndim) for v in (w, b))
    expected = u * w + b
    bound = k * eps * (np.abs(u) + 1) * np.abs(w) + 2 * eps * (np.abs(u * w) + np.abs(expected))
    assert_within(y, expected, bound)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mean", [0.0, 1e4])
def test_batch_norm_matches_oracle(isa, dtype, rng, shape, mean):
    x, _, w, b = draw(rng, shape, dtype, mean)
    eps, n = np.finfo(dtype).eps, x.size // shape[1]
    k = roundings(n)
    u, mu, rstd, var = oracle(x, batch_axes(x))
    running = rng.normal(size=shape[1]).astype(dtype), rng.random(shape[1]).astype(dtype)
    moved = [r.copy() for r in running]
    y, m, s = ops.batch_norm(x, *moved, w, b, True, 0.25, EPS, return_stats=True)
    check_forward(y, u, w, b, k, dtype)
    np.testing.assert_array_equal(y, ops.batch_norm(x, None, None, w, b, training=True))
    assert m.dtype == s.dtype == y.dtype == dtype
    relative = k * eps
    np.testing.assert_allclose(m, mu.ravel(), rtol=relative, atol=relative)
    np.testing.assert_allclose(s, rstd.ravel(), rtol=relative)
    found = mu.ravel(), var.ravel() * n / (n - 1)
    for got, before, value in zip(moved, running, found, strict=True):
        np.testing.assert_allclose(
            got, 0.75 * before.astype(Wide) + 0.25 * value, rtol=relative, atol=relative
        )
    plain = ops.batch_norm(x, training=True)
    check_forward(plain, u, np.ones_like(w), np.zeros_like(b), k, dtype)

    # In evaluation: (x - running mean) / sqrt(running variance + eps)
    mu, rstd = running[0].astype(Wide), 1 / np.sqrt(running[1].astype(Wide) + EPS)
    y, m, s = ops.batch_norm(x, *running, w, b, return_stats=True)
    u = (x.astype(Wide) - per_channel(mu, x.ndim)) * per_channel(rstd, x.ndim)
    check_forward(y, u, w, b, 4, dtype)
    np.testing.assert_array_equal(m, running[0])
    np.testing.assert_allclose(s, rstd, rtol=2 * eps)


def check_backward(got, g, u, rstd, w, axes, channel_axes, k, dtype, constant=False):
    """dx = rstd (h - mean(h) - u mean(h u)) with h = g w; dweight = sum(g u), dbias = sum(g)."""
    eps = np.finfo(dtype).eps
    g, w = g.astype(Wide), per_channel(w.astype(Wide), u.ndim)
    h = g * w

    def average(v):
        return v.mean(axes, keepdims=True)

    dx = rstd * h if constant else rstd * (h - average(h) - u * average(h * u))
    size = np.abs(h) + (np.abs(u) + 1) * (average(np.abs(h)) + average(np.abs(h * u)))
    assert_within(got[0].reshape(u.shape), dx, 4 * k * eps * rstd * size)
    sums = (np.abs(g) * (np.abs(u) + 1)).sum(channel_axes)
    rows = k + g.shape[0]
    assert_within(got[1], (g * u).sum(channel_axes).ravel(), 4 * rows * eps * sums.ravel())
    assert_within(got[2], g.sum(channel_axes).ravel(), 4 * rows * eps * sums.ravel())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mean", [0.0, 100.0])
def test_batch_norm_backward_matches_oracle(isa, dtype, rng, shape, mean):
    x, g, w, _ = draw(rng, shape, dtype, mean)
    axes, k = batch_axes(x), roundings(x.size // shape[1])
    u, _, rstd, _ = oracle(x, axes)
    _, m, s = ops.batch_norm(x, training=True, return_stats=True)
    got = ops.batch_norm_backward(g, x, w, m, s, True)
    check_backward(got, g, u, rstd, w, axes, axes, k, dtype)
    plain = ops.batch_norm_backward(g, x, np.ones_like(w), m, s, True)
    bare = ops.batch_norm_backward(g, x, None, m, s, True)
    np.testing.assert_array_equal(bare[0], plain[0])
    assert bare[1] is bare[2] is None

    m, s = rng.normal(mean, size=shape[1]).astype(dtype), rng.random(shape[1]).astype(dtype)
    rstd = per_channel(s.astype(Wide), x.ndim)
    u = (x - per_channel(m.astype(Wide), x.ndim)) * rstd
    got = ops.batch_norm_backward(g, x, w, m, s, False)
    check_backward(got, g, u, rstd, w, axes, axes, k, dtype, constant=True)


@pytest.mark.parametrize("shape", GROUPS)
def test_group_norm_matches_oracle(isa, dtype, rng, shape):
    x, g, w, b = draw(rng, shape, dtype, 3.0)
    for groups in {1, 2, shape[1]}:
        if x.size == shape[0] * groups:  # one value per group: nothing is left of it
            continue
        rows = (shape[0], groups, shape[1] // groups, x[0, 0].size)
        wide = x.reshape(rows)
        u, mu, rstd, _ = oracle(wide, (2, 3))
        k = roundings(wide[0, 0].size)
        y, m, s = ops.group_norm(x, groups, w, b, return_stats=True)
        check_forward(y, u.reshape(shape), w, b, k, dtype)
        np.testing.assert_array_equal(y, ops.group_norm(x, groups, w, b))
        relative = k * np.finfo(dtype).eps
        np.testing.assert_allclose(m, mu.reshape(rows[:2]), rtol=relative)
        np.testing.assert_allclose(s, rstd.reshape(rows[:2]), rtol=relative)

        # Weighted before the average over the group, so check with the weights folded into g's rows.
        dx, dw, db = ops.group_norm_backward(g, x, groups, w, m, s)
        gw = (g * per_channel(w, x.ndim)).reshape(rows).astype(Wide)
        average = [v.mean((2, 3), keepdims=True) for v in (gw, gw * u, np.abs(gw), np.abs(gw * u))]
        size = np.abs(gw) + (np.abs(u) + 1) * (average[2] + average[3])
        expected = rstd * (gw - average[0] - u * average[1])
        assert_within(dx.reshape(rows), expected, 4 * relative * rstd * size)
        gu, axes = g.astype(Wide) * u.reshape(shape), batch_axes(x)
        sums = (np.abs(g) * (np.abs(u.reshape(shape)) + 1)).sum(axes)
        bound = 4 * (k + shape[0]) * np.finfo(dtype).eps * sums
        assert_within(dw, gu.sum(axes), bound)
        assert_within(db, g.astype(Wide).sum(axes), bound)
        bare = ops.group_norm_backward(g, x, groups, None, m, s)
        assert bare[1] is bare[2] is None and bare[0].shape == shape


def test_any_thread_count_gives_the_same_bits(isa, rng, same_for_any_thread_count):
    for shape in [(64, 33, 9, 9), (700, 130)]:
        x, g, w, b = draw(rng, shape, np.float32, 1.0)
        _, m, s = same_for_any_thread_count(
            lambda x=x, w=w, b=b: ops.batch_norm(x, None, None, w, b, True, return_stats=True)
        )
        same_for_any_thread_count(
            lambda x=x, g=g, w=w, m=m, s=s: ops.batch_norm_backward(g, x, w, m, s, True)
        )
        same_for_any_thread_count(lambda x=x, w=w, b=b, s=s: ops.batch_norm(x, b, np.abs(w), w, b))
    x, g, w, b = draw(rng, (64, 32, 9, 9), np.float32, 1.0)
    _, m, s = same_for_any_thread_count(lambda: ops.group_norm(x, 8, w, b, return_stats=True))
    same_for_any_thread_count(lambda: ops.group_norm_backward(g, x, 8, w, m, s))


@pytest.mark.sanitize
def test_strided_views(rng):
    x = rng.normal(size=(4, 7, 6, 9)).astype(np.float32)
    for view in (x.transpose(0, 3, 1, 2), x[::-1, ::2], x[:, :, 1::2, ::-1], x[:, :, 0, 0].T):
        packed, w = np.ascontiguousarray(view), np.linspace(-1, 1, 2 * view.shape[1])
        w = w.astype(np.float32)[::2]
        running = np.zeros((2, view.shape[1], 2), np.float32)[..., 0]
        a = ops.batch_norm(view, running[0], running[1], w, w, True, return_stats=True)
        b = ops.batch_norm(packed, None, None, w, w, True, return_stats=True)
        c = ops.batch_norm_backward(view, view, w, *a[1:], True)
        d = ops.batch_norm_backward(packed, packed, w, *a[1:], True)
        e, f = (ops.group_norm(v, 1, w, w, return_stats=True) for v in (view, packed))
        for left, right in zip((*a, *c, *e), (*b, *d, *f), strict=True):
            np.testing.assert_array_equal(left, right)
        np.testing.assert_allclose(running[0], 0.1 * a[1], rtol=1e-6)


@pytest.mark.sanitize
@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 3), (2, 3, 0), (0, 3)])
def test_empty(dtype, shape):
    x, w = np.zeros(shape, dtype), np.ones(shape[1], dtype)
    running = w.copy(), w.copy()
    y, m, s = ops.batch_norm(x, *running, w, w, True, return_stats=True)
    assert y.shape == shape and m.shape == s.shape == w.shape
    np.testing.assert_array_equal(running[0], w)
    dx, dw, db = ops.batch_norm_backward(x, x, w, m, s, True)
    assert dx.shape == shape
    np.testing.assert_array_equal([dw, db], np.zeros((2, shape[1])))
    assert ops.batch_norm(x, *running).shape == shape
    y, m, s = ops.group_norm(x, 1, w, w, return_stats=True)
    dx, dw, db = ops.group_norm_backward(x, x, 1, w, m, s)
    assert y.shape == dx.shape == shape and m.shape == (shape[0], 1)
    np.testing.assert_array_equal([dw, db], np.zeros((2, shape[1])))


def test_nan_stays_in_its_channel(isa, dtype):
    x = np.arange(2 * 3 * 21, dtype=dtype).reshape(2, 3, 21)
    x[1, 1, 20] = np.nan
    y = ops.batch_norm(x, training=True)
    assert np.isnan(y[:, 1]).all() and np.isfinite(y[:, ::2]).all()
    y = ops.group_norm(x, 3)
    assert np.isnan(y[1, 1]).all() and np.isfinite(y[0]).all() and np.isfinite(y[1, ::2]).all()


def test_a_large_first_value_costs_nothing(isa):
    """The variance is centred: 1e6 in one place leaves the others' spread exact to rounding."""
    x = np.full((4, 1, 64), 1e6, np.float32)
    x[:, :, ::2] += 1
    y = ops.batch_norm(x, training=True, eps=0.0)
    np.testing.assert_allclose(np.abs(y), 1, rtol=1e-5)


X = np.zeros((2, 4, 3), np.float32)
C, S = np.zeros(4, np.float32), np.zeros((2, 2), np.float32)


def frozen(a):
    a = a.copy()
    a.flags.writeable = False
    return a


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ops.batch_norm(X.astype(int), C, C), TypeError, "x dtype: expected float16"),
        (lambda: ops.batch_norm(X[0, 0], C, C), ValueError, "x ndim: expected at least 2, got 1"),
        (lambda: ops.batch_norm(X), ValueError, "running_mean value: expected an array"),
        (lambda: ops.batch_norm(X, C), ValueError, "running_var value: expected an array"),
        (lambda: ops.batch_norm(X, C[:2], C), ValueError, r"running_mean shape: expected \(4,\)"),
        (lambda: ops.batch_norm(X, C, C, C[:1]), ValueError, r"weight shape: expected \(4,\)"),
        (lambda: ops.batch_norm(X, C, C, C, C.astype("f8")), TypeError, "bias dtype"),
        (lambda: ops.batch_norm(X, C, C, eps=-1.0), ValueError, "eps value: expected at least 0"),
        (
            lambda: ops.batch_norm(X, frozen(C), C, training=True),
            ValueError,
            "running_mean flags: expected a writable array",
        ),
        (lambda: ops.batch_norm(X, [0.0] * 4, C, training=True), TypeError, "numpy.ndarray"),
        (
            lambda: ops.batch_norm(X[:1, :, :1], training=True),
            ValueError,
            "values per channel: expected more than 1 in training, got 1",
        ),
        (lambda: ops.batch_norm_backward(X[:1], X, C, C, C, True), ValueError, "grad shape"),
        (lambda: ops.batch_norm_backward(X, X, C, C[:1], C, True), ValueError, "mean shape"),
        (lambda: ops.group_norm(X, 3), ValueError, "num_groups value: expected a divisor of the 4"),
        (lambda: ops.group_norm(X, 0), ValueError, "num_groups value"),
        (lambda: ops.group_norm(X, 2, C[:3]), ValueError, "weight shape"),
        (lambda: ops.group_norm_backward(X, X, 2, C, S.T[:1], S), ValueError, "mean shape"),
        (lambda: ops.group_norm_backward(X, X, 2, C, S, C), ValueError, "rstd shape"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
