"""RNN, LSTM, GRU and their cells against PyTorch: options, states, gradients, state_dict."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from differences import check_gradient, gradient_of, leaves

import vectile as vt
from vectile import nn

torch = pytest.importorskip("torch", reason="PyTorch is the reference for layers")

KINDS = ("RNN", "LSTM", "GRU")
I, H, T, B = 3, 4, 5, 2
# float64 and sums of a few dozen terms of order one
TOLERANCE = 1e-12


def pair(kind, *arguments, **options):
    """Our module and torch's with the same weights, in float64."""
    ours = getattr(nn, kind)(*arguments, **options).double()
    theirs = getattr(torch.nn, kind)(*arguments, **options).double()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict({k: torch.tensor(v) for k, v in ours.state_dict().items()})
    return ours, theirs


def flat(result):
    """Every array of a nested result."""
    if isinstance(result, (tuple, list)):
        return [a for r in result for a in flat(r)]
    return [result]


def compare(ours, theirs, x, states):
    """Results and the gradients of everything, for one random cotangent."""
    a, b = vt.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    leaves = [vt.tensor(s, requires_grad=True) for s in states]
    torch_leaves = [torch.tensor(s, requires_grad=True) for s in states]

    def hx(given):
        return None if not given else given[0] if len(given) == 1 else tuple(given)

    got = flat(ours(a, hx(leaves)))
    expected = flat(theirs(b, hx(torch_leaves)))
    rng = np.random.default_rng(3)
    total, torch_total = 0.0, 0.0
    assert len(got) == len(expected)
    for y, z in zip(got, expected, strict=True):
        np.testing.assert_allclose(y.numpy(), z.detach().numpy(), rtol=0, atol=TOLERANCE)
        g = rng.standard_normal(y.shape)
        total, torch_total = total + (y * g).sum(), torch_total + (z * torch.tensor(g)).sum()
    total.backward()
    torch_total.backward()
    grads = [t.grad.numpy() for t in (a, *leaves, *ours.parameters())]
    torch_grads = [t.grad.numpy() for t in (b, *torch_leaves, *theirs.parameters())]
    for g, e in zip(grads, torch_grads, strict=True):
        np.testing.assert_allclose(g, e, rtol=0, atol=10 * TOLERANCE)


