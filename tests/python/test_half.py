"""float16 and bfloat16 through every public op: float64 results within the storage's rounding.

Arguments are rounded to the half type first, so what is measured is what the op adds: one rounding of
each result (half a unit in the last place, u = 2**-11 or 2**-8 relative) and float32 arithmetic inside.
"""

import inspect

import ml_dtypes
import numpy as np
import pytest

from vectile import ops
from vectile.ops import gemm_s8

HALVES = [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)]
U = {HALVES[0]: 2.0**-11, HALVES[1]: 2.0**-8}
TINY = {HALVES[0]: 2.0**-25, HALVES[1]: 2.0**-134}  # half the smallest subnormal
# A sum of up to 50,000 float32 products in blocks, relative to the largest result of the call.
FLOAT32 = 2e-5


@pytest.fixture(params=HALVES, ids=str)
def half(request):
    return request.param


class State:
    """An array that stays float32 beside a half type: statistics, kept activations, moments."""

    def __init__(self, array):
        self.array = array


def given(x, kind):
    """Arguments with every float64 array in `kind`."""
    if isinstance(x, State):
        wide = np.float32 if kind.itemsize == 2 else kind
        return x.array.astype(wide)
    if isinstance(x, np.ndarray) and x.dtype == np.float64:
        return x.astype(kind)
    if isinstance(x, (list, tuple)):
        return type(x)(given(v, kind) for v in x)
    return x


def laid_out(x, layout):
    if isinstance(x, State):
        return State(layout(x.array))
    if isinstance(x, (list, tuple)):
        return type(x)(laid_out(v, layout) for v in x)
    return layout(x) if isinstance(x, np.ndarray) and x.ndim else x


def flat(x):
    return [a for v in x for a in flat(v)] if isinstance(x, (list, tuple)) else [x]


def strided(x):
    """The same values, backwards in memory with a gap after each."""
    wide = np.repeat(np.flip(x), 2, -1)
    return np.flip(wide[..., ::2])


LAYOUTS = [np.ascontiguousarray, np.asfortranarray, strided]

RNG = np.random.default_rng(7)


def normal(*shape):
    return RNG.normal(size=shape)


IDS = RNG.integers(0, 9, (4, 5))
TARGETS = np.array([3, 0, -100, 11, 5])
# Blocks of 4 tokens of two heads, tables of two sequences, and lengths.
CACHE = [normal(5, 2, 4, 8), normal(5, 2, 4, 5), np.array([[4, 1], [0, 3]]), np.array([7, 3])]
IMAGE, KERNEL = normal(2, 4, 9, 8), normal(6, 4, 3, 3)
LINE, TAPS = normal(2, 4, 19), normal(6, 4, 3)
HEADS = [normal(2, 4, 7, 8), normal(2, 2, 9, 8), normal(2, 2, 9, 5)]
T, B, I, H = 4, 3, 5, 6
CELLS = {"rnn": 1, "lstm": 4, "gru": 3}


def recurrent(cell):
    gates = CELLS[cell]
    state = [normal(B, H)] * (2 if cell == "lstm" else 1)
    weights = [0.3 * normal(gates * H, I), 0.3 * normal(gates * H, H)]
    return [normal(T, B, I), *state, *weights, normal(gates * H), normal(gates * H)]


def recurrent_backward(cell):
    arguments = recurrent(cell)
    rounded = [a.astype(np.float16).astype(np.float64) for a in arguments]
    *results, kept = getattr(ops, cell)(*rounded, return_kept=True)
    states, *others = kept
    kept = (states, *[None if k is None else State(k) for k in others])
    return [tuple(normal(*r.shape) for r in results), kept, *rounded[:-2]]


def attention_backward():
    q, k, v = HEADS
    q, k, v = (x.astype(np.float16).astype(np.float64) for x in (q, k, v))
    out, lse = ops.scaled_dot_product_attention(q, k, v, return_lse=True)
    return [normal(*out.shape), q, k, v, out, State(lse)]


