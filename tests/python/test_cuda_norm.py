"""layer_norm and rms_norm on a device against a wider oracle."""

import ml_dtypes
import numpy as np
import pytest
from on_device import cuda, dev, host, needs_device, run

pytestmark = needs_device

TYPES = (np.float32, np.float64, np.float16, ml_dtypes.bfloat16)
# one piece by 32, 128, 256 and 1024 threads, and two pieces
LENGTHS = (1, 7, 511, 513, 2049, 4097, 16391)
EPS = 1e-5
Wide = np.longdouble


def stored(dtype):
    return float(ml_dtypes.finfo(dtype).eps)


def computed(dtype):
    return stored(dtype if dtype == np.float64 else np.float32)


def wider(x):
    return np.asarray(x).astype(np.float64).astype(Wide)


def statistics(x, centred):
    mean = x.mean(-1, keepdims=True) if centred else 0 * x[..., :1]
    return mean, 1 / np.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + EPS)


def draw(rng, shape, dtype, loc=0.0, parameters=None):
    parameters = parameters or dtype
    x, g = rng.normal(loc, 1, shape).astype(dtype), rng.normal(size=shape).astype(dtype)
    w, b = rng.normal(size=(2, shape[-1])).astype(parameters)
    return x, g, w, b


def assert_within(got, want, bound):
    assert got.shape == want.shape
    error = abs(wider(got) - want)
    assert (error <= bound).all(), f"error {error.max()}, largest allowed {np.max(bound)}"


def unit_bound(u, dtype):
    """No term of a row's sums meets more than 64 roundings; each is relative to sums of terms
    that are at most 1 on the average."""
    return 64 * computed(dtype) * (abs(u) + 1)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("n", LENGTHS)
def test_forward(rng, n, dtype):
    x, _, w, b = draw(rng, (3, n), dtype, 3.0)
    for centred, name, parameters in [(True, "layer_norm", (w, b)), (False, "rms_norm", (w,))]:
        mean, rstd = statistics(wider(x), centred)
        u = (wider(x) - mean) * rstd
        offset = wider(b) if centred else 0
        want = u * wider(w) + offset
        y, *stats = run(name, x, *parameters, eps=EPS, return_stats=True)
        assert y.dtype == x.dtype
        bound = unit_bound(u, dtype) * abs(wider(w)) + stored(dtype) * abs(want)
        # two roundings of the products, and one that subtracts near-equal sums
        assert_within(y, want, bound + 2 * computed(dtype) * (abs(u * wider(w)) + abs(offset)))
        assert stats[-1].dtype == (np.float64 if dtype == np.float64 else np.float32)
        np.testing.assert_allclose(
            stats[-1].astype(np.float64), rstd[:, 0].astype(np.float64), rtol=64 * computed(dtype)
        )
        if centred:
            assert_within(stats[0], mean[:, 0], 64 * computed(dtype) * (abs(mean[:, 0]) + 1))
        plain = run(name, x, eps=EPS)
        assert_within(plain, u, unit_bound(u, dtype) + stored(dtype) * abs(u))


def test_large_mean(rng):
    x = rng.normal(1e4, 1, (4, 3000)).astype(np.float32)
    mean, rstd = statistics(wider(x), True)
    want = (wider(x) - mean) * rstd
    assert_within(run("layer_norm", x, eps=EPS), want, unit_bound(want, np.float32))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("n", (5, 777, 16391))
def test_add(rng, n, dtype):
    x, r, w, b = draw(rng, (2, n), dtype)
    total = (wider(x) + wider(r)).astype(np.float32 if dtype != np.float64 else np.float64)
    for centred, name, parameters in [(1, "add_layer_norm", (w, b)), (0, "add_rms_norm", (w,))]:
        y, s, *stats = run(name, x, r, *parameters, eps=EPS, return_stats=True)
        np.testing.assert_array_equal(wider(s), wider(total.astype(dtype)))
        mean, rstd = statistics(wider(total), centred)
        u = (wider(total) - mean) * rstd
        want = u * wider(w) + (wider(b) if centred else 0)
        size = abs(u * wider(w)) + abs(wider(b))
        bound = unit_bound(u, dtype) * abs(wider(w)) + 2 * stored(dtype) * size
        assert_within(y, want, bound)
        assert len(stats) == 1 + centred
        assert len(run(name, x, r, *parameters)) == 2


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(3, 1), (2, 7), (5, 520), (2, 16391), (131, 24), (300, 3)])
def test_gradients(rng, shape, dtype):
    x, g, w, _ = draw(rng, shape, dtype, 1.0)
    n, rows = shape[-1], shape[0]
    for centred in (True, False):
        mean, rstd = statistics(wider(x), centred)
        single = np.float64 if dtype == np.float64 else np.float32
        stats = [s[:, 0].astype(single) for s in ((mean, rstd) if centred else (rstd,))]
        name = "layer_norm_backward" if centred else "rms_norm_backward"
        dx, dweight, *dbias = run(name, g, x, w, *stats)
        assert dx.dtype == dweight.dtype == x.dtype
        scale = wider(stats[-1])[:, None]
        u, h = (wider(x) - mean) * scale, wider(g) * wider(w)
        h_mean = h.mean(-1, keepdims=True) if centred else 0
        want = scale * (h - h_mean - u * (h * u).mean(-1, keepdims=True))
        size = abs(h).mean(-1, keepdims=True) + abs(u) * abs(h * u).mean(-1, keepdims=True)
        # d = x - mean is off by roundings of x
        size = size * (1 + scale * abs(wider(x)).max()) + abs(h)
        bound = 64 * computed(dtype) * scale * size
        assert_within(dx, want, bound + stored(dtype) * abs(want))
        bound = 64 * computed(dtype) * (abs(wider(g)) * (abs(u) + scale * abs(wider(x)))).sum(0)
        want = (wider(g) * u).sum(0)
        assert_within(dweight, want, bound + stored(dtype) * abs(want))
        if centred:
            want = wider(g).sum(0)
            bound = 64 * computed(dtype) * abs(wider(g)).sum(0) + stored(dtype) * abs(want)
            assert_within(dbias[0], want, bound)
        alone = run(name, g, x, None, *stats)
        assert alone[0].shape == (rows, n) and alone[1:] == (None,) * (1 + centred)


