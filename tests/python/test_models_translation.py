"""Translation models: PyTorch's numbers, masks that hide, and decoding that equals the forward pass."""

from __future__ import annotations

import math

import numpy as np
import pytest
from translators import (
    BOS,
    PAD,
    VOCABULARY,
    batch,
    every_model,
    transformer,
)

from vectile import nn, optim, random
from vectile.models import Seq2Seq, Seq2SeqConfig, TransformerConfig, TranslationTransformer
from vectile.models.search import beam_search, greedy_search
from vectile.nn import functional as F


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("norm_first", [False, True])
def test_the_transformer_equals_torch(norm_first):
    torch = pytest.importorskip("torch", reason="PyTorch is the reference")
    model = transformer(norm_first=norm_first)
    source, target = batch()
    d, config = model.config.d_model, model.config
    peer = torch.nn.Transformer(
        d, 4, 2, 2, 24, 0.0, batch_first=True, norm_first=norm_first, dtype=torch.float64
    )
    state = {k: torch.tensor(v) for k, v in model.transformer.state_dict().items()}
    peer.load_state_dict(state)
    table = torch.tensor(model.tokens.weight.numpy(), requires_grad=True)
    place = np.arange(config.context)[:, None] / 10000 ** (np.arange(0, d, 2) / d)
    sinusoids = np.stack([np.sin(place), np.cos(place)], -1).reshape(config.context, d)
    np.testing.assert_allclose(model.positions.table, sinusoids, atol=1e-7)  # made in float32

    def embed(ids):
        return table[torch.tensor(ids)] * math.sqrt(d) + torch.tensor(
            model.positions.table[: ids.shape[1]]
        )

    padding = torch.tensor(source == PAD)
    mask = torch.nn.Transformer.generate_square_subsequent_mask(target.shape[1]).double()
    out = peer(
        embed(source),
        embed(target),
        tgt_mask=mask,
        src_key_padding_mask=padding.double().masked_fill(padding, -math.inf),
        memory_key_padding_mask=padding.double().masked_fill(padding, -math.inf),
    )
    logits = out @ table.T
    mine = model(source, target)
    np.testing.assert_allclose(mine.numpy(), logits.detach().numpy(), rtol=1e-9, atol=1e-9)

    labels = np.random.default_rng(1).integers(2, VOCABULARY, target.shape)
    labels[1, 3:] = PAD
    loss = F.cross_entropy(
        mine.reshape((-1, VOCABULARY)), labels.reshape(-1), ignore_index=PAD, label_smoothing=0.1
    )
    loss.backward()
    theirs = torch.nn.functional.cross_entropy(
        logits.reshape(-1, VOCABULARY),
        torch.tensor(labels.reshape(-1)),
        ignore_index=PAD,
        label_smoothing=0.1,
    )
    theirs.backward()
    np.testing.assert_allclose(loss.item(), theirs.item(), rtol=1e-10)
    np.testing.assert_allclose(model.tokens.weight.grad.numpy(), table.grad.numpy(), atol=1e-9)
    mine = dict(model.transformer.named_parameters())
    for name, parameter in peer.named_parameters():
        grad = mine[name].grad.numpy()
        np.testing.assert_allclose(grad, parameter.grad.numpy(), rtol=1e-7, atol=1e-9, err_msg=name)


@every_model
def test_a_batch_gives_what_each_sentence_gives_alone(build):
    model = build()
    lengths = (7, 3, 1, 6)
    source, target = batch(lengths)
    together = model(source, target).numpy()
    for i, length in enumerate(lengths):
        alone = model(source[i : i + 1, :length], target[i : i + 1]).numpy()[0]
        np.testing.assert_allclose(together[i], alone, rtol=1e-10, atol=1e-12)


@every_model
def test_no_token_sees_a_later_one(build):
    model = build()
    source, target = batch()
    before = model(source, target).numpy()
    for cut in range(1, target.shape[1]):
        other = target.copy()
        other[:, cut:] = (other[:, cut:] + 7) % VOCABULARY
        after = model(source, other).numpy()
        np.testing.assert_allclose(after[:, :cut], before[:, :cut], rtol=1e-12, atol=1e-12)
        assert (np.abs(after[:, cut] - before[:, cut]) > 1e-6).any()


@every_model
def test_decoding_step_by_step_equals_the_forward_pass(build):
    model = build()
    source, target = batch()
    logits = model(source, target).numpy()
    state = model.start(source)
    for t in range(target.shape[1]):
        step, state = model.advance(target[:, t], state)
        np.testing.assert_allclose(step, logits[:, t], rtol=1e-9, atol=1e-11)


@every_model
def test_a_taken_state_is_that_of_its_rows(build):
    model = build()
    source, target = batch()
    state = model.start(source)
    _, state = model.advance(target[:, 0], state)
    rows = np.array([2, 0, 0, 3, 1, 2])
    expected, _ = model.advance(target[:, 1], state)
    taken, after = model.advance(target[rows, 1], state.take(rows))
    np.testing.assert_allclose(taken, expected[rows], rtol=1e-10, atol=1e-12)
    again = np.array([1, 0, 2, 5, 4, 3])  # swaps rows of one sentence, and moves others
    twice, _ = model.advance(target[rows[again], 2], after.take(again))
    _, state = model.advance(target[:, 1], state)
    expected, _ = model.advance(target[:, 2], state)
    np.testing.assert_allclose(twice, expected[rows[again]], rtol=1e-10, atol=1e-12)


