"""Every option of attention with every other, against a float64 oracle written pair by pair."""

import itertools

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_attention import KV, X, inputs, random_mask, rounding, row_norm
from test_rotary import turned

import vectile as vt
from vectile import _core, config, nn, ops
from vectile.autograd import functional as F

sdpa, sdpa_backward = ops.scaled_dot_product_attention, ops.scaled_dot_product_attention_backward


def place(i, lq, lk, o):
    """The key at query i's own place, and the keys [first, last) of its sequence."""
    if "cu_seqlens_q" not in o:
        return i + lk - lq, 0, lk
    q, k = list(o["cu_seqlens_q"]), list(o.get("cu_seqlens_k", o["cu_seqlens_q"]))
    s = max(s for s in range(len(q) - 1) if q[s] <= i)
    return k[s + 1] - q[s + 1] + i, k[s], k[s + 1]


def places(lq, lk, o):
    """The same for all queries, three arrays (lq, 1)."""
    found = [place(i, lq, lk, o) for i in range(lq)]
    return np.array(found, int).reshape(lq, 3).T[..., None]


def sees(b, h, i, j, lq, lk, o):
    """Whether query i of head h sees key j; index arrays that broadcast."""
    at, first, last = places(lq, lk, o)
    seen = (first <= j) & (j < last)
    left, right = o.get("window", (None, None))
    if o.get("is_causal"):
        seen = seen & (j <= at)
    if left is not None:
        seen = seen & (at - j <= left)
    if right is not None:
        seen = seen & (j - at <= right)
    lengths = np.atleast_1d(o.get("key_lengths", lk))
    seen = seen & (j < lengths[b % len(lengths)])
    if "document_ids" in o:
        ids = np.atleast_2d(o["document_ids"])
        seen = seen & (ids[b % len(ids), j] == ids[b % len(ids), lk - lq + i])
    if "block_mask" in o:
        mask = o["block_mask"]
        mask = mask.reshape((1,) * (4 - mask.ndim) + mask.shape)
        rows, columns = o.get("block_size") or (-(-lq // mask.shape[2]), -(-lk // mask.shape[3]))
        seen = seen & mask[b % mask.shape[0], h % mask.shape[1], i // rows, j // columns]
    return seen


def rotary_of(lq, lk, o):
    """What turns queries and keys, or back with a sign of -1."""
    if "rotary" not in o:
        return (lambda x, sign=1: x,) * 2
    at = places(lq, lk, o)[0][:, 0]

    def turn(rows):
        cosine, sine = (t.astype("f8")[..., rows, :] for t in o["rotary"])
        if cosine.ndim > 2:
            cosine, sine = cosine[:, None], sine[:, None]
        return lambda x, sign=1: turned(x, cosine, sign * sine, o.get("rotary_interleaved", False))

    return turn(at), turn(slice(None))


class Oracle:
    """Scores, weights, output and gradients in float64."""

    def __init__(self, q, k, v, mask=None, **o):
        (b, h, lq, d), lk, group = q.shape, k.shape[-2], q.shape[1] // k.shape[1]
        self.group, self.kv_heads = group, k.shape[1]
        self.turns = rotary_of(lq, lk, o)
        self.q, self.k = self.turns[0](q.astype("f8")), self.turns[1](k.astype("f8"))
        self.k, self.v = (x.astype("f8").repeat(group, 1) for x in (self.k, v))
        self.scale = o.get("scale", 1 / np.sqrt(d))
        s = self.q @ self.k.swapaxes(-1, -2) * self.scale
        self.slope = np.ones_like(s)
        if "softcap" in o:
            t = np.tanh(s / o["softcap"])
            s, self.slope = o["softcap"] * t, 1 - t * t
        if "alibi_slopes" in o:
            distance = np.abs(np.arange(lk) - places(lq, lk, o)[0])
            slopes = np.broadcast_to(o["alibi_slopes"].astype("f8"), (b, h))
            s = s - slopes[..., None, None] * distance
        if mask is not None:
            s = np.where(mask, s, -np.inf) if mask.dtype == bool else s + mask.astype("f8")
        index = np.ix_(*map(np.arange, (b, h, lq, lk)))
        s = np.where(sees(*index, lq, lk, o), s, -np.inf)
        sinks = o.get("sinks")
        if sinks is not None:
            column = np.broadcast_to(sinks.astype("f8").reshape(1, h, 1, 1), (b, h, lq, 1))
            s = np.concatenate([s, column], -1)
        top = s.max(-1, keepdims=True, initial=-np.inf)
        e = np.exp(s - np.where(np.isneginf(top), 0, top))
        total = e.sum(-1, keepdims=True)
        with np.errstate(divide="ignore"):
            self.lse = (np.where(np.isneginf(top), 0, top) + np.log(total))[..., 0]
        p = np.divide(e, total, out=np.zeros_like(e), where=total > 0)
        self.weights, self.sink_weights = p[..., :lk], p[..., lk:]
        drop = o.get("dropout_p", 0.0)
        self.factor = ops.dropout(np.ones(self.weights.shape), drop, o.get("seed", 0))
        self.out = (self.weights * self.factor) @ self.v

    def _over_group(self, x):
        return x.reshape(x.shape[0], self.kv_heads, self.group, *x.shape[2:]).sum(2)

    def backward(self, grad):
        grad = grad.astype("f8")
        dp = grad @ self.v.swapaxes(-1, -2) * self.factor
        delta = (self.weights * dp).sum(-1, keepdims=True)
        ds = self.weights * (dp - delta) * self.slope * self.scale
        dk, dv = ds.swapaxes(-1, -2) @ self.q, (self.weights * self.factor).swapaxes(-1, -2) @ grad
        dsinks = -(self.sink_weights * delta).sum((0, 2, 3))
        turn_q, turn_k = self.turns
        dq, dk = turn_q(ds @ self.k, -1), turn_k(self._over_group(dk), -1)
        return dq, dk, self._over_group(dv), dsinks


def tolerances(q, k, v, grad, oracle, mask, o):
    """Absolute errors of weights, lse, out and the gradients, as in test_attention."""
    eps, lk, d = np.finfo(q.dtype).eps, k.shape[-2], q.shape[-1]
    scale = abs(oracle.scale)
    turns = 2 * ("rotary" in o)  # two more roundings of an element, from two it was
    score = rounding(q.dtype, d + turns) * scale * row_norm(q) * row_norm(k)
    bias = o.get("softcap", 0.0) + (q.shape[-2] + lk) * np.abs(
        o.get("alibi_slopes", np.zeros(1))
    ).max(initial=0)
    bias += np.abs(o.get("sinks", np.zeros(1))).max(initial=0)
    if mask is not None and mask.dtype != bool:
        bias += np.abs(mask[np.isfinite(mask)].astype("f8")).max(initial=0)
    score += 8 * eps * bias
    weight = 2 * score + rounding(q.dtype, lk)
    keep = oracle.factor.max(initial=1)
    lq, dim, group = q.shape[-2], v.shape[-1], oracle.group
    relative = weight + rounding(q.dtype, dim, lk, lq * group)
    column = group * oracle.weights.sum(-2).max(initial=1)
    ds = (2 + turns) * keep * row_norm(grad) * row_norm(v) * scale
    return {
        "weights": weight + 4 * eps,
        "lse": score + rounding(q.dtype, lk) + 8 * eps * (1 + bias),
        "out": keep * (weight + rounding(q.dtype, lk)) * np.abs(v).max(initial=0),
        "column_sums": lq * (weight + 4 * eps) + rounding(q.dtype, lq) * column,
        "dq": relative * ds * np.abs(k).max(initial=0),
        "dk": relative * column * ds * np.abs(q).max(initial=0),
        "dv": relative * column * keep * np.abs(grad).max(initial=0),
        "dsinks": relative * q.shape[0] * lq * keep * row_norm(grad) * row_norm(v),
    }


def check_all(rng, q, k, v, mask, o):
    """Forward, extras and backward against the oracle."""
    want = Oracle(q, k, v, mask, **o)
    top = min(3, k.shape[-2])
    results = sdpa(
        q, k, v, mask, return_lse=True, return_weights=True, return_column_sums=True,
        return_top_k=top, **o,
    )  # fmt: skip
    out, lse, weights, columns = results[:4]
    grad = rng.normal(size=out.shape).astype(q.dtype)
    atol = tolerances(q, k, v, grad, want, mask, o)

    def close(name, got, expected):
        assert got.dtype == q.dtype, name
        np.testing.assert_allclose(got, expected, rtol=0, atol=atol[name], err_msg=name)

    close("out", out, want.out)
    close("weights", weights, want.weights)
    close("lse", lse, want.lse)
    close("column_sums", columns, want.weights.sum(-2))
    if top:
        best, keys = results[4:]
        order = np.sort(weights, -1)[..., ::-1][..., :top]
        np.testing.assert_array_equal(best, order)
        picked = np.take_along_axis(weights, np.maximum(keys, 0), -1)
        np.testing.assert_array_equal(np.where(keys < 0, 0, picked), best)
        assert ((keys < 0) == (best == 0)).all()
    found = sdpa_backward(grad, q, k, v, out, lse, mask, **o)
    names = ("dq", "dk", "dv", "dsinks")
    for name, got, expected in zip(names, found, want.backward(grad), strict=False):
        close(name, got, expected)
    assert len(found) == 3 + ("sinks" in o)


def rotary(draw, rng, b, d, lk, dtype):
    angle = rng.uniform(
        -9, 9, ((b,) if draw(st.booleans()) else ()) + (lk, draw(st.integers(0, d // 2)))
    )
    tables = tuple(f(angle).astype(dtype) for f in (np.cos, np.sin))
    return {"rotary": tables, "rotary_interleaved": draw(st.booleans())}


def starts(draw, n, length):
    cuts = sorted(draw(st.lists(st.integers(0, length), min_size=n - 1, max_size=n - 1)))
    return np.array([0, *cuts, length])


OPTIONS = {
    "is_causal": lambda draw, rng, b, h, lq, lk, dtype: {"is_causal": True},
    "window": lambda draw, rng, b, h, lq, lk, dtype: {
        "window": tuple(draw(st.none() | st.integers(0, lk + 2)) for _ in "lr")
    },
    "block_mask": lambda draw, rng, b, h, lq, lk, dtype: block_mask(draw, rng, b, h, lq, lk),
    "key_lengths": lambda draw, rng, b, h, lq, lk, dtype: {
        "key_lengths": rng.integers(0, lk + 1, b) if draw(st.booleans()) else int(lk // 2)
    },
    "cu_seqlens": lambda draw, rng, b, h, lq, lk, dtype: sequences(draw, lq, lk),
    "document_ids": lambda draw, rng, b, h, lq, lk, dtype: documents(draw, rng, b, lq, lk),
    "softcap": lambda draw, rng, b, h, lq, lk, dtype: {
        "softcap": draw(st.sampled_from([0.7, 3.0, 50.0]))
    },
    "alibi_slopes": lambda draw, rng, b, h, lq, lk, dtype: {
        "alibi_slopes": rng.normal(size=(h,) if draw(st.booleans()) else (b, h)).astype(dtype)
    },
    "sinks": lambda draw, rng, b, h, lq, lk, dtype: {"sinks": rng.normal(size=h).astype(dtype)},
    "dropout": lambda draw, rng, b, h, lq, lk, dtype: {
        "dropout_p": draw(st.sampled_from([0.1, 0.5, 1.0])),
        "seed": draw(st.integers(0, 2**64 - 1)),
    },
}


def block_mask(draw, rng, b, h, lq, lk):
    size = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    lead = draw(st.sampled_from([(), (h,), (1, 1), (b, 1), (b, h)]))
    mask = rng.random((*lead, -(-lq // size[0]), -(-lk // size[1]))) < 0.5
    return {"block_mask": mask, "block_size": size}


def sequences(draw, lq, lk):
    n = draw(st.integers(1, 4))
    q = starts(draw, n, lq)
    if lq == lk and draw(st.booleans()):
        return {"cu_seqlens_q": q}
    return {"cu_seqlens_q": q, "cu_seqlens_k": starts(draw, n, lk).astype("i4")}


def documents(draw, rng, b, lq, lk):
    if lq > lk:
        return {}
    ids = rng.integers(0, 4, (b, lk) if draw(st.booleans()) else lk)
    return {"document_ids": np.sort(ids, -1) if draw(st.booleans()) else ids}


@pytest.mark.sanitize
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_combination_of_options(data):
    draw = data.draw
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    kv, group, b = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    lq, lk = draw(st.integers(0, 70)), draw(st.integers(0, 90))
    d, dv = draw(st.integers(1, 20)), draw(st.integers(0, 20))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    q, k, v = inputs(rng, dtype, (b, kv * group, kv, lq, lk, d, dv))
    if draw(st.booleans()):  # the heads of a fused projection: (batch, length, head, dim)
        q, k, v = (np.ascontiguousarray(x.swapaxes(1, 2)).swapaxes(1, 2) for x in (q, k, v))
    mask = random_mask(rng, draw(st.sampled_from(["none", "bool", "float"])), (lq, lk), dtype)
    o = {}
    for name in draw(st.sets(st.sampled_from(sorted(OPTIONS)), max_size=4)):
        o |= OPTIONS[name](draw, rng, b, kv * group, lq, lk, dtype)
    if draw(st.booleans()) and (places(lq, lk, o)[0] >= 0).all():
        o |= rotary(draw, rng, b, d, lk, dtype)
    before = _core.config()["isa"]
    _core.set_isa(draw(st.sampled_from(config()["supported_isas"])))
    try:
        check_all(rng, q, k, v, mask, o)
    finally:
        _core.set_isa(before)


def blocks_of(rng, rows, columns, share=0.4):
    return rng.random((rows, columns)) < share


# Long enough for several blocks of keys, pieces of rows and chunks of the backward pass.
LONG = {
    "causal": lambda rng, lq, lk: {"is_causal": True},
    "window": lambda rng, lq, lk: {"window": (33, 0)},
    "two_sided": lambda rng, lq, lk: {"window": (20, 45)},
    "blocks": lambda rng, lq, lk: {"block_mask": blocks_of(rng, -(-lq // 64), -(-lk // 64)),
                                   "block_size": (64, 64)},
    "odd_blocks": lambda rng, lq, lk: {"block_mask": blocks_of(rng, 7, 11), "is_causal": True},
    "lengths": lambda rng, lq, lk: {"key_lengths": np.array([lk - 70])},
    "packed": lambda rng, lq, lk: {"cu_seqlens_q": [0, 5, 170, 170, lq],
                                   "cu_seqlens_k": [0, 200, 300, 301, lk], "is_causal": True},
    "documents": lambda rng, lq, lk: {"document_ids": np.repeat(np.arange(9), 80)[:lk] // 2},
    "mixed_documents": lambda rng, lq, lk: {"document_ids": rng.integers(0, 3, lk)},
    "terms": lambda rng, lq, lk: {"softcap": 2.0, "alibi_slopes": np.array([0.02, 0.1]),
                                  "sinks": np.array([0.5, -1.0])},
    "dropout": lambda rng, lq, lk: {"dropout_p": 0.3, "seed": 2**63 + 5, "window": (100, None)},
    "rotary": lambda rng, lq, lk: {"rotary": nn.RotaryEmbedding(12, lk).tables(lk),
                                   "rotary_interleaved": True, "is_causal": True},
}  # fmt: skip


@pytest.mark.sanitize
@pytest.mark.parametrize(
    "size", [(1, 2, 1, 330, 620, 20, 24), (1, 2, 2, 600, 600, 16, 16)], ids=str
)
@pytest.mark.parametrize("name", LONG)
def test_long_rows(isa, dtype, rng, name, size):
    q, k, v = inputs(rng, dtype, size)
    o = LONG[name](rng, *size[3:5])
    o = {n: x.astype(dtype) if n in ("alibi_slopes", "sinks") else x for n, x in o.items()}
    if "rotary" in o:
        o["rotary"] = tuple(table.astype(dtype) for table in o["rotary"])
    check_all(rng, q, k, v, None, o)


@pytest.mark.parametrize("name", LONG)
def test_any_thread_count_gives_the_same_bits(rng, name, same_for_any_thread_count):
    q, k, v = inputs(rng, np.float32, (1, 2, 1, 330, 2300, 16, 24))
    o = LONG[name](rng, 330, 2300)
    if name == "documents":
        o = {"document_ids": np.repeat(np.arange(23), 100)}
    out, lse, *_ = same_for_any_thread_count(
        lambda: sdpa(
            q, k, v, return_lse=True, return_weights=True, return_column_sums=True,
            return_top_k=4, **o,
        )
    )  # fmt: skip
    grad = rng.normal(size=out.shape).astype(np.float32)
    same_for_any_thread_count(lambda: sdpa_backward(grad, q, k, v, out, lse, **o))


@pytest.mark.parametrize(
    "name", [n for n in LONG if n != "dropout"]
)  # that hides weights, not keys
def test_hidden_keys_never_leak(isa, rng, name):
    q, k, v = inputs(rng, np.float32, (1, 2, 2, 600, 600, 16, 16))
    o = LONG[name](rng, 600, 600)
    _, weights = sdpa(q, k, v, return_weights=True, **o)
    hidden = np.flatnonzero(~(weights[:, :, 100:200] > 0).any((0, 1, 2)))
    out, lse = sdpa(q, k, v, return_lse=True, **o)
    k[:, :, hidden], v[:, :, hidden] = np.nan, np.inf
    bad_out, bad_lse = sdpa(q, k, v, return_lse=True, **o)
    np.testing.assert_array_equal(bad_out[:, :, 100:200], out[:, :, 100:200])
    np.testing.assert_array_equal(bad_lse[:, :, 100:200], lse[:, :, 100:200])


@pytest.mark.parametrize("name", ["key_lengths", "document_ids"])
def test_no_batches(name):
    x = np.zeros((0, 2, 3, 4), np.float32)
    o = {name: np.zeros(0 if name == "key_lengths" else (0, 3), int)}
    out, lse = sdpa(x, x, x, return_lse=True, **o)
    assert out.shape == x.shape and lse.shape == (0, 2, 3)
    assert [y.shape for y in sdpa_backward(out, x, x, x, out, lse, **o)] == [x.shape] * 3


def test_a_padded_batch_equals_the_unpadded_one(isa, dtype, rng):
    lengths = np.array([50, 7, 0, 33])
    q, k, v = inputs(rng, dtype, (4, 2, 1, 40, 60, 16, 12))
    grad = rng.normal(size=(4, 2, 40, 12)).astype(dtype)
    for b, n in enumerate(lengths):
        k[b, :, n:], v[b, :, n:] = np.nan, np.nan
    out, lse = sdpa(q, k, v, key_lengths=lengths, return_lse=True)
    dq, dk, dv = sdpa_backward(grad, q, k, v, out, lse, key_lengths=lengths)
    for b, n in enumerate(lengths):
        parts = q[b], k[b, :, :n], v[b, :, :n]
        one, one_lse = sdpa(*parts, return_lse=True)
        np.testing.assert_allclose(out[b], one, rtol=0, atol=50 * np.finfo(dtype).eps)
        found = sdpa_backward(grad[b], *parts, one, one_lse)
        for x, y in zip((dq[b], dk[b, :, :n], dv[b, :, :n]), found, strict=True):
            np.testing.assert_allclose(x, y, rtol=0, atol=500 * np.finfo(dtype).eps)
        assert (dk[b, :, n:] == 0).all() and (dv[b, :, n:] == 0).all()


def test_packed_sequences_equal_a_call_each(isa, dtype, rng):
    q, k, v = inputs(rng, dtype, (1, 4, 2, 100, 100, 16, 16))
    cuts = [0, 13, 13, 80, 100]
    o = {"is_causal": True, "window": (20, None), "alibi_slopes": rng.normal(size=4).astype(dtype)}
    out, lse = sdpa(q, k, v, cu_seqlens_q=cuts, return_lse=True, **o)
    grads = sdpa_backward(out, q, k, v, out, lse, cu_seqlens_q=cuts, **o)
    for a, b in itertools.pairwise(cuts):
        part = [x[:, :, a:b] for x in (q, k, v)]
        one, one_lse = sdpa(*part, return_lse=True, **o)
        np.testing.assert_allclose(out[:, :, a:b], one, rtol=0, atol=100 * np.finfo(dtype).eps)
        for x, y in zip(grads, sdpa_backward(one, *part, one, one_lse, **o), strict=True):
            np.testing.assert_allclose(x[:, :, a:b], y, rtol=0, atol=1000 * np.finfo(dtype).eps)


def test_options_that_say_the_same_give_the_same(isa, rng):
    q, k, v = inputs(rng, np.float32, (2, 2, 2, 90, 90, 16, 16))
    ids = np.repeat([4, 1, 9], [20, 30, 40])
    same = [
        ({"is_causal": True}, {"window": (None, 0)}),
        ({"document_ids": ids}, {"cu_seqlens_q": [0, 20, 50, 90]}),
        ({"document_ids": ids}, {"attn_mask": ids[:, None] == ids}),
        ({"key_lengths": 60}, {"attn_mask": np.arange(90) < 60}),
        ({"block_mask": np.eye(9, dtype=bool)}, {"cu_seqlens_q": np.arange(0, 91, 10)}),
        ({"window": (None, None), "block_mask": np.ones((3, 3), bool)}, {}),
    ]
    for one, other in same:
        np.testing.assert_allclose(sdpa(q, k, v, **one), sdpa(q, k, v, **other), rtol=0, atol=1e-5)


@pytest.mark.parametrize("half", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("name", [*LONG, "mask", "few"])
def test_halves_are_storage(isa, rng, half, name):
    """The same numbers as float32 on the widened inputs, rounded once."""
    lq = 2 if name == "few" else 130
    q, k, v = (x.astype(half) for x in inputs(rng, np.float32, (1, 2, 1, lq, 600, 20, 33)))
    o = LONG[name](rng, lq, 600) if name in LONG else {}
    if name == "packed":
        o |= {"cu_seqlens_q": [0, 5, 70, 70, lq]}
    wide_o = {n: np.float32(x) if n in ("alibi_slopes", "sinks") else x for n, x in o.items()}
    mask = random_mask(rng, "float", (lq, 600), np.float32).astype(half) if name == "mask" else None
    wide = [x.astype(np.float32) for x in (q, k, v)]
    wide_mask = None if mask is None else mask.astype(np.float32)
    extras = {"return_lse": True, "return_weights": True, "return_column_sums": True}
    got = sdpa(q, k, v, mask, **extras, **wide_o)
    want = sdpa(*wide, wide_mask, **extras, **wide_o)
    assert [x.dtype for x in got] == [half, np.float32, half, np.float32]
    for x, y in zip(got, want, strict=True):
        np.testing.assert_array_equal(x, y.astype(x.dtype))
    grad = rng.normal(size=got[0].shape).astype(half)
    grads = sdpa_backward(grad, q, k, v, got[0], got[1], mask, **wide_o)
    grad, out = grad.astype(np.float32), got[0].astype(np.float32)
    for x, y in zip(
        grads, sdpa_backward(grad, *wide, out, got[1], wide_mask, **wide_o), strict=True
    ):
        np.testing.assert_array_equal(x, y.astype(x.dtype))


def test_dropout_is_that_of_the_weights(isa, dtype, rng):
    q, k, v = inputs(rng, dtype, (2, 4, 2, 37, 150, 8, 8))
    _, weights = sdpa(q, k, v, return_weights=True)
    dropped = ops.dropout(weights, 0.4, 77)
    out = sdpa(q, k, v, dropout_p=0.4, seed=77)
    np.testing.assert_allclose(out, dropped @ v.repeat(2, 1), rtol=0, atol=1e-5)


GRADIENTS = {
    "window": {"window": (2, 1)},
    "blocks": {"block_mask": np.array([[True, False, True], [False, True, True]])},
    "lengths": {"key_lengths": np.array([3, 6])},
    "packed": {"cu_seqlens_q": np.array([0, 2, 5]), "cu_seqlens_k": np.array([0, 4, 6])},
    "documents": {"document_ids": np.array([0, 1, 0, 1, 1, 2])},
    "softcap": {"softcap": 0.8, "is_causal": True},
    "alibi": {"alibi_slopes": np.array([0.3, 0.1, 0.5, 0.2])},
    "sinks": {"sinks": np.array([0.3, -0.5, 1.0, 0.0]), "window": (1, 0)},
    "dropout": {"dropout_p": 0.4, "seed": 5},
    "all": {
        "softcap": 1.5,
        "sinks": np.array([0.3, -0.5, 1.0, 0.0]),
        "dropout_p": 0.3,
        "seed": 11,
        "is_causal": True,
        "alibi_slopes": np.array([0.3, 0.1, 0.5, 0.2]),
        "key_lengths": 5,
    },
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_by_finite_differences(isa, rng, name):
    o = GRADIENTS[name]
    q, k, v = inputs(rng, np.float64, (2, 4, 2, 5, 6, 3, 4))
    grad = rng.normal(size=(2, 4, 5, 4))

    def loss():
        return float((sdpa(q, k, v, **o) * grad).sum())

    out, lse = sdpa(q, k, v, return_lse=True, **o)
    found = sdpa_backward(grad, q, k, v, out, lse, **o)
    step = 1e-5  # central differences: step^2 truncation, eps / step rounding
    operands = [q, k, v, *([o["sinks"]] if "sinks" in o else [])]
    for x, g in zip(operands, found, strict=True):
        for i in np.ndindex(x.shape):
            x0 = x[i]
            x[i] = x0 + step
            up = loss()
            x[i] = x0 - step
            down = loss()
            x[i] = x0
            assert abs((up - down) / (2 * step) - g[i]) < 1e-8


@pytest.mark.parametrize("name", GRADIENTS)
def test_composite_path_is_the_same_function(rng, name):
    """What the second derivative is taken of, and what a learned mask runs."""
    o = GRADIENTS[name]
    q, k, v = (
        vt.tensor(x, requires_grad=True) for x in inputs(rng, np.float64, (2, 4, 2, 5, 6, 3, 4))
    )
    operands = [q, k, v]
    if "sinks" in o:
        o = o | {"sinks": vt.tensor(o["sinks"], requires_grad=True)}
        operands.append(o["sinks"])
    fused = F.scaled_dot_product_attention(q, k, v, **o)
    learned = vt.tensor(np.zeros((5, 6)), requires_grad=True)
    parts = F.scaled_dot_product_attention(q, k, v, learned, **o)
    np.testing.assert_allclose(fused.numpy(), parts.numpy(), rtol=0, atol=1e-13)
    g = rng.normal(size=fused.shape)
    for x, y in zip(vt.grad((fused * g).sum(), operands, retain_graph=True),
                    vt.grad((parts * g).sum(), operands), strict=True):  # fmt: skip
        np.testing.assert_allclose(x.numpy(), y.numpy(), rtol=0, atol=1e-12)
    first = vt.grad((fused * g).sum(), operands, create_graph=True)
    second = vt.grad(sum((x * x).sum() for x in first), operands)

    def slope(at):
        """The squared norm of the gradient, for operands moved to `at`."""
        moved = [vt.tensor(x, requires_grad=True) for x in at]
        again = o | ({"sinks": moved[3]} if len(moved) > 3 else {})
        out = F.scaled_dot_product_attention(*moved[:3], **again)
        return sum(float((x.numpy() ** 2).sum()) for x in vt.grad((out * g).sum(), moved))

    at = [x.numpy() for x in operands]
    ways = [rng.normal(size=x.shape) for x in at]
    step = 1e-5
    up, down = (slope([x + s * w for x, w in zip(at, ways, strict=True)]) for s in (step, -step))
    along = sum(float((s.numpy() * w).sum()) for s, w in zip(second, ways, strict=True))
    assert abs((up - down) / (2 * step) - along) < 1e-6 * (1 + abs(along))


def test_functional_returns_what_the_op_does(rng):
    q, k, v = inputs(rng, np.float32, (1, 2, 2, 9, 9, 8, 8))
    extras = {
        "return_lse": True,
        "return_weights": True,
        "return_column_sums": True,
        "return_top_k": 2,
    }
    for requires_grad in (False, True):
        t = [vt.tensor(x, requires_grad=requires_grad) for x in (q, k, v)]
        got = nn.functional.scaled_dot_product_attention(*t, window=(3, 0), **extras)
        for x, y in zip(got, sdpa(q, k, v, window=(3, 0), **extras), strict=True):
            np.testing.assert_array_equal(np.asarray(x), y)
        assert len(nn.functional.scaled_dot_product_attention(*t, return_top_k=1)) == 3
    qkv = np.concatenate([x.swapaxes(1, 2).reshape(1, 9, 16) for x in (q, k, v)], -1)
    out = nn.functional.packed_self_attention(qkv, 2, window=(2, 2)).numpy()
    want = sdpa(q, k, v, window=(2, 2)).swapaxes(1, 2).reshape(1, 9, 16)
    np.testing.assert_array_equal(out, want)


IDS = np.arange(5)


BAD_OPTIONS = [
    ({"window": (-1, 0)}, ValueError, "window value: expected at least 0, or None, got -1"),
    ({"block_mask": np.ones((2, 9), bool), "block_size": 3}, ValueError,
     "block_mask columns: expected 2 blocks of 3, got 9"),
    ({"block_mask": np.ones((4, 4), bool)}, ValueError,
     "block_mask rows: expected 3 blocks of 2, got 4"),
    ({"block_mask": np.ones((5, 5))}, TypeError, "block_mask dtype: expected bool, got float64"),
    ({"block_mask": np.ones(5, bool)}, ValueError, "block_mask ndim: expected at least 2, got 1"),
    ({"block_mask": np.ones((3, 1, 1), bool)}, ValueError,
     r"block_mask shape: expected one that broadcasts to \(2, 4, 1, 1\), got \(3, 1, 1\)"),
    ({"block_mask": np.ones((5, 5), bool), "block_size": (0, 1)}, ValueError,
     "block_size rows: expected at least 1, got 0"),
    ({"block_size": 4}, ValueError, "block_mask value: expected an array beside block_size"),
    ({"key_lengths": [1, 6]}, ValueError, "key_lengths value: expected 0 <= length <= 5, got 6"),
    ({"key_lengths": [1, 2, 3]}, ValueError, "key_lengths shape: expected one that broadcasts"),
    ({"key_lengths": [1.0, 2.0]}, TypeError, "key_lengths dtype: expected an integer type"),
    ({"cu_seqlens_q": [1, 5]}, ValueError, "cu_seqlens_q first: expected 0, got 1"),
    ({"cu_seqlens_q": [0, 4]}, ValueError, "cu_seqlens_q last: expected 5, got 4"),
    ({"cu_seqlens_q": [0, 4, 3, 5]}, ValueError,
     "cu_seqlens_q order: expected no decrease, got 4, 3"),
    ({"cu_seqlens_q": np.zeros(0, int)}, ValueError, "cu_seqlens_q length: expected at least 1"),
    ({"cu_seqlens_q": 5}, ValueError, "cu_seqlens_q ndim: expected 1, got 0"),
    ({"cu_seqlens_q": [0, 5], "cu_seqlens_k": [0, 2, 5]}, ValueError,
     "cu_seqlens_k length: expected 2, got 3"),
    ({"cu_seqlens_k": [0, 5]}, ValueError,
     "cu_seqlens_q value: expected an array beside cu_seqlens_k, got None"),
    ({"document_ids": IDS[:4]}, ValueError, "document_ids shape: expected one that broadcasts"),
    ({"document_ids": IDS[:3], "key": KV[..., :3, :], "value": KV[..., :3, :]}, ValueError,
     "document_ids queries: expected at most the 3 keys, got 5"),
    ({"document_ids": IDS * 0.5}, TypeError, "document_ids dtype: expected an integer type"),
    ({"softcap": 0.0}, ValueError, "softcap value: expected a finite number above 0, got 0"),
    ({"alibi_slopes": IDS}, TypeError, "alibi_slopes dtype"),
    ({"alibi_slopes": np.ones(3)}, ValueError, r"alibi_slopes shape: .*\(2, 4\), got \(3,\)"),
    ({"sinks": np.ones(3)}, ValueError, r"sinks shape: expected \(4,\), got \(3,\)"),
    ({"dropout_p": 1.5}, ValueError, "dropout_p value: expected 0 <= dropout_p <= 1, got 1.5"),
    ({"return_top_k": 6}, ValueError, "return_top_k value: expected 0 <= k <= 5, got 6"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "error", "message"), BAD_OPTIONS)
def test_bad_options(change, error, message):
    arguments = {"query": X, "key": KV, "value": KV} | change
    with pytest.raises(error, match="^scaled_dot_product_attention: " + message):
        sdpa(**arguments)
    if "return_top_k" in change:
        return
    arguments |= {"grad": X, "out": X, "lse": X[..., 0]}
    with pytest.raises(error, match="^scaled_dot_product_attention_backward: " + message):
        sdpa_backward(**arguments)