def row_statistics(x):
    x = x.astype(np.float16).astype(np.float64)
    return State(x.mean(-1)), State(1 / x.std(-1))


def norm_backward(shape, groups=None):
    x = normal(*shape)
    axes = {None: -1, "batch": (0, *range(2, x.ndim))}.get(groups, -1)
    at = x.reshape(shape[0], groups, -1) if isinstance(groups, int) else x
    return x, State(at.mean(axes)), State(1 / at.std(axes))


def lists(count, states):
    arrays = [normal(130), normal(3, 50), normal(40_000)]
    return [
        [(State if i >= count - states else np.asarray)(a + i) for a in arrays]
        for i in range(count)
    ]


def positive(arguments, places):
    """Second moments."""
    for i in places:
        arguments[i] = [State(np.abs(s.array)) for s in arguments[i]]
    return arguments


def pooled_indices():
    return ops.max_pool(IMAGE, (2, 2), return_indices=True)[1]


# op: (arguments, keywords); those with the signatures of elementwise ops are derived below.
CASES = {
    "add_layer_norm": lambda: (
        [normal(67, 700), normal(67, 700), normal(700), normal(700)],
        {"return_stats": True},
    ),
    "add_rms_norm": lambda: ([normal(67, 700), normal(67, 700), normal(700)], {}),
    "bias_activation_dropout": lambda: ([normal(67, 700), normal(700), "gelu", 0.3, 5], {}),
    "bias_activation_dropout_backward": lambda: (
        [normal(67, 700), normal(67, 700), normal(700), "gelu", 0.3, 5],
        {},
    ),
    "adam_": lambda: (positive(lists(4, 2), [3]), {"lr": 0.1, "step": 3}),
    "adamw_": lambda: (positive(lists(4, 2), [3]), {"lr": 0.1, "step": 3}),
    "adaptive_avg_pool": lambda: ([IMAGE, (3, 2)], {}),
    "adaptive_avg_pool1d": lambda: ([LINE, 4], {}),
    "adaptive_avg_pool2d": lambda: ([IMAGE, 3], {}),
    "adaptive_avg_pool_backward": lambda: ([normal(2, 4, 3, 2), (9, 8)], {}),
    "adaptive_max_pool": lambda: ([IMAGE, (3, 2)], {}),
    "adaptive_max_pool1d": lambda: ([LINE, 4], {}),
    "adaptive_max_pool2d": lambda: ([IMAGE, 3], {}),
    "append_to_cache": lambda: ([normal(2, 2, 1, 8), normal(2, 2, 1, 5), *CACHE], {}),
    "avg_pool": lambda: ([IMAGE, (2, 2)], {}),
    "avg_pool1d": lambda: ([LINE, 3], {}),
    "avg_pool2d": lambda: ([IMAGE, 2], {}),
    "avg_pool_backward": lambda: ([normal(2, 4, 4, 4), (9, 8), (2, 2)], {}),
    "batch_norm": lambda: (
        [IMAGE, State(normal(4)), State(normal(4) ** 2), normal(4), normal(4), True],
        {},
    ),
    "batch_norm_backward": lambda: (
        lambda x, m, s: ([normal(*x.shape), x, normal(4), m, s, True], {})
    )(*norm_backward((2, 4, 9, 8), "batch")),
    "conv1d": lambda: ([LINE, TAPS, normal(6)], {}),
    "conv1d_input_grad": lambda: ([normal(2, 6, 17), TAPS, (2, 4, 19)], {}),
    "conv1d_weight_grad": lambda: ([normal(2, 6, 17), LINE, (6, 4, 3)], {}),
    "conv2d": lambda: ([IMAGE, KERNEL, normal(6)], {}),
    "conv2d_input_grad": lambda: ([normal(2, 6, 7, 6), KERNEL, (2, 4, 9, 8)], {}),
    "conv2d_weight_grad": lambda: ([normal(2, 6, 7, 6), IMAGE, (6, 4, 3, 3)], {}),
    "conv_transpose1d": lambda: ([LINE, normal(4, 6, 3), normal(6)], {}),
    "conv_transpose2d": lambda: ([IMAGE, normal(4, 6, 3, 3), normal(6)], {}),
    "cross_entropy": lambda: ([normal(5, 12), TARGETS], {}),
    "cross_entropy_backward": lambda: (
        lambda x: ([np.array(0.7), x, TARGETS, State(np.log(np.exp(x).sum(-1)))], {})
    )(normal(5, 12).astype(ml_dtypes.bfloat16).astype(float)),
    "decode_attention": lambda: ([normal(2, 4, 2, 8), *CACHE], {}),
    "dequantize_linear": lambda: ([IDS.astype(np.int8), np.array(0.05)], {}),
    "dropout": lambda: ([normal(67, 700), 0.3, 5], {}),
    "dynamic_quantize_linear": lambda: ([normal(67, 700)], {}),
    "embedding": lambda: ([IDS, normal(9, 33)], {}),
    "embedding_backward": lambda: ([normal(4, 5, 33), IDS, 9], {}),
    "global_norm": lambda: ([[normal(67, 700), normal(3)]], {}),
    "group_norm": lambda: ([IMAGE, 2, normal(4), normal(4)], {}),
    "group_norm_backward": lambda: (
        lambda x, m, s: ([normal(*x.shape), x, 2, normal(4), m, s], {})
    )(*norm_backward((2, 4, 9, 8), 2)),
    "gru": lambda: (recurrent("gru"), {}),
    "gru_backward": lambda: (recurrent_backward("gru"), {}),
    "interpolate": lambda: ([IMAGE, (13, 5)], {"mode": "linear"}),
    "interpolate_backward": lambda: ([normal(2, 4, 13, 5), (9, 8)], {"mode": "linear"}),
    "layer_norm": lambda: ([normal(67, 700), normal(700), normal(700)], {}),
    "layer_norm_backward": lambda: (lambda x, m, s: ([normal(67, 700), x, normal(700), m, s], {}))(
        *norm_backward((67, 700))
    ),
    "leaky_relu": lambda: ([normal(67, 700), 0.1], {}),
    "leaky_relu_backward": lambda: ([normal(67, 700), normal(67, 700), 0.1], {}),
    "linear": lambda: ([normal(7, 33), normal(9, 33), normal(9)], {"activation": "gelu"}),
    "log_softmax": lambda: ([normal(67, 700)], {}),
    "log_softmax_backward": lambda: ([normal(67, 700), -np.abs(normal(67, 700)) - 6], {}),
    "lstm": lambda: (recurrent("lstm"), {}),
    "lstm_backward": lambda: (recurrent_backward("lstm"), {}),
    "matmul": lambda: ([normal(3, 17, 33), normal(33, 9)], {}),
    "max": lambda: ([normal(67, 700)], {"axis": 0}),
    "max_pool": lambda: ([IMAGE, (3, 2)], {}),
    "max_pool1d": lambda: ([LINE, 3], {}),
    "max_pool2d": lambda: ([IMAGE, 2], {}),
    "max_pool_backward": lambda: ([normal(2, 4, 4, 4), pooled_indices(), (9, 8)], {}),
    "mean": lambda: ([normal(67, 700)], {"axis": 1}),
    "min": lambda: ([normal(67, 700)], {}),
    "pack": lambda: ([normal(7, 33), normal(9, 33), normal(9)], {}),
    "prelu": lambda: ([normal(5, 4, 33), normal(4)], {}),
    "prelu_backward": lambda: ([normal(5, 4, 33), normal(5, 4, 33), normal(4)], {}),
    "quantize_linear": lambda: ([normal(67, 700), np.array(0.05), np.int8(3)], {}),
    "rms_norm": lambda: ([normal(67, 700), normal(700)], {}),
    "rms_norm_backward": lambda: (lambda x, m, s: ([normal(67, 700), x, normal(700), s], {}))(
        *norm_backward((67, 700))
    ),
    "rmsprop_": lambda: (positive(lists(3, 1), [2]), {"lr": 0.1}),
    "rnn": lambda: (recurrent("rnn"), {}),
    "rnn_backward": lambda: (recurrent_backward("rnn"), {}),
    "rotary_embedding": lambda: ([normal(2, 5, 70), normal(5, 33), normal(5, 33)], {}),
    "scale_": lambda: ([lists(1, 0)[0], 0.5], {}),
    "scaled_dot_product_attention": lambda: (HEADS, {"is_causal": True}),
    "scaled_dot_product_attention_backward": lambda: (attention_backward(), {}),
    "sgd_": lambda: (lists(3, 1), {"lr": 0.1, "momentum": 0.5}),
    "softmax": lambda: ([normal(67, 700)], {"axis": 0}),
    "softmax_backward": lambda: ([normal(67, 700), np.abs(normal(67, 700)) / 700], {}),
    "sum": lambda: ([normal(67, 20, 35)], {"axis": (0, 2)}),
    "sum_to": lambda: ([normal(67, 700), (1, 700)], {}),
}
SHAPES = {  # of ops that are derived from their signature
    ("x", "out"): lambda: [normal(67, 700)],
    ("x", "approximate", "out"): lambda: [normal(67, 700)],
    ("grad", "x"): lambda: [normal(67, 700), normal(67, 700)],
    ("grad", "x", "approximate"): lambda: [normal(67, 700), normal(67, 700)],
    ("grad", "y"): lambda: [normal(67, 700), normal(67, 700)],
    ("a", "b", "out"): lambda: [normal(67, 700), normal(67, 1)],
}
# Their float operands are quantised, or conversion itself is what they do.
WITHOUT = {*gemm_s8.__all__, "cast", "quantize_fp8"}
EVERY = [
    n
    for n in sorted(dir(ops))
    if inspect.isfunction(getattr(ops, n)) and not n.startswith("_") and n not in WITHOUT
]


