"""MultiheadAttention's own options and caches, and masks that become work left out, against plain masks."""

from __future__ import annotations

import numpy as np
import pytest

from vectile import nn, random
from vectile.autograd import Tensor, no_grad
from vectile.nn import functional as F
from vectile.nn.attention import causal_or_mask, key_lengths

N, L, E, H = 3, 7, 24, 4
D = E // H
CLOSE = {"rtol": 1e-9, "atol": 1e-11}


def layer(seed=0, **options):
    random.manual_seed(seed)
    made = nn.MultiheadAttention(E, H, batch_first=True, dtype=np.float64, **options)
    for parameter in made.parameters():  # biases and sinks too
        parameter.data = random.generator().normal(size=parameter.shape) / np.sqrt(E / 4)
    return made


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def repeated(made):
    """The same attention with as many heads of keys as of queries."""
    groups = H // made.num_kv_heads
    plain = layer()
    kv = made.num_kv_heads * D

    def spread(rows):
        heads = rows.reshape(made.num_kv_heads, D, -1)
        return np.repeat(heads, groups, 0).reshape(E, -1)

    for name in ("in_proj_weight", "in_proj_bias"):
        own = getattr(made, name).numpy()
        parts = [own[:E].reshape(E, -1), spread(own[E : E + kv]), spread(own[E + kv :])]
        getattr(plain, name).data = np.concatenate(parts).reshape(-1, *own.shape[1:])
    plain.out_proj.load_state_dict(made.out_proj.state_dict())
    return plain


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_grouped_heads_are_repeated_ones(kv_heads, need_weights):
    made, x = layer(num_kv_heads=kv_heads), draw(N, L, E)
    assert made.in_proj_weight.shape == (E + 2 * kv_heads * D, E)
    plain = repeated(made)
    for inputs in ((x, x, x), (x, draw(N, 5, E, seed=1), draw(N, 5, E, seed=2))):
        out, weights = made(*inputs, need_weights=need_weights, average_attn_weights=False)
        expected, of = plain(*inputs, need_weights=need_weights, average_attn_weights=False)
        np.testing.assert_allclose(out.numpy(), expected.numpy(), **CLOSE)
        if need_weights:
            np.testing.assert_allclose(weights.numpy(), of.numpy(), **CLOSE)


def test_grouped_heads_of_other_widths():
    made = layer(num_kv_heads=2, kdim=5, vdim=3)
    assert made.k_proj_weight.shape == (2 * D, 5) and made.v_proj_weight.shape == (2 * D, 3)
    x, key, value = draw(N, L, E), draw(N, 4, 5, seed=1), draw(N, 4, 3, seed=2)
    out = made(x, key, value, need_weights=False)[0]
    q, k, v = made.project(x, key, value)
    assert k.shape == v.shape == (N, 2, 4, D)
    expected = made.join(F.scaled_dot_product_attention(q, k, v))
    np.testing.assert_allclose(out.numpy(), expected.numpy(), **CLOSE)


@pytest.mark.parametrize("need_weights", [False, True])
def test_a_window_is_a_band_and_slopes_are_a_bias(need_weights):
    x, place = draw(N, L, E), np.arange(L)
    away = place - place[:, None]
    out = layer(window=(2, 1))(x, x, x, need_weights=need_weights)[0]
    expected = layer()(x, x, x, attn_mask=(away < -2) | (away > 1))[0]
    np.testing.assert_allclose(out.numpy(), expected.numpy(), **CLOSE)
    slopes = nn.alibi_slopes(H)
    out = layer(alibi_slopes=slopes)(x, x, x, need_weights=need_weights)[0]
    bias = np.tile(-slopes[:, None, None] * np.abs(away), (N, 1, 1))
    np.testing.assert_allclose(out.numpy(), layer()(x, x, x, attn_mask=bias)[0].numpy(), **CLOSE)


