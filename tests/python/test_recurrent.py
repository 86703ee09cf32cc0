"""recurrent family against float64 definitions and torch's gradients, on every tier and thread count."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vectile import _core, ops

GATES = {"rnn_tanh": 1, "rnn_relu": 1, "lstm": 4, "gru": 3}
# (steps, batch, inputs, hidden): ones, primes, and on either side of every tier's tiles
SHAPES = [
    (1, 1, 1, 1),
    (3, 2, 4, 5),
    (5, 7, 3, 33),
    (2, 15, 17, 16),
    (2, 29, 5, 40),
    (3, 4, 5, 130),
    (7, 3, 8, 64),
    (1, 5, 7, 17),
    (3, 1, 9, 140),
    (2, 2, 3, 300),
]


@pytest.fixture(params=GATES)
def cell(request):
    return request.param


def draw(rng, cell, shape, dtype):
    """x, initial states and parameters; the map from state to state shrinks, so errors do not grow."""
    steps, batch, inputs, hidden = shape
    rows = GATES[cell] * hidden

    def normal(*shape, scale=1.0):
        return (rng.standard_normal(shape) * scale).astype(dtype)

    states = [normal(batch, hidden) for _ in range(2 if cell == "lstm" else 1)]
    w_hh = normal(rows, hidden, scale=0.3 / hidden)
    weights = normal(rows, inputs, scale=inputs**-0.5), w_hh, normal(rows), normal(rows)
    return normal(steps, batch, inputs), states, weights


def call(cell, x, states, weights, **options):
    """(results, the matching backward with its arguments filled in)."""
    if cell.startswith("rnn"):
        options["nonlinearity"] = cell[4:]
    name = cell.partition("_")[0]
    *results, kept = getattr(ops, name)(x, *states, *weights, return_kept=True, **options)

    def backward(grads):
        function = getattr(ops, name + "_backward")
        return function(grads, kept, x, *states, *weights[:2], **options)

    return results, backward


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def oracle(cell, x, states, weights, reverse=False, lengths=None):
    """The definitions of the docstrings, sequence by sequence."""
    x, *states = (a.astype(np.float64) for a in (x, *states))
    w_ih, w_hh, b_ih, b_hh = (0.0 if a is None else a.astype(np.float64) for a in weights)
    steps, batch, _ = x.shape
    hidden = w_hh.shape[1]
    y = np.zeros((steps, batch, hidden))
    finals = [np.array(s) for s in states]
    for b in range(batch):
        h, c = [s[b] for s in states] * (1 if len(states) == 2 else 2)
        length = steps if lengths is None else lengths[b]
        for t in reversed(range(length)) if reverse else range(length):
            u, v = w_ih @ x[t, b] + b_ih, w_hh @ h + b_hh
            if cell == "rnn_tanh":
                h = np.tanh(u + v)
            elif cell == "rnn_relu":
                h = np.maximum(u + v, 0)
            elif cell == "lstm":
                i, f, g, o = np.split(u + v, 4)
                c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
                h = sigmoid(o) * np.tanh(c)
            else:
                (ur, uz, un), (vr, vz, vn) = np.split(u, 3), np.split(v, 3)
                z = sigmoid(uz + vz)
                h = (1 - z) * np.tanh(un + sigmoid(ur + vr) * vn) + z * h
            y[t, b] = h
        for final, value in zip(finals, (h, c), strict=False):
            final[b] = value
    return [y, *finals]


def torch_gradients(cell, x, states, weights, grads, reverse=False, lengths=None):
    """Of torch's own modules in float64, one sequence at a time."""
    torch = pytest.importorskip("torch", reason="PyTorch is the reference for gradients")
    names = {"rnn_tanh": "RNN", "rnn_relu": "RNN", "lstm": "LSTM", "gru": "GRU"}
    kind = {"nonlinearity": cell[4:]} if cell.startswith("rnn") else {}
    steps, batch, inputs = x.shape
    hidden = states[0].shape[1]
    layer = getattr(torch.nn, names[cell])(inputs, hidden, dtype=torch.float64, **kind)
    with torch.no_grad():
        for parameter, value in zip(layer.parameters(), weights, strict=True):
            parameter.copy_(torch.tensor(value))
    leaves = [torch.tensor(a.astype("f8"), requires_grad=True) for a in (x, *states)]
    total = sum((leaf * 0).sum() for leaf in (*leaves, *layer.parameters()))
    for b in range(batch):
        length = steps if lengths is None else int(lengths[b])
        part = leaves[0][:length, b]
        h = [s[b][None] for s in leaves[1:]]
        if length:
            y, h = layer(part.flip(0) if reverse else part, tuple(h) if len(h) == 2 else h[0])
            y, h = y.flip(0) if reverse else y, h if isinstance(h, tuple) else (h,)
            total = total + (y * torch.tensor(grads[0][:length, b].astype("f8"))).sum()
        for value, g in zip(h, grads[1:], strict=True):
            total = total + (value[0] * torch.tensor(g[b].astype("f8"))).sum()
    found = torch.autograd.grad(total, [*leaves, *layer.parameters()])
    return [g.numpy() for g in found]