def decode(query, keys, values, tables, lengths):
    return ops.decode_attention(query, *map(np.ascontiguousarray, (keys, values)), tables, lengths)


def append(key, value, keys, values, tables, lengths):
    caches = [np.ascontiguousarray(keys), np.ascontiguousarray(values)]
    ops.append_to_cache(key, value, *caches, tables, lengths)
    return tuple(caches)


CALLS = {
    "pack": lambda x, w, b: ops.linear(x, ops.pack(w), b),
    "append_to_cache": append,
    "decode_attention": decode,
}


def case(name):
    if name in CASES:
        return CASES[name]()
    names = tuple(inspect.signature(getattr(ops, name)).parameters)
    assert names in SHAPES, f"{name}{names}: write a case for half precision"
    return SHAPES[names](), {}


def outcome(name, arguments, keywords):
    """The results, or for an op that writes its arguments those."""
    results = CALLS.get(name, getattr(ops, name))(*arguments, **keywords)
    if results is None:
        return [a for a in flat(arguments) if isinstance(a, np.ndarray)]
    return [
        np.asarray(r)
        for r in flat(results if isinstance(results, tuple) else [results])
        if r is not None
    ]


def assert_close(got, want, kind):
    """Within one rounding to `kind` and float32 arithmetic of `want`, both NaN or both infinite."""
    got, want = got.astype(np.float64), want.astype(np.float64)
    assert got.shape == want.shape
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    finite = np.isfinite(want)
    top = np.abs(want[finite]).max(initial=0)
    inner = FLOAT32 * top
    bound = U[kind] * (np.abs(want) + inner) + inner + TINY[kind]
    assert np.all(np.abs(got - want)[finite] <= bound[finite])
    infinite = np.isinf(want)
    np.testing.assert_array_equal(got[infinite], want[infinite])


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.filterwarnings("ignore")
def test_against_float64(isa, half, name):
    arguments, keywords = case(name)
    for layout in LAYOUTS:
        rounded = given(laid_out(arguments, layout), half)
        exact = given(laid_out(given_again(arguments, half), layout), np.dtype(np.float64))
        got = outcome(name, rounded, keywords)
        want = outcome(name, exact, keywords)
        assert len(got) == len(want)
        for g, w in zip(got, want, strict=True):
            if w.dtype == np.float64:
                assert g.dtype in (half, np.float32, np.float64)
                assert_close(g, w, half)
            else:
                assert g.dtype == w.dtype
                if w.dtype.kind in "iu":  # codes: a tie may fall either way in float32
                    assert np.abs(g.astype(int) - w.astype(int)).max(initial=0) <= 1
        if name not in ("dynamic_quantize_linear", "global_norm", "quantize_linear"):
            assert got[0].dtype == half


