"""embedding and its gradient against NumPy indexing, on every tier and thread count."""

import numpy as np
import pytest

from vectile import ops

INTEGERS = ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"]
CASES = [
    ((), 5, 3),
    ((0,), 5, 3),
    ((7,), 1, 1),
    ((3, 5), 11, 16),
    ((2, 3, 5), 100, 33),
    ((900,), 4, 67),
]


def gradient(grad, ids, rows):
    out = np.zeros((rows, grad.shape[-1]))
    np.add.at(out, ids.ravel(), grad.reshape(-1, grad.shape[-1]).astype(np.float64))
    return out


def gradient_bound(grad, ids, rows):
    """eps of the magnitudes for every addition into the row that has most, one after another."""
    most = np.bincount(np.ravel(ids), minlength=1).max(initial=0)
    return most * np.finfo(grad.dtype).eps * gradient(np.abs(grad), ids, rows)


@pytest.mark.sanitize
@pytest.mark.parametrize(("shape", "rows", "n"), CASES)
def test_matches_numpy(isa, dtype, rng, shape, rows, n):
    ids = rng.integers(0, rows, size=shape)
    weight = rng.normal(size=(rows, n)).astype(dtype)
    y = ops.embedding(ids, weight)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, weight[ids])
    grad = rng.normal(size=(*shape, n)).astype(dtype)
    bound = gradient_bound(grad, ids, rows)
    got = ops.embedding_backward(grad, ids, rows)
    assert got.dtype == dtype and got.shape == (rows, n)
    assert (np.abs(got - gradient(grad, ids, rows)) <= bound).all()


@pytest.mark.sanitize
@pytest.mark.parametrize("integer", INTEGERS)
def test_any_integer_dtype_and_layout(rng, integer):
    ids = rng.integers(0, 50, size=(6, 8)).astype(integer)
    weight = rng.normal(size=(50, 20)).astype(np.float32)
    for view in (ids.T, ids[::-2, 1::3], ids[:0], ids.astype(ids.dtype.newbyteorder())):
        np.testing.assert_array_equal(ops.embedding(view, weight), weight[view])
        grad = rng.normal(size=(*view.shape, 20)).astype(np.float32)
        error = np.abs(ops.embedding_backward(grad, view, 50) - gradient(grad, view, 50))
        assert (error <= gradient_bound(grad, view, 50)).all()


@pytest.mark.sanitize
def test_strided_tables(rng):
    ids = np.array([[3, 0], [1, 3]])
    wide = rng.normal(size=(8, 12)).astype(np.float32)
    for table in (
        wide[:, :5],
        wide[::2],
        wide[::-1],
        wide.T,
        wide[:, ::2],
        wide[:, 3:4],
        wide[:, :0],
    ):
        np.testing.assert_array_equal(ops.embedding(ids, table), table[ids])


def test_any_thread_count_gives_the_same_bits(isa, rng, same_for_any_thread_count):
    ids = rng.integers(0, 3000, size=(70, 80))
    weight = rng.normal(size=(3000, 40)).astype(np.float32)
    grad = same_for_any_thread_count(lambda: ops.embedding(ids, weight))
    same_for_any_thread_count(lambda: ops.embedding_backward(grad, ids, 3000))


W, G = np.zeros((4, 3), np.float32), np.zeros((2, 3), np.float32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: ops.embedding([0, 4], W),
            IndexError,
            r"ids at \(1,\): expected 0 <= index < 4, got 4",
        ),
        (lambda: ops.embedding([[0], [-1]], W), IndexError, r"ids at \(1, 0\): .* got -1"),
        (lambda: ops.embedding(4, W), IndexError, r"ids at \(\): .* got 4"),
        (lambda: ops.embedding(np.array([2**64 - 1], "u8"), W), IndexError, "got more than 2"),
        (lambda: ops.embedding([0], W[:0]), IndexError, "expected 0 <= index < 0, got 0"),
        (
            lambda: ops.embedding([0.0], W),
            TypeError,
            "ids dtype: expected an integer type, got float64",
        ),
        (
            lambda: ops.embedding([True], W),
            TypeError,
            "ids dtype: expected an integer type, got bool",
        ),
        (lambda: ops.embedding([0], W[0]), ValueError, "weight ndim: expected 2, got 1"),
        (lambda: ops.embedding([0], W.astype(int)), TypeError, "weight dtype: expected float16"),
        (lambda: ops.embedding(np.zeros((1,) * 16, int), W), ValueError, "ids ndim"),
        (
            lambda: ops.embedding_backward(G, [0, 4], 4),
            IndexError,
            r"embedding_backward: ids at \(1,\)",
        ),
        (
            lambda: ops.embedding_backward(G, [0], 4),
            ValueError,
            r"grad shape: expected ids.shape \(1,\)",
        ),
        (lambda: ops.embedding_backward(G, [0, 1], -1), ValueError, "num_embeddings value"),
        (lambda: ops.embedding_backward(G[:, :0], [0, 1], 2**63 - 1), OverflowError, "bytes"),
        (lambda: ops.embedding_backward(G.astype(int), [0, 1], 2), TypeError, "grad dtype"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