@pytest.mark.parametrize("need_weights", [False, True])
def test_softcap_sinks_and_rotations_are_the_functions(need_weights):
    x = draw(N, L, E)
    rotary = nn.RotaryEmbedding(D - 2, 16, dtype=np.float64)
    made = layer(softcap=0.5, sinks=True, rotary=rotary, num_kv_heads=2)
    out = made(x, x, x, need_weights=need_weights, is_causal=True)[0]
    q, k, v = made.project(*[Tensor(x)] * 3)
    heads = F.scaled_dot_product_attention(
        rotary(q), rotary(k), v, is_causal=True, softcap=0.5, sinks=made.sinks
    )
    np.testing.assert_allclose(out.numpy(), made.join(heads).numpy(), **CLOSE)
    out.sum().backward()
    assert made.sinks.grad is not None and made.sinks.grad.numpy().all()


def test_the_standard_forms_state_is_pytorchs():
    names = ["in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"]
    rotary = nn.RotaryEmbedding(D, 16)
    assert list(nn.MultiheadAttention(E, H).state_dict()) == names
    fixed = nn.MultiheadAttention(
        E, H, rotary=rotary, alibi_slopes=nn.alibi_slopes(H), window=(1, 0)
    )
    assert list(fixed.state_dict()) == names
    slopes = nn.Parameter(nn.alibi_slopes(H))
    learned = nn.MultiheadAttention(E, H, sinks=True, alibi_slopes=slopes)
    assert sorted(learned.state_dict()) == sorted([*names, "sinks", "alibi_slopes"])
    assert not nn.MultiheadAttention(E, H, sinks=True).sinks.numpy().any()


@pytest.mark.parametrize("need_weights", [False, True])
def test_slopes_that_are_a_parameter_learn(need_weights):
    made = layer(alibi_slopes=nn.Parameter(nn.alibi_slopes(H).astype(np.float64)))
    x = draw(N, L, E)

    def loss(slopes):
        made.alibi_slopes.data = slopes
        return (made(x, x, x, need_weights=need_weights, is_causal=True)[0] ** 2).sum().item()

    start, step = made.alibi_slopes.numpy().copy(), 1e-6
    loss(start)
    (made(x, x, x, need_weights=need_weights, is_causal=True)[0] ** 2).sum().backward()
    found = made.alibi_slopes.grad.numpy()
    steps = step * np.eye(H)
    expected = [(loss(start + d) - loss(start - d)) / (2 * step) for d in steps]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("heads", [1, 2, 3, 6, 8, 12])
def test_alibi_slopes_are_the_papers(heads):
    def of(n):
        """The authors' recipe (ofirpress/attention_with_linear_biases)."""
        power = 2 ** (n.bit_length() - 1)
        slopes = [2.0 ** (-8.0 * (h + 1) / power) for h in range(power)]
        return slopes if power == n else slopes + of(2 * power)[0::2][: n - power]

    np.testing.assert_allclose(nn.alibi_slopes(heads), of(heads), rtol=1e-7)


def test_lengths_are_read_from_padding_at_the_end():
    padding = np.array([[0, 0, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1]], bool)
    assert key_lengths(padding).tolist() == [2, 4, 0]
    assert key_lengths(padding[:, ::-1]) is None
    assert key_lengths(np.array([[False, True, False]])) is None
    assert key_lengths(padding.astype(float)) is None
    assert key_lengths(np.zeros((0, 3), bool)).shape == (0,)


@pytest.mark.parametrize("need_weights", [False, True])
def test_padding_at_the_end_is_the_same_as_a_mask(need_weights):
    made, x = layer(), draw(N, L, E)
    padding = np.arange(L) >= np.array([[4], [7], [0]])
    x[0, 4:] = np.nan  # not looked at
    mask = np.repeat(padding, H, 0)[:, None].repeat(L, 1)
    for extra in (
        {},
        {"is_causal": True},
        {"attn_mask": draw(L, L) > 1},
        {"attn_mask": draw(L, L)},
    ):
        out = made(draw(N, L, E), x, x, padding, need_weights, **extra)[0]
        given = extra.get("attn_mask")
        if given is None:
            given = mask
        elif given.dtype == bool:
            given = mask | given
        else:
            given = np.where(mask, -np.inf, given)
        expected = made(
            draw(N, L, E), x, x, None, need_weights, given, is_causal="is_causal" in extra
        )[0]
        np.testing.assert_allclose(out.numpy(), expected.numpy(), **CLOSE)


