"""GPT: the same numbers as PyTorch, as its own cached decoding, and sampling that keeps its rules."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from vectile import nn, optim, random
from vectile.models import GPT, GPTConfig
from vectile.models.sampling import Sampler

SMALL = GPTConfig(vocab_size=11, context=8, n_layers=2, n_heads=3, d_model=12)
VARIANTS = {
    "learned": {},
    "grouped": {"n_kv_heads": 1},
    "window": {"window": 3},
    "rotary": {"positions": "rotary", "window": 5},
    "alibi": {"positions": "alibi"},
    "all": {"positions": "rotary", "window": 2, "n_kv_heads": 1},
}
every_variant = pytest.mark.parametrize("variant", VARIANTS)


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


def variant_of(name):
    return replace(SMALL, **VARIANTS[name])


def torch_turned(torch, x):
    """Rotary embedding as GPT-NeoX writes it."""
    dim = x.shape[-1]
    angle = torch.arange(x.shape[-2])[:, None] / 10000 ** (torch.arange(0, dim, 2) / dim)
    cosine, sine = (torch.cat([a, a], -1).double() for a in (angle.cos(), angle.sin()))
    return x * cosine + torch.cat([-x[..., dim // 2 :], x[..., : dim // 2]], -1) * sine


def torch_forward(torch, gpt, tokens):
    """The same network written with PyTorch's functions, in float64."""
    p = {k: torch.tensor(v, dtype=torch.float64) for k, v in gpt.state_dict().items()}
    f, config = torch.nn.functional, gpt.config
    d, batch, length = config.d_model, *tokens.shape
    x = p["tokens.weight"][torch.tensor(tokens)]
    if config.positions == "learned":
        x = x + p["positions.weight"][:length]
    before = torch.arange(length)[:, None] - torch.arange(length)
    bias = torch.zeros(config.n_heads, length, length, dtype=torch.float64)
    if config.positions == "alibi":
        bias = -torch.tensor(nn.alibi_slopes(config.n_heads)).double()[:, None, None] * before
    hidden = (before < 0) | (before > (length if config.window is None else config.window))
    bias = bias.masked_fill(hidden, -torch.inf)
    kv_heads, dim = config.n_kv_heads or config.n_heads, d // config.n_heads
    for i in range(config.n_layers):
        w = {
            k.removeprefix(f"blocks.{i}."): v for k, v in p.items() if k.startswith(f"blocks.{i}.")
        }
        h = f.layer_norm(x, (d,), w["norm1.weight"], w["norm1.bias"])
        qkv = f.linear(h, w["attention.qkv.weight"], w["attention.qkv.bias"])
        qkv = qkv.view(batch, length, -1, dim).transpose(1, 2)
        q, k, v = qkv.split([config.n_heads, kv_heads, kv_heads], 1)
        if config.positions == "rotary":
            q, k = torch_turned(torch, q), torch_turned(torch, k)
        k, v = (t.repeat_interleave(config.n_heads // kv_heads, 1) for t in (k, v))
        a = f.scaled_dot_product_attention(q, k, v, bias).transpose(1, 2).reshape(x.shape)
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


@every_variant
def test_variants_equal_torch(variant):
    torch = pytest.importorskip("torch", reason="PyTorch is the reference")
    gpt = model(variant_of(variant)).double()
    expected = torch_forward(torch, gpt, ids(2, 8)).numpy()
    # the tables of rotations and slopes are float32 before they are widened
    atol = 1e-5 if gpt.config.positions == "rotary" else 1e-10
    np.testing.assert_allclose(gpt(ids(2, 8)).numpy(), expected, rtol=0, atol=atol)


def test_configurations_of_before_mean_what_they_did():
    old = {"vocab_size": 11, "context": 8, "n_layers": 2, "n_heads": 3, "d_model": 12}
    old |= {"dropout": 0.0, "bias": True, "tie_weights": True}
    gpt = GPT(GPTConfig(**old))
    assert gpt.config == SMALL
    state = gpt.state_dict()
    assert state["positions.weight"].shape == (8, 12)
    assert state["blocks.0.attention.qkv.weight"].shape == (36, 12)
    for variant in ("rotary", "alibi"):
        config = variant_of(variant)
        assert GPTConfig(**json.loads(json.dumps(asdict(config)))) == config
        assert set(GPT(config).state_dict()) == set(state) - {"positions.weight"}


def test_tied_weights_are_one_parameter():
    tied, free = GPT(SMALL), GPT(GPTConfig(11, 8, 2, 3, 12, tie_weights=False))
    assert tied.head.weight is tied.tokens.weight
    assert len(list(free.parameters())) == len(list(tied.parameters())) + 1
    assert list(free.state_dict()) == list(tied.state_dict())


@every_variant
def test_every_parameter_learns(variant):
    gpt = GPT(variant_of(variant))
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


@every_variant
def test_decoding_in_pieces_equals_the_whole(variant):
    gpt = model(variant_of(variant)).double().eval()
    tokens = ids(3, 8)
    whole = gpt(tokens).numpy()
    for pieces in ([1] * 8, [3, 1, 4], [8]):
        cache, start = gpt.cache(3), 0
        for length in pieces:
            logits = gpt.decode(tokens[:, start : start + length], cache)
            start += length
            np.testing.assert_allclose(logits, whole[:, start - 1], rtol=1e-9, atol=1e-11)


def test_prompts_of_different_lengths_are_decoded_together():
    for variant in ("learned", "all", "alibi"):
        gpt = model(variant_of(variant)).double().eval()
        config = gpt.config
        cache = nn.PagedKVCache(
            config.n_layers, config.kv_heads, config.head_dim, 8, 16, dtype=np.float64
        )
        prompts = [ids(1, 5), ids(1, 2, seed=1)]
        for prompt in prompts:
            request = cache.take([])
            request.allocate()
            gpt.decode(prompt, request)
            cache.extend(request)
        new = ids(2, 3, seed=2)
        logits = gpt.decode(new, cache)
        for row, prompt in enumerate(prompts):
            whole = gpt(np.concatenate([prompt, new[row : row + 1]], 1)).numpy()
            np.testing.assert_allclose(logits[row], whole[0, -1], rtol=1e-9, atol=1e-11)
        with pytest.raises(ValueError, match="ids length: expected 1 to 0, got 1"):
            gpt.decode(new[:, :1], cache)


@every_variant
def test_refused_guesses_are_taken_back(variant):
    """Speculative decoding: several tokens at once, of which the first ones stay."""
    gpt = model(variant_of(variant)).double().eval()
    tokens, cache = ids(2, 8), gpt.cache(2)
    gpt.decode(tokens[:, :3], cache)
    gpt.decode((tokens[:, 3:7] + 1) % 11, cache)
    cache.truncate(cache.lengths - 4)
    logits = gpt.decode(tokens[:, 3:6], cache)
    np.testing.assert_allclose(logits, gpt(tokens).numpy()[:, 5], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    "dtype, error", [("bfloat16", 2**-8), ("float16", 2**-11), ("int8", 1 / 127)]
)
def test_narrow_caches_are_close(dtype, error):
    gpt = model().eval()
    cache = gpt.cache(2, dtype)
    assert cache.dtype.name == dtype and cache.nbytes < gpt.cache(2).nbytes * 0.8
    tokens = ids(2, 8)
    whole = gpt(tokens).numpy()
    for t in range(8):
        logits = gpt.decode(tokens[:, t : t + 1], cache)
        # one rounding of keys and values of about 2, over two layers, in logits of about 10
        np.testing.assert_allclose(logits, whole[:, t], rtol=0, atol=40 * error)
    out = gpt.generate(tokens[:, :3], 20, greedy=True, cache_dtype=dtype)
    assert out.shape == (2, 23)


@every_variant
@pytest.mark.parametrize("new", [0, 1, 5, 30])
def test_generation_with_and_without_the_cache_is_the_same(new, variant):
    gpt = model(variant_of(variant))
    prompt = ids(2, 3)
    options = dict(temperature=0.8, top_k=7, top_p=0.9, seed=4)
    cached = gpt.generate(prompt, new, **options)
    assert np.array_equal(cached, gpt.generate(prompt, new, use_cache=False, **options))
    greedy = gpt.generate(prompt, new, greedy=True)
    assert np.array_equal(greedy, gpt.generate(prompt, new, greedy=True, use_cache=False))
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


@every_variant
def test_attention_weights_are_causal_distributions_that_explain_the_output(variant):
    gpt = model(variant_of(variant)).eval()
    weights = gpt.attention_weights(ids(2, 6))
    assert weights.shape == (2, 2, 3, 6, 6)
    assert not np.triu(weights, 1).any()
    np.testing.assert_allclose(weights.sum(-1), 1.0, rtol=1e-5)
    x = gpt.blocks[0].norm1(gpt._embed(ids(2, 6), 0))
    _, _, v = gpt.blocks[0].attention.heads(x)
    v = np.repeat(v.numpy(), 3 // v.shape[1], 1)
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
        (lambda g: GPTConfig(window=0), ValueError, "window: expected > 0, got 0"),
        (
            lambda g: GPTConfig(n_kv_heads=3),
            ValueError,
            "n_kv_heads: expected a divisor of n_heads 4",
        ),
        (lambda g: GPTConfig(positions="sine"), ValueError, "positions: expected 'learned'"),
        (
            lambda g: GPTConfig(d_model=12, n_heads=4, positions="rotary"),
            ValueError,
            "d_model / n_heads: expected an even number for rotary positions, got 3",
        ),
        (lambda g: g.generate([1], 1, cache_dtype="int32"), TypeError, "KVCache: dtype: expected"),
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
