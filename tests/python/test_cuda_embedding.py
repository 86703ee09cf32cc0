"""embedding and its gradient on a device against NumPy indexing and the CPU's op."""

import ml_dtypes
import numpy as np
import pytest
from on_device import cuda, dev, needs_device, run

from vectile import ops

pytestmark = needs_device

TYPES = (np.float32, np.float64, np.float16, ml_dtypes.bfloat16)
INTEGERS = ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")
# Rows of the table about 1024, a block's; lengths about 32 vectors, a warp's, and 256, a block's.
CASES = [
    ((), 5, 3),
    ((0,), 5, 3),
    ((4,), 5, 0),
    ((7,), 1, 1),
    ((3, 5), 11, 16),
    ((900,), 4, 67),
    ((1023,), 1023, 129),
    ((1025,), 1024, 8),
    ((2, 3, 5), 2050, 257),
    ((2,), 3, 4104),
]


def gradient(grad, ids, rows):
    out = np.zeros((rows, grad.shape[-1]))
    np.add.at(out, ids.ravel(), grad.reshape(ids.size, grad.shape[-1]).astype(np.float64))
    return out


def check_gradient(got, grad, ids, rows):
    """A rounding of what it computes in for each addition to a row, and one to the type."""
    wide = np.float64 if grad.dtype == np.float64 else np.float32
    most = np.bincount(ids.ravel(), minlength=1).max(initial=0)
    eps = most * np.finfo(wide).eps + float(ml_dtypes.finfo(grad.dtype).eps)
    assert got.dtype == grad.dtype and got.shape == (rows, grad.shape[-1])
    error = abs(got.astype(np.float64) - gradient(grad, ids, rows))
    assert (error <= eps * gradient(abs(grad), ids, rows)).all()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("shape", "rows", "n"), CASES)
def test_matches_numpy(rng, shape, rows, n, dtype):
    ids = np.asarray(rng.integers(0, rows, size=shape))
    weight = rng.normal(size=(rows, n)).astype(dtype)
    y = run("embedding", ids, weight)
    assert y.dtype == weight.dtype
    np.testing.assert_array_equal(y, weight[ids])
    grad = rng.normal(size=(*shape, n)).astype(dtype)
    got = run("embedding_backward", grad, ids, rows)
    check_gradient(got, grad, ids, rows)
    if np.bincount(ids.ravel(), minlength=1).max(initial=0) <= 64:  # the same order
        np.testing.assert_array_equal(got, ops.embedding_backward(grad, ids, rows))


@pytest.mark.parametrize("dtype", TYPES)
def test_gradient_of_ids_that_occur_often(rng, dtype):
    for counts in ([64, 65, 1], [1, 63, 65, 64, 200], [130], [64, 64, 128, 129, 3, 70, 58]):
        ids = rng.permutation(np.repeat(np.arange(len(counts)), counts))
        ids = np.concatenate([ids, [-1, len(counts)]])  # these two count for nothing
        grad = rng.normal(size=(len(ids), 36)).astype(dtype)
        got = run("embedding_backward", grad, ids, len(counts))
        check_gradient(got, grad[:-2], ids[:-2], len(counts))


@pytest.mark.parametrize("integer", INTEGERS)
def test_any_integer_dtype_and_layout(rng, integer):
    ids = rng.integers(0, 50, size=(6, 8)).astype(integer)
    weight = rng.normal(size=(50, 20)).astype(np.float32)
    for view in (ids.T, ids[::-2, 1::3], ids[:0]):
        np.testing.assert_array_equal(run("embedding", view, weight), weight[view])
        grad = rng.normal(size=(*view.shape, 20)).astype(np.float32)
        check_gradient(run("embedding_backward", grad, view, 50), grad, view, 50)


@pytest.mark.parametrize("dtype", (np.float32, np.float16))
def test_strided_and_unaligned_tables(rng, dtype):
    ids = np.array([[3, 0], [1, 3]])
    wide = rng.normal(size=(8, 48)).astype(dtype)
    views = [wide[:, :5], wide[::2], wide[::-1], wide.T, wide[:, ::2], wide[:, 3:4], wide[:, :0]]
    views += [wide[:, at:][:, :n] for at in (1, 2, 4, 8) for n in (8, 12, 16, 18)]
    for table in views:
        np.testing.assert_array_equal(run("embedding", ids, table), table[ids])
    grad = wide[1:5, 1:21].reshape(2, 2, 20)
    check_gradient(run("embedding_backward", grad, ids, 4), grad, ids, 4)


@pytest.mark.parametrize("dtype", TYPES)
def test_ids_out_of_range_give_nan_and_no_gradient(rng, dtype):
    weight = rng.normal(size=(4, 9)).astype(dtype)
    ids = np.array([1, -1, 4, 3, 2**62, -(2**62)])
    y = run("embedding", ids, weight).astype(np.float32)
    np.testing.assert_array_equal(y[[0, 3]], weight[[1, 3]].astype(np.float32))
    assert np.isnan(y[[1, 2, 4, 5]]).all()
    assert np.isnan(run("embedding", np.array([2**64 - 1], np.uint64), weight).astype("f4")).all()
    assert np.isnan(run("embedding", np.array([0]), weight[:0]).astype("f4")).all()
    grad = rng.normal(size=(6, 9)).astype(dtype)
    got = run("embedding_backward", grad, ids, 4)
    np.testing.assert_array_equal(got[[1, 3]], grad[[0, 3]])
    assert not got[[0, 2]].any()


W, G, I = np.zeros((4, 3), np.float32), np.zeros((2, 3), np.float32), np.zeros(2, int)


@pytest.mark.parametrize(
    ("name", "arguments", "error", "message"),
    [
        ("embedding", (I + 0.5, W), TypeError, "ids dtype: expected an integer type, got float64"),
        ("embedding", (I, W[0]), ValueError, "weight ndim: expected 2, got 1"),
        ("embedding", (I, W.astype(int)), TypeError, "weight dtype: expected float16"),
        ("embedding", (np.zeros((1,) * 16, int), W), ValueError, "ids ndim"),
        ("embedding_backward", (G, I[:1], 4), ValueError, r"grad shape: expected ids.shape \(1,\)"),
        ("embedding_backward", (G, I, -1), ValueError, "num_embeddings value"),
        ("embedding_backward", (G.astype(int), I, 2), TypeError, "grad dtype"),
    ],
)
def test_bad_input(name, arguments, error, message):
    with pytest.raises(error, match=f"{name}: {message}"):
        getattr(cuda, name)(*map(dev, arguments))
