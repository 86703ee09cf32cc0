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


# Sizes between would fit into memory, and take minutes or all of it.
small_or_vast = st.integers(-(2**70), 2**70).filter(lambda n: not 2**12 < abs(n) < 2**45)
junk = st.one_of(
    st.none(),
    st.booleans(),
    small_or_vast,
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


F = np.float32
X, POSITIVE = (np.random.default_rng(0).normal(size=(4, 6)).astype(F) ** e for e in (1, 2))
ROW, COLUMN, IDS = X[0], X[:, 0], np.array([0, 3, 1, 5])
BYTES = np.arange(24, dtype=np.uint8).reshape(4, 6)
HEADS, IMAGE = X.reshape(2, 4, 3), np.ones((2, 4, 3), F)
LSE = np.zeros((2, 4), F)


def lists(count):
    return [[np.ones((3, 5), F), np.ones(7, F)] for _ in range(count)]


def attention_options():
    """Every option of attention, for HEADS of two heads of four queries and keys."""
    return {
        "attn_mask": np.ones((4, 4), bool),
        "is_causal": True,
        "window": (2, None),
        "block_mask": np.ones((2, 2), bool),
        "block_size": 2,
        "key_lengths": np.array(3),
        "cu_seqlens_q": np.array([0, 1, 4]),
        "cu_seqlens_k": np.array([0, 2, 4]),
        "document_ids": np.array([0, 1, 0, 1]),
        "scale": 0.5,
        "softcap": 2.0,
        "alibi_slopes": np.ones(2, F),
        "sinks": np.ones(2, F),
        "rotary": (np.ones((4, 1), F), np.zeros((4, 1), F)),
        "rotary_interleaved": True,
        "dropout_p": 0.3,
        "seed": 5,
    }


def cache():
    """Two sequences in blocks of four tokens of one head: what both ops of the cache take."""
    key, value = np.ones((3, 1, 4, 3), F), np.ones((3, 1, 4, 2), F)
    return [key, value, np.array([[0, 1], [2, 0]]), np.array([4, 3])]


# op: a call that fits, from which the fuzzer strays by an argument or two
FITTING = {
    "adam_": lambda: (lists(4), {"lr": 0.1, "step": 1}),
    "append_to_cache": lambda: (
        [np.ones((2, 1, 2, 3), F), np.ones((2, 1, 2, 2), F), *cache()],
        {"counts": np.array([2, 1])},
    ),
    "adamw_": lambda: (lists(4), {"lr": 0.1, "step": 1}),
    "batch_norm": lambda: ([IMAGE, None, None, ROW[:4], ROW[:4], True], {}),
    "cross_entropy": lambda: ([X, IDS], {}),
    "cross_entropy_backward": lambda: ([F(1), X, IDS, COLUMN], {}),
    "decode_attention": lambda: (
        [np.ones((2, 2, 2, 3), F), *cache()],
        {
            "scale": 0.5,
            "window": (2, 0),
            "softcap": 2.0,
            "alibi_slopes": np.ones(2, F),
            "sinks": np.ones(2, F),
        },
    ),
    "dequantize_linear": lambda: ([BYTES, POSITIVE[0], BYTES[0]], {"axis": 1}),
    "dropout": lambda: ([X, 0.5, 3], {}),
    "embedding": lambda: ([IDS, np.ones((6, 3), F)], {}),
    "embedding_backward": lambda: ([X, IDS, 6], {}),
    "layer_norm": lambda: ([X, ROW, ROW], {}),
    "layer_norm_backward": lambda: ([X, X, ROW, COLUMN, COLUMN], {}),
    "linear": lambda: ([X, np.ones((3, 6), F), np.ones(3, F)], {"activation": "relu"}),
    "matmul": lambda: ([X, X.T], {}),
    "matmul_integer": lambda: ([BYTES, BYTES.T], {}),
    "qlinear_matmul": lambda: (
        [BYTES, F(1), np.uint8(0), BYTES.T, F(1), np.uint8(0), F(1), np.uint8(0)],
        {},
    ),
    "quantize_linear": lambda: ([X, POSITIVE[0], BYTES[0]], {"axis": 1}),
    "rms_norm_backward": lambda: ([X, X, ROW, COLUMN], {}),
    "rmsprop_": lambda: (lists(3), {"lr": 0.1}),
    "rotary_embedding": lambda: ([X, X[:, :2], X[:, :2]], {"interleaved": True}),
    "scale_": lambda: ([lists(1)[0], 0.5], {}),
    "scaled_dot_product_attention": lambda: ([HEADS, HEADS, HEADS], attention_options()),
    "scaled_dot_product_attention_backward": lambda: ([HEADS] * 5 + [LSE], attention_options()),
    "sgd_": lambda: (lists(3), {"lr": 0.1, "momentum": 0.5}),
    "softmax_backward": lambda: ([X, X], {}),
    "sum_to": lambda: ([X, (1, 6)], {}),
}


def unaligned(x):
    """The same values at an odd address."""
    x = np.asarray(x)
    out = np.empty(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    out[...] = x
    return out


def reversed_strides(x):
    return np.flip(np.flip(x).copy())


def read_only(x):
    x = np.array(x)
    x.flags.writeable = False
    return x


LAYOUTS = [np.asfortranarray, unaligned, reversed_strides, read_only]


def lacking(name):
    """The fitting call with None for each argument in turn, and for each part of a pair or list."""
    positional, keyword = FITTING[name]()
    for key in [*range(len(positional)), *keyword]:
        owner = positional if isinstance(key, int) else keyword
        known = owner[key]
        values = [None]
        if isinstance(known, (tuple, list)):
            values += [type(known)([*known[:i], None, *known[i + 1 :]]) for i in range(len(known))]
        for value in values:
            owner[key] = value
            yield positional, keyword
        owner[key] = known


@st.composite
def strayed(draw, name):
    """The fitting call with up to two arguments replaced by others, some of the same shape."""
    positional, keyword = FITTING[name]()
    places = st.sampled_from([*range(len(positional)), *keyword])
    for key in draw(st.lists(places, unique=True, max_size=2)):
        owner = positional if isinstance(key, int) else keyword
        known = owner[key]
        shape = np.shape(known) if isinstance(known, np.ndarray) else None
        if isinstance(known, (np.ndarray, list)) and draw(st.booleans()):
            layout = draw(st.sampled_from(LAYOUTS))
            owner[key] = [*map(layout, known)] if isinstance(known, list) else layout(known)
        else:
            owner[key] = draw(st.one_of(arrays("f4", shape), arrays(None, shape), arrays(), junk))
    return positional, keyword


@pytest.mark.sanitize
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FITTING)
def test_arguments_that_almost_fit(name):
    op, completed = getattr(ops, name), 0

    @settings(
        max_examples=120, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(strayed(name))
    def run(call):
        nonlocal completed
        positional, keyword = call
        try:
            op(*positional, **keyword)
            completed += 1
        except ORDINARY as error:
            assert str(error)

    run()
    assert completed >= 5


@pytest.mark.sanitize
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FITTING)
def test_arguments_that_are_none(name):
    for positional, keyword in lacking(name):
        try:
            getattr(ops, name)(*positional, **keyword)
        except ORDINARY as error:
            assert str(error)
