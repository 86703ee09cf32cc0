"""BERT: PyTorch's encoder with the same weights, padding that nobody sees, masking in its proportions."""

from __future__ import annotations

import numpy as np
import pytest

from vectile import checkpoint, optim, random
from vectile.models.bert import BERT, BERTClassifier, BERTConfig, BERTMaskedLM, mask_tokens
from vectile.nn import functional as F

SMALL = dict(vocab_size=13, context=9, n_layers=2, n_heads=3, d_model=12, d_feedforward=20)


def lively(model, seed=0):
    """`model` in float64 with weights large enough that attention is not uniform."""
    generator = np.random.default_rng(seed)
    model.double().eval()
    for parameter in model.parameters():
        parameter.data = parameter.data + 0.3 * generator.normal(size=parameter.shape)
    return model


def bert(seed=0, **options):
    random.manual_seed(seed)
    return lively(BERT(BERTConfig(**{**SMALL, **options})), seed)


def ids(batch, length, seed=0):
    return np.random.default_rng(seed).integers(0, SMALL["vocab_size"], (batch, length))


def padding(batch, length):
    """Sequence i keeps its first length - i tokens."""
    return np.arange(length) >= length - np.arange(batch)[:, None]


def torch_encoder(torch, model):
    """torch.nn.TransformerEncoder with `model`'s weights, in float64."""
    c = model.config
    layer = torch.nn.TransformerEncoderLayer(
        c.d_model,
        c.n_heads,
        c.d_feedforward,
        0.0,
        "gelu",
        batch_first=True,
        norm_first=c.norm_first,
        dtype=torch.float64,
    )
    norm = torch.nn.LayerNorm(c.d_model, dtype=torch.float64) if c.norm_first else None
    encoder = torch.nn.TransformerEncoder(layer, c.n_layers, norm, enable_nested_tensor=False)
    state = {
        k.removeprefix("encoder."): torch.tensor(v)
        for k, v in model.state_dict().items()
        if k.startswith("encoder.")
    }
    encoder.load_state_dict(state)
    return encoder.eval()


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("segments", [0, 2])
@pytest.mark.parametrize("shape", [(1, 1), (2, 5), (3, 9)])
def test_hidden_states_and_losses_equal_torch(shape, segments, norm_first):
    torch = pytest.importorskip("torch", reason="PyTorch is the reference")
    model = bert(norm_first=norm_first, segments=segments)
    tokens, padded = ids(*shape), padding(*shape)
    which = None if segments == 0 else ids(*shape, seed=1) % 2
    p = {k: torch.tensor(v) for k, v in model.state_dict().items()}
    f, d = torch.nn.functional, model.config.d_model
    x = p["tokens.weight"][torch.tensor(tokens)] + p["positions.weight"][: shape[1]]
    if segments:
        x = x + p["segments.weight"][torch.tensor(which)]
    x = f.layer_norm(x, (d,), p["norm.weight"], p["norm.bias"])
    expected = torch_encoder(torch, model)(x, src_key_padding_mask=torch.tensor(padded))
    hidden = model(tokens, padded, which).numpy()
    real = ~padded  # the hidden states of padding are nobody's business
    np.testing.assert_allclose(hidden[real], expected.detach().numpy()[real], rtol=1e-9, atol=1e-11)

    lm = lively(BERTMaskedLM(model), 1)
    p = {k: torch.tensor(v) for k, v in lm.state_dict().items()}
    h = f.gelu(
        f.linear(
            torch.tensor(lm.bert(tokens, padded, which).numpy()), p["dense.weight"], p["dense.bias"]
        )
    )
    h = f.layer_norm(h, (d,), p["norm.weight"], p["norm.bias"])
    logits = f.linear(h, p["bert.tokens.weight"], p["decoder.bias"])
    np.testing.assert_allclose(
        lm(tokens, None, padded, which).numpy()[real], logits.numpy()[real], rtol=1e-9, atol=1e-11
    )
    targets = np.where(real & (ids(*shape, seed=2) % 2 == 0), ids(*shape, seed=3), -100)
    targets[0, 0] = 3
    loss = f.cross_entropy(logits.reshape(-1, 13), torch.tensor(targets).reshape(-1))
    assert lm(tokens, targets, padded, which).item() == pytest.approx(loss.item(), rel=1e-10)

    classifier = lively(BERTClassifier(model, 4), 2)
    p = {k: torch.tensor(v) for k, v in classifier.state_dict().items()}
    first = torch.tensor(classifier.bert(tokens, padded, which).numpy()[:, 0])
    pooled = torch.tanh(f.linear(first, p["pooler.weight"], p["pooler.bias"]))
    logits = f.linear(pooled, p["classifier.weight"], p["classifier.bias"])
    np.testing.assert_allclose(
        classifier(tokens, None, padded, which).numpy(), logits.numpy(), rtol=1e-9, atol=1e-11
    )