def check(got, expected, terms, dtype):
    """Sums of `terms` products, once per step of a contracting map."""
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        assert a.shape == b.shape and a.dtype == dtype
        bound = terms * np.finfo(dtype).eps * max(1.0, np.abs(b).max(initial=0))
        assert np.abs(a - b).max(initial=0) <= bound


@pytest.mark.sanitize
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("lengths", ["full", "ragged"])
def test_matches_the_definition_and_torch(isa, dtype, rng, cell, shape, lengths):
    x, states, weights = draw(rng, cell, shape, dtype)
    steps, batch, inputs, hidden = shape
    ends = None if lengths == "full" else rng.integers(0, steps + 1, batch)
    for reverse in (False, True):
        results, backward = call(cell, x, states, weights, reverse=reverse, lengths=ends)
        terms = 4 * steps * (inputs + hidden + 8)
        check(results, oracle(cell, x, states, weights, reverse, ends), terms, dtype)
        grads = tuple(rng.standard_normal(r.shape).astype(dtype) for r in results)
        expected = torch_gradients(cell, x, states, weights, grads, reverse, ends)
        terms += 4 * steps * (GATES[cell] * hidden + batch)
        check(backward(grads), expected, terms, dtype)


@pytest.mark.parametrize("reverse", [False, True])
def test_defaults_are_zeros(isa, dtype, rng, cell, reverse):
    x, states, weights = draw(rng, cell, (4, 3, 2, 5), dtype)
    zeros = [np.zeros_like(s) for s in states]
    nones = [None] * len(states)
    bare = *weights[:2], None, None
    for w in (weights, bare):
        filled = [np.zeros(len(w[1]), dtype) if a is None else a for a in w]
        got, backward = call(cell, x, nones, w, reverse=reverse)
        expected, expected_backward = call(cell, x, zeros, filled, reverse=reverse)
        grads = tuple(rng.standard_normal(r.shape).astype(dtype) for r in got)
        pairs = [*zip(got, expected, strict=True)]
        pairs += zip(backward(grads), expected_backward(grads), strict=True)
        for a, b in pairs:
            np.testing.assert_array_equal(a, b)


@pytest.mark.sanitize
@pytest.mark.parametrize(
    "shape", [(0, 3, 2, 4), (3, 0, 2, 4), (3, 2, 0, 4), (3, 2, 4, 0), (0,) * 4]
)
def test_empty(isa, dtype, rng, cell, shape):
    steps, batch, inputs, hidden = shape
    x, states, weights = np.zeros(shape[:3], dtype), [], []
    states = [np.ones((batch, hidden), dtype)] * (2 if cell == "lstm" else 1)
    rows = GATES[cell] * hidden
    weights = [np.ones(s, dtype) for s in ((rows, inputs), (rows, hidden), (rows,), (rows,))]
    for lengths in (None, np.zeros(batch, int)):
        results, backward = call(cell, x, states, weights, lengths=lengths)
        check(results, oracle(cell, x, states, weights, False, lengths), 100, dtype)
        grads = tuple(np.ones_like(r) for r in results)
        gradients = backward(grads)
        assert [g.shape for g in gradients] == [a.shape for a in (x, *states, *weights)]
        if lengths is not None or steps == 0:  # the state passes through, and nothing else counts
            for g in gradients[1 : 1 + len(states)]:
                np.testing.assert_array_equal(g, np.ones_like(g))
            for g in gradients[1 + len(states) :]:
                np.testing.assert_array_equal(g, np.zeros_like(g))