def given_again(x, kind):
    """The values that `given` keeps, in float64."""
    if isinstance(x, State):
        return State(x.array.astype(np.float32).astype(np.float64))
    if isinstance(x, np.ndarray) and x.dtype == np.float64:
        return x.astype(kind).astype(np.float64)
    if isinstance(x, (list, tuple)):
        return type(x)(given_again(v, kind) for v in x)
    return x


ROWWISE = ["softmax", "log_softmax", "layer_norm", "rms_norm", "gelu", "add", "exp", "sum", "mean"]


@pytest.mark.parametrize("shape", [(0, 7), (3, 0), (1, 1), (1, 40_001), (5, 31)], ids=str)
@pytest.mark.parametrize("name", ROWWISE)
@pytest.mark.filterwarnings("ignore")
def test_shapes(half, name, shape):
    x = normal(*shape).astype(half)
    arguments = [x, x] if name == "add" else [x]
    op = getattr(ops, name)
    got, want = op(*arguments), op(*[a.astype(float) for a in arguments])
    assert got.dtype == half
    assert_close(got, want, half)


def test_threads(half, same_for_any_thread_count):
    x, w = normal(301, 700).astype(half), normal(700).astype(np.float32)
    _, mean, rstd = ops.layer_norm(x, w, return_stats=True)
    for f in (
        lambda: ops.gelu(x),
        lambda: ops.softmax(x),
        lambda: ops.sum(x, 0),
        lambda: ops.layer_norm_backward(x, x, w, mean, rstd)[1],
        lambda: ops.add(x, x[0]),
    ):
        same_for_any_thread_count(lambda f=f: np.asarray(f()).view(np.uint8))


