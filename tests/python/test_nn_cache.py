"""Key/value caches: attention to them equals attention to lists of tokens, whatever came in between."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from vectile import nn, ops
from vectile.autograd import Tensor, no_grad

LAYERS, HEADS, KV, D, DV = 2, 4, 2, 8, 6
DTYPES = ["float64", "float32", "float16", "bfloat16", "int8"]
# one rounding of a key or value of about 3 at most: half a step of the type, for int8 1/254 of the largest
ROUNDING = {"float64": 0, "float32": 0, "float16": 2**-11, "bfloat16": 2**-8, "int8": 1 / 127}


def tolerance(dtype):
    """Scores and outputs are sums of D, and of weights that add up to one, times values of about 3."""
    eps = 1e-12 if dtype == "float64" else 1e-5
    return {"rtol": 0, "atol": eps + 3 * 3 * 4 * ROUNDING[dtype]}


def paged(blocks=64, size=16, dtype="float64", layers=LAYERS):
    return nn.PagedKVCache(layers, KV, D, blocks, size, value_dim=DV, dtype=dtype)


def contiguous(batch, capacity=80, dtype="float64", layers=LAYERS):
    return nn.KVCache(layers, KV, D, capacity, batch, value_dim=DV, dtype=dtype)


class Model:
    """A cache, and what should be in it: for each sequence and layer keys and values."""

    def __init__(self, cache, seed=0):
        self.cache, self.rng = cache, np.random.default_rng(seed)
        self.tokens = [self.nothing() for _ in range(len(cache))]

    @staticmethod
    def nothing():
        return [(np.zeros((KV, 0, D)), np.zeros((KV, 0, DV))) for _ in range(LAYERS)]

    def draw(self, n, dim, heads=KV):
        return self.rng.normal(size=(len(self.cache), heads, n, dim))

    def append(self, n, counts=None):
        dtype = np.float64 if self.cache.dtype == np.float64 else np.float32
        steps = []
        for layer in range(LAYERS):
            k, v = self.draw(n, D).astype(dtype), self.draw(n, DV).astype(dtype)
            self.cache.append(layer, k, v, counts)
            steps.append((k, v))
        for row, kept in enumerate([n] * len(self.cache) if counts is None else counts):
            self.tokens[row] = [
                tuple(
                    np.concatenate([old, new[row, :, :kept]], 1)
                    for old, new in zip(before, step, strict=True)
                )
                for before, step in zip(self.tokens[row], steps, strict=True)
            ]

    def check(self, n=1, counts=None, **options):
        """Attention of `n` new queries, of which `counts` are a sequence's own."""
        lengths = [keys[0][0].shape[1] for keys in self.tokens]
        np.testing.assert_array_equal(self.cache.lengths, lengths)
        dtype = np.float64 if self.cache.dtype == np.float64 else np.float32
        for layer in range(LAYERS):
            query = self.draw(n, D, HEADS).astype(dtype)
            out = self.cache.attend(layer, query, counts, **options).numpy()
            assert out.shape == (len(self.cache), HEADS, n, DV)
            for row, (keys, values) in enumerate(held[layer] for held in self.tokens):
                own = n if counts is None else counts[row]
                expected = ops.scaled_dot_product_attention(
                    query[row, :, :own].astype(np.float64),
                    keys.astype(np.float64),
                    values.astype(np.float64),
                    **{"is_causal": True, **options},
                )
                np.testing.assert_allclose(
                    out[row, :, :own], expected, **tolerance(self.cache.dtype.name)
                )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["contiguous", "paged"])
def test_attention_to_a_cache_is_attention_to_its_tokens(kind, dtype):
    cache = contiguous(3, dtype=dtype) if kind == "contiguous" else paged(dtype=dtype)
    if kind == "paged":
        assert [cache.allocate() for _ in range(3)] == [0, 1, 2]
    model = Model(cache)
    model.append(15)
    model.check(5)
    model.append(4, counts=[4, 0, 2])
    model.check(1)
    model.check(2, window=(9, None), softcap=3.0, scale=0.2)
    model.check(3, is_causal=False)
    model.append(33, counts=[1, 33, 16])
    model.check(33, counts=[1, 33, 16])
    model.check(1, alibi_slopes=np.linspace(0.1, 1, HEADS), sinks=np.linspace(-1, 1, HEADS))
    model.check(2, is_causal=False, sinks=np.linspace(-1, 1, HEADS))