def test_padding_at_the_end_reaches_the_kernel_as_lengths(monkeypatch):
    seen = []
    plain = F.scaled_dot_product_attention

    def spy(q, k, v, mask=None, **options):
        seen.append((mask, options["key_lengths"], options["is_causal"]))
        return plain(q, k, v, mask, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    x, padding = draw(N, L, E).astype(np.float32), np.arange(L) >= np.array([[4], [7], [1]])
    triangle = np.triu(np.ones((L, L), bool), 1)
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(E, H, 8, batch_first=True), 2)
    encoder(x, triangle, padding)
    assert [(mask, lengths.tolist(), causal) for mask, lengths, causal in seen] == [
        (None, [4, 7, 1], True)
    ] * 2
    seen.clear()
    decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(E, H, 8, batch_first=True), 1)
    decoder(x, x, tgt_mask=np.triu(np.full((L, L), -np.inf), 1), memory_key_padding_mask=padding)
    (own, none, causal), (cross, lengths, all_of_them) = seen
    assert own is None and none is None and causal
    assert cross is None and lengths.tolist() == [4, 7, 1] and not all_of_them


@pytest.mark.parametrize("dtype", [bool, np.float32, np.float64])
def test_triangles_are_recognised(dtype):
    triangle = np.triu(np.full((5, 5), True if dtype is bool else -np.inf, dtype), 1)
    assert causal_or_mask(triangle, False, 5, 5) == (None, True)
    assert causal_or_mask(triangle[:1, :1], False, 1, 1) == (None, True)
    for i, j in ((0, 4), (1, 2), (4, 0), (2, 2)):
        other = triangle.copy()
        other[i, j] = not other[i, j] if dtype is bool else -1.0
        mask, causal = causal_or_mask(other, False, 5, 5)
        assert mask is other and not causal
    for other in (triangle[:4], triangle[None], None, np.tri(5, dtype=int)):
        mask, causal = causal_or_mask(other, False, 4 if other is triangle[:4] else 5, 5)
        assert mask is other and not causal
    assert causal_or_mask(triangle, False, 4, 4) == (triangle, False)  # not the sequences' size
    learned = Tensor(np.triu(np.full((5, 5), -np.inf), 1), requires_grad=True)
    assert causal_or_mask(learned, False, 5, 5) == (learned, False)


@pytest.mark.parametrize("batch_first", [False, True])
def test_a_triangle_of_another_size_is_refused(batch_first):
    make = nn.TransformerEncoderLayer(E, H, 8, batch_first=batch_first)
    x = draw(4, L, E).astype(np.float32)
    length, other = (L, 4) if batch_first else (4, L)
    for module in (make, nn.TransformerEncoder(make, 1)):
        module(x, np.triu(np.ones((length, length), bool), 1))
        with pytest.raises(ValueError, match=rf"attn_mask shape: expected \({length}, {length}\)"):
            module(x, np.triu(np.ones((other, other), bool), 1))


# ---- caches ----------------------------------------------------------------------------------------------


OPTIONS = {
    "plain": lambda: {},
    "grouped": lambda: {"num_kv_heads": 2},
    "window": lambda: {"window": (3, None)},
    "rotary": lambda: {"rotary": nn.RotaryEmbedding(D, 16, dtype=np.float64)},
    "scores": lambda: {"softcap": 0.5, "sinks": True, "alibi_slopes": nn.alibi_slopes(H)},
}


