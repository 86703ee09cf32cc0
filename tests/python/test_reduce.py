"""reduce family against a float64 oracle, on every tier and thread count."""

import itertools

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vectile import ops

SHAPES = [
    (),
    (1,),
    (7,),
    (16,),
    (1009,),
    (4097,),
    (70001,),
    (31, 33),
    (3, 1),
    (300, 5),
    (5, 3000),
    (2, 300, 70),
    (4, 1, 6, 5),
    (3, 40000),
    (700, 2049),
    (9, 1000, 3),
]
FUNCTIONS = {"sum": np.sum, "mean": np.mean, "max": np.max, "min": np.min}


def axes_of(ndim):
    every = range(ndim)
    yield None
    yield from range(-ndim, ndim)
    for n in range(ndim + 1):
        yield from itertools.combinations(every, n)


def check(name, x, axis, keepdims=False):
    """Equal for max and min; for sums within 80 eps of the sum of magnitudes, as documented."""
    y = getattr(ops, name)(x, axis, keepdims)
    x64 = x.astype(np.float64)
    expected = np.asarray(FUNCTIONS[name](x64, axis=axis, keepdims=keepdims))
    assert y.dtype == x.dtype and y.shape == expected.shape
    if name in ("max", "min"):
        np.testing.assert_array_equal(y, expected.astype(x.dtype))
    else:
        magnitude = FUNCTIONS[name](np.abs(x64), axis=axis, keepdims=keepdims)
        assert (np.abs(y - expected) <= 80 * np.finfo(x.dtype).eps * magnitude).all()
    return y


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_reduction_matches_float64(isa, dtype, rng, name, shape):
    x = rng.normal(size=shape).astype(dtype)
    for axis in axes_of(len(shape)):
        check(name, x, axis)
        check(name, x, axis, keepdims=True)


@pytest.mark.sanitize
@pytest.mark.parametrize("n", [1, 5, 31, 128, 129, 4096, 4097, 8191, 32768, 32769, 100003])
def test_every_element_counts_once(isa, dtype, n):
    """Integers small enough to be summed exactly, along rows, columns and narrow columns."""
    x = np.arange(n) % 7
    for view in (x, x[:, None], np.repeat(x, 3).reshape(n, 3), np.repeat(x, 40).reshape(n, 40)):
        y = ops.sum(view.astype(dtype), 0)
        np.testing.assert_array_equal(y, view.sum(0))


def test_long_sums_do_not_drift(isa):
    """Added one by one in float32, 2**25 ones would stop at 2**24."""
    ones = np.ones(2**25, np.float32)
    assert ops.sum(ones) == 2**25
    np.testing.assert_array_equal(ops.sum(ones.reshape(-1, 32), 0), 2**20)
    np.testing.assert_array_equal(ops.sum(ones.reshape(-1, 2), 0), 2**24)
    assert ops.mean(ones) == 1


@pytest.mark.parametrize("name", ["max", "min"])
def test_nan_propagates_at_every_position(isa, dtype, name):
    f = getattr(ops, name)
    for n in (1, 5, 16, 17, 200):
        for i in range(n):
            x = np.zeros((n, 20), dtype)
            x[i, i % 20] = np.nan
            assert np.isnan(f(x))
            np.testing.assert_array_equal(np.isnan(f(x, 0)), np.arange(20) == i % 20)
            np.testing.assert_array_equal(np.isnan(f(x, 1)), np.arange(n) == i)


def test_infinities(isa, dtype):
    x = np.array([[-np.inf, 1, np.inf], [-np.inf, -np.inf, -np.inf]], dtype)
    np.testing.assert_array_equal(ops.max(x, 1), [np.inf, -np.inf])
    np.testing.assert_array_equal(ops.min(x, 0), [-np.inf, -np.inf, -np.inf])
    assert np.isnan(ops.sum(x)) and ops.sum(x[1]) == -np.inf


@pytest.mark.sanitize
@settings(max_examples=150, deadline=None)
@given(
    x=hnp.arrays(
        np.float64,
        hnp.array_shapes(min_dims=0, max_dims=5, min_side=1, max_side=6),
        elements=st.integers(-99, 99),
    ),
    data=st.data(),
)
def test_strided_views(x, data):
    x = x.transpose(data.draw(st.permutations(range(x.ndim))))
    steps = [data.draw(st.sampled_from([1, 1, -1, 2])) for _ in range(x.ndim)]
    x = x[(*(slice(None, None, s) for s in steps), ...)]
    axis = data.draw(st.sampled_from(list(axes_of(x.ndim))))
    name = data.draw(st.sampled_from(list(FUNCTIONS)))
    y = check(name, x, axis)
    out = np.empty(y.shape[::-1]).T
    assert getattr(ops, name)(x, axis, out=out) is out
    np.testing.assert_array_equal(out, y)