def draw(kind, shape, given=True, seed=0):
    """The initial states of one module."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) for _ in range(1 + kind.startswith("LSTM"))] if given else []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_layers_equal_torch(kind, layers, bidirectional):
    rng = np.random.default_rng(0)
    for bias, batch_first, batched, given in itertools.product((True, False), repeat=4):
        options = {"bias": bias, "batch_first": batch_first, "bidirectional": bidirectional}
        ours, theirs = pair(kind, I, H, layers, **options)
        x = rng.standard_normal(((B, T) if batch_first else (T, B)) + (I,) if batched else (T, I))
        count = layers * (1 + bidirectional)
        states = draw(kind, (count, B, H) if batched else (count, H), given)
        compare(ours, theirs, x, states)


def test_relu_rnn_equals_torch():
    rng = np.random.default_rng(1)
    ours, theirs = pair("RNN", I, H, 2, nonlinearity="relu")
    compare(ours, theirs, rng.standard_normal((T, B, I)), draw("RNN", (2, B, H)))


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_projected_lstm_equals_torch(layers, bidirectional):
    rng = np.random.default_rng(4)
    for bias, batch_first, batched, given in itertools.product((True, False), repeat=4):
        options = {"bias": bias, "batch_first": batch_first, "bidirectional": bidirectional}
        ours, theirs = pair("LSTM", I, H, layers, proj_size=2, **options)
        x = rng.standard_normal(((B, T) if batch_first else (T, B)) + (I,) if batched else (T, I))
        lead = (layers * (1 + bidirectional), *((B,) if batched else ()))
        states = [rng.standard_normal((*lead, n)) for n in (2, H)] if given else []
        compare(ours, theirs, x, states)


def test_projected_lstm_in_float32_and_without_steps():
    layer = nn.LSTM(I, H, 2, proj_size=1, bidirectional=True)
    x = np.random.default_rng(0).standard_normal((T, B, I)).astype("f4")
    y, (h, c) = layer(x)
    assert {v.dtype for v in (y, h, c)} == {np.dtype("f4")}
    # Sums of a few dozen terms of order one, through T steps.
    expected = layer.double()(x.astype("f8"))[0].numpy()
    np.testing.assert_allclose(y.numpy(), expected, rtol=0, atol=50 * float(np.finfo("f4").eps))
    y, (h, c) = layer(np.zeros((0, B, I)))
    assert y.shape == (0, B, 2) and h.shape == (4, B, 1) and c.shape == (4, B, H)
    y, (h, c) = layer(np.zeros((T, 0, I)))
    assert y.shape == (T, 0, 2) and h.shape == (4, 0, 1) and c.shape == (4, 0, H)


def test_projected_lstm_beside_differences():
    layer = nn.LSTM(2, 3, proj_size=2, bidirectional=True).double()
    rng = np.random.default_rng(5)
    values = [rng.standard_normal(s) for s in ((3, 2, 2), (2, 2, 2), (2, 2, 3))]
    names = [name for name, _ in layer.named_parameters()]
    values += [p.numpy().copy() for p in layer.parameters()]

    def run(x, h, c, *weights):
        for name, weight in zip(names, weights, strict=True):
            layer.__dict__[name] = weight
        y, (h, c) = layer(x, (h, c), lengths=[2, 3])
        return [y, h, c]

    check_gradient(run, values, 1)
    cotangents = [rng.standard_normal(y.shape) for y in run(*leaves(values))]
    check_gradient(gradient_of(run, len(values)), [*values, *cotangents], 2)


@pytest.mark.parametrize("kind", ["RNNCell", "LSTMCell", "GRUCell"])
def test_cells_equal_torch(kind):
    rng = np.random.default_rng(1)
    for bias, batched, given in itertools.product((True, False), repeat=3):
        ours, theirs = pair(kind, I, H, bias=bias)
        lead = (B,) if batched else ()
        compare(ours, theirs, rng.standard_normal((*lead, I)), draw(kind, (*lead, H), given))
    ours, theirs = pair("RNNCell", I, H, nonlinearity="relu")
    compare(ours, theirs, rng.standard_normal((B, I)), draw("RNNCell", (B, H)))


@pytest.mark.parametrize(
    ("kind", "options"), [*((kind, {}) for kind in KINDS), ("LSTM", {"proj_size": 2})]
)
def test_lengths_equal_packed_sequences(kind, options):
    rng = np.random.default_rng(2)
    lengths = [2, 5, 1, 4]
    ours, theirs = pair(kind, I, H, 2, bidirectional=True, **options)
    x = rng.standard_normal((T, 4, I))
    a, b = vt.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, h = ours(a, lengths=lengths)
    packed = torch.nn.utils.rnn.pack_padded_sequence(b, lengths, enforce_sorted=False)
    z, k = theirs(packed)
    z, _ = torch.nn.utils.rnn.pad_packed_sequence(z, total_length=T)
    g = rng.standard_normal(y.shape)
    for p, q in zip(flat((y, h)), flat((z, k)), strict=True):
        np.testing.assert_allclose(p.numpy(), q.detach().numpy(), rtol=0, atol=TOLERANCE)
    ((y * g).sum() + sum(p.sum() for p in flat(h))).backward()
    ((z * torch.tensor(g)).sum() + sum(p.sum() for p in flat(k))).backward()
    for p, q in zip((a, *ours.parameters()), (b, *theirs.parameters()), strict=True):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=0, atol=10 * TOLERANCE)


def test_projected_lstm_reads_nothing_after_the_end():
    layer = nn.LSTM(I, H, proj_size=2, bidirectional=True)
    x = np.ones((T, B, I), np.float32)
    x[2:, 1] = np.nan
    h0, c0 = np.ones((2, B, 2), np.float32), np.ones((2, B, H), np.float32)
    y, (h, c) = layer(x, (h0, c0), lengths=[0, 2])
    assert not y.numpy()[:, 0].any() and not y.numpy()[2:].any()
    np.testing.assert_array_equal(h.numpy()[:, 0], h0[:, 0])
    np.testing.assert_array_equal(c.numpy()[:, 0], c0[:, 0])
    (y.sum() + h.sum() + c.sum()).backward()
    assert all(np.isfinite(p.grad.numpy()).all() for p in layer.parameters())


def test_an_empty_sequence_keeps_its_state():
    layer = nn.GRU(I, H, bidirectional=True)
    h0 = np.random.default_rng(0).standard_normal((2, B, H)).astype("f4")
    y, h = layer(np.ones((T, B, I), np.float32), h0, lengths=[0, 3])
    assert not y.numpy()[:, 0].any() and not y.numpy()[3:].any()
    np.testing.assert_array_equal(h.numpy()[:, 0], h0[:, 0])


def test_states_carry_over():
    layer = nn.LSTM(I, H, 2)
    x = np.random.default_rng(0).standard_normal((T, B, I)).astype("f4")
    whole, (h, c) = layer(x)
    first, state = layer(x[:2])
    second, (h2, c2) = layer(x[2:], state)
    # Other products, so other roundings: T steps of sums of I + H terms.
    close = {"rtol": 0, "atol": T * (I + H) * float(np.finfo("f4").eps)}
    joined = np.concatenate([first.numpy(), second.numpy()])
    np.testing.assert_allclose(joined, whole.numpy(), **close)
    np.testing.assert_allclose(h2.numpy(), h.numpy(), **close)
    np.testing.assert_allclose(c2.numpy(), c.numpy(), **close)


def test_dropout_lies_between_layers_only():
    x = np.ones((T, B, I), np.float32)
    layer = nn.GRU(I, H, 2, dropout=1.0)
    y = layer(x)[0].numpy()
    bare = nn.GRU(H, H)
    bare.load_state_dict(
        {k.replace("_l1", "_l0"): v for k, v in layer.state_dict().items() if "_l1" in k}
    )
    np.testing.assert_array_equal(y, bare(np.zeros((T, B, H), np.float32))[0].numpy())
    single = nn.GRU(I, H, 1, dropout=1.0)
    y = single(x)[0].numpy()
    np.testing.assert_array_equal(single.eval()(x)[0].numpy(), y)
    half = nn.GRU(I, H, 3, dropout=0.5)
    a, b = half(x)[0].numpy(), half(x)[0].numpy()
    assert (a != b).any()
    half.eval()
    np.testing.assert_array_equal(half(x)[0].numpy(), half(x)[0].numpy())


def test_second_derivatives_without_steps():
    x = vt.tensor(np.zeros((0, B, I)), requires_grad=True)
    layer = nn.LSTM(I, H).double()
    h0 = vt.tensor(np.ones((1, B, H)), requires_grad=True)
    _, (h, c) = layer(x, (h0, np.ones((1, B, H))))
    (g,) = vt.grad((h * h + c).sum(), h0, create_graph=True)
    (gg,) = vt.grad(g.sum(), h0)
    np.testing.assert_array_equal(gg.numpy(), np.full((1, B, H), 2.0))


def test_frozen_parameters_and_inputs():
    x = vt.tensor(np.ones((T, B, I), np.float32), requires_grad=True)
    layer = nn.GRU(I, H).requires_grad_(False)
    layer(x)[0].sum().backward()
    assert x.grad is not None and all(p.grad is None for p in layer.parameters())
    layer.requires_grad_()
    layer(np.ones((T, B, I), np.float32))[0].sum().backward()
    assert all(p.grad is not None for p in layer.parameters())
    with vt.no_grad():
        assert not layer(x)[0].requires_grad


def test_repr_names_the_arguments():
    assert repr(nn.LSTM(3, 4, 2, bidirectional=True, dropout=0.1)) == repr(
        torch.nn.LSTM(3, 4, 2, bidirectional=True, dropout=0.1)
    )
    assert repr(nn.LSTM(3, 4, 2, proj_size=2)) == repr(torch.nn.LSTM(3, 4, 2, proj_size=2))
    assert repr(nn.GRUCell(3, 4, bias=False)) == repr(torch.nn.GRUCell(3, 4, bias=False))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nn.LSTM(0, 4), "LSTM: input_size: expected at least 1, got 0"),
        (lambda: nn.LSTM(3, 4, proj_size=4), r"LSTM: proj_size: expected in \[0, 4\), got 4"),
        (
            lambda: nn.LSTM(3, 4, proj_size=2)(
                np.zeros((5, 2, 3), "f4"), [np.zeros((1, 2, 4))] * 2
            ),
            r"LSTM: h_0 shape: expected \(1, 2, 2\), got \(1, 2, 4\)",
        ),
        (
            lambda: nn.LSTM(3, 4, proj_size=2)(np.zeros((5, 2, 3), "f4"), lengths=[3, 6]),
            "lstm: lengths value: expected 0 to 5, got 6",
        ),
        (
            lambda: nn.LSTM(3, 4, proj_size=2)(np.zeros((5, 2, 3), "f4"), lengths=[3]),
            r"lstm: lengths shape: expected \(2,\), got \(1,\)",
        ),
        (lambda: nn.GRU(3, 4, 0), "GRU: num_layers: expected at least 1, got 0"),
        (lambda: nn.GRU(3, 4, dropout=1.5), "GRU: dropout: expected a probability"),
        (lambda: nn.RNN(3, 4, nonlinearity="gelu"), "RNN: nonlinearity: expected 'tanh' or 'relu'"),
        (lambda: nn.GRU(3, 4)(np.zeros((2, 2, 5), "f4")), "GRU: input features: expected 3, got 5"),
        (lambda: nn.GRU(3, 4)(np.zeros(3, "f4")), "GRU: input rank: expected 2 or 3, got 1"),
        (
            lambda: nn.GRU(3, 4)(np.zeros((5, 2, 3), "f4"), np.zeros((2, 4), "f4")),
            r"GRU: h_0 shape: expected \(1, 2, 4\), got \(2, 4\)",
        ),
        (
            lambda: nn.LSTM(3, 4)(np.zeros((5, 2, 3), "f4"), [np.zeros((1, 2, 4), "f4")]),
            "LSTM: hx length: expected 2, got 1",
        ),
        (
            lambda: nn.LSTMCell(3, 4)(np.zeros((2, 3), "f4"), [np.zeros((2, 4)), np.zeros(4)]),
            r"LSTMCell: c shape: expected \(2, 4\), got \(4,\)",
        ),
        (
            lambda: nn.Sequential(nn.LSTM(3, 4))(np.zeros((2, 2, 5), "f4")),
            r"expected 3, got 5 \(in 0\)",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
