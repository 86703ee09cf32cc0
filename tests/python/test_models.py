"""GPT: the same numbers as PyTorch, as its own cached decoding, and sampling that keeps its rules."""

from __future__ import annotations

import numpy as np
import pytest

from vectile import nn, optim, random
from vectile.models import GPT, GPTConfig
from vectile.models.gpt import Cache
from vectile.models.sampling import Sampler

SMALL = GPTConfig(vocab_size=11, context=8, n_layers=2, n_heads=3, d_model=12)


def model(config=SMALL, seed=0):
    random.manual_seed(seed)
    gpt = GPT(config)
    for parameter in gpt.parameters():  # larger than the initial values: attention is not uniform
        parameter.data = (
            parameter.data + 0.3 * random.generator().normal(size=parameter.shape)
        ).astype(parameter.dtype)
    return gpt


def ids(batch, length, config=SMALL, seed=0):
    return np.random.default_rng(seed).integers(0, config.vocab_size, size=(batch, length))


def torch_forward(torch, gpt, tokens):
    """The same network written with PyTorch's functions, in float64."""
    p = {k: torch.tensor(v, dtype=torch.float64) for k, v in gpt.state_dict().items()}
    f, config = torch.nn.functional, gpt.config
    d, batch, length = config.d_model, *tokens.shape
    x = p["tokens.weight"][torch.tensor(tokens)] + p["positions.weight"][:length]
    for i in range(config.n_layers):
        w = {
            k.removeprefix(f"blocks.{i}."): v for k, v in p.items() if k.startswith(f"blocks.{i}.")
        }
        h = f.layer_norm(x, (d,), w["norm1.weight"], w["norm1.bias"])
        qkv = f.linear(h, w["attention.qkv.weight"], w["attention.qkv.bias"]).split(d, -1)
        q, k, v = (
            t.view(batch, length, config.n_heads, d // config.n_heads).transpose(1, 2) for t in qkv
        )
        a = f.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(x.shape)
        x = x + f.linear(a, w["attention.out.weight"], w["attention.out.bias"])
        h = f.layer_norm(x, (d,), w["norm2.weight"], w["norm2.bias"])
        x = x + f.linear(
            f.gelu(f.linear(h, w["up.weight"], w["up.bias"])), w["down.weight"], w["down.bias"]
        )
    x = f.layer_norm(x, (d,), p["norm.weight"], p["norm.bias"])
    return f.linear(x, p["head.weight"])


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("shape", [(1, 1), (2, 5), (3, 8)])
def test_logits_and_loss_equal_torch(shape, tie):
    torch = pytest.importorskip("torch", reason="PyTorch is the reference")
    config = GPTConfig(11, 8, 2, 3, 12, tie_weights=tie)
    gpt = model(config).double()
    tokens, targets = ids(*shape), ids(*shape, seed=1)
    expected = torch_forward(torch, gpt, tokens)
    np.testing.assert_allclose(gpt(tokens).numpy(), expected.numpy(), rtol=1e-9, atol=1e-11)
    loss = torch.nn.functional.cross_entropy(
        expected.reshape(-1, 11), torch.tensor(targets).reshape(-1)
    )
    assert gpt(tokens, targets).item() == pytest.approx(loss.item(), rel=1e-10)


def test_tied_weights_are_one_parameter():
    tied, free = GPT(SMALL), GPT(GPTConfig(11, 8, 2, 3, 12, tie_weights=False))
    assert tied.head.weight is tied.tokens.weight
    assert len(list(free.parameters())) == len(list(tied.parameters())) + 1
    assert list(free.state_dict()) == list(tied.state_dict())


def test_every_parameter_learns():
    gpt = GPT(SMALL)
    before = {k: v.copy() for k, v in gpt.state_dict().items()}
    optimiser = optim.AdamW(gpt.parameters(), lr=0.01)
    tokens = ids(4, 8)
    first = None
    for _ in range(25):
        optimiser.zero_grad()
        loss = gpt(tokens[:, :-1], tokens[:, 1:])
        first = first or loss.item()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.7 * first
    assert all(not np.array_equal(v, before[k]) for k, v in gpt.state_dict().items())


def test_decoding_in_pieces_equals_the_whole():
    gpt = model().double().eval()
    tokens = ids(3, 8)
    whole = gpt(tokens).numpy()
    for pieces in ([1] * 8, [3, 1, 4], [8]):
        cache, start = Cache(SMALL, 3, np.float64), 0
        for length in pieces:
            logits = gpt.decode(tokens[:, start : start + length], cache)
            start += length
            np.testing.assert_allclose(logits, whole[:, start - 1], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("new", [0, 1, 5, 30])
def test_generation_with_and_without_the_cache_is_the_same(new):
    gpt = model()
    prompt = ids(2, 3)
    options = dict(temperature=0.8, top_k=7, top_p=0.9, seed=4)
    cached = gpt.generate(prompt, new, **options)
    assert np.array_equal(cached, gpt.generate(prompt, new, use_cache=False, **options))
    assert cached.shape == (2, 3 + new) and np.array_equal(cached[:, :3], prompt)
    assert gpt.training


def test_greedy_takes_the_likeliest():
    gpt = model().eval()
    out = gpt.generate(ids(1, 2)[0], 6, greedy=True)
    assert out.ndim == 1
    for end in range(2, 8):
        assert out[end] == gpt(out[None, :end]).numpy()[0, -1].argmax()


def test_a_long_prompt_is_cut_to_the_context():
    gpt = model()
    prompt = ids(1, 20)
    long = gpt.generate(prompt, 1, greedy=True)
    assert np.array_equal(long[:, :20], prompt)
    assert long[0, 20] == gpt.generate(prompt[:, -8:], 1, greedy=True)[0, 8]


def test_callback_sees_every_token():
    seen = []
    out = model().generate(ids(2, 3), 4, seed=0, callback=lambda new: seen.append(new.copy()))
    assert np.array_equal(np.stack(seen, 1), out[:, 3:])


def test_sampling_frequencies_and_restrictions():
    logits = np.log(np.array([[0.5, 0.25, 0.15, 0.1]], np.float32))
    many = np.repeat(logits, 20000, 0)

    def frequency(**options):
        return np.bincount(Sampler(seed=0, **options)(many), minlength=4) / len(many)

    error = 5 * np.sqrt(0.25 / len(many))
    np.testing.assert_allclose(frequency(), [0.5, 0.25, 0.15, 0.1], atol=error)
    np.testing.assert_allclose(frequency(top_k=2), [2 / 3, 1 / 3, 0, 0], atol=error)
    np.testing.assert_allclose(frequency(top_p=0.6), [2 / 3, 1 / 3, 0, 0], atol=error)
    np.testing.assert_allclose(frequency(top_p=0.5), [1, 0, 0, 0], atol=0)
    np.testing.assert_allclose(frequency(temperature=0.01), [1, 0, 0, 0], atol=0)
    squared = np.array([0.25, 0.0625, 0.0225, 0.01])
    np.testing.assert_allclose(frequency(temperature=0.5), squared / squared.sum(), atol=error)
    assert np.array_equal(Sampler(seed=3)(many), Sampler(seed=3)(many))
    random.manual_seed(1)
    first = Sampler()(many)
    random.manual_seed(1)
    assert np.array_equal(first, Sampler()(many))


def test_attention_weights_are_causal_distributions_that_explain_the_output():
    gpt = model().eval()
    weights = gpt.attention_weights(ids(2, 6))
    assert weights.shape == (2, 2, 3, 6, 6)
    assert not np.triu(weights, 1).any()
    np.testing.assert_allclose(weights.sum(-1), 1.0, rtol=1e-5)
    x = gpt.blocks[0].norm1(gpt._embed(ids(2, 6), 0))
    _, _, v = gpt.blocks[0].attention.heads(x)
    joined = (weights[0] @ v).swapaxes(1, 2).reshape(2, 6, 12)
    expected = gpt.blocks[0].attention(x).numpy()
    out = nn.functional.linear(
        joined, gpt.blocks[0].attention.out.weight, gpt.blocks[0].attention.out.bias
    ).numpy()
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda g: GPTConfig(d_model=10, n_heads=3), ValueError, "d_model: expected a multiple"),
        (lambda g: GPTConfig(context=0), ValueError, "context: expected > 0, got 0"),
        (lambda g: GPTConfig(dropout=1.0), ValueError, "dropout"),
        (lambda g: g(ids(1, 9)), ValueError, "ids length: expected 1 to 8, got 9"),
        (lambda g: g(ids(1, 4)[0]), ValueError, "ids rank: expected 2"),
        (lambda g: g(np.array([[11]])), IndexError, "embedding: ids"),
        (lambda g: g.generate([], 3), TypeError, "ids dtype: expected integers"),
        (lambda g: g.generate(np.zeros((1, 0), int), 3), ValueError, "ids shape"),
        (lambda g: g.generate([1], -1), ValueError, "max_new_tokens: expected >= 0, got -1"),
        (lambda g: g.generate([1], 1, temperature=0.0), ValueError, "temperature: expected > 0"),
        (lambda g: g.generate([1], 1, top_k=0), ValueError, "top_k: expected >= 1, got 0"),
        (
            lambda g: g.generate([1], 1, top_p=1.5),
            ValueError,
            r"top_p: expected in \(0, 1\], got 1.5",
        ),
    ],
)
def test_wrong_arguments_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make(model())