def test_any_thread_count_gives_the_same_bits(isa, dtype, rng, same_for_any_thread_count):
    x = rng.normal(size=(700, 3, 301)).astype(dtype)
    for axis in (None, 0, 1, 2, (0, 2), (0, 1)):
        same_for_any_thread_count(lambda axis=axis: ops.sum(x, axis))
        same_for_any_thread_count(lambda axis=axis: ops.sum(x.T, axis))
    same_for_any_thread_count(lambda: ops.global_norm([x, x[0]]))


@pytest.mark.sanitize
def test_nothing_to_reduce(isa, dtype):
    x = np.zeros((0, 3), dtype)
    np.testing.assert_array_equal(ops.sum(x, 0), np.zeros(3, dtype), strict=True)
    np.testing.assert_array_equal(ops.mean(x, 0), np.full(3, np.nan, dtype), strict=True)
    assert ops.sum(x, keepdims=True).shape == (1, 1)
    for f in (ops.sum, ops.mean, ops.max, ops.min):
        assert f(x, 1).shape == (0,)
        assert f(x, ()).shape == (0, 3)
    for f in (ops.max, ops.min):
        with pytest.raises(ValueError, match=r"x shape: expected at least one element .* \(0, 3\)"):
            f(x, 0)
        with pytest.raises(ValueError, match="at least one element"):
            f(np.zeros((0, 0), dtype), 1)


@pytest.mark.parametrize(
    ("shape", "target"),
    [
        ((3, 4), (3, 4)),
        ((3, 4), (4,)),
        ((3, 4), (3, 1)),
        ((3, 4), ()),
        ((2, 3, 4), (3, 1)),
        ((2, 3, 4), (1, 1, 1, 4)[1:]),
        ((5, 300, 7), (300, 1)),
        ((0, 4), (1, 4)),
        ((1, 4), (1, 1)),
    ],
)
def test_sum_to_undoes_broadcasting(isa, dtype, rng, shape, target):
    x = rng.integers(-9, 9, size=shape).astype(dtype)
    extra = len(shape) - len(target)
    expected = x.sum(tuple(range(extra)))
    ones = tuple(i for i, n in enumerate(target) if n == 1)
    expected = expected.sum(ones, keepdims=True)
    np.testing.assert_array_equal(ops.sum_to(x, target), expected, strict=True)


@pytest.mark.sanitize
def test_global_norm(isa, dtype, rng):
    arrays = [rng.normal(size=s).astype(dtype) for s in [(3, 5), (), (0,), (100, 501), (70001,)]]
    expected = np.sqrt(sum(float((a.astype(np.float64) ** 2).sum()) for a in arrays))
    assert isinstance(ops.global_norm(arrays), float)
    assert abs(ops.global_norm(arrays) / expected - 1) < 40 * np.finfo(dtype).eps
    assert ops.global_norm(a[::-1].T for a in arrays if a.ndim) > 0
    assert ops.global_norm([]) == 0
    huge, tiny = np.full(1000, 3e37, np.float32), np.full(1000, 1e-40, np.float32)
    np.testing.assert_allclose(
        ops.global_norm([huge]), np.linalg.norm(huge.astype("f8")), rtol=1e-6
    )
    np.testing.assert_allclose(
        ops.global_norm([tiny]), np.linalg.norm(tiny.astype("f8")), rtol=1e-6
    )
    assert np.isnan(ops.global_norm([np.array([np.nan], dtype)]))
    assert ops.global_norm([np.array([np.inf], dtype)]) == np.inf


X = np.zeros((2, 3), np.float32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: ops.sum(X.astype(int)),
            TypeError,
            "sum: x dtype: expected float16, bfloat16, float32 or float64",
        ),
        (lambda: ops.max(X, 2), ValueError, "max: axis value: expected an axis of 2 dimensions"),
        (lambda: ops.mean(X, (0, -3)), ValueError, "mean: axis value: expected an axis of 2"),
        (lambda: ops.min(X, (1, -1)), ValueError, r"min: axis value: expected distinct axes, got"),
        (lambda: ops.sum(X, 1.0), TypeError, "float"),
        (lambda: ops.sum(X, 2**70), OverflowError, "index-sized"),
        (
            lambda: ops.sum(X, 0, out=X),
            ValueError,
            r"sum: out shape: expected \(3,\), got \(2, 3\)",
        ),
        (lambda: ops.sum(X, out=np.zeros(())), TypeError, "sum: out dtype: expected float32, got"),
        (lambda: ops.sum_to(X, (2,)), ValueError, r"sum_to: shape value: expected one that broad"),
        (lambda: ops.sum_to(X, (1, 2, 3)), ValueError, "sum_to: shape value"),
        (lambda: ops.sum_to(X, (1,) * 17), ValueError, "sum_to: shape length: expected at most 16"),
        (
            lambda: ops.global_norm([X > 0]),
            TypeError,
            "global_norm: arrays dtype: expected float16",
        ),
        (lambda: ops.global_norm(3), TypeError, "iterable"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
