"""cast family: every pattern of the small types widened, a dense sweep narrowed, on every tier."""

import ml_dtypes
import numpy as np
import pytest

from vectile import ops

pytestmark = pytest.mark.filterwarnings(
    "ignore:invalid value:RuntimeWarning"
)  # NumPy, signalling NaN

HALVES = [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)]
EIGHTS = [np.dtype(ml_dtypes.float8_e4m3fn), np.dtype(ml_dtypes.float8_e5m2)]
SMALL = HALVES + EIGHTS
FLOATS = [*SMALL, np.dtype(np.float32), np.dtype(np.float64)]


def bits(x):
    return x.view(f"u{x.dtype.itemsize}")


def patterns(small):
    """Every value of a small type."""
    return np.arange(1 << 8 * small.itemsize, dtype=f"u{small.itemsize}").view(small)


def assert_same(got, want):
    """Equal bit by bit, where a NaN only has to be one of the same sign."""
    assert got.dtype == want.dtype and got.shape == want.shape
    nan = np.isnan(want.astype(np.float64))
    np.testing.assert_array_equal(np.isnan(got.astype(np.float64)), nan)
    np.testing.assert_array_equal(bits(got)[~nan], bits(want)[~nan])
    np.testing.assert_array_equal(np.signbit(got)[nan], np.signbit(want)[nan])


def between(small, wide):
    """Values of `wide` around those of a small type: each, the ties between them and their neighbours."""
    v = patterns(small).astype(np.float64)
    v = np.unique(v[np.isfinite(v)])
    ties = np.concatenate([(v[1:] + v[:-1]) / 2, [v[-1] + (v[-1] - v[-2]) / 2]]).astype(wide)
    v = v.astype(wide)
    near = [
        f(x, wide.type(end))
        for x in (v, ties)
        for f in (np.nextafter,)
        for end in (-np.inf, np.inf)
    ]
    top = np.array([np.inf, np.nan, 1e30, np.finfo(wide).max, np.finfo(wide).tiny, 5e-324, 0], wide)
    return np.concatenate([v, ties, *near, -ties, top, -top])


@pytest.mark.sanitize
@pytest.mark.parametrize("small", SMALL, ids=str)
def test_every_pattern_widens_exactly(isa, small):
    x = patterns(small)
    for wide in (np.float32, np.float64):
        assert_same(ops.cast(x, wide), x.astype(wide))


@pytest.mark.parametrize("small", SMALL, ids=str)
@pytest.mark.parametrize("wide", [np.float32, np.float64])
def test_narrowing_rounds_once_to_even(isa, small, wide):
    x = between(small, np.dtype(wide))
    with np.errstate(all="ignore"):
        want = x.astype(small)
        if wide is np.float64 and small != np.float16:
            want = nearest(x, small)  # ml_dtypes rounds twice, to float32 first
    assert_same(ops.cast(x, small), want)


def value(v):
    """As float64; what stands behind the largest number has the value of the next one."""
    wide = v.astype(np.float64)
    last = np.abs(wide[np.isfinite(wide)]).max()
    beyond = {448.0: 480.0, 57344.0: 65536.0}.get(last, 2.0**128)
    return np.where(np.isfinite(wide), wide, np.copysign(beyond, np.where(np.signbit(v), -1, 1)))


def nearest(x, small):
    """float64 to a small type by choosing the nearest of three neighbours, of two the even one."""
    with np.errstate(all="ignore"):
        best = x.astype(np.float32).astype(small)
    code, finite = bits(best).astype(np.int64), np.isfinite(x)
    reach = 2 * np.abs(value(patterns(small))).max()  # further out, distances are all the same
    x = np.clip(x, -reach, reach)
    for step in (-1, 1):
        other = (code + step).astype(bits(best).dtype).view(small)
        with np.errstate(all="ignore"):
            d_best, d_other = np.abs(value(best) - x), np.abs(value(other) - x)
        tie = (d_other == d_best) & (bits(other) % 2 == 0) & (bits(best) % 2 == 1)
        take = (np.signbit(other) == np.signbit(best)) & ((d_other < d_best) | tie)
        best = np.where(take & finite, other, best)
    return best


@pytest.mark.sanitize
@pytest.mark.parametrize("small", SMALL, ids=str)
def test_random_float32_patterns(isa, rng, small):
    x = rng.integers(0, 1 << 32, 300_001, np.uint32).view(np.float32)
    with np.errstate(all="ignore"):
        assert_same(ops.cast(x, small), x.astype(small))


@pytest.mark.parametrize("source", FLOATS, ids=str)
@pytest.mark.parametrize("target", FLOATS, ids=str)
def test_every_pair_and_length(isa, rng, source, target):
    for n in [*range(0, 36), 1023, 1025, 2500]:
        x = rng.normal(size=n).astype(source)
        assert_same(ops.cast(x, target), x.astype(target))


@pytest.mark.parametrize("target", FLOATS, ids=str)
def test_strides(isa, rng, target):
    x = rng.normal(size=(7, 9, 11)).astype(ml_dtypes.bfloat16)
    for view in (x.T, x[::-2, 1:], x[:, :, ::3], x[:, 0, None], np.broadcast_to(x[0, 0], (3, 11))):
        y = ops.cast(view, target)
        assert y.flags.c_contiguous
        assert_same(y, np.ascontiguousarray(view).astype(target))


def test_threads(same_for_any_thread_count, rng):
    x = rng.normal(size=200_001).astype(np.float32)
    same_for_any_thread_count(lambda: bits(ops.cast(x, "bfloat16")))


def test_refused():
    with pytest.raises(TypeError, match=r"cast: x dtype: expected float16, bfloat16.*, got int32"):
        ops.cast(np.zeros(3, np.int32), np.float32)
    with pytest.raises(TypeError, match=r"cast: dtype value: expected float16, .*, got int8"):
        ops.cast(np.zeros(3, np.float32), np.int8)
    with pytest.raises(TypeError):
        ops.cast(np.zeros(3, ml_dtypes.int4), np.float32)