@pytest.mark.parametrize("norm_first", [False, True])
def test_padding_is_seen_by_nobody(norm_first):
    model = bert(norm_first=norm_first)
    short = ids(2, 5)
    alone = model(short).numpy()
    for fill in (0, 7):
        long = np.full((2, 9), fill)
        long[:, :5] = short
        padded = np.broadcast_to(np.arange(9) >= 5, (2, 9))
        np.testing.assert_allclose(
            model(long, padded).numpy()[:, :5], alone, rtol=1e-12, atol=1e-13
        )
        weights = model.attention_weights(long, padded)
        assert not weights[..., 5:].any()


def test_attention_weights_explain_the_layer():
    model = bert(norm_first=True)
    tokens, padded = ids(2, 6), padding(2, 6)
    weights = model.attention_weights(tokens, padded)
    assert weights.shape == (2, 2, 3, 6, 6)
    np.testing.assert_allclose(weights.sum(-1), 1.0, rtol=1e-12)
    layer = model.encoder.layers[0]
    x = layer.norm1(model._embed(tokens, None))
    value = (x @ layer.self_attn.in_proj_weight[24:].T + layer.self_attn.in_proj_bias[24:]).numpy()
    heads = weights[0] @ value.reshape(2, 6, 3, 4).swapaxes(1, 2)
    joined = layer.self_attn.out_proj(heads.swapaxes(1, 2).reshape(2, 6, 12)).numpy()
    expected = layer.self_attn(x, x, x, padded, need_weights=False)[0].numpy()
    np.testing.assert_allclose(joined, expected, rtol=1e-10, atol=1e-12)


def test_the_head_shares_the_token_embedding_and_its_gradient():
    lm = lively(BERTMaskedLM(bert()))
    assert lm.decoder.weight is lm.bert.tokens.weight
    assert sum(p is lm.decoder.weight for p in lm.parameters()) == 1
    tokens, targets = ids(2, 5), ids(2, 5, seed=1)
    lm(tokens, targets).backward()
    table, h = lm.decoder.weight, 1e-6
    for row, column in ((int(tokens[0, 0]), 3), (int(targets[1, 2]), 0), (12, 11)):
        kept, values = table.data[row, column], []
        for sign in (1, -1):
            table.data[row, column] = kept + sign * h
            values.append(lm(tokens, targets).item())
        table.data[row, column] = kept
        slope = (values[0] - values[1]) / (2 * h)
        assert table.grad.numpy()[row, column] == pytest.approx(slope, rel=1e-5, abs=1e-8)


def test_only_wanted_positions_count():
    lm = lively(BERTMaskedLM(bert()))
    tokens = ids(2, 5)
    targets = np.full((2, 5), -100)
    targets[0, 1], targets[1, 4] = 3, 8
    logits = lm(tokens)
    expected = F.cross_entropy(logits.reshape((-1, 13)), targets.reshape(-1)).item()
    assert lm(tokens, targets).item() == pytest.approx(expected, rel=1e-12)
    assert np.isnan(lm(tokens, np.full((2, 5), -100)).item())  # the mean of nothing, as in PyTorch