def test_scalars_keep_float32_precision(half):
    x = normal(50).astype(half)
    got = ops.multiply(x, 1.001)
    assert got.dtype == half
    want = ops.cast(x.astype(np.float32) * np.float32(1.001), half)
    np.testing.assert_array_equal(got.view(np.uint16), want.view(np.uint16))
    np.testing.assert_array_equal(ops.multiply(1.001, x).view(np.uint16), want.view(np.uint16))


def test_out(half):
    x = normal(67, 700).astype(half)
    want = ops.exp(x)
    for out in (np.zeros_like(x), np.zeros((67, 1400), half)[:, ::2], x.copy()):
        source = out if out.shape == x.shape and np.array_equal(out, x) else x
        assert ops.exp(source, out=out) is out
        np.testing.assert_array_equal(out.view(np.uint16), want.view(np.uint16))
    a = normal(5, 6).astype(half)
    out = np.empty((5, 5), half)
    assert ops.matmul(a, a.T, out=out) is out
    np.testing.assert_array_equal(out, ops.matmul(a, a.T))


def test_norm_parameters_may_be_float32(half):
    x = normal(6, 40).astype(half)
    w, b = normal(40).astype(np.float32), normal(40).astype(np.float32)
    y, mean, rstd = ops.layer_norm(x, w, b, return_stats=True)
    assert (y.dtype, mean.dtype, rstd.dtype) == (half, np.float32, np.float32)
    dx, dw, db = ops.layer_norm_backward(y, x, w, mean, rstd)
    assert (dx.dtype, dw.dtype, db.dtype) == (half, np.float32, np.float32)


