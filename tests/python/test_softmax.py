"""softmax family against a float64 oracle, on every tier and thread count."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vectile import ops

SHAPES = [
    (1,),
    (7,),
    (16,),
    (17,),
    (31, 33),
    (3, 1),
    (2, 3, 5),
    (4, 128),
    (2, 1000),
    (301, 517),
    (70000,),
]


def oracle(x: np.ndarray, axis: int) -> np.ndarray:
    e = np.exp(x.astype(np.float64) - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def bound(x: np.ndarray, axis: int) -> float:
    """Relative error: x - max is exact to 1/2 ulp of itself (so exp is off by |x - max| eps), exp
    2 ulp, a sum of n positive terms at most one rounding (eps / 2) for each in a block of 4096 and for
    each block, division and product."""
    spread = float(x.max() - x.min())
    return (spread + terms(x.shape[axis]) / 2 + 12) * np.finfo(x.dtype).eps


def terms(n: int) -> int:
    """Additions that a term of a sum of n goes through at most."""
    return min(n, 4096) + n // 4096


@pytest.mark.sanitize
@pytest.mark.parametrize("shape", SHAPES)
def test_softmax_matches_float64(isa, dtype, rng, shape):
    x = (3 * rng.normal(size=shape)).astype(dtype)
    for axis in range(-len(shape), len(shape)):
        expected = oracle(x, axis)
        np.testing.assert_allclose(ops.softmax(x, axis), expected, rtol=bound(x, axis))
        np.testing.assert_allclose(
            ops.log_softmax(x, axis),
            np.log(expected),
            rtol=8 * np.finfo(dtype).eps,
            atol=bound(x, axis),
        )


@pytest.mark.sanitize
@pytest.mark.parametrize("shape", SHAPES)
def test_backward_matches_float64(isa, dtype, rng, shape):
    x, g = (rng.normal(size=shape).astype(dtype) for _ in range(2))
    for axis in range(len(shape)):
        n = shape[axis]
        y64, g64 = oracle(x, axis), g.astype(np.float64)
        atol = (terms(n) + 16) * np.finfo(dtype).eps * np.abs(g64).max()
        expected = y64 * (g64 - (g64 * y64).sum(axis, keepdims=True))
        got = ops.softmax_backward(g, ops.softmax(x, axis), axis)
        np.testing.assert_allclose(got, expected, rtol=0, atol=atol)
        expected = g64 - y64 * g64.sum(axis, keepdims=True)
        got = ops.log_softmax_backward(g, ops.log_softmax(x, axis), axis)
        np.testing.assert_allclose(got, expected, rtol=0, atol=4 * atol)


def test_any_thread_count_gives_the_same_bits(isa, rng, same_for_any_thread_count):
    x, g = (rng.normal(size=(301, 517)).astype(np.float32) for _ in range(2))
    y = same_for_any_thread_count(lambda: ops.softmax(x))
    same_for_any_thread_count(lambda: ops.softmax(x, 0))
    same_for_any_thread_count(lambda: ops.softmax_backward(g, y))


@pytest.mark.sanitize
@settings(max_examples=60, deadline=None)
@given(
    x=hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=9),
        elements=st.floats(-50, 50, width=32),
    ),
    data=st.data(),
)
def test_strided_views(x, data):
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    view = x.transpose(data.draw(st.permutations(range(x.ndim))))
    view = view[
        tuple(slice(None, None, data.draw(st.sampled_from([1, -1, 2]))) for _ in view.shape)
    ]
    got = ops.softmax(view, axis)
    np.testing.assert_array_equal(got, ops.softmax(np.ascontiguousarray(view), axis))
    out = np.empty_like(view)
    assert ops.softmax(view, axis, out=out) is out
    np.testing.assert_array_equal(out, got)


def test_masked_rows_and_nan(isa, dtype):
    x = np.array([[-np.inf, -np.inf, -np.inf], [0, -np.inf, 0], [np.nan, 0, 1]], dtype)
    y = ops.softmax(x)
    np.testing.assert_array_equal(y[:2], [[0, 0, 0], [0.5, 0, 0.5]])
    assert np.isnan(y[2]).all()
    log_y = ops.log_softmax(x)
    assert (log_y[0] == -np.inf).all() and np.isnan(log_y[2]).all()
    ones = np.ones_like(x)
    np.testing.assert_array_equal(ops.softmax_backward(ones, y)[0], 0)
    np.testing.assert_array_equal(ops.log_softmax_backward(ones, log_y)[0], 0)


def test_out_may_be_the_input_or_overlap_it(rng):
    x = rng.normal(size=(6, 8)).astype(np.float32)
    expected = ops.softmax(x)
    same = x.copy()
    assert ops.softmax(same, out=same) is same
    np.testing.assert_array_equal(same, expected)
    memory = np.concatenate([x.ravel(), np.zeros(3, np.float32)])
    ops.softmax(memory[:48].reshape(6, 8), out=memory[3:].reshape(6, 8))
    np.testing.assert_array_equal(memory[3:].reshape(6, 8), expected)


@pytest.mark.sanitize
def test_foreign_memory_layouts(rng):
    x = rng.normal(size=(5, 7)).astype(np.float32)
    expected = ops.softmax(x)
    np.testing.assert_array_equal(ops.softmax(x.astype(">f4")), expected)
    unaligned = np.frombuffer(b"\0" + x.tobytes(), dtype=np.uint8)[1:].view(np.float32)
    np.testing.assert_array_equal(ops.softmax(unaligned.reshape(5, 7)), expected)
    record = np.zeros((5, 7), [("tag", "u1"), ("x", "f4")])
    record["x"] = x
    np.testing.assert_array_equal(ops.softmax(record["x"]), expected)
    frozen = x.copy()
    frozen.flags.writeable = False
    np.testing.assert_array_equal(ops.softmax(frozen), expected)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda x: ops.softmax(x.astype(np.int32)),
            TypeError,
            "softmax: x dtype: expected float16",
        ),
        (lambda x: ops.softmax(np.float32(1)), ValueError, "softmax: x ndim: expected at least 1"),
        (lambda x: ops.softmax(x, 2), ValueError, "softmax: axis value: expected an axis of 2"),
        (
            lambda x: ops.softmax(x, out=x[:1]),
            ValueError,
            r"out shape: expected \(2, 3\), got \(1, 3\)",
        ),
        (lambda x: ops.softmax(x, out=x.astype("f8")), TypeError, "out dtype: expected float32"),
        (
            lambda x: ops.softmax(x, out=[1]),
            TypeError,
            "out type: expected numpy.ndarray, got list",
        ),
        (lambda x: ops.softmax_backward(x[:1], x), ValueError, "grad shape: expected"),
        (lambda x: ops.softmax_backward(x.astype("f8"), x), TypeError, "grad dtype: expected"),
        (lambda x: ops.softmax(x.astype("c8")), TypeError, "x dtype: expected .* got complex64"),
        (lambda x: ops.softmax(np.zeros((1,) * 17)), ValueError, "x ndim: expected at most 16"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call(np.zeros((2, 3), np.float32))