def cache_of(made, batch, paged=False):
    size = made.num_kv_heads, made.head_dim
    if not paged:
        return nn.KVCache(1, *size, 16, batch, dtype=np.float64)
    cache = nn.PagedKVCache(1, *size, 16, 16, dtype=np.float64)
    for _ in range(batch):
        cache.allocate()
    return cache


@pytest.mark.parametrize("paged", [False, True])
@pytest.mark.parametrize("kind", OPTIONS)
def test_decoding_in_pieces_equals_the_whole(kind, paged):
    made, x = layer(**OPTIONS[kind]()), draw(N, L, E)
    whole = made(x, x, x, need_weights=False, is_causal=True)[0].numpy()
    for pieces in ([1] * L, [4, 1, 2], [L]):
        cache, start = cache_of(made, N, paged), 0
        with no_grad():
            for n in pieces:
                part = Tensor(x[:, start : start + n])
                out, weights = made(part, part, part, is_causal=True, cache=cache)
                assert weights is None
                np.testing.assert_allclose(out.numpy(), whole[:, start : start + n], **CLOSE)
                start += n


@pytest.mark.parametrize("kind", OPTIONS)
def test_sequences_of_a_batch_differ_in_length(kind):
    made, x = layer(**OPTIONS[kind]()), draw(N, L, E)
    lengths = np.array([7, 3, 5])
    cache, done = cache_of(made, N), np.zeros(N, int)
    with no_grad():
        for n in (4, 2, 3):
            counts = np.minimum(lengths - done, n)
            part = np.zeros((N, n, E))
            for row, count in enumerate(counts):
                part[row, :count] = x[row, done[row] : done[row] + count]
            padding = np.arange(n) >= counts[:, None]
            out = made(part, part, part, padding, cache=cache)[0].numpy()
            for row, count in enumerate(counts):
                end = done[row] + count
                own = Tensor(x[row, :end])
                expected = made(own, own, own, need_weights=False, is_causal=True)[0].numpy()
                np.testing.assert_allclose(out[row, :count], expected[end - count :], **CLOSE)
            done += counts
    assert cache.lengths.tolist() == lengths.tolist()


@pytest.mark.parametrize("batched", [False, True])
def test_layouts_with_a_cache(batched):
    made = layer()
    other = nn.MultiheadAttention(E, H, dtype=np.float64)  # (L, N, E)
    other.load_state_dict(made.state_dict())
    x = draw(N, L, E)
    expected = made(x, x, x, is_causal=True)[0].numpy()
    cache = cache_of(made, N if batched else 1)
    with no_grad():
        for t in range(L):
            part = x[:, t : t + 1].swapaxes(0, 1) if batched else x[0, t : t + 1]
            out = other(part, part, part, cache=cache)[0].numpy()
            np.testing.assert_allclose(
                out[0] if batched else out,
                expected[:, t] if batched else expected[0, t][None],
                **CLOSE,
            )


@pytest.mark.parametrize("options", [{}, {"num_kv_heads": 2, "sinks": True, "softcap": 2.0}])
def test_looking_at_what_a_cache_holds(options):
    made, x, memory = layer(**options), draw(N, L, E), draw(N, 5, E, seed=1)
    cache, padding = cache_of(made, N), np.arange(5) >= np.array([[5], [2], [3]])
    with no_grad():
        keys, values = made.project(key=memory, value=memory)
        cache.append(0, keys, values, (~padding).sum(1))
        out = made(x, cache=cache)[0].numpy()
    expected = made(x, memory, memory, padding, need_weights=False)[0].numpy()
    np.testing.assert_allclose(out, expected, **CLOSE)
    assert cache.lengths.tolist() == [5, 2, 3]


@pytest.mark.parametrize("norm_first", [False, True])
def test_an_encoder_with_a_cache_reads_on(norm_first):
    make = nn.TransformerEncoderLayer(
        E, H, 20, 0.0, batch_first=True, norm_first=norm_first, dtype=np.float64
    )
    encoder, x = nn.TransformerEncoder(make, 2), draw(N, L, E)
    whole = encoder(x, is_causal=True).numpy()
    cache = nn.KVCache(2, H, D, L, N, dtype=np.float64)
    with no_grad():
        for part in (slice(0, 3), slice(3, 4), slice(4, L)):
            out = encoder(x[:, part], cache=cache).numpy()
            np.testing.assert_allclose(out, whole[:, part], **CLOSE)