def test_running_statistics_of_a_half_type(half):
    x = normal(4, 3, 5).astype(half)
    mean, var = np.zeros(3, half), np.ones(3, half)
    wide = [np.zeros(3), np.ones(3)]
    ops.batch_norm(x, mean, var, training=True)
    ops.batch_norm(x.astype(float), *wide, training=True)
    assert_close(mean, wide[0], half)
    assert_close(var, wide[1], half)


def test_mixed_dtypes_are_refused(half):
    x, other = np.ones((4, 6), half), np.ones((4, 6), np.float32)
    another = np.ones((4, 6), HALVES[1 - HALVES.index(half)])
    for y in (other, another):
        for first, second in ((x, y), (y, x)):
            message = f"dtype: expected {second.dtype}|dtype: expected {first.dtype}"
            with pytest.raises(TypeError, match=message):
                ops.add(first, second)
            with pytest.raises(TypeError, match=message):
                ops.matmul(first, second.T)
            with pytest.raises(TypeError, match=message):
                ops.linear(first, second)
            with pytest.raises(TypeError, match="key dtype: expected"):
                ops.scaled_dot_product_attention(first, second, second)
            with pytest.raises(TypeError, match="weight dtype: expected"):
                ops.conv1d(first, second[None].repeat(4, 1))
            with pytest.raises(TypeError, match="grad dtype: expected"):
                ops.softmax_backward(first, second)
    with pytest.raises(TypeError, match=f"weight dtype: expected {half} or float32, got float64"):
        ops.layer_norm(x, np.ones(6))
    with pytest.raises(TypeError, match="weight dtype: expected float32, got"):
        ops.layer_norm(other, x[0])
    with pytest.raises(
        TypeError, match=r"exp_avgs\[0\] dtype: expected .* or float32, got float64"
    ):
        ops.adam_([x], [x], [np.ones((4, 6))], [np.ones((4, 6))], lr=0.1, step=1)
    with pytest.raises(TypeError, match=r"grads\[0\] dtype: expected"):
        ops.sgd_([x], [other], lr=0.1)


@pytest.mark.parametrize("kind", [ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2])
@pytest.mark.parametrize("source", [*HALVES, np.dtype(np.float32), np.dtype(np.float64)], ids=str)
def test_float8_with_scales(isa, source, kind):
    x = (100 * normal(5, 330)).astype(source)
    largest = float(ml_dtypes.finfo(kind).max)
    for scale, axis in ((np.float32(0.03), None), (np.linspace(0.01, 3, 5, dtype=np.float32), 0)):
        s = scale.astype(np.float64) if source == np.float64 else scale
        q = ops.quantize_linear(x, s, np.zeros(np.shape(s), kind), axis)
        assert q.dtype == kind
        work = np.float64 if source == np.float64 else np.float32
        along = np.reshape(s, (-1, 1)) if axis == 0 else s
        want = np.clip(x.astype(work) / along, -largest, largest)
        np.testing.assert_array_equal(q.view(np.uint8), ops.cast(want, kind).view(np.uint8))
        back = ops.dequantize_linear(q, s, axis=axis)
        np.testing.assert_array_equal(back, q.astype(work) * along)
    with pytest.raises(ValueError, match="zero_point value: expected 0"):
        ops.quantize_linear(x, s, np.ones(5, kind), 0)