def test_masking_keeps_the_papers_proportions():
    n, mask, special = 200_000, 1, (0, 2)
    original = np.random.default_rng(0).integers(0, 50, n)
    inputs, targets = mask_tokens(original, mask, 50, np.random.default_rng(1), special)
    chosen = targets != -100
    ordinary = ~np.isin(original, special)
    assert not chosen[~ordinary].any()
    assert np.array_equal(targets[chosen], original[chosen])
    assert np.array_equal(inputs[~chosen], original[~chosen])

    def close(share, expected, count):
        return abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / count)

    assert close(chosen[ordinary].mean(), 0.15, ordinary.sum())
    now, before = inputs[chosen], original[chosen]
    other = before != mask
    assert close((now == mask)[other].mean(), 0.8, other.sum())
    # a random token is by chance the old one in 1 of 47 cases
    assert close((now == before)[other].mean(), 0.1 + 0.1 / 47, other.sum())
    random_ones = now[(now != mask) & (now != before)]
    assert not np.isin(random_ones, (*special, mask)).any()
    assert len(np.unique(random_ones)) == 47
    again = mask_tokens(original, mask, 50, np.random.default_rng(1), special)
    assert np.array_equal(inputs, again[0]) and np.array_equal(targets, again[1])


@pytest.mark.parametrize("head", ["lm", "classifier"])
def test_every_parameter_learns(head):
    random.manual_seed(0)
    encoder = BERT(BERTConfig(**SMALL))
    model = BERTMaskedLM(encoder) if head == "lm" else BERTClassifier(encoder, 3)
    before = {k: v.copy() for k, v in model.state_dict().items()}
    optimiser = optim.AdamW(model.parameters(), lr=0.01)
    tokens = ids(4, 9)
    targets = tokens if head == "lm" else np.array([0, 1, 2, 1])
    losses = []
    for _ in range(30):
        optimiser.zero_grad()
        loss = model(tokens, targets, segments=tokens % 2)
        losses.append(loss.item())
        loss.backward()
        optimiser.step()
    assert losses[-1] < 0.7 * losses[0]
    assert all(not np.array_equal(v, before[k]) for k, v in model.state_dict().items())


def test_same_seed_same_model_and_dropout():
    def run():
        random.manual_seed(5)
        model = BERTMaskedLM(BERT(BERTConfig(**SMALL)))
        return model(ids(2, 5), ids(2, 5, seed=1)).item()

    assert run() == run()


def test_checkpoint_round_trip(tmp_path):
    model = lively(BERTMaskedLM(bert(3)))
    checkpoint.save(tmp_path / "m.safetensors", model.state_dict(), {"kind": "bert"})
    other = lively(BERTMaskedLM(bert(4)))
    other.load_state_dict(checkpoint.load(tmp_path / "m.safetensors")[0])
    assert np.array_equal(model(ids(2, 5)).numpy(), other(ids(2, 5)).numpy())
    assert other.decoder.weight is other.bert.tokens.weight


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: BERTConfig(0), ValueError, "vocab_size: expected > 0, got 0"),
        (lambda: BERTConfig(5, d_model=10, n_heads=3), ValueError, "d_model: expected a multiple"),
        (lambda: BERTConfig(5, segments=-1), ValueError, "segments: expected >= 0, got -1"),
        (lambda: BERTConfig(5, dropout=1.0), ValueError, "dropout"),
        (lambda: bert()(ids(1, 10)), ValueError, "ids length: expected 1 to 9, got 10"),
        (lambda: bert()(ids(1, 9)[0]), ValueError, "ids rank: expected 2"),
        (lambda: bert()(np.full((1, 2), 13)), IndexError, "embedding: ids"),
        (lambda: bert()(ids(1, 3), segments=np.full((1, 3), 2)), IndexError, "embedding: ids"),
        (
            lambda: bert()(ids(1, 3), segments=[[0]]),
            ValueError,
            r"segments shape: expected \(1, 3\)",
        ),
        (lambda: bert(segments=0)(ids(1, 3), None, ids(1, 3)), ValueError, "no segment embedding"),
        (lambda: bert()(ids(1, 3), [[True]]), ValueError, "key_padding_mask shape"),
        (
            lambda: BERTMaskedLM(bert())(ids(1, 3), ids(1, 2)),
            ValueError,
            r"targets shape: expected \(1, 3\), got \(1, 2\)",
        ),
        (lambda: BERTClassifier(bert(), 0), ValueError, "classes: expected >= 1, got 0"),
        (
            lambda: mask_tokens([1], 0, 5, np.random.default_rng(0), probability=0.0),
            ValueError,
            r"probability: expected in \(0, 1\], got 0.0",
        ),
        (
            lambda: mask_tokens([1], 0, 2, np.random.default_rng(0), special=(1,)),
            ValueError,
            "special: expected some tokens that are not",
        ),
    ],
)
def test_wrong_arguments_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()