def test_the_log_sum_exp_comes_along():
    model = Model(contiguous(2))
    model.append(6, counts=[6, 3])
    query = model.draw(4, D, HEADS)
    for options in ({}, {"counts": [4, 2]}, {"is_causal": False}):
        out, lse = model.cache.attend(0, query, return_lse=True, **options)
        assert lse.shape == out.shape[:-1] == (2, HEADS, 4)
        keys, values = model.tokens[1][0]
        own = options.get("counts", [4, 4])[1]
        expected = ops.scaled_dot_product_attention(
            query[1, :, :own], keys, values, is_causal="is_causal" not in options, return_lse=True
        )
        np.testing.assert_allclose(out.numpy()[1, :, :own], expected[0], rtol=0, atol=1e-12)
        np.testing.assert_allclose(lse[1, :, :own], expected[1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["contiguous", "paged"])
def test_a_step_is_append_and_attend(kind):
    caches = [contiguous(2), contiguous(2)] if kind == "contiguous" else [paged(), paged()]
    if kind == "paged":
        for cache in caches:
            cache.allocate(), cache.allocate()
    model = Model(caches[0])
    for n, counts in ((7, [7, 4]), (1, None), (3, [1, 3]), (2, None)):
        k, v, q = model.draw(n, D), model.draw(n, DV), model.draw(n, D, HEADS)
        caches[0].append(1, k, v, counts)
        expected = caches[0].attend(1, q, counts, window=(4, 0)).numpy()
        out = caches[1].step(1, q, k, v, counts, window=(4, 0)).numpy()
        for row, own in enumerate(counts or [n, n]):
            np.testing.assert_allclose(out[row, :, :own], expected[row, :, :own], atol=1e-12)


def test_sequences_come_fork_and_go():
    cache = paged(blocks=12)
    model = Model(cache)
    assert len(cache) == 0 and cache.free_blocks == 12
    cache.allocate()
    model.tokens.append(model.nothing())
    model.append(40)  # three blocks, the last one half full
    assert cache.free_blocks == 9
    assert cache.fork(0) == 1 and cache.fork(0) == 2
    model.tokens += [model.tokens[0], model.tokens[0]]
    assert cache.free_blocks == 9  # nothing is copied yet
    model.check()
    model.append(1, counts=[0, 1, 0])  # the writer copies the block it writes to
    assert cache.free_blocks == 8
    model.check()
    model.append(2)  # of the two that still share it, one copies and the other keeps it
    assert cache.free_blocks == 7
    model.check()
    cache.free(0)
    del model.tokens[0]
    assert cache.free_blocks == 8  # what it had to itself
    model.check()
    cache.allocate()
    model.tokens.append(model.nothing())
    model.append(3, counts=[0, 0, 3])
    model.check()
    for _ in range(3):
        cache.free(0)
    assert len(cache) == 0 and cache.free_blocks == 12


def test_layers_need_not_keep_step():
    cache = paged(blocks=20)
    cache.allocate()
    rng = np.random.default_rng(0)
    kept = [[np.zeros((KV, 0, D))] for _ in range(LAYERS)]

    def append(layer, n):
        key = rng.normal(size=(len(cache), KV, n, D))
        cache.append(layer, key, key[..., :DV])
        kept[layer] = [np.concatenate(x, 1) for x in zip(kept[layer], key, strict=True)]

    def check():
        for layer in range(LAYERS):
            query = rng.normal(size=(len(cache), HEADS, 1, D))
            out = cache.attend(layer, query).numpy()
            for row, key in enumerate(kept[layer]):
                expected = ops.scaled_dot_product_attention(query[row], key, key[..., :DV])
                np.testing.assert_allclose(out[row], expected, rtol=0, atol=1e-12)

    append(0, 30)
    append(1, 10)
    cache.fork(0)
    kept = [[x[0], x[0]] for x in kept]
    append(0, 10)  # in the second block
    append(1, 3)  # in the first, which is still shared
    check()
    assert cache.lengths.tolist() == [13, 13]
    cache.truncate(20)
    kept[0] = [x[:, :20] for x in kept[0]]
    assert cache.lengths.tolist() == [13, 13]
    append(1, 7)
    check()


def test_who_had_the_blocks_goes_on_in_them():
    cache = paged(blocks=4)
    cache.allocate()
    model = Model(cache)
    model.append(5)
    other = Model(cache.take([0]), seed=1)
    other.tokens = list(model.tokens)
    model.append(2)
    assert cache.free_blocks == 3
    other.check()
    other.append(4)
    assert cache.free_blocks == 2
    other.check()
    model.check()


def test_a_block_boundary_is_not_copied():
    cache = paged(blocks=8)
    model = Model(cache)
    cache.allocate()
    model.tokens.append(model.nothing())
    model.append(32)
    cache.fork(0)
    model.tokens.append(model.tokens[0])
    model.append(1)
    assert cache.free_blocks == 4  # two full blocks are shared, each has its third
    model.check()


@pytest.mark.parametrize("n", [17, 32])
def test_a_full_pool_changes_nothing(n):
    cache = paged(blocks=4)
    model = Model(cache)
    for _ in range(2):
        cache.allocate()
        model.tokens.append(model.nothing())
    model.append(10)
    cache.fork(0)
    model.tokens.append(model.tokens[0])
    free = cache.free_blocks
    for layer in range(LAYERS):
        with pytest.raises(
            MemoryError, match=r"PagedKVCache: pool: expected \d free blocks, got 2 of 4"
        ):
            cache.append(layer, model.draw(n, D), model.draw(n, DV))
    assert cache.free_blocks == free
    model.check()
    cache.free(1)
    del model.tokens[1]
    model.append(7)
    assert cache.free_blocks == 0
    model.check()


@pytest.mark.parametrize("kind", ["contiguous", "paged"])
def test_tokens_taken_back_are_forgotten(kind):
    cache = contiguous(2) if kind == "contiguous" else paged(blocks=10)
    while len(cache) < 2:
        cache.allocate()
    model = Model(cache)
    model.append(40)
    if kind == "paged":
        cache.fork(0)
        model.tokens.append(model.tokens[0])
    for back in (
        3,
        [0] * (len(cache) - 1) + [30],
        1,
    ):  # a guess is refused, within a shared block too
        cache.truncate(cache.lengths - back)
        for row, held in enumerate(model.tokens):
            kept = int(cache.lengths[row])
            model.tokens[row] = [tuple(x[:, :kept] for x in pair) for pair in held]
        model.check()
        model.append(2)
        model.check(2)
    cache.truncate(0)
    assert not cache.lengths.any()
    if kind == "paged":
        assert cache.free_blocks == 10


@pytest.mark.parametrize("kind", ["contiguous", "paged"])
def test_taken_sequences_go_their_own_way(kind):
    cache = contiguous(3, capacity=40) if kind == "contiguous" else paged(blocks=40)
    while len(cache) < 3:
        cache.allocate()
    model = Model(cache)
    model.append(20, counts=[20, 7, 3])
    for rows in ([2, 0, 0, 1, 0], [4, 4, 3, 2], [1, 0], [0, 1, 1, 1, 0, 0, 1]):
        other = Model(model.cache.take(rows), seed=len(rows))
        other.tokens = [model.tokens[row] for row in rows]
        other.check()
        other.append(1)
        other.append(3, counts=np.arange(len(rows)) % 4)
        other.check()
        model.check()  # as before
        model = other
    again = Model(copy.copy(model.cache))
    again.tokens = list(model.tokens)
    again.append(1)
    again.check()
    model.check()
    if kind == "paged":
        assert model.cache.take([]).free_blocks == cache.free_blocks
        cache.truncate(0)
        del model, other, again, cache
    with pytest.raises(IndexError):
        contiguous(2).take([2])


def test_blocks_of_dropped_caches_are_free_again():
    cache = paged(blocks=10)
    cache.allocate()
    Model(cache).cache.append(0, np.zeros((1, KV, 20, D)), np.zeros((1, KV, 20, DV)))
    others = [cache.take([0, 0]) for _ in range(3)]
    cache.free(0)
    assert cache.free_blocks == 8
    del others
    assert cache.free_blocks == 10


def test_requests_join_a_batch():
    cache = paged(blocks=20)
    batch = Model(cache)
    for n in (18, 5):
        request = Model(cache.take([]), seed=n)
        request.cache.allocate()
        request.tokens.append(request.nothing())
        request.append(n)
        cache.extend(request.cache)
        batch.tokens += request.tokens
        del request
        batch.check()
    batch.append(1)
    batch.check()
    assert cache.free_blocks == 17
    with pytest.raises(ValueError, match="other: expected a cache with the same pool"):
        cache.extend(paged())


@pytest.mark.parametrize("seed", range(4))
def test_any_order_of_operations(seed):
    rng = np.random.default_rng(seed)
    cache = paged(blocks=14)
    model = Model(cache, seed)
    for _ in range(80):
        kind = rng.choice(["allocate", "fork", "free", "append", "append", "truncate"])
        row = int(rng.integers(len(cache))) if len(cache) else None
        if kind == "allocate" and len(cache) < 5:
            cache.allocate()
            model.tokens.append(model.nothing())
        elif row is None:
            continue
        elif kind == "fork" and len(cache) < 5:
            cache.fork(row)
            model.tokens.append(model.tokens[row])
        elif kind == "free":
            cache.free(row)
            del model.tokens[row]
        elif kind == "append":
            counts = rng.integers(0, 20, len(cache))
            try:
                model.append(20, counts)
            except MemoryError:
                pass
        elif kind == "truncate":
            kept = rng.integers(0, cache.lengths + 1)
            cache.truncate(kept)
            model.tokens = [
                [tuple(x[:, :n] for x in pair) for pair in held]
                for n, held in zip(kept, model.tokens, strict=True)
            ]
        if len(cache):
            model.check()
        distinct = set(cache._tables[cache._tables >= 0].tolist())
        assert cache.free_blocks == 14 - len(distinct)
    while len(cache):
        cache.free(0)
    assert cache.free_blocks == 14


def test_the_bytes_are_those_of_the_blocks():
    tokens = 2 * 80
    numbers = LAYERS * KV * tokens * (D + DV)
    assert contiguous(2, dtype="float64").nbytes == 8 * numbers
    assert contiguous(2, dtype="bfloat16").nbytes == 2 * numbers
    scales = 2 * LAYERS * KV * tokens * 4
    assert contiguous(2, dtype="int8").nbytes == numbers + scales
    assert paged(blocks=10, dtype="float16").nbytes == 2 * numbers


def test_tensors_are_taken_within_no_grad_only():
    cache = contiguous(1)
    key, value = (Tensor(np.ones((1, KV, 2, dim)), requires_grad=True) for dim in (D, DV))
    with pytest.raises(RuntimeError, match=r"KVCache: key: expected no_grad\(\)"):
        cache.append(0, key, value)
    assert not cache.lengths.any()
    with no_grad():
        for layer in range(LAYERS):
            cache.append(layer, key, value)
    assert cache.lengths.tolist() == [2]


def zeros(*shape):
    return np.zeros(shape)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda c: nn.KVCache(0, 1, 1, 1), ValueError, "KVCache: layers: expected >= 1, got 0"),
        (lambda c: nn.KVCache(1, 1, 1, 0), ValueError, "capacity: expected >= 1, got 0"),
        (lambda c: nn.KVCache(1, 1, 1, 1, -1), ValueError, "batch: expected >= 0, got -1"),
        (lambda c: nn.KVCache(1, 1, 1, 1, dtype="int32"), TypeError, "dtype: expected a floating"),
        (lambda c: paged(size=8), ValueError, "block_size: expected 16 to 256, got 8"),
        (lambda c: paged(size=257), ValueError, "block_size: expected 16 to 256, got 257"),
        (
            lambda c: c.append(0, zeros(2, KV, 3, D + 1), zeros(2, KV, 3, DV)),
            ValueError,
            r"key shape: expected \(2, 2, length, 8\), got \(2, 2, 3, 9\)",
        ),
        (
            lambda c: c.append(0, zeros(2, KV, 3, D), zeros(2, KV, 2, DV)),
            ValueError,
            "value length: expected 3, got 2",
        ),
        (
            lambda c: c.append(0, zeros(2, KV, 3, D).astype(int), zeros(2, KV, 3, DV)),
            TypeError,
            "key dtype: expected floating point, got int64",
        ),
        (lambda c: c.append(2, zeros(2, KV, 3, D), zeros(2, KV, 3, DV)), IndexError, "2"),
        (
            lambda c: c.append(0, zeros(2, KV, 81, D), zeros(2, KV, 81, DV)),
            ValueError,
            "length: expected at most the capacity 80, got 81",
        ),
        (
            lambda c: c.append(0, zeros(2, KV, 3, D), zeros(2, KV, 3, DV), [4, 0]),
            ValueError,
            "counts: expected 0 to 3, got",
        ),
        (
            lambda c: c.append(0, zeros(2, KV, 3, D), zeros(2, KV, 3, DV), [1]),
            ValueError,
            r"counts shape: expected \(2,\), got \(1,\)",
        ),
        (
            lambda c: c.append(0, zeros(2, KV, 3, D), zeros(2, KV, 3, DV), [1.0, 2.0]),
            TypeError,
            "counts dtype: expected integers, got float64",
        ),
        (
            lambda c: c.attend(0, zeros(2, 3, 1, D)),
            ValueError,
            "query heads: expected a multiple of kv_heads 2, got 3",
        ),
        (
            lambda c: c.attend(0, zeros(2, 2, 1, D), is_causal=False, window=(1, 1)),
            ValueError,
            "window: expected None without is_causal",
        ),
        (lambda c: c.truncate(1), ValueError, "lengths: expected 0 to the present"),
        (lambda c: c.truncate(-1), ValueError, "lengths: expected 0 to the present"),
    ],
)
def test_wrong_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call(contiguous(2))
