"""cast on a device against the CPU's, bit by bit: every pattern of the small types, a sweep of the wide."""

import numpy as np
import pytest
from on_device import cuda, dev, host, needs_device
from test_cast import FLOATS, SMALL, assert_same, between, patterns

from vectile import ops

pytestmark = [
    needs_device,
    pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning"),  # signalling NaN
    pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning"),
]


def cast(x, dtype):
    return host(cuda.cast(dev(x), np.dtype(dtype)))


@pytest.mark.parametrize("small", SMALL, ids=str)
def test_every_pattern(small):
    x = patterns(small)
    for wide in FLOATS:
        assert_same(cast(x, wide), ops.cast(x, wide))


@pytest.mark.parametrize("wide", [np.float32, np.float64])
@pytest.mark.parametrize("small", SMALL, ids=str)
def test_narrowing_rounds_once(small, wide):
    x = between(small, np.dtype(wide))
    x = x[:: max(1, len(x) // 20_000 * 2 + 1)]  # an odd step: each kind of neighbour
    assert_same(cast(x, small), ops.cast(x, small))


def test_a_float64_between_two_float32_around_a_tie():
    x = np.array([1 + 2.0**-11 + 2.0**-40, 1 + 2.0**-11 - 2.0**-40, 1 + 2.0**-11])
    x = np.concatenate([x, -x])
    np.testing.assert_array_equal(cast(x, np.float16), x.astype(np.float16))


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0, 2), (257,), (3, 5, 7)])
def test_shapes_and_strides(rng, shape):
    x = rng.standard_normal(shape)
    assert_same(cast(x, np.float32), x.astype(np.float32))
    assert_same(cast(x.T, np.float64), np.array(x.T, order="C"))


def test_errors():
    x = np.zeros(2, np.float32)
    for a, kind in ((x.astype(np.int32), np.float32), (x, np.int32), (x, np.bool_), (x, "U3")):
        with pytest.raises(TypeError) as there:
            cast(a, kind)
        if kind != "U3":
            with pytest.raises(TypeError) as here:
                ops.cast(a, kind)
            assert str(there.value) == str(here.value)
