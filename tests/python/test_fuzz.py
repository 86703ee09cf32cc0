"""No call may crash the process: every op with arbitrary arguments returns or raises an ordinary error.

Under the sanitizers (`-m sanitize`) this also finds reads and writes outside the arrays.
"""

import inspect

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vectile import ops

OPS = sorted(n for n in dir(ops) if not n.startswith("_") and inspect.isfunction(getattr(ops, n)))
DTYPES = ["f4", "f8", "i1", "u1", "i4", "i8", "?", "f2", "c8", ">f4", "O", "U3"]
ORDINARY = (ValueError, TypeError, IndexError, OverflowError, MemoryError)

shapes = st.lists(st.sampled_from([0, 1, 2, 3, 4, 5, 8, 17, 33]), max_size=4).map(tuple)


@st.composite
def arrays(draw, dtype=None, shape=None):
    dtype = np.dtype(dtype or draw(st.sampled_from(DTYPES)))
    shape = draw(shapes) if shape is None else shape
    seed = draw(st.integers(0, 99))
    a = np.asarray(np.random.default_rng(seed).normal(size=shape) * 3).astype(dtype)
    if a.ndim and draw(st.booleans()):
        a = a.transpose(draw(st.permutations(range(a.ndim))))
    if a.ndim and draw(st.booleans()):
        a = a[tuple(slice(None, None, draw(st.sampled_from([1, -1, 2]))) for _ in a.shape)]
    if draw(st.booleans()):
        a = np.broadcast_to(a, (2, *a.shape))
    return a


junk = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.integers(-3, 3),
    st.floats(),
    st.sampled_from(["mean", "none", "tanh", "relu", "", "\0"]),
    st.lists(st.integers(-3, 40), max_size=3),
    st.just(object()),
)


@st.composite
def arguments(draw, op):
    """Mostly plausible arguments: arrays that share a dtype and often a shape, junk now and then."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(shapes)
    plausible = st.one_of(arrays(dtype, shape), arrays("f4", shape), arrays("i8"), arrays())
    positional, keyword = [], {}
    for p in inspect.signature(op).parameters.values():
        if p.default is not p.empty and draw(st.booleans()):
            if p.kind is p.POSITIONAL_OR_KEYWORD and draw(st.booleans()):
                break
            continue
        value = draw(st.one_of(plausible, plausible, st.lists(plausible, max_size=3), junk))
        if (
            p.kind is p.KEYWORD_ONLY
            or keyword
            or len(positional) < list(inspect.signature(op).parameters).index(p.name)
        ):
            keyword[p.name] = value
        else:
            positional.append(value)
    return positional, keyword


@pytest.mark.sanitize
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", OPS)
def test_arbitrary_arguments(name):
    op = getattr(ops, name)

    @settings(
        max_examples=120, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(arguments(op))
    def run(call):
        positional, keyword = call
        try:
            op(*positional, **keyword)
        except ORDINARY as error:
            assert str(error)

    run()
