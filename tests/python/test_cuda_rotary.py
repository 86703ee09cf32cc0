"""rotary_embedding on a device against float64 and the CPU's op."""

import ml_dtypes
import numpy as np
import pytest
from on_device import needs_device, run

from vectile import ops

pytestmark = needs_device

TYPES = (np.float32, np.float64, np.float16, ml_dtypes.bfloat16)
# Pairs about the vectors of a thread (2, 4, 8) and of the 256 of a block; elements past the pairs.
LENGTHS = [(0, 3), (1, 0), (2, 1), (4, 0), (7, 2), (8, 0), (9, 0), (16, 8), (33, 1)]
LONG = [(1023, 0), (1025, 2), (2050, 1)]


def turned(x, cosine, sine, interleaved):
    """The definition, in float64."""
    y, pairs = x.astype(np.float64), cosine.shape[-1]
    x, cosine, sine = y.copy(), cosine.astype(np.float64), sine.astype(np.float64)
    a = slice(0, 2 * pairs, 2) if interleaved else slice(0, pairs)
    b = slice(1, 2 * pairs, 2) if interleaved else slice(pairs, 2 * pairs)
    y[..., a] = x[..., a] * cosine - x[..., b] * sine
    y[..., b] = x[..., b] * cosine + x[..., a] * sine
    return y


def tables(rng, shape, dtype):
    angle = rng.normal(size=shape)
    return np.cos(angle).astype(dtype), np.sin(angle).astype(dtype)


def check(x, cosine, sine, interleaved):
    """Both ways: two products and a sum of at most |x| each, and a rounding to the type."""
    eps = float(ml_dtypes.finfo(x.dtype).eps)
    top = abs(x.astype(np.float64)).max(initial=0)
    for inverse in (False, True):
        y = run("rotary_embedding", x, cosine, sine, interleaved, inverse)
        assert y.dtype == x.dtype and y.shape == x.shape
        want = turned(x, cosine, -sine if inverse else sine, interleaved)
        np.testing.assert_allclose(y.astype(np.float64), want, rtol=0, atol=4 * eps * top)
        other = ops.rotary_embedding(x, cosine, sine, interleaved=interleaved, inverse=inverse)
        other = other.astype(np.float64)
        np.testing.assert_allclose(y.astype(np.float64), other, rtol=0, atol=2 * eps * top)


@pytest.mark.parametrize("interleaved", (False, True))
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("pairs", "rest"), LENGTHS + LONG)
def test_lengths(rng, pairs, rest, dtype, interleaved):
    shape = (2, pairs) if (pairs, rest) in LONG else (2, 3, 5, pairs)
    x = rng.normal(size=(*shape[:-1], 2 * pairs + rest)).astype(dtype)
    check(
        x, *tables(rng, shape[-2:], np.float64 if dtype == np.float64 else np.float32), interleaved
    )


@pytest.mark.parametrize("interleaved", (False, True))
@pytest.mark.parametrize("lead", ((), (1,), (3,), (1, 3), (2, 1), (2, 3)))
def test_tables_broadcast(rng, lead, interleaved):
    x = rng.normal(size=(2, 3, 5, 10)).astype(np.float32)
    check(x, *tables(rng, (*lead, 5, 4), np.float32), interleaved)


@pytest.mark.parametrize("interleaved", (False, True))
@pytest.mark.parametrize("dtype", TYPES)
def test_strides(rng, dtype, interleaved):
    base = rng.normal(size=(2, 6, 4, 40)).astype(dtype)
    views = (
        base.swapaxes(1, 2),  # (batch, length, head, n), read in place
        base[:, ::-2],
        base[..., 1:33],  # rows that begin between vectors
        base[..., ::2],
        base.swapaxes(-1, -2),
        np.broadcast_to(base[:1, :1], base.shape),
    )
    for x in views:
        table = (x.shape[-2], x.shape[-1] // 2)
        kind = np.float64 if dtype == np.float64 else np.float32
        cosine, sine = tables(rng, (table[0], 2 * table[1]), kind)
        check(x, cosine[:, ::2], sine[:, ::2], interleaved)


@pytest.mark.parametrize("dtype", (np.float16, ml_dtypes.bfloat16))
def test_tables_of_a_half_type(rng, dtype):
    x = rng.normal(size=(3, 16)).astype(dtype)
    check(x, *tables(rng, (3, 8), dtype), False)


@pytest.mark.parametrize("shape", ((0, 4), (3, 0), (0, 2, 4), (2, 0, 4)))
def test_empty_arrays(shape):
    table = np.zeros((shape[-2], shape[-1] // 2), np.float32)
    assert run("rotary_embedding", np.zeros(shape, np.float32), table, table).shape == shape


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((np.ones(4), np.ones((1, 2)), np.ones((1, 2))), ValueError, "x ndim: expected at least 2"),
        ((np.ones((3, 4)), np.ones(2), np.ones(2)), ValueError, "cosine ndim"),
        ((np.ones((3, 4)), np.ones((3, 3)), np.ones((3, 3))), ValueError,
         "cosine pairs: expected at most 2, got 3"),
        ((np.ones((3, 4)), np.ones((2, 2)), np.ones((2, 2))), ValueError,
         "cosine length: expected 3, got 2"),
        ((np.ones((3, 4)), np.ones((3, 2)), np.ones((3, 1))), ValueError, "sine shape"),
        ((np.ones((2, 3, 4)), np.ones((3, 3, 2)), np.ones((3, 3, 2))), ValueError, "cosine shape"),
        ((np.ones((3, 4)), np.ones((3, 2), "f4"), np.ones((3, 2), "f4")), TypeError, "cosine dtype"),
        ((np.ones((3, 4), int), np.ones((3, 2)), np.ones((3, 2))), TypeError, "x dtype"),
    ],
)  # fmt: skip
def test_bad_input(arguments, error, message):
    with pytest.raises(error, match="^rotary_embedding: " + message):
        run("rotary_embedding", *arguments)
