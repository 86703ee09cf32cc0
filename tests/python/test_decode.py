"""decode family against a float64 oracle, on every tier and thread count."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_attention import forward_bound

from vectile import ops

FLOATS = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16]
#: Of rounding a result once, relative to its size.
EPS = {np.dtype(t): float(ml_dtypes.finfo(t).eps) for t in FLOATS}


class Cache:
    """Caches with `lengths` tokens a sequence, in blocks in random order; NaN wherever there is none."""

    def __init__(self, rng, dtype, lengths, heads, d, dv, block_size, spare=2):
        dtype = np.dtype(dtype)
        most = max([-(-n // block_size) for n in lengths], default=0)
        blocks = sum(-(-n // block_size) for n in lengths) + spare
        order = rng.permutation(blocks)
        self.tables = np.full((len(lengths), most), -1)
        at = 0
        for b, n in enumerate(lengths):
            used = -(-n // block_size)
            self.tables[b, :used] = order[at : at + used]
            at += used
        self.lengths = np.array(lengths, int)
        shapes = [(blocks, heads, block_size, n) for n in (d, dv)]
        self.scales = {}
        if dtype == np.int8:
            self.key, self.value = (rng.integers(-127, 128, s).astype("i1") for s in shapes)
            scales = rng.uniform(0.002, 0.02, (2, blocks, heads, block_size)).astype("f4")
            self.scales = {"key_scales": scales[0], "value_scales": scales[1]}
        else:
            self.key, self.value = (rng.standard_normal(s).astype(dtype) for s in shapes)
        dead = np.ones((blocks, block_size), bool)
        for b, n in enumerate(lengths):
            for t in range(n):
                dead[self.tables[b, t // block_size], t % block_size] = False
        for a in self.scales.values() if self.scales else (self.key, self.value):
            a.swapaxes(1, 2)[dead] = np.nan

    def arguments(self):
        return self.key, self.value, self.tables, self.lengths

    def dense(self, b):
        """Keys and values (heads, length, d) of sequence b in float64."""
        size = self.key.shape[2]
        t = np.arange(self.lengths[b])
        at = self.tables[b, t // size], t % size
        pair = []
        for name, a in (("key_scales", self.key), ("value_scales", self.value)):
            x = a.swapaxes(1, 2)[at].astype("f8")
            if self.scales:
                x *= self.scales[name].swapaxes(1, 2)[at][..., None]
            pair.append(x.swapaxes(0, 1))
        return pair


def oracle(query, cache, scale=None, window=None, softcap=None, alibi_slopes=None, sinks=None):
    """out, lse and, to scale tolerances with, the largest value of each sequence, in float64."""
    batch, heads, lq, d = query.shape
    dv = cache.value.shape[-1]
    out, lse = np.zeros((batch, heads, lq, dv)), np.full((batch, heads, lq), -np.inf)
    scale = (1 / np.sqrt(d) if d else 1.0) if scale is None else scale
    slopes = np.broadcast_to(0 if alibi_slopes is None else alibi_slopes, (batch, heads))
    for b in range(batch):
        keys, values = cache.dense(b)
        group = heads // keys.shape[0] if keys.shape[0] else 1
        n = keys.shape[1]
        place = n - lq + np.arange(lq)[:, None]
        j = np.arange(n)
        seen = j <= place
        if window is not None and window[0] is not None:
            seen = seen & (j >= place - window[0])
        for h in range(heads):
            s = query[b, h].astype("f8") @ keys[h // group].T * scale
            if softcap is not None:
                s = softcap * np.tanh(s / softcap)
            s = np.where(seen, s - slopes[b, h] * abs(j - place), -np.inf)
            if sinks is not None:
                s = np.concatenate([s, np.full((lq, 1), float(sinks[h]))], 1)
            top = s.max(-1, keepdims=True, initial=-np.inf)
            e = np.exp(s - np.where(np.isneginf(top), 0, top))
            total = e.sum(-1, keepdims=True)
            p = np.divide(e, total, out=np.zeros_like(e), where=total > 0)
            out[b, h] = p[:, :n] @ values[h // group]
            with np.errstate(divide="ignore"):
                lse[b, h] = (top + np.log(total))[..., 0]
    return out, lse


def closeness(query, cache, scale=None):
    """How far float32 may be off: scores are sums of d products, weights exponentials of them."""
    computed = np.float64 if cache.key.dtype == np.float64 else np.float32
    d = query.shape[-1]
    scale = (1 / np.sqrt(d) if d else 1.0) if scale is None else scale
    largest = [
        np.nanmax(np.abs(x.astype("f8")), initial=0.0)
        * (np.nanmax(s, initial=0.0) if s is not None else 1.0)
        for x, s in (
            (query, None),
            (cache.key, cache.scales.get("key_scales")),
            (cache.value, cache.scales.get("value_scales")),
        )
    ]
    scores = abs(scale) * d * largest[0] * largest[1]
    # |q . k| is below `scores`, and random signs leave about its root of d.
    error = np.finfo(computed).eps * (8 + 4 * scores)
    if not cache.scales:
        return error * max(1.0, largest[2]), error
    # Queries are rounded to 2^-16 of their largest element; weights too, 256 keys at a time.
    error += 2**-16 * scores
    keys = min(256, cache.lengths.max(initial=0))
    return 2 * error * max(1.0, largest[2]) + keys * 2**-17 * largest[2], error


def assert_close(query, cache, options=None, check=None):
    """decode_attention against the oracle; returns its result."""
    options = options or {}

    def run():
        return ops.decode_attention(
            query, *cache.arguments(), **cache.scales, return_lse=True, **options
        )

    out, lse = check(run) if check else run()
    exact, exact_lse = oracle(query, cache, **options)
    value_error, lse_error = closeness(query, cache, options.get("scale"))
    assert out.dtype == query.dtype
    assert lse.dtype == (np.float64 if cache.key.dtype == np.float64 else np.float32)
    eps = EPS[query.dtype]
    if cache.key.dtype != np.float64:
        eps = max(eps, EPS[np.dtype("f4")])
    np.testing.assert_allclose(out.astype("f8"), exact, rtol=2 * eps, atol=value_error + 2 * eps)
    np.testing.assert_allclose(lse, exact_lse, rtol=8 * EPS[lse.dtype], atol=lse_error)
    return out, lse


# lengths, heads, kv_heads, lq, d, dv, block_size
SIZES = [
    ([1], 1, 1, 1, 1, 1, 16),
    ([0, 1], 2, 1, 1, 3, 5, 16),
    ([17, 16, 15], 4, 2, 1, 64, 64, 16),
    ([64, 1, 65], 4, 1, 1, 64, 64, 64),
    ([131], 8, 2, 1, 128, 128, 256),
    ([63, 129], 3, 3, 2, 17, 33, 17),
    ([200, 7], 6, 2, 3, 80, 96, 32),
    ([37, 100, 5], 4, 4, 5, 40, 24, 16),
    ([300], 8, 1, 8, 64, 64, 300),
    ([70, 33], 9, 3, 7, 13, 9, 33),
    ([400], 4, 2, 17, 32, 32, 128),
    ([40, 3], 2, 2, 33, 20, 256, 16),
    ([1100], 2, 1, 1, 256, 255, 16),
    ([2600, 1300], 4, 1, 1, 64, 64, 2600),
    ([700], 12, 12, 4, 8, 8, 1),
    ([5, 9], 2, 1, 8, 300, 3, 4),
    ([40, 300], 4, 2, 2, 600, 520, 16),
]


@pytest.mark.parametrize("cache_dtype", [*FLOATS, np.int8])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_matches_float64(isa, rng, cache_dtype, size, same_for_any_thread_count):
    lengths, heads, kv, lq, d, dv, block_size = size
    cache = Cache(rng, cache_dtype, lengths, kv, d, dv, block_size)
    query = rng.standard_normal((len(lengths), heads, lq, d), np.float32)
    query = query.astype(np.float64 if cache_dtype == np.float64 else np.float32)
    assert_close(query, cache, check=same_for_any_thread_count)


@pytest.mark.parametrize("cache_dtype", [*FLOATS, np.int8])
@pytest.mark.parametrize("query_dtype", FLOATS)
def test_dtypes_of_query_and_cache_are_free(isa, rng, cache_dtype, query_dtype):
    cache = Cache(rng, cache_dtype, [70, 20], 2, 24, 16, 16)
    assert_close(rng.standard_normal((2, 4, 2, 24)).astype(query_dtype), cache)


OPTIONS = {
    "window": {"window": (20, 0)},
    "window one": {"window": (0, None)},
    "window free": {"window": (None, 3)},
    "scale": {"scale": -0.3},
    "softcap": {"softcap": 1.5},
    "alibi": {"alibi_slopes": np.array([0.0, 0.1, 0.02, 0.5], "f4")},
    "alibi a sequence": {"alibi_slopes": np.linspace(0, 0.1, 12).reshape(3, 4)},
    "sinks": {"sinks": np.array([0.0, -3.0, 2.0, 9.0])},
    "all": {
        "window": (33, 0),
        "scale": 0.2,
        "softcap": 2.0,
        "alibi_slopes": np.array([[0.01], [0.1], [0.0]], "f4"),
        "sinks": np.ones(4, "f4"),
    },
}


@pytest.mark.parametrize("cache_dtype", [np.float32, np.float64, np.int8])
@pytest.mark.parametrize("lq", [1, 5, 19])
@pytest.mark.parametrize("name", OPTIONS)
def test_options(isa, rng, cache_dtype, lq, name, same_for_any_thread_count):
    cache = Cache(rng, cache_dtype, [130, 71, 4], 2, 20, 12, 16)
    query = rng.standard_normal((3, 4, lq, 20)).astype("f8" if cache_dtype is np.float64 else "f4")
    assert_close(query, cache, OPTIONS[name], check=same_for_any_thread_count)


def test_pieces_of_long_sequences_are_merged(isa, rng, same_for_any_thread_count):
    cache = Cache(rng, np.float32, [9001, 3], 1, 16, 16, 256)
    query = rng.standard_normal((2, 2, 3, 16), np.float32)
    query[0] *= 8  # maxima that differ from piece to piece
    assert_close(query, cache, check=same_for_any_thread_count)
    assert_close(query, cache, {"sinks": np.array([30.0, -30.0])})


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_any_sizes(data):
    draw = data.draw
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    lengths = draw(st.lists(st.integers(0, 150), max_size=3))
    kv, group = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    lq, d, dv = draw(st.integers(0, 20)), draw(st.integers(1, 70)), draw(st.integers(0, 70))
    dtype = draw(st.sampled_from([*FLOATS, np.int8]))
    cache = Cache(rng, dtype, lengths, kv, d, dv, draw(st.integers(1, 70)))
    query = rng.standard_normal((len(lengths), kv * group, lq, d)).astype(
        "f8" if dtype is np.float64 else "f4"
    )
    window = draw(st.sampled_from([None, (3, 0), (40, None)]))
    assert_close(query, cache, {"window": window})


@pytest.mark.parametrize("cache_dtype", FLOATS)
def test_unseen_values_do_not_leak(isa, rng, cache_dtype):
    """Later tokens than a query's, and those that left its window, may hold NaN."""
    cache = Cache(rng, cache_dtype, [90, 40], 2, 16, 16, 16)
    query = rng.standard_normal((2, 4, 6, 16), np.float32)
    clean = ops.decode_attention(query, *cache.arguments(), window=(10, 0))
    for b, n in enumerate(cache.lengths):
        for t in (n - 2, n - 1, n - 20):  # unseen by queries 0 to 3, and by 4 and 5
            block = cache.tables[b, t // 16]
            cache.key[block, :, t % 16] = cache.value[block, :, t % 16] = np.nan
    dirty = ops.decode_attention(query, *cache.arguments(), window=(10, 0))
    np.testing.assert_array_equal(dirty[:, :, :4], clean[:, :, :4])
    assert np.isnan(dirty[:, :, 4:]).all()


@pytest.mark.parametrize("where", ["key_scales", "value_scales"])
def test_nan_of_an_int8_token_reaches_who_sees_it(isa, rng, where):
    cache = Cache(rng, np.int8, [90], 1, 16, 16, 16)
    query = rng.standard_normal((1, 2, 4, 16), np.float32)
    cache.scales[where][cache.tables[0, 5], 0, 88 % 16] = np.nan  # query 2's own token
    out = ops.decode_attention(query, *cache.arguments(), **cache.scales)
    assert np.isfinite(out[:, :, :2]).all()
    assert np.isnan(out[:, :, 2:]).all()


@pytest.mark.parametrize(
    "layout", ["transposed", "reversed", "sliced", "broadcast", "last strided"]
)
def test_queries_are_read_from_any_layout(isa, rng, layout):
    cache = Cache(rng, np.float32, [50, 70], 2, 16, 8, 16)
    query = {
        "transposed": rng.standard_normal((2, 3, 4, 16), np.float32).swapaxes(1, 2),
        "reversed": rng.standard_normal((2, 4, 3, 16), np.float32)[::-1, ::-1, ::-1],
        "sliced": rng.standard_normal((2, 4, 3, 40), np.float32)[..., 3:19],
        "broadcast": np.broadcast_to(rng.standard_normal((4, 1, 16), np.float32), (2, 4, 3, 16)),
        "last strided": rng.standard_normal((2, 4, 3, 32), np.float32)[..., ::-2],
    }[layout]
    assert_close(query, cache)


def test_a_query_before_the_first_key_gives_zeros(isa, rng):
    cache = Cache(rng, np.float32, [2, 0], 1, 8, 8, 16)
    query = rng.standard_normal((2, 1, 5, 8), np.float32)
    out, lse = assert_close(query, cache)
    assert (out[0, :, :3] == 0).all() and np.isneginf(lse[0, :, :3]).all()
    assert (out[1] == 0).all() and np.isneginf(lse[1]).all()


def test_blocks_outside_the_window_need_not_exist(rng):
    cache = Cache(rng, np.float32, [100], 1, 8, 8, 10)
    query = rng.standard_normal((1, 1, 1, 8), np.float32)
    expected = ops.decode_attention(query, *cache.arguments(), window=(15, 0))
    cache.tables[0, :8] = -1
    np.testing.assert_array_equal(
        ops.decode_attention(query, *cache.arguments(), window=(15, 0)), expected
    )
    cache.tables[0, 8] = -1
    with pytest.raises(IndexError, match=r"block_tables at \(0, 8\): expected 0 <= index < 12"):
        ops.decode_attention(query, *cache.arguments(), window=(15, 0))


def test_agrees_with_attention_over_a_contiguous_cache(rng):
    k, v = rng.standard_normal((2, 3, 2, 77, 32), np.float32)
    query = rng.standard_normal((3, 4, 5, 32), np.float32)
    out = ops.decode_attention(query, k, v, np.arange(3)[:, None], np.full(3, 77))
    expected = ops.scaled_dot_product_attention(query, k, v, is_causal=True)
    np.testing.assert_allclose(out, expected, rtol=0, atol=2 * forward_bound(query, k, v))


@pytest.mark.parametrize(
    "d, dv, heads, lq", [(0, 4, 2, 1), (4, 0, 2, 1), (4, 4, 0, 1), (4, 4, 2, 0)]
)
def test_empty_dimensions(d, dv, heads, lq):
    k, v = np.ones((3, 2, 8, d), "f4"), np.ones((3, 2, 8, dv), "f4")
    out, lse = ops.decode_attention(
        np.ones((2, heads, lq, d), "f4"), k, v, [[0], [2]], [8, 3], return_lse=True
    )
    assert out.shape == (2, heads, lq, dv) and lse.shape == (2, heads, lq)
    assert (out == 1).all()


# ---- appending ---------------------------------------------------------------------------------


def quantised(x):
    """Rows of x as bytes and scales, in float32 as the kernel has it."""
    top = np.abs(x.astype("f4")).max(-1, keepdims=True, initial=0)
    scale = (top / np.float32(127)).astype("f4")
    safe = np.where(scale > 0, scale, 1)
    q = np.where(scale > 0, np.rint(np.clip(x.astype("f4") / safe, -127, 127)), 0)
    return q.astype("i1"), scale[..., 0]


@pytest.mark.parametrize("cache_dtype", [*FLOATS, np.int8])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("d, dv, block_size", [(1, 3, 1), (16, 17, 16), (64, 33, 7), (131, 64, 50)])
def test_append(isa, rng, cache_dtype, dtype, d, dv, block_size, same_for_any_thread_count):
    batch, heads, n = 3, 2, 9
    lengths, counts = np.array([0, 5, 13]), np.array([9, 4, 0])
    key = (rng.standard_normal((batch, heads, n, d)) * 3).astype(dtype)
    value = rng.standard_normal((batch, n, heads, dv)).astype(dtype).swapaxes(1, 2)
    most = 22 // block_size + 1
    blocks = batch * most + 1
    tables = rng.permutation(blocks)[: batch * most].reshape(batch, most)
    shapes = [(blocks, heads, block_size, w) for w in (d, dv)]

    def run():
        caches = [np.full(s, 7, cache_dtype) for s in shapes]
        scales = np.full((2, blocks, heads, block_size), 7, "f4")
        both = (
            {}
            if cache_dtype is not np.int8
            else dict(zip(("key_scales", "value_scales"), scales, strict=True))
        )
        assert (
            ops.append_to_cache(key, value, *caches, tables, lengths, counts=counts, **both) is None
        )
        return *caches, scales

    *caches, scales = same_for_any_thread_count(run)
    for x, cache, scale in zip((key, value), caches, scales, strict=True):
        expected, expected_scale = np.full_like(cache, 7), np.full_like(scale, 7)
        rows, row_scales = quantised(x) if cache_dtype is np.int8 else (None, None)
        for b in range(batch):
            for i in range(counts[b]):
                block, row = (
                    tables[b, (lengths[b] + i) // block_size],
                    (lengths[b] + i) % block_size,
                )
                if cache_dtype is np.int8:
                    expected[block, :, row] = rows[b, :, i]
                    expected_scale[block, :, row] = row_scales[b, :, i]
                else:
                    stored = x[b, :, i] if cache_dtype is np.float64 else x[b, :, i].astype("f4")
                    expected[block, :, row] = stored.astype(cache_dtype)
        np.testing.assert_array_equal(cache, expected)
        np.testing.assert_array_equal(scale, expected_scale)


def test_rows_of_bytes_that_are_zero_tiny_or_not_finite(isa):
    rows = np.zeros((6, 20), "f4")
    rows[1, 3], rows[2, 4], rows[3, 19], rows[4, :] = np.nan, -np.inf, 1e-45, 3e38
    rows[5] = np.linspace(-1, 0.5, 20)
    cache = np.full((1, 1, 6, 20), 9, "i1")
    scales = np.full((2, 1, 1, 6), 9, "f4")
    x = rows[None, None]
    ops.append_to_cache(
        x, x, cache, cache.copy(), [[0]], [0], key_scales=scales[0], value_scales=scales[1]
    )
    np.testing.assert_array_equal(scales[0], scales[1])
    scale = scales[0, 0, 0]
    assert scale[0] == 0 and (cache[0, 0, 0] == 0).all()
    assert np.isnan(scale[1:3]).all() and (cache[0, 0, 1:3] == 0).all()
    assert scale[3] == 0 and (cache[0, 0, 3] == 0).all()
    assert np.isfinite(scale[4]) and (cache[0, 0, 4] == 127).all()
    np.testing.assert_allclose(scale[5] * cache[0, 0, 5], rows[5], atol=0.51 / 127)
    assert cache[0, 0, 5, 0] == -127


def test_append_then_decode_is_attention(isa, rng):
    """Tokens in three calls, in blocks of 16, against attention over all of them."""
    k, v = rng.standard_normal((2, 2, 2, 50, 24), np.float32)
    query = rng.standard_normal((2, 4, 1, 24), np.float32)
    caches = np.full((2, 8, 2, 16, 24), np.nan, "f4")
    tables, lengths = np.array([[3, 1, 0, 7], [2, 6, 4, 5]]), np.zeros(2, int)
    for begin, end in ((0, 33), (33, 49), (49, 50)):
        ops.append_to_cache(k[:, :, begin:end], v[:, :, begin:end], *caches, tables, lengths)
        lengths += end - begin
    out = ops.decode_attention(query, *caches, tables, lengths)
    expected = ops.scaled_dot_product_attention(query, k, v)
    np.testing.assert_allclose(out, expected, rtol=0, atol=2e-6)


def test_int8_keeps_what_attention_gives(isa, rng):
    """Within 1% of the float32 cache's, by root mean square: each row is off by a step of 1 / 254."""
    k, v = rng.standard_normal((2, 1, 4, 2000, 64), np.float32)
    query = rng.standard_normal((1, 4, 1, 64), np.float32)
    tables, lengths = np.array([[0]]), np.array([0])
    caches, scales = np.zeros((2, 1, 4, 2000, 64), "i1"), np.zeros((2, 1, 4, 2000), "f4")
    ops.append_to_cache(
        k, v, *caches, tables, lengths, key_scales=scales[0], value_scales=scales[1]
    )
    exact = ops.decode_attention(query, k, v, tables, [2000])
    out = ops.decode_attention(
        query, *caches, tables, [2000], key_scales=scales[0], value_scales=scales[1]
    )
    assert np.sqrt(np.mean((out - exact) ** 2) / np.mean(exact**2)) < 0.01


def test_a_cache_may_be_appended_to_itself(rng):
    cache = rng.standard_normal((1, 1, 12, 4), np.float32)
    before = cache.copy()
    ops.append_to_cache(cache[:, :, :6], cache[:, :, :6], cache, before.copy(), [[0]], [3])
    np.testing.assert_array_equal(cache[0, 0, 3:9], before[0, 0, :6])


# ---- bad input ---------------------------------------------------------------------------------


def decode_call():
    return {
        "query": np.ones((2, 4, 1, 8), "f4"),
        "key_cache": np.ones((5, 2, 16, 8), "f4"),
        "value_cache": np.ones((5, 2, 16, 6), "f4"),
        "block_tables": np.array([[0, 1], [2, 3]]),
        "lengths": np.array([20, 3]),
    }


def append_call():
    call = decode_call()
    del call["query"]
    return {"key": np.ones((2, 2, 3, 8), "f4"), "value": np.ones((2, 2, 3, 6), "f4")} | call


BAD = [
    ("query", np.ones((2, 4, 8), "f4"), ValueError, "query ndim: expected 4, got 3"),
    ("query", np.ones((2, 4, 1, 8), "i4"), TypeError, "query dtype"),
    ("query", np.ones((3, 4, 1, 8), "f4"), ValueError, "query batch: expected 2, got 3"),
    ("query", np.ones((2, 4, 1, 7), "f4"), ValueError, "query dim: expected 8, got 7"),
    ("query", np.ones((2, 3, 1, 8), "f4"), ValueError, "key_cache heads: expected a divisor"),
    ("key_cache", [[1.0]], TypeError, "key_cache type: expected numpy.ndarray, got list"),
    ("key_cache", np.ones((5, 2, 16, 8), "i4"), TypeError, "key_cache dtype"),
    ("key_cache", np.ones((5, 2, 16, 8), "f8"), TypeError, "value_cache dtype"),
    ("key_cache", np.ones((2, 16, 8), "f4"), ValueError, "key_cache ndim: expected 4, got 3"),
    ("key_cache", np.ones((5, 2, 16, 16), "f4")[..., ::2], ValueError, "key_cache layout"),
    ("value_cache", np.ones((5, 2, 15, 6), "f4"), ValueError, "value_cache shape"),
    ("value_cache", np.ones((5, 2, 16, 7), "f4")[..., :6], ValueError, "value_cache layout"),
    ("block_tables", np.array([0, 1]), ValueError, "block_tables ndim: expected 2, got 1"),
    ("block_tables", np.ones((2, 2)), TypeError, "block_tables dtype: expected an integer type"),
    ("block_tables", np.array([[0, 5], [2, 3]]), IndexError, r"block_tables at \(0, 1\)"),
    ("block_tables", np.array([[0, 1], [-1, 3]]), IndexError, r"block_tables at \(1, 0\)"),
    ("lengths", np.array([20, 3, 1]), ValueError, r"lengths shape: expected \(2,\), got \(3,\)"),
    ("lengths", np.array([33, 3]), ValueError, "block_tables length: expected blocks of 16"),
    ("lengths", np.array([20, -3]), ValueError, "lengths at 1: expected at least 0, got -3"),
    ("lengths", np.array([2**63 - 1, 3]), ValueError, "lengths|block_tables"),
    ("lengths", np.array([20.0, 3.0]), TypeError, "lengths dtype"),
    ("key_scales", np.ones((5, 2, 16), "f4"), ValueError, "key_scales value: expected None"),
    ("window", (-1, 0), ValueError, "window value: expected at least 0, or None, got -1"),
    ("window", (None, -1), ValueError, "window value"),
    ("softcap", 0.0, ValueError, "softcap value"),
    ("scale", np.inf, ValueError, "scale value"),
    ("alibi_slopes", np.ones(3, "f4"), ValueError, "alibi_slopes shape"),
    ("sinks", np.ones(3, "f4"), ValueError, "sinks shape"),
    ("sinks", np.ones(4, "i4"), TypeError, "sinks dtype"),
    ("key", np.ones((2, 2, 3, 7), "f4"), ValueError, "key shape"),
    ("value", np.ones((2, 2, 4, 6), "f4"), ValueError, "value shape"),
    ("value", np.ones((2, 2, 3, 6), "i4"), TypeError, "value dtype"),
    ("counts", np.array([4, 1]), ValueError, "counts at 0: expected 0 <= count <= 3, got 4"),
    ("counts", np.array([-1, 1]), ValueError, "counts at 0"),
]


@pytest.mark.parametrize("argument, value, error, message", BAD, ids=lambda x: str(x)[:24])
def test_bad_arguments_are_named(argument, value, error, message):
    calls = [
        (f, c())
        for f, c in ((ops.decode_attention, decode_call), (ops.append_to_cache, append_call))
    ]
    accepted = 0
    for op, call in calls:
        if argument not in op.__annotations__:
            continue
        accepted += 1
        with pytest.raises(error, match=f"{op.__name__}: .*({message})"):
            op(**call | {argument: value})
    assert accepted


def test_int8_needs_its_scales():
    call = decode_call()
    call["key_cache"], call["value_cache"] = (
        call[n].astype("i1") for n in ("key_cache", "value_cache")
    )
    scales = np.ones((5, 2, 16), "f4")
    good = {"key_scales": scales, "value_scales": scales}
    ops.decode_attention(**call, **good)
    for name, value, error in (
        ("key_scales", None, ValueError),
        ("value_scales", None, ValueError),
        ("key_scales", scales.astype("f8"), TypeError),
        ("value_scales", scales[:, :, :8], ValueError),
        ("key_scales", np.ones((5, 2, 32), "f4")[..., ::2], ValueError),
    ):
        with pytest.raises(error, match=f"decode_attention: {name}"):
            ops.decode_attention(**call, **good | {name: value})


@pytest.mark.parametrize("name", ["key_cache", "value_cache", "key_scales", "value_scales"])
def test_append_writes_to_what_can_be_written(name):
    call = append_call()
    for n in ("key_cache", "value_cache"):
        call[n] = np.zeros(call[n].shape, "i1")
    for n in ("key_scales", "value_scales"):
        call[n] = np.zeros((5, 2, 16), "f4")
    call[name].flags.writeable = False
    with pytest.raises(ValueError, match=f"append_to_cache: {name} flags: expected a writable"):
        ops.append_to_cache(**call)
    assert not call["key_cache"].any()


def test_nothing_is_written_when_a_later_sequence_does_not_fit():
    call = append_call()
    call["key_cache"][:] = call["value_cache"][:] = 5
    call["lengths"] = np.array([0, 30])
    with pytest.raises(ValueError, match="block_tables length"):
        ops.append_to_cache(**call)
    assert (call["key_cache"] == 5).all() and (call["value_cache"] == 5).all()
