"""CharRNN: PyTorch's numbers, a state that loses nothing, and generation from it."""

from __future__ import annotations

import numpy as np
import pytest

from vectile import checkpoint, optim, random
from vectile.models.char_rnn import CharRNN, CharRNNConfig, streams

SMALL = dict(vocab_size=11, embedding=5, hidden=7, n_layers=2)


def model(cell="lstm", seed=0, **options):
    random.manual_seed(seed)
    return CharRNN(CharRNNConfig(**{**SMALL, "cell": cell, **options}))


def ids(batch, length, seed=0):
    return np.random.default_rng(seed).integers(0, 11, (batch, length))


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 6)])
def test_logits_loss_and_gradients_equal_torch(cell, shape):
    torch = pytest.importorskip("torch", reason="PyTorch is the reference")
    m = model(cell).double()
    kinds = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}
    rnn = kinds[cell](5, 7, 2, batch_first=True, dtype=torch.float64)
    state = m.state_dict()
    rnn.load_state_dict(
        {k.removeprefix("rnn."): torch.tensor(v) for k, v in state.items() if k[:4] == "rnn."}
    )
    leaves = {
        k: torch.tensor(v, requires_grad=True) for k, v in state.items() if not k.startswith("rnn.")
    }
    tokens, targets = ids(*shape), ids(*shape, seed=1)
    y, _ = rnn(leaves["embedding.weight"][torch.tensor(tokens)])
    logits = y @ leaves["head.weight"].T + leaves["head.bias"]
    np.testing.assert_allclose(
        m(tokens)[0].numpy(), logits.detach().numpy(), rtol=1e-10, atol=1e-12
    )
    expected = torch.nn.functional.cross_entropy(
        logits.reshape(-1, 11), torch.tensor(targets).reshape(-1)
    )
    expected.backward()
    loss, _ = m.loss(tokens, targets)
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    grads = {f"rnn.{k}": p.grad for k, p in rnn.named_parameters()}
    grads |= {k: p.grad for k, p in leaves.items()}
    for name, parameter in m.named_parameters():
        np.testing.assert_allclose(
            parameter.grad.numpy(), grads[name].numpy(), rtol=1e-9, atol=1e-12, err_msg=name
        )


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("pieces", [[1] * 9, [4, 5], [2, 6, 1]])
def test_pieces_with_a_carried_state_are_the_whole_sequence(cell, pieces):
    m, tokens = model(cell).double(), ids(3, 9)
    whole, last = m(tokens)
    state, start = None, 0
    for length in pieces:
        logits, state = m(tokens[:, start : start + length], state)
        np.testing.assert_allclose(
            logits.numpy(), whole.numpy()[:, start : start + length], rtol=1e-12, atol=1e-14
        )
        start += length
    for a, b in zip(state, last, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


def test_the_gradient_ends_with_the_piece():
    m, tokens = model(), ids(2, 4)
    _, state = m(tokens)
    assert all(isinstance(part, np.ndarray) for part in state)
    m.loss(tokens, tokens, state)[0].backward()
    carried = {k: p.grad.numpy().copy() for k, p in m.named_parameters()}
    m.zero_grad()
    m.loss(tokens, tokens, tuple(part.copy() for part in state))[0].backward()
    assert all(np.array_equal(carried[k], p.grad.numpy()) for k, p in m.named_parameters())


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_learns_a_sequence_that_needs_memory(cell):
    text = np.tile([0, 1, 2, 3, 0, 4, 2, 5], 400)  # what follows 2 was decided two steps before
    m = model(cell, hidden=24)
    optimiser = optim.Adam(m.parameters(), lr=0.02)
    rows, state, losses = streams(text, 8), None, []
    for step in range(70):
        start = step * 5
        optimiser.zero_grad()
        loss, state = m.loss(rows[:, start : start + 5], rows[:, start + 1 : start + 6], state)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 < 1.0 < losses[0]
    out = m.generate([0, 1, 2], 5, greedy=True)
    assert out.tolist() == [0, 1, 2, 3, 0, 4, 2, 5]


def test_generation_follows_the_seed_and_reads_the_whole_prompt():
    m = model()
    prompt = ids(2, 3)
    out = m.generate(prompt, 6, temperature=0.8, top_k=5, seed=3)
    assert out.shape == (2, 9) and np.array_equal(out[:, :3], prompt) and m.training
    assert np.array_equal(out, m.generate(prompt, 6, temperature=0.8, top_k=5, seed=3))
    assert np.array_equal(m.generate(prompt, 0), prompt)
    greedy = m.generate(prompt[0], 4, greedy=True)
    for end in range(3, 7):
        assert greedy[end] == m(greedy[None, :end])[0].numpy()[0, -1].argmax()


def test_dropout_only_in_training():
    m = model(dropout=0.5)
    tokens = ids(2, 5)
    assert not np.array_equal(m(tokens)[0].numpy(), m(tokens)[0].numpy())
    m.eval()
    assert np.array_equal(m(tokens)[0].numpy(), m(tokens)[0].numpy())


def test_checkpoint_round_trip(tmp_path):
    m = model(seed=1)
    checkpoint.save(tmp_path / "m.safetensors", m.state_dict(), {"kind": "char_rnn"})
    other = model(seed=2)
    other.load_state_dict(checkpoint.load(tmp_path / "m.safetensors")[0])
    assert np.array_equal(m(ids(2, 5))[0].numpy(), other(ids(2, 5))[0].numpy())


def test_streams_are_consecutive():
    rows = streams(np.arange(11), 3)
    assert rows.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: CharRNNConfig(hidden=0), ValueError, "hidden: expected > 0, got 0"),
        (lambda: CharRNNConfig(cell="rnn"), ValueError, "cell: expected one of lstm, gru"),
        (lambda: CharRNNConfig(dropout=1.0), ValueError, r"dropout: expected in \[0, 1\)"),
        (lambda: model()(ids(1, 4)[0]), ValueError, "ids rank: expected 2"),
        (lambda: model()(np.array([[11]])), IndexError, "embedding: ids"),
        (lambda: model()(ids(2, 3), model()(ids(1, 3))[1]), ValueError, "LSTM: h_0 shape"),
        (lambda: model().generate([], 3), TypeError, "ids dtype: expected integers"),
        (lambda: model().generate(np.zeros((1, 0), int), 3), ValueError, "ids shape"),
        (lambda: model().generate([1], -1), ValueError, "max_new_tokens: expected >= 0, got -1"),
        (lambda: streams([1, 2], 3), ValueError, "batch: expected 1 to 2 rows, got 3"),
        (lambda: streams([1, 2], 0), ValueError, "batch: expected 1 to 2 rows, got 0"),
    ],
)
def test_wrong_arguments_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()
