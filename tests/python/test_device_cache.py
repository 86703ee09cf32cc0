"""Caches of keys and values, and decoding, on a device: what the CPU's give."""

import numpy as np
import pytest
from gpu_array import GpuArray, here, there
from on_device import needs_device
from test_device import gpu  # noqa: F401  (a fixture)

import vectile
from vectile import nn
from vectile.models import GPT, GPTConfig, TranslationTransformer
from vectile.models.search import beam_search, greedy_search
from vectile.models.transformer import TransformerConfig

pytestmark = [needs_device, pytest.mark.usefixtures("gpu")]
# Of an output: 32 terms of either product in float32, and a number of the cache rounded the other way.
BOUNDS = {np.float32: 2.0**-18, np.float16: 2.0**-9, np.int8: 4 / 127}


def batches(place, dtype):
    """What attention finds in a cache whose sequences differ, fork, meet again and are cut."""
    rng = np.random.default_rng(0)

    def f(*shape):
        return there(rng.standard_normal(shape).astype(np.float32), place)

    out = []
    cache = nn.KVCache(2, 2, 8, 40, batch=2, dtype=dtype, device=place)
    for n, counts in ((5, [5, 3]), (3, [1, 3]), (1, [1, 1])):
        for layer in range(2):
            found = cache.step(layer, f(2, 4, n, 8), f(2, 2, n, 8), f(2, 2, n, 8), counts)
            out += [found.data[i, :, : counts[i]] for i in range(2)]
    out += cache.attend(0, f(2, 4, 2, 8), return_lse=True)
    out.append(cache.attend(1, f(2, 4, 3, 8), is_causal=False))
    more = cache.take([1, 1, 0])
    more.append(0, f(3, 2, 2, 8), f(3, 2, 2, 8))
    cache.append(0, f(2, 2, 1, 8), f(2, 2, 1, 8))
    out += [more.attend(0, f(3, 4, 1, 8)), cache.attend(0, f(2, 4, 1, 8), window=(3, 0))]
    cache.truncate([2, 3])
    out.append(cache.attend(0, f(2, 4, 1, 8)))
    assert ("device=cuda:0" in repr(cache)) == (place != "cpu")
    return out


@pytest.mark.parametrize("dtype", BOUNDS)
def test_kv_cache(dtype):
    for a, b in zip(batches("cpu", dtype), batches("cuda", dtype), strict=True):
        assert isinstance(b.data if isinstance(b, vectile.Tensor) else b, GpuArray)
        np.testing.assert_allclose(here(b), here(a), rtol=0, atol=BOUNDS[dtype])


def pages(place):
    rng = np.random.default_rng(0)

    def f(*shape):
        return there(rng.standard_normal(shape).astype(np.float32), place)

    cache, out = nn.PagedKVCache(1, 2, 8, 5, 16, device=place), []
    cache.allocate()
    cache.append(0, f(1, 2, 20, 8), f(1, 2, 20, 8))
    cache.fork(0)
    for _ in range(2):  # the first copies the block that both write to
        cache.append(0, f(2, 2, 3, 8), f(2, 2, 3, 8))
        out.append(cache.attend(0, f(2, 4, 1, 8)))
    with pytest.raises(MemoryError, match="expected 4 free blocks, got 2 of 5"):
        cache.append(0, f(2, 2, 30, 8), f(2, 2, 30, 8))
    cache.free(0)
    return [*out, cache.attend(0, f(1, 4, 1, 8))], cache.free_blocks


def test_paged_cache():
    (want, free), (got, left) = pages("cpu"), pages("cuda")
    assert free == left
    for a, b in zip(want, got, strict=True):
        np.testing.assert_allclose(here(b), here(a), rtol=0, atol=BOUNDS[np.float32])


def test_a_cache_takes_what_is_where_it_is(rng):
    x = rng.standard_normal((1, 2, 3, 8)).astype(np.float32)
    cache = nn.KVCache(1, 2, 8, 16, device="cuda")
    with pytest.raises(TypeError, match="KVCache: key device: expected cuda:0, got cpu"):
        cache.append(0, x, x)
    with pytest.raises(TypeError, match="KVCache: query device: expected cpu, got cuda:0"):
        nn.KVCache(1, 2, 8, 16).attend(0, there(x, "cuda"))
    with pytest.raises(ValueError, match="expected 'cpu', 'cuda' or 'cuda:0', got 'gpu'"):
        nn.KVCache(1, 2, 8, 16, device="gpu")


