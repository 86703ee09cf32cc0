"""Decoding on a device against float64, in the caches and by the oracle of test_decode."""

import ml_dtypes
import numpy as np
import pytest
from on_device import cuda, dev, host, needs_device, run
from test_decode import EPS, FLOATS, Cache, oracle

pytestmark = needs_device

BF16 = ml_dtypes.bfloat16
CACHES = (*FLOATS, np.int8)


def check(query, cache, **options):
    """Scores are sums of d products, weights their exponentials, results means of the values."""
    out, lse = run(
        "decode_attention", query, *cache.arguments(), **cache.scales, return_lse=True, **options
    )
    want, want_lse = oracle(query, cache, **options)
    computed = np.dtype(np.float64 if cache.key.dtype == np.float64 else np.float32)
    assert out.dtype == query.dtype and lse.dtype == computed
    d, scale = query.shape[-1], abs(options.get("scale") or 1 / np.sqrt(query.shape[-1] or 1))
    dense = [cache.dense(b) for b in range(len(cache.lengths))]
    key, value = (max((abs(x[i]).max(initial=0) for x in dense), default=0) for i in (0, 1))
    norm = np.linalg.norm(query.astype(np.float64), axis=-1).max(initial=0) * key * np.sqrt(d)
    error = EPS[computed] * (
        8 + 2 * np.sqrt(d) * scale * norm + 2 * np.log2(2 + max(cache.lengths))
    )
    eps = max(EPS[query.dtype], EPS[computed])
    np.testing.assert_allclose(
        out.astype(np.float64), want, rtol=2 * eps, atol=2 * error * max(1, value) + eps**2
    )
    np.testing.assert_allclose(lse, want_lse, rtol=8 * EPS[computed], atol=2 * error)


# heads, kv_heads, lq, d, dv, block_size, lengths: pieces of one step and of several
SIZES = [
    (1, 1, 1, 1, 1, 1, [1, 0, 5]),
    (4, 2, 1, 16, 16, 16, [33, 31, 128]),
    (6, 2, 2, 24, 40, 7, [300, 1, 129]),
    (8, 1, 3, 33, 17, 5, [70, 2]),
    (16, 1, 1, 128, 64, 64, [260]),
    (2, 2, 1, 256, 256, 32, [200]),
]