def test_repeats_exactly(rng):
    x, g, w, _ = draw(rng, (300, 40), np.float32)
    _, mean, rstd = run("layer_norm", x, return_stats=True)
    first, second = (run("layer_norm_backward", g, x, w, mean, rstd) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", (np.float16, ml_dtypes.bfloat16))
def test_float32_parameters_of_half_arrays(rng, dtype):
    x, g, w, b = draw(rng, (6, 72), dtype, parameters=np.float32)
    rounded = w.astype(dtype).astype(np.float32), b.astype(dtype).astype(np.float32)
    y, mean, rstd = run("layer_norm", x, *rounded, return_stats=True)
    narrow = [p.astype(dtype) for p in rounded]
    np.testing.assert_array_equal(wider(y), wider(run("layer_norm", x, *narrow)))
    wide = run("layer_norm_backward", g, x, rounded[0], mean, rstd)
    half = run("layer_norm_backward", g, x, narrow[0], mean, rstd)
    assert wide[1].dtype == wide[2].dtype == np.float32 and half[1].dtype == dtype
    np.testing.assert_array_equal(wider(wide[0]), wider(half[0]))
    np.testing.assert_array_equal(wider(wide[1].astype(dtype)), wider(half[1]))
    y = run("layer_norm_backward", g, x, rounded[0], mean.astype(dtype), rstd.astype(dtype))
    assert y[0].dtype == dtype


@pytest.mark.parametrize("shape", [(0,), (0, 4), (3, 0), (2, 0, 5)])
def test_empty(shape):
    x, w = np.empty(shape), np.ones(shape[-1])
    y, mean, rstd = run("layer_norm", x, w, w, return_stats=True)
    assert y.shape == shape and mean.shape == rstd.shape == shape[:-1]
    dx, dweight, dbias = run("layer_norm_backward", x, x, w, mean, rstd)
    assert dx.shape == shape and not dweight.any() and not dbias.any()


def test_strides(rng):
    x, g = rng.standard_normal((2, 6, 40))
    w = rng.standard_normal(40)[::2]
    view, packed = x[::2, ::-2], np.ascontiguousarray(x[::2, ::-2])
    y, *stats = run("layer_norm", view, w, return_stats=True)
    np.testing.assert_array_equal(y, run("layer_norm", packed, w.copy()))
    unaligned = x.astype(np.float16)[:1, 1:]
    np.testing.assert_array_equal(run("rms_norm", unaligned), run("rms_norm", unaligned.copy()))
    doubled = [np.repeat(s, 2)[::2] for s in stats]
    got = run("layer_norm_backward", g[::2, ::-2], view, w, *doubled)
    want = run("layer_norm_backward", g[::2, ::-2].copy(), packed, w.copy(), *stats)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)


def test_nan_stays_in_its_row():
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    x[1, 2] = np.nan
    y = host(cuda.layer_norm(dev(x)))
    assert np.isnan(y[1]).all() and not np.isnan(y[::2]).any()


X = np.zeros((2, 3), np.float32)


@pytest.mark.parametrize(
    "name, arguments, message",
    [
        ("layer_norm", (np.zeros(3, np.int32),), r"layer_norm: x dtype: expected .*, got int32"),
        ("layer_norm", (np.zeros((), np.float32),), "layer_norm: x ndim: expected at least 1"),
        ("rms_norm", (X, X[0, :2]), "rms_norm: weight shape"),
        ("rms_norm", (X, None, -1.0), "rms_norm: eps value: expected at least 0"),
        ("layer_norm", (X, X[0].astype(np.float64)), "layer_norm: weight dtype"),
        ("add_rms_norm", (X, X[:1]), "add_rms_norm: residual shape"),
        ("rms_norm_backward", (X, X, None, X[0]), "rms_norm_backward: rstd shape"),
        ("layer_norm_backward", (X[:1], X, None, X[:, 0], X[:, 0]), "backward: grad shape"),
    ],
)
def test_errors(name, arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        run(name, *arguments)