@pytest.mark.sanitize
@every_model
def test_search_in_a_batch_is_search_alone(build):
    model = build().train()
    lengths = (7, 3, 1, 6)
    source, _ = batch(lengths)
    together = beam_search(model, source, 3, 1.0, 8)
    assert model.training
    for i, length in enumerate(lengths):
        (alone,) = beam_search(model, source[i : i + 1, :length], 3, 1.0, 8)
        assert [h.ids for h in alone] == [h.ids for h in together[i]]
        np.testing.assert_allclose(
            [h.score for h in alone], [h.score for h in together[i]], rtol=1e-9
        )
    greedy = greedy_search(model, source, 8)
    assert [tuple(ids) for ids in greedy] == [
        best.ids for (best,) in beam_search(model, source, 1, 1.0, 8)
    ]


@pytest.mark.parametrize("norm_first", [False, True])
def test_attention_weights_are_those_of_the_forward_pass(norm_first):
    model = transformer(norm_first=norm_first).train()
    lengths = (7, 3, 1, 6)
    source, target = batch(lengths)
    weights = model.attention_weights(source, target)
    assert model.training
    assert weights.encoder.shape == (2, 4, 4, 7, 7)
    assert weights.decoder.shape == (2, 4, 4, 5, 5)
    assert weights.cross.shape == (2, 4, 4, 5, 7)
    for part in weights:
        np.testing.assert_allclose(part.sum(-1), 1.0, rtol=1e-12)
    assert (weights.decoder[..., ~np.tri(5, dtype=bool)] == 0).all()
    for i, length in enumerate(lengths):
        assert (weights.cross[:, i, ..., length:] == 0).all()
        assert (weights.encoder[:, i, ..., length:] == 0).all()
    # the first cross-attention by its definition, from the layer's own input
    model.eval()
    layer = model.transformer.decoder.layers[0]
    scale = math.sqrt(model.config.d_model)
    x = model.positions(model.tokens(target) * scale)
    memory = model.transformer.encoder(
        model.positions(model.tokens(source) * scale), src_key_padding_mask=source == PAD
    )
    x = layer.residual(x, 1, lambda y: layer.self_attn(y, y, y, is_causal=True)[0])
    query, key = (
        t.numpy() for t in layer.multihead_attn.project(layer.norm2(x) if norm_first else x, memory)
    )
    scores = query @ key.swapaxes(-1, -2) / math.sqrt(4)
    scores = np.where((source == PAD)[:, None, None], -np.inf, scores)
    expected = np.exp(scores - scores.max(-1, keepdims=True))
    expected /= expected.sum(-1, keepdims=True)
    np.testing.assert_allclose(weights.cross[0], expected, rtol=1e-9, atol=1e-12)


def learns_to_reverse(model, steps, lr):
    """Train `model` to write its source backwards; the share of sources that greedy search gets right."""
    rng = np.random.default_rng(3)
    optimiser = optim.Adam(model.parameters(), lr=lr)

    def draw(n):
        source = np.full((n, 5), PAD)
        target = np.full((n, 7), PAD)
        for row, words in zip(source, target, strict=True):
            ids = rng.integers(3, 9, rng.integers(1, 6))
            row[: len(ids)] = ids
            words[: len(ids) + 2] = [BOS, *ids[::-1], 2]
        return source, target

    for _ in range(steps):
        source, target = draw(48)
        logits = model(source, target[:, :-1])
        loss = F.cross_entropy(
            logits.reshape((-1, logits.shape[-1])), target[:, 1:].reshape(-1), ignore_index=PAD
        )
        for parameter in model.parameters():
            parameter.grad = None
        loss.backward()
        nn.utils.clip_grad_norm_(list(model.parameters()), 1.0)
        optimiser.step()
    source, target = draw(60)
    found = greedy_search(model, source, 7)
    wanted = [[i for i in row[1:].tolist() if i > 2] for row in target]
    return np.mean([a == b for a, b in zip(found, wanted, strict=True)])


def test_the_transformer_learns_to_reverse():
    random.manual_seed(0)
    config = TransformerConfig(9, 32, 4, 1, 1, 64, dropout=0.0, norm_first=True)
    assert learns_to_reverse(TranslationTransformer(config), 300, 3e-3) > 0.9


@pytest.mark.parametrize("attention", ["additive", None])
def test_seq2seq_learns_to_reverse(attention):
    random.manual_seed(0)
    model = Seq2Seq(Seq2SeqConfig(9, 16, 48, attention=attention, dropout=0.0))
    assert learns_to_reverse(model, 400, 5e-3) > 0.9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_model": 10}, "d_model: expected a multiple of n_heads 4, got 10"),
        ({"n_decoder_layers": 0}, "n_decoder_layers: expected > 0, got 0"),
        ({"eos": 23}, r"eos: expected in \[0, 23\), got 23"),
    ],
)
def test_transformer_sizes_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        TransformerConfig(VOCABULARY, **options)


@pytest.mark.parametrize(
    ("source", "target", "error", "message"),
    [
        (np.ones(3, int), np.ones((1, 3), int), ValueError, "source rank: expected 2"),
        (np.ones((1, 3), int), np.ones(3, int), ValueError, "target rank: expected 2"),
        (np.ones((1, 3), int), np.ones((2, 3), int), ValueError, "target batch: expected 1, got 2"),
        (np.ones((1, 13), int), np.ones((1, 3), int), ValueError, "length: expected at most 12"),
        (np.full((1, 3), 23), np.ones((1, 3), int), IndexError, "23"),
        (np.ones((1, 3)), np.ones((1, 3), int), TypeError, "integer"),
    ],
)
def test_bad_ids_are_named(source, target, error, message):
    with pytest.raises(error, match=message):
        transformer()(source, target)