@pytest.mark.parametrize("dtype", CACHES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_sizes(rng, size, dtype):
    heads, kv_heads, lq, d, dv, block_size, lengths = size
    cache = Cache(rng, dtype, lengths, kv_heads, d, dv, block_size)
    query = rng.standard_normal((len(lengths), heads, lq, d))
    for query_type in FLOATS:
        check(query.astype(query_type), cache)


@pytest.mark.parametrize("dtype", CACHES)
def test_options(rng, dtype):
    cache = Cache(rng, dtype, [150, 3, 0, 77], 2, 16, 24, 16)
    query = rng.standard_normal((4, 4, 3, 16)).astype(np.float32)
    slopes, sinks = rng.uniform(0, 0.2, (4,)), rng.standard_normal(4).astype(BF16)
    for options in (
        {"window": (0, 0)},
        {"window": (40, None), "softcap": 1.5},
        {"scale": -0.4, "alibi_slopes": slopes},
        {"sinks": sinks, "window": (70, 1)},
        {"alibi_slopes": slopes[None], "sinks": sinks, "softcap": 3.0},
    ):
        check(query, cache, **options)


def test_integer_types_strides_and_empty_arrays(rng):
    cache = Cache(rng, np.float32, [40, 9], 2, 16, 16, 8)
    query = rng.standard_normal((2, 3, 4, 16)).astype(np.float32).swapaxes(1, 2)
    want = run("decode_attention", np.ascontiguousarray(query), *cache.arguments())
    assert (run("decode_attention", query, *cache.arguments()) == want).all()
    for kind in (np.int8, np.int32, np.int64):
        tables, lengths = cache.tables.astype(kind), cache.lengths.astype(kind)
        got = run("decode_attention", query, cache.key, cache.value, tables, lengths)
        assert (got == want).all()
    for batch, heads, lq in ((0, 2, 1), (2, 0, 1), (2, 2, 0)):
        empty = Cache(rng, np.float32, [4] * batch, 1, 8, 8, 4)
        query = np.zeros((batch, heads, lq, 8), np.float32)
        assert run("decode_attention", query, *empty.arguments()).shape == query.shape


def test_missing_blocks_give_nan(rng):
    cache = Cache(rng, np.float32, [40, 9, 20], 1, 16, 16, 8)
    query = rng.standard_normal((3, 2, 1, 16)).astype(np.float32)
    want = run("decode_attention", query, *cache.arguments())
    cache.tables[0, 2] = 1 << 40
    got = run("decode_attention", query, *cache.arguments())
    assert np.isnan(got[0]).all() and (got[1:] == want[1:]).all()
    cache.tables[0, 2] = -1
    cache.lengths[:] = 40, -3, 1 << 50
    got = run("decode_attention", query, *cache.arguments())
    assert np.isnan(got[0]).all() and (got[1] == 0).all() and np.isnan(got[2]).all()
    assert np.isfinite(run("decode_attention", query, *cache.arguments(), window=(5, 0))[0]).all()


def append(key, value, cache, counts=None):
    """append_to_cache to caches on the device, which are copied back."""
    places = [cache.key, cache.value, *cache.scales.values()]
    there = [dev(x) for x in places]
    scales = dict(zip(cache.scales, there[2:], strict=True))
    more = {} if counts is None else {"counts": dev(counts)}
    cuda.append_to_cache(
        dev(key), dev(value), *there[:2], dev(cache.tables), dev(cache.lengths), **more, **scales
    )
    for x, y in zip(places, there, strict=True):
        if x is not y:
            x[...] = host(y)


@pytest.mark.parametrize("dtype", CACHES)
@pytest.mark.parametrize("source", FLOATS)
def test_append(rng, dtype, source):
    full = Cache(rng, dtype, [13, 8, 5], 2, 20, 9, 4)
    key, value = (rng.standard_normal((3, 2, 3, n)).astype(source) for n in (20, 9))
    key[0, 1, 2] = 0
    key[1, 0, 0, 3] = np.inf
    before = [x.copy() for x in (full.key, full.value, *full.scales.values())]
    counts = np.array([3, 1, 0])
    full.lengths -= counts
    append(key, value, full, counts)
    changed = np.zeros(full.key.shape[:3], bool)
    for b, count in enumerate(counts):
        for i in range(count):
            t = full.lengths[b] + i
            at = full.tables[b, t // 4], slice(None), t % 4
            changed[at] = True
            for name, x, y in (("key", key, full.key), ("value", value, full.value)):
                row = x[b, :, i]
                if dtype != np.int8:
                    with np.errstate(over="ignore"):
                        via = row.astype(np.float64 if dtype == np.float64 else np.float32)
                        np.testing.assert_array_equal(y[at], via.astype(dtype))
                    continue
                row = row.astype(np.float32)
                step = abs(row).max(-1) / np.float32(127)
                finite = np.isfinite(row).all(-1)
                got = full.scales[f"{name}_scales"][at]
                np.testing.assert_array_equal(got, np.where(finite, step, np.nan))
                step = np.where(step > 0, step, 1)[finite, None]
                np.testing.assert_array_equal(y[at][finite], np.rint(row[finite] / step))
    for x, y in zip((full.key, full.value, *full.scales.values()), before, strict=True):
        np.testing.assert_array_equal(*(a[~changed].astype("f8") for a in (x, y)))


def test_append_writes_nothing_out_of_bounds(rng):
    cache = Cache(rng, np.float32, [8, 8, 8], 1, 8, 8, 4)
    cache.tables[0, 0], cache.tables[1, 1] = -1, 1 << 40
    key = rng.standard_normal((3, 1, 3, 8)).astype(np.float32)
    before = cache.key.copy()
    cache.lengths[:] = 0, 4, 1 << 50
    append(key, key, cache)
    np.testing.assert_array_equal(cache.key, before)
    cache.lengths[:] = 2, 7, 0
    append(key, key, cache, np.array([0, 0, 1 << 40]))
    assert (cache.key[cache.tables[2, 0], 0, :3] == key[2, 0]).all()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"query": np.zeros((1, 3, 1, 8), np.float32)}, "key_cache heads: expected a divisor"),
        ({"query": np.zeros((2, 2, 1, 8), np.float32)}, "query batch: expected 1, got 2"),
        ({"lengths": np.zeros(1)}, "lengths dtype: expected an integer type, got float64"),
        ({"value_cache": np.zeros((3, 2, 4, 8))}, "value_cache dtype"),
        ({"key_scales": np.zeros((3, 2, 4), np.float32)}, "key_scales value: expected None"),
        ({"window": (-1, 0)}, "window value: expected at least 0"),
        ({"softcap": -1.0}, "softcap value"),
    ],
)
def test_errors(change, message):
    arguments = {
        "query": np.zeros((1, 2, 1, 8), np.float32),
        "key_cache": np.zeros((3, 2, 4, 8), np.float32),
        "value_cache": np.zeros((3, 2, 4, 8), np.float32),
        "block_tables": np.zeros((1, 2), int),
        "lengths": np.ones(1, int),
        **change,
    }
    with pytest.raises((TypeError, ValueError), match=f"decode_attention: {message}"):
        run("decode_attention", **arguments)