def test_what_lies_past_a_sequence_is_never_read(isa, dtype, rng, cell):
    x, states, weights = draw(rng, cell, (5, 4, 3, 6), dtype)
    lengths = np.array([5, 0, 2, 4], np.uint8)
    past = np.arange(5)[:, None] >= lengths
    for reverse in (False, True):
        options = {"reverse": reverse, "lengths": lengths}
        clean, clean_backward = call(cell, x, states, weights, **options)
        spoiled = x.copy()
        spoiled[past] = np.nan
        got, backward = call(cell, spoiled, states, weights, **options)
        grads = tuple(rng.standard_normal(r.shape).astype(dtype) for r in got)
        for a, b in zip([*got, *backward(grads)], [*clean, *clean_backward(grads)], strict=True):
            np.testing.assert_array_equal(a, b)
        assert not got[0][past].any() and not backward(grads)[0][past].any()
        grads[0][past] = np.nan  # nor is the gradient of those zeros
        for a, b in zip(backward(grads), clean_backward(grads), strict=True):
            assert np.isfinite(a).all()
            np.testing.assert_array_equal(a, b)


def test_any_thread_count_gives_the_same_bits(isa, rng, cell, same_for_any_thread_count):
    x, states, weights = draw(rng, cell, (6, 50, 40, 100), np.float32)
    lengths = rng.integers(0, 7, 50)

    def run():
        results, backward = call(cell, x, states, weights, lengths=lengths)
        return *results, *backward(tuple(np.ones_like(r) for r in results))

    same_for_any_thread_count(run)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_strided_views(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    cell = data.draw(st.sampled_from(list(GATES)))

    def view(a):
        """The same values behind other strides."""
        order = data.draw(st.permutations(range(a.ndim)))
        wide = np.zeros([2 * a.shape[i] + 1 for i in order], a.dtype)
        picks = [data.draw(st.sampled_from([1, -1, 2])) for _ in order]
        cut = wide[tuple(slice(None, None, p) for p in picks)]
        cut = cut[tuple(slice(0, a.shape[i]) for i in order)].transpose(np.argsort(order))
        cut[...] = a
        return cut

    x, states, weights = draw(rng, cell, (3, 4, 2, 5), np.float32)
    expected, expected_backward = call(cell, x, states, weights)
    got, backward = call(cell, view(x), [view(s) for s in states], [view(w) for w in weights])
    grads = [rng.standard_normal(r.shape).astype("f4") for r in got]
    pairs = [*zip(got, expected, strict=True)]
    strided = tuple(view(g) for g in grads)
    pairs += zip(backward(strided), expected_backward(tuple(grads)), strict=True)
    for a, b in pairs:
        np.testing.assert_array_equal(a, b)


def test_nan_reaches_only_its_own_sequence(isa, dtype, rng, cell):
    x, states, weights = draw(rng, cell, (4, 17, 3, 21), dtype)
    x[1, 5, 2] = np.nan
    y = call(cell, x, states, weights)[0][0]
    assert np.isnan(y[1:, 5]).all() and np.isfinite(np.delete(y, 5, 1)).all()
    assert np.isfinite(y[0]).all()


@pytest.mark.parametrize("cell", ["rnn_tanh", "lstm", "gru"])
def test_large_inputs_saturate(isa, dtype, cell):
    x = np.full((2, 1, 1), 1e30, dtype)
    weights = np.ones((GATES[cell], 1), dtype), np.ones((GATES[cell], 1), dtype), None, None
    states = [np.zeros((1, 1), dtype)] * (2 if cell == "lstm" else 1)
    results, backward = call(cell, x, states, weights)
    for a in [*results, *backward(tuple(np.ones_like(r) for r in results))]:
        assert np.isfinite(a).all()


@pytest.mark.sanitize
@settings(max_examples=300, deadline=None, database=None)
@given(data=st.data())
def test_almost_right_arguments(data):
    """Shapes, dtypes and lengths that mostly fit together: a result or an ordinary error."""
    cell = data.draw(st.sampled_from(list(GATES)))
    sizes = st.sampled_from([0, 1, 2, 3, 7, 17])
    steps, batch, inputs, hidden = (data.draw(sizes) for _ in range(4))
    rows = GATES[cell] * hidden
    odd = data.draw(st.integers(0, 40))  # which argument is wrong, if any

    def array(i, *shape):
        if i == odd:
            shape = data.draw(st.lists(sizes, max_size=4))
        dtype = data.draw(st.sampled_from(["f8", "i4"])) if i + 10 == odd else "f4"
        return None if i + 20 == odd else np.ones(shape, dtype)

    x = array(0, steps, batch, inputs)
    states = [array(1 + i, batch, hidden) for i in range(2 if cell == "lstm" else 1)]
    shapes = (rows, inputs), (rows, hidden), (rows,), (rows,)
    weights = [array(3 + i, *shape) for i, shape in enumerate(shapes)]
    options = {"reverse": data.draw(st.booleans())}
    if data.draw(st.booleans()):
        top = steps + (odd == 31)
        options["lengths"] = data.draw(
            st.lists(st.integers(-(odd == 32), top), min_size=batch, max_size=batch)
        )
        options["lengths"] = np.array(options["lengths"], int)
    try:
        results, backward = call(cell, x, states, weights, **options)
        backward(tuple(np.ones_like(r) for r in results))
    except (ValueError, TypeError) as error:
        assert str(error) and odd < 40


X, H = np.zeros((3, 2, 4), np.float32), np.zeros((2, 5), np.float32)
W, U, B = np.zeros((20, 4), np.float32), np.zeros((20, 5), np.float32), np.zeros(20, np.float32)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((X[0], H, H, W, U), {}, ValueError, "lstm: x ndim: expected 3, got 2"),
        ((X.astype(int), H, H, W, U), {}, TypeError, "lstm: x dtype: expected float16"),
        ((X, H, H, W.astype("f8"), U), {}, TypeError, "lstm: w_ih dtype: expected float32"),
        ((X, H, H, W, U[:19]), {}, ValueError, r"w_hh shape: expected \(4 \* hidden, hidden\)"),
        ((X, H, H, W[:, :3], U), {}, ValueError, r"w_ih shape: expected \(20, 4\), got \(20, 3\)"),
        ((X, H, H, W, U[0]), {}, ValueError, "w_hh ndim: expected 2, got 1"),
        ((X, H, H, W, U, B[:4]), {}, ValueError, r"b_ih shape: expected \(20,\), got \(4,\)"),
        ((X, H, H, W, U, B, B.astype("f8")), {}, TypeError, "b_hh dtype"),
        ((X, H[:1], H, W, U), {}, ValueError, r"h0 shape: expected \(2, 5\), got \(1, 5\)"),
        ((X, H, H.astype("f8"), W, U), {}, TypeError, "c0 dtype: expected float32, got float64"),
        ((X, H, H, W, U), {"lengths": [1, 4]}, ValueError, r"lengths at \(1,\): expected a value"),
        ((X, H, H, W, U), {"lengths": [-1, 2]}, ValueError, r"in \[0, 3\], got -1"),
        ((X, H, H, W, U), {"lengths": [1]}, ValueError, r"lengths shape: expected \(2,\)"),
        ((X, H, H, W, U), {"lengths": [1.0, 2.0]}, TypeError, "lengths dtype: expected an integer"),
    ],
)
def test_bad_input(arguments, options, error, message):
    with pytest.raises(error, match=message):
        ops.lstm(*arguments, **options)


