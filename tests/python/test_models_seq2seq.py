"""The recurrent translator: PyTorch's numbers, attention by its formulas, teacher forcing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from translators import (
    MODELS,
    PAD,
    SCORES,
    VOCABULARY,
    batch,
    seq2seq,
)

from vectile import Tensor, random
from vectile.models import Seq2SeqConfig
from vectile.models.search import greedy_search
from vectile.models.seq2seq import (
    Attention,
    exponential_decay,
    inverse_sigmoid_decay,
    linear_decay,
)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("attention", [*SCORES, None])
def test_seq2seq_equals_torch(cell, attention):
    torch = pytest.importorskip("torch", reason="PyTorch is the reference")
    model = seq2seq(cell=cell, attention=attention, layers=2)
    lengths = (7, 3, 1, 6)
    source, target = batch(lengths)
    weights = {k: torch.tensor(v) for k, v in model.state_dict().items()}

    def part(name):
        return {k.removeprefix(name): v for k, v in weights.items() if k.startswith(name)}

    kind = torch.nn.LSTM if cell == "lstm" else torch.nn.GRU
    options = {"batch_first": True, "dtype": torch.float64}
    encoder, decoder = kind(6, 4, 2, bidirectional=True, **options), kind(6, 8, 2, **options)
    encoder.load_state_dict(part("encoder."))
    decoder.load_state_dict(part("decoder."))
    table = weights["tokens.weight"] * math.sqrt(6)
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        table[torch.tensor(source)], torch.tensor(lengths), True, enforce_sorted=False
    )
    memory, last = encoder(packed)
    memory, _ = torch.nn.utils.rnn.pad_packed_sequence(memory, True)
    last = last if cell == "lstm" else (last,)
    last = [torch.cat([s[0::2], s[1::2]], -1).contiguous() for s in last]
    states, _ = decoder(table[torch.tensor(target)], tuple(last) if cell == "lstm" else last[0])
    if attention is None:
        context = last[0][1][:, None].expand_as(states)
    else:
        a = part("attention.")
        if attention == "additive":
            keys = memory @ a["memory.weight"].T + a["memory.bias"]
            hidden = torch.tanh((states @ a["query.weight"].T)[:, :, None] + keys[:, None])
            scores = (hidden @ a["v.weight"].T)[..., 0]
        else:
            query = states @ a["query.weight"].T if attention == "general" else states
            scores = query @ memory.transpose(1, 2)
            scores = scores / math.sqrt(8) if attention == "scaled_dot" else scores
        scores = scores.masked_fill(torch.tensor(source == PAD)[:, None], -math.inf)
        context = scores.softmax(-1) @ memory
        np.testing.assert_allclose(
            model.attention_weights(source, target), scores.softmax(-1).detach(), atol=1e-12
        )
    joined = torch.cat([states, context], -1)
    readout = torch.tanh(joined @ weights["readout.weight"].T + weights["readout.bias"])
    logits = readout @ weights["tokens.weight"].T + weights["head.bias"]
    np.testing.assert_allclose(
        model(source, target).numpy(), logits.detach().numpy(), rtol=1e-9, atol=1e-11
    )


def attend(score, rng, batch=3, target=4, source=5, size=6):
    random.manual_seed(1)
    attention = Attention(score, size, size, 7).double()
    query, memory = rng.normal(size=(batch, target, size)), rng.normal(size=(batch, source, size))
    mask = np.arange(source) < np.array([[source], [2], [1]])
    return attention, query, memory, mask


@pytest.mark.parametrize("score", SCORES)
def test_attention_by_its_formula(score, rng):
    attention, query, memory, mask = attend(score, rng)
    p = attention.state_dict()
    context, weights = attention(
        Tensor(query), Tensor(memory), attention.keys(Tensor(memory)), mask
    )
    for b in range(3):
        for t in range(4):
            q, scores = query[b, t], []
            for m in memory[b, mask[b]]:
                scores.append(
                    {
                        "dot": lambda q=q, m=m: q @ m,
                        "scaled_dot": lambda q=q, m=m: q @ m / math.sqrt(6),
                        "general": lambda q=q, m=m: m @ (p["query.weight"] @ q),
                        "additive": lambda q=q, m=m: (
                            p["v.weight"][0]
                            @ np.tanh(
                                p["query.weight"] @ q + p["memory.weight"] @ m + p["memory.bias"]
                            )
                        ),
                    }[score]()
                )
            expected = np.exp(scores) / np.exp(scores).sum()
            np.testing.assert_allclose(weights.numpy()[b, t, mask[b]], expected, rtol=1e-12)
            np.testing.assert_allclose(
                context.numpy()[b, t], expected @ memory[b, mask[b]], rtol=1e-10
            )
    assert (weights.numpy()[~np.broadcast_to(mask[:, None], weights.shape)] == 0).all()


@pytest.mark.parametrize("score", SCORES)
def test_gradients_of_attention(score, rng):
    attention, query, memory, mask = attend(score, rng)
    direction = rng.normal(size=query.shape)
    leaves = {
        "query": Tensor(query, True),
        "memory": Tensor(memory, True),
        **dict(attention.named_parameters()),
    }

    def value():
        keys = attention.keys(leaves["memory"])
        context, _ = attention(leaves["query"], leaves["memory"], keys, mask)
        return (context * direction).sum()

    value().backward()
    for name, leaf in leaves.items():
        found = np.zeros(leaf.shape)
        for index in np.ndindex(leaf.shape):
            values = []
            for step in (1e-6, -1e-6):
                leaf.data[index] += step
                values.append(value().item())
                leaf.data[index] -= step
            found[index] = (values[0] - values[1]) / 2e-6
        np.testing.assert_allclose(leaf.grad.numpy(), found, rtol=1e-6, atol=1e-8, err_msg=name)


def test_a_source_without_a_token_gives_no_context(rng):
    attention, query, memory, mask = attend("additive", rng)
    mask[1] = False
    context, weights = attention(
        Tensor(query), Tensor(memory), attention.keys(Tensor(memory)), mask
    )
    assert (context.numpy()[1] == 0).all() and (weights.numpy()[1] == 0).all()


@pytest.mark.parametrize("build", [MODELS["additive"], MODELS["fixed"], MODELS["shared"]])
def test_scheduled_sampling_reads_what_the_model_wrote(build):
    model = build()
    source, target = batch()
    told = model(source, target).numpy()
    np.testing.assert_allclose(model(source, target, 1.0 - 1e-12).numpy(), told, rtol=1e-9)
    alone = model(source, target, 0.0).numpy()
    read = np.concatenate([target[:, :1], alone[:, :-1].argmax(-1)], 1)
    np.testing.assert_allclose(alone, model(source, read).numpy(), rtol=1e-9, atol=1e-12)
    greedy = greedy_search(model, source, target.shape[1])
    for row, ids in zip(alone.argmax(-1).tolist(), greedy, strict=True):
        assert row[: len(ids)] == ids
    random.manual_seed(5)
    mixed = model(source, target, 0.5)
    assert not np.allclose(mixed.numpy(), told) and not np.allclose(mixed.numpy(), alone)
    mixed.sum().backward()
    assert all(np.isfinite(p.grad.numpy()).all() for p in model.parameters())
    with pytest.raises(ValueError, match=r"teacher_forcing: expected in \[0, 1\], got 1.5"):
        model(source, target, 1.5)


def test_schedules_of_teacher_forcing():
    assert [linear_decay(step, 10, 0.2) for step in (0, 5, 10, 99)] == [1.0, 0.6, 0.2, 0.2]
    np.testing.assert_allclose([exponential_decay(step, 0.5) for step in (0, 3)], [1.0, 0.125])
    assert inverse_sigmoid_decay(0, 99.0) == 0.99
    np.testing.assert_allclose(inverse_sigmoid_decay(1, 20.0), 20 / (20 + math.exp(1 / 20)))
    assert 0 <= inverse_sigmoid_decay(10**9, 20.0) < 1e-300


def test_a_shared_network_is_one():
    model = seq2seq(shared=True, bidirectional=False)
    assert model.encoder is model.decoder
    two = seq2seq(bidirectional=False)
    count = sum(p.size for p in model.encoder.parameters())
    assert sum(p.size for p in two.parameters()) - sum(p.size for p in model.parameters()) == count


def test_a_fixed_context_has_no_weights():
    with pytest.raises(ValueError, match="expected a score, got a fixed context"):
        seq2seq(attention=None).attention_weights([[3]], [[1]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": 7}, "hidden: expected an even number for two directions, got 7"),
        ({"layers": 0}, "layers: expected > 0, got 0"),
        ({"cell": "rnn"}, "cell: expected one of .*, got 'rnn'"),
        ({"shared": True}, "shared: expected neither bidirectional nor input_feeding"),
        ({"pad": -1}, r"pad: expected in \[0, 23\), got -1"),
    ],
)
def test_seq2seq_settings_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        Seq2SeqConfig(VOCABULARY, **options)


def test_attention_settings_that_do_not_fit():
    with pytest.raises(ValueError, match=r"score: expected one of .*, got 'none'"):
        Attention("none", 4, 4)
    for score in ("dot", "scaled_dot"):
        with pytest.raises(ValueError, match="query_size: expected the memory_size 6 for"):
            Attention(score, 4, 6)


@pytest.mark.parametrize(
    ("source", "target", "error", "message"),
    [
        (np.ones(3, int), np.ones((1, 3), int), ValueError, "source shape: expected"),
        (np.ones((1, 0), int), np.ones((1, 3), int), ValueError, "source shape: expected"),
        (np.ones((1, 3), int), np.ones((2, 3), int), ValueError, "target batch: expected 1, got 2"),
        (np.full((1, 3), 23), np.ones((1, 3), int), IndexError, "23"),
        (np.ones((1, 3)), np.ones((1, 3), int), TypeError, "integer"),
    ],
)
def test_seq2seq_names_bad_ids(source, target, error, message):
    with pytest.raises(error, match=message):
        seq2seq()(source, target)