@pytest.mark.parametrize("batch_first", [False, True])
def test_a_decoder_with_caches_writes_on(batch_first):
    make = nn.TransformerDecoderLayer(E, H, 20, 0.0, batch_first=batch_first, dtype=np.float64)
    decoder, x, memory = nn.TransformerDecoder(make, 2), draw(N, L, E), draw(N, 5, E, seed=1)
    hidden = np.zeros((N, 5), bool)
    hidden[0, 3:] = hidden[1, 1] = hidden[2, 0] = True  # not at the end only

    def turned(a):
        return a if batch_first else a.swapaxes(0, 1)

    whole = turned(
        decoder(
            turned(x), turned(memory), tgt_is_causal=True, memory_key_padding_mask=hidden
        ).numpy()
    )
    with no_grad():
        remembered = decoder.remember(turned(memory), hidden)
        assert remembered.lengths.tolist() == [3, 4, 4]
        for given in (remembered, turned(memory)):
            cache = nn.KVCache(2, H, D, L, N, dtype=np.float64)
            masks = {} if given is remembered else {"memory_key_padding_mask": hidden}
            for part in (slice(0, 3), slice(3, 4), slice(4, L)):
                out = decoder(turned(x[:, part]), given, cache=cache, **masks).numpy()
                np.testing.assert_allclose(turned(out), whole[:, part], **CLOSE)
        out = decoder(turned(x), remembered, tgt_is_causal=True).numpy()
        np.testing.assert_allclose(turned(out), whole, **CLOSE)
        twice = decoder(turned(x[[1, 1, 0]]), remembered.take([1, 1, 0]), tgt_is_causal=True)
        np.testing.assert_allclose(turned(twice.numpy()), whole[[1, 1, 0]], **CLOSE)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_kv_heads": 3}, ValueError, "num_kv_heads: expected a divisor of num_heads 4, got 3"),
        ({"num_kv_heads": 0}, ValueError, "num_kv_heads: expected a divisor of num_heads 4, got 0"),
        (
            {"rotary": nn.RotaryEmbedding(8)},
            ValueError,
            "rotary dim: expected at most the head's 6",
        ),
    ],
)
def test_wrong_settings_are_named(options, error, message):
    with pytest.raises(error, match=message):
        layer(**options)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m, x, c: m(x, x, x, cache=c), RuntimeError, r"key: expected no_grad\(\)"),
        (
            lambda m, x, c: m(x, x, x, attn_mask=np.eye(L, dtype=bool), cache=c),
            ValueError,
            "attn_mask: expected None or a triangle with a cache",
        ),
        (
            lambda m, x, c: m(x, x, x, np.eye(N, L, dtype=bool), cache=c),
            ValueError,
            "key_padding_mask: expected bool, True at the end, with a cache",
        ),
        (lambda m, x, c: m(x), ValueError, "key"),
    ],
)
def test_wrong_calls_with_a_cache_are_named(call, error, message):
    made = layer()
    with pytest.raises(error, match=message):
        call(made, draw(N, L, E), cache_of(made, N))


def test_rotations_start_where_each_sequence_is():
    rotary, x = nn.RotaryEmbedding(D, 16, dtype=np.float64), draw(N, H, L, D)
    out = rotary(x, np.array([0, 5, 2])).numpy()
    for row, offset in enumerate((0, 5, 2)):
        np.testing.assert_array_equal(out[row], rotary(x[row], offset).numpy())
    for offset, from_ in ((np.array([0, 10, 2]), 10), (np.array([0, -1, 2]), -1)):
        with pytest.raises(ValueError, match=f"RotaryEmbedding: x length: .* from offset {from_}"):
            rotary(x, offset)