def test_bad_input_of_the_backward():
    y, h, c, kept = ops.lstm(X, H, H, W, U, return_kept=True)
    good = (y, h, c), kept, X, H, H, W, U
    ops.lstm_backward(*good)
    states, gates, cells = kept
    for grads, bad, message in [
        ((y[1:], h, c), kept, "grad shape"),
        ((y[0], h, c), kept, "grads: expected arrays of one dtype"),
        ((y.astype("f8"), h, c), kept, "grads: expected arrays of one dtype"),
        ((y, h, c), (states[1:], gates, cells), "states shape"),
        ((y, h, c), (states, gates[1:], cells), "gates shape"),
        ((y, h, c), (states, None, cells), "gates value: expected what the forward kept, got None"),
        ((y, h, c), (states, gates, cells[:, :1]), "c shape"),
    ]:
        with pytest.raises(ValueError, match=message):
            ops.lstm_backward(grads, bad, *good[2:])
    with pytest.raises(ValueError, match="nonlinearity: expected 'tanh' or 'relu', got 'gelu'"):
        ops.rnn(X, None, W[:5], U[:5], nonlinearity="gelu")
    with pytest.raises(ValueError, match=r"cell value: expected 'rnn_tanh', .*, got 'gru '"):
        _core.recurrent("gru ", X, None, None, W, U, None, None, False, None, False)