@pytest.mark.parametrize(
    ("options", "dtype"),
    [({}, None), ({"n_kv_heads": 1, "window": 4, "positions": "rotary"}, np.int8)],
)
def test_generate(options, dtype):
    found = []
    for place in ("cpu", "cuda"):
        vectile.manual_seed(0)
        model = GPT(GPTConfig(32, context=8, n_layers=1, n_heads=2, d_model=16, **options))
        model.to(place)
        seen = []
        ids = model.generate(
            [[1, 2, 3], [4, 5, 6]], 6, greedy=True, cache_dtype=dtype, callback=seen.append
        )
        drawn = model.generate(there(np.array([1, 2, 3]), place), 2, top_k=5, seed=3)
        found.append([ids, drawn, *seen])
    for a, b in zip(*found, strict=True):
        assert type(b) is np.ndarray
        np.testing.assert_array_equal(b, a)


def test_prompts_of_different_lengths():
    ids, found = np.array([[1, 2, 3], [4, 5, 6]]), []
    for place in ("cpu", "cuda"):
        vectile.manual_seed(0)
        config = GPTConfig(32, context=16, n_layers=1, n_heads=2, d_model=16)
        model = GPT(config).to(place)
        cache = model.cache(2)
        model.decode(there(ids, place), cache)
        cache.truncate([3, 1])
        found.append(here(model.decode(there(ids[:, :2], place), cache)))
    np.testing.assert_allclose(found[1], found[0], rtol=0, atol=160 * 2.0**-24)


def test_decoding_waits_for_nothing(monkeypatch):
    config = GPTConfig(32, context=16, n_layers=1, n_heads=2, d_model=16, positions="rotary")
    model = GPT(config).to("cuda")
    cache, ids = model.cache(2), there(np.array([[1, 2, 3], [4, 5, 6]]), "cuda")

    def read(self, *_):
        raise AssertionError("a number of the GPU's was read")

    for name in ("__bool__", "__float__", "__int__", "item", "get", "tolist"):
        monkeypatch.setattr(GpuArray, name, read)
    for _ in range(2):
        model.decode(ids, cache)
        cache.truncate(cache.lengths - [1, 2])


def test_translation():
    source, found = np.array([[1, 2, 3, 0], [4, 5, 6, 7]]), []
    config = TransformerConfig(
        16,
        context=8,
        n_encoder_layers=1,
        n_decoder_layers=1,
        n_heads=2,
        d_model=16,
        d_feedforward=16,
    )
    for place in ("cpu", "cuda"):
        vectile.manual_seed(0)
        model = TranslationTransformer(config).to(place)
        beams = beam_search(model, source, 2, max_length=3)
        found.append((greedy_search(model, source, 3), [[h.ids for h in b] for b in beams]))
    assert found[0] == found[1]


def test_attention_modules():
    x = np.random.default_rng(0).standard_normal((2, 4, 8)).astype(np.float32)
    padding, found = np.array([[0, 0, 1], [0, 0, 0]], bool), []
    for place in ("cpu", "cuda"):
        vectile.manual_seed(0)
        rotary = nn.RotaryEmbedding(4)
        module = nn.MultiheadAttention(8, 2, batch_first=True, rotary=rotary).to(place).eval()
        decoder = nn.TransformerDecoderLayer(8, 2, 16, 0.0, batch_first=True)
        stack = nn.TransformerDecoder(decoder, 1).to(place)
        cache = nn.KVCache(1, 2, 4, 16, batch=2, device=place)
        first, last, hidden = there([x[:, :3], x[:, 3:], padding], place)
        with vectile.no_grad():
            begun = module(first, first, first, hidden, cache=cache)[0].data[:, :2]
            gone = module(last, last, last, cache=cache)[0]
            memory = stack.remember(first, hidden[:, ::-1])  # padding first: brought to the end
            found.append([begun, gone, stack(there(x, place), memory, tgt_is_causal=True)])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(here(b), here(a), rtol=0, atol=160 * 2.0**-24)
