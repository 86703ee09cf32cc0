"""Masks, score terms, dropout, sinks, rotary and weights of attention on a device against float64."""

import numpy as np
import pytest
from on_device import needs_device, run
from test_attention import KV, X
from test_attention_options import BAD_OPTIONS, Oracle, places
from test_cuda_attention import BF16, EMPTY, HALVES, TYPES, close, inputs
from test_device import gpu  # noqa: F401  (a fixture)

from vectile import ops

pytestmark = needs_device

ATTEND, BACK = "scaled_dot_product_attention", "scaled_dot_product_attention_backward"
# batch, heads, kv_heads, lq, lk, d, dv: about the tiles of every type, one of several steps and blocks
SIZES = [
    (2, 2, 1, 1, 3, 3, 4),
    (2, 2, 1, 33, 65, 16, 24),
    (1, 2, 2, 66, 67, 72, 8),
    (1, 2, 1, 130, 131, 8, 8),
]


def blocks(rng, lq, lk, rows, columns, *lead):
    mask = rng.random((*lead, -(-lq // rows), -(-lk // columns))) < 0.5
    return {"block_mask": mask, "block_size": (rows, columns)}


def tables(rng, dtype, d, *shape):
    angle = rng.uniform(-3, 3, (*shape, d // 2))
    wide = np.float32 if dtype in HALVES else dtype
    return tuple(f(angle).astype(wide) for f in (np.cos, np.sin))


def starts(length, *shares):
    return np.array([0, *(int(s * length) for s in shares), length])


# name: what makes the options (and "mask") of a call
OPTIONS = {
    "mask": lambda rng, b, h, lq, lk, d, t: {"mask": rng.random((lq, lk)) < 0.6},
    "mask_by_head": lambda rng, b, h, lq, lk, d, t: {"mask": rng.random((b, h, lq, lk)) < 0.6},
    "padding": lambda rng, b, h, lq, lk, d, t: {"mask": rng.random((b, 1, 1, lk)) < 0.6},
    "rows": lambda rng, b, h, lq, lk, d, t: {
        "mask": rng.random((h, lq, 1)) < 0.6, "is_causal": True
    },
    "added": lambda rng, b, h, lq, lk, d, t: {
        "mask": np.where(rng.random((b, 1, lq, lk)) < 0.3, -np.inf,
                         rng.standard_normal((b, 1, lq, lk))).astype(t),
        "window": (20, 30),
    },
    "alibi": lambda rng, b, h, lq, lk, d, t: {"alibi_slopes": rng.random(h).astype(t)},
    "alibi_packed": lambda rng, b, h, lq, lk, d, t: {
        "alibi_slopes": rng.standard_normal((b, h)).astype(t) / 20, "softcap": 2.0,
        "cu_seqlens_q": starts(lq, 0.3, 0.7), "cu_seqlens_k": starts(lk, 0.5, 0.6),
    },
    "sinks": lambda rng, b, h, lq, lk, d, t: {
        "sinks": rng.standard_normal(h).astype(t), "is_causal": bool(lq != 33)
    },
    "dropout": lambda rng, b, h, lq, lk, d, t: {"dropout_p": 0.4, "seed": 2**63 + 5},
    "dropped": lambda rng, b, h, lq, lk, d, t: {"dropout_p": 1.0},
    "documents": lambda rng, b, h, lq, lk, d, t: {
        "document_ids": np.sort(rng.integers(0, 5, lk))[::-1].astype(np.int32).copy()
    },
    "recurring": lambda rng, b, h, lq, lk, d, t: {
        "document_ids": rng.integers(-2, 2, (b, lk)) << 40, "window": (None, 20)
    },
    "blocks": lambda rng, b, h, lq, lk, d, t: blocks(rng, lq, lk, 64, 32, h),
    "small_blocks": lambda rng, b, h, lq, lk, d, t: {
        **blocks(rng, lq, lk, 7, 5, b, 1), "softcap": 1.5
    },
    "rotary": lambda rng, b, h, lq, lk, d, t: {"rotary": tables(rng, t, d, lk)},
    "rotary_by_batch": lambda rng, b, h, lq, lk, d, t: {
        "rotary": tables(rng, t, d - 2 if d > 3 else d, b, lk), "rotary_interleaved": True
    },
    "all": lambda rng, b, h, lq, lk, d, t: {
        "mask": rng.standard_normal((1, h, 1, lk)).astype(t), "alibi_slopes": rng.random(h).astype(t),
        "sinks": rng.standard_normal(h).astype(t), "dropout_p": 0.3, "seed": 11, "is_causal": True,
        "document_ids": np.arange(lk) // 40, "softcap": 3.0, "key_lengths": rng.integers(1, lk + 1, b),
        "rotary": tables(rng, t, d, lk), **blocks(rng, lq, lk, 16, 8, 1),
    },
}  # fmt: skip


def check(rng, dtype, size, o):
    """A call and its gradients against the oracle."""
    grad, q, k, v = inputs(rng, dtype, size)
    mask = o.pop("mask", None)
    want = Oracle(q, k, v, mask, **o)
    out, lse = run(ATTEND, q, k, v, mask, return_lse=True, **o)
    # Products of the sums, and distances, which are rounded beside a score.
    terms = size[5] + size[6] + size[4] + size[3] * size[1] / size[2]
    terms += size[4] * abs(o.get("alibi_slopes", np.zeros(1)).astype("f8")).max()
    # Dropout scales what was rounded; turned halves and gradients are rounded once more.
    keep = max(1, want.factor.max(initial=0))
    roundings = 8 * keep * (2 if "rotary" in o else 1)

    def agree(got, expected, dtype):
        close(got, expected, dtype, terms * keep, roundings)

    agree(out, want.out, dtype)
    seen = np.isfinite(want.lse)
    assert (out[~seen] == 0).all() and (lse[~seen] == -np.inf).all()
    statistic = np.float64 if dtype == np.float64 else np.float32
    turned = dtype if "rotary" in o and dtype in HALVES else statistic
    agree(np.where(seen, lse, 0).astype(turned), np.where(seen, want.lse, 0), turned)
    found = run(BACK, grad, q, k, v, out, lse, mask, **o)
    expected = want.backward(grad)[: 4 if "sinks" in o else 3]
    for got, w in zip(found, expected, strict=True):
        agree(got, w, dtype)


# Each option in each type, and in one of them at each larger size.
CASES = [
    (name, size, t)
    for i, name in enumerate(OPTIONS)
    for j, size in enumerate(SIZES)
    for k, t in enumerate(TYPES)
    if j == 0 or (i + k) % 4 == j
]


@pytest.mark.parametrize(("name", "size", "dtype"), CASES, ids=str)
def test_options(rng, name, size, dtype):
    b, h, _, lq, lk, d, _ = size
    check(rng, dtype, size, OPTIONS[name](rng, b, h, lq, lk, d, dtype))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("d", (100, 200))
def test_wide_heads(rng, d, dtype):
    size = (1, 2, 1, 19, 40, d, d)
    check(rng, dtype, size, OPTIONS["all"](rng, 1, 2, 19, 40, d, dtype))


@pytest.mark.parametrize("size", EMPTY, ids=str)
def test_empty_arrays(rng, size):
    grad, q, k, v = inputs(rng, np.float32, size)
    b, h, _, lq, lk, d, _ = size
    o = {"sinks": np.zeros(h, np.float32), "alibi_slopes": np.ones(h, np.float32), "dropout_p": 0.5}
    if lq <= lk:
        o |= {"document_ids": np.zeros((b, lk), int), "rotary": tables(rng, np.float32, d, lk)}
        o |= {"block_mask": np.ones((h, min(lq, 1), min(lk, 1)), bool)}
    mask, asked = np.ones((lq, lk), bool), {"return_lse": True, "return_weights": True}
    out, lse, weights = run(ATTEND, q, k, v, mask, **o, **asked)
    found = run(BACK, grad, q, k, v, out, lse, mask, **o)
    assert lse.shape == (b, h, lq) and weights.shape == (b, h, lq, lk)
    for x, y in zip((out, *found), (grad, q, k, v, o["sinks"]), strict=True):
        assert x.shape == y.shape and not x.any()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("dtype", TYPES)
def test_combinations(dtype, seed):
    rng = np.random.default_rng(seed)
    size = b, h, _, lq, lk, d, _ = (
        2,
        2,
        rng.integers(1, 3),
        *np.sort(rng.integers(1, 80, 2)),
        10,
        6,
    )
    o = {}
    for name in rng.choice(list(OPTIONS), 3, False):
        o |= OPTIONS[name](rng, b, h, lq, lk, d, dtype)
    if "cu_seqlens_q" in o and (places(lq, lk, o)[0] < 0).any():
        o.pop("rotary", None)
    check(rng, dtype, tuple(map(int, size)), o)


def test_slopes_and_sinks_have_types_of_their_own(rng):
    grad, q, k, v = inputs(rng, BF16, (1, 2, 2, 5, 9, 8, 8))
    o = {"alibi_slopes": np.array([0.25, 0.5]), "sinks": np.array([0.5, -1], np.float16)}
    out, lse = run(ATTEND, q, k, v, return_lse=True, **o)
    dsinks = run(BACK, grad, q, k, v, out, lse, **o)[3]
    want = Oracle(q, k, v, **o)
    close(out, want.out, BF16, 40)
    close(dsinks, want.backward(grad)[3], np.float16, 40, 100)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("lk", (64, 67))
def test_the_mask_of_dropout_is_the_cpus(dtype, lk):
    b, h, lq, p, seed = 2, 2, 37, 0.3, 2**64 - 7
    kept = ops.dropout(np.ones((b, h, lq, lk)), p, seed) > 0
    q, k = np.zeros((b, h, lq, 4), dtype), np.zeros((b, h, lk, 4), dtype)
    options = {"dropout_p": p, "seed": seed}
    value = np.broadcast_to(np.eye(lk, dtype=dtype), (b, h, lk, lk)).copy()
    out, lse = run(ATTEND, q, k, value, return_lse=True, **options)
    np.testing.assert_array_equal(out != 0, kept)
    value = np.zeros((b, h, lk, lq), dtype)
    grad = np.broadcast_to(np.eye(lq, dtype=dtype), (b, h, lq, lq)).copy()
    dv = run(BACK, grad, q, k, value, np.zeros_like(grad), lse, **options)[2]
    np.testing.assert_array_equal(dv.swapaxes(-1, -2) != 0, kept)


HIDING = {
    "mask": lambda rng, h, n, hidden: {"mask": (rng.random((h, n, n)) < 0.7) & ~hidden},
    "added": lambda rng, h, n, hidden: {
        "mask": np.where(hidden, -np.inf, rng.standard_normal((n, n)).astype(np.float32)),
        "alibi_slopes": np.full(h, 0.1, np.float32),
    },
    "documents": lambda rng, h, n, hidden: {"document_ids": np.where(hidden, 9, np.arange(n) % 3)},
    "blocks": lambda rng, h, n, hidden: {
        "block_mask": np.broadcast_to(~hidden, (n, n)).copy(), "dropout_p": 0.2
    },
}  # fmt: skip


@pytest.mark.parametrize("dtype", (np.float32, BF16))
@pytest.mark.parametrize("name", HIDING)
def test_hidden_keys_and_queries_never_leak(rng, name, dtype):
    n, hidden = 35, np.zeros(35, bool)
    hidden[[0, 5, 31, 34]] = True
    grad, q, k, v = inputs(rng, dtype, (1, 1, 1, n, n, 4, 4))
    o = HIDING[name](rng, 1, n, hidden)
    mask = o.pop("mask", None)
    mask = mask if mask is None or mask.dtype == bool else mask.astype(dtype)

    def results(out=None):
        out, lse = run(ATTEND, q, k, v, mask, return_lse=True, **o)
        found = run(BACK, grad, q, k, v, out, lse, mask, **o)
        return out, lse, *found

    # Documents hide keys from queries of other documents only: those stay apart.
    rows = ~hidden if name == "documents" else np.ones(n, bool)
    if name == "documents":
        grad[:, :, hidden] = 0
    clean = results()
    k[:, :, hidden], v[:, :, hidden] = np.nan, np.inf
    if name == "documents":
        q[:, :, hidden] = grad[:, :, hidden] = np.nan
    for a, b, keep in zip(results(), clean, (rows, rows, rows, ~hidden, ~hidden), strict=True):
        terms = 200 if a.dtype == dtype else 400
        close(a[:, :, keep], b[:, :, keep].astype(np.float64), a.dtype.type, terms, 16)
    if name != "documents":
        assert all((x[:, :, hidden] == 0).all() for x in results()[3:])


def test_a_nan_reaches_those_that_see_it_only(rng):
    grad, q, k, v = inputs(rng, np.float32, (1, 1, 1, 40, 40, 8, 8))
    mask = rng.random((40, 40)) < 0.5
    v[0, 0, 7], k[0, 0, 9] = np.nan, np.nan
    out, lse = run(ATTEND, q, k, v, mask, return_lse=True)
    dq = run(BACK, grad, q, k, v, out, lse, mask)[0]
    for y in (out, dq):
        np.testing.assert_array_equal(np.isnan(y[0, 0]).all(-1), mask[:, 7] | mask[:, 9])
        np.testing.assert_array_equal(np.isnan(y[0, 0]).any(-1), mask[:, 7] | mask[:, 9])


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", (None, "added", "all"))
def test_weights_and_sums(rng, name, dtype):
    b, h, _, lq, lk, d, _ = size = (2, 2, 1, 6, 67, 12, 8)
    o = OPTIONS[name](rng, b, h, lq, lk, d, dtype) if name else {"is_causal": True}
    mask = o.pop("mask", None)
    _, q, k, v = inputs(rng, dtype, size)
    want = Oracle(q, k, v, mask, **o)
    out, lse, weights, sums, best, keys = run(
        ATTEND, q, k, v, mask, return_lse=True, return_weights=True, return_column_sums=True,
        return_top_k=3, **o,
    )  # fmt: skip
    close(out, want.out, dtype, 400, 40)
    close(weights, want.weights, dtype, 100, 16)
    statistic = np.float64 if dtype == np.float64 else np.float32
    close(sums.astype(dtype), want.weights.sum(-2), dtype, 100, 16)
    assert sums.dtype == lse.dtype == statistic and keys.dtype == np.int64
    order = np.sort(weights, -1)[..., ::-1][..., :3]
    np.testing.assert_array_equal(best, order)
    picked = np.take_along_axis(weights, np.maximum(keys, 0), -1)
    np.testing.assert_array_equal(np.where(keys < 0, 0, picked), best)
    same = run(ATTEND, 0 * q, k, v, return_top_k=3)[2]  # of equal weights the first
    np.testing.assert_array_equal(same, np.broadcast_to(np.arange(3), same.shape))
    alone = run(ATTEND, q, k, v, mask, return_top_k=1, **o)
    assert len(alone) == 3 and (alone[2] == keys[..., :1]).all()


def test_ranks_and_strides(rng):
    _, q, k, v = inputs(rng, np.float32, (6, 2, 1, 9, 12, 8, 8))
    mask = rng.standard_normal((1, 3, 2, 1, 12)).astype(np.float32)
    o = {
        "alibi_slopes": rng.random((2, 1, 2)).astype(np.float32),
        "document_ids": rng.integers(0, 2, (3, 12)),
        "block_mask": rng.random((2, 3, 1, 3, 2)) < 0.7,
        "rotary": tables(rng, np.float32, 8, 2, 1, 12),
    }
    five = [x.reshape(2, 3, *x.shape[1:]) for x in (q, k, v)]
    found = run(ATTEND, *five, mask, **o)
    for a, b in np.ndindex(2, 3):
        part = {
            "alibi_slopes": o["alibi_slopes"][a, 0],
            "document_ids": o["document_ids"][b],
            "block_mask": o["block_mask"][a, b],
            "rotary": tuple(t[a, 0] for t in o["rotary"]),
        }
        one = run(ATTEND, *(x[a, b] for x in five), mask[0, b], **part)
        np.testing.assert_array_equal(found[a, b], one)
        head = run(ATTEND, five[0][a, b, 0], *(x[a, b, 0] for x in five[1:]), mask[0, b, 0],
                   document_ids=part["document_ids"])  # fmt: skip
        heads = run(ATTEND, *(x[a, b] for x in five), mask[0, b], document_ids=part["document_ids"])
        np.testing.assert_array_equal(head, heads[0])
    # A mask whose rows and columns run backwards, and one that is transposed.
    square = rng.random((12, 9)) < 0.5
    want = run(ATTEND, q, k, v, np.ascontiguousarray(square.T))
    np.testing.assert_array_equal(run(ATTEND, q, k, v, square.T), want)
    flipped = np.ascontiguousarray(square.T[::-1, ::-1])[::-1, ::-1]
    np.testing.assert_array_equal(run(ATTEND, q, k, v, flipped), want)


def test_places_out_of_the_tables_read_nothing(rng):
    _, q, k, v = inputs(rng, np.float32, (1, 1, 1, 20, 10, 8, 8))
    o = {"cu_seqlens_q": np.array([0, 15, 20]), "cu_seqlens_k": np.array([0, 2, 10])}
    run(ATTEND, q, k, v, rotary=tables(rng, np.float32, 8, 10), **o)


ARRAYS = {"query", "key", "value", "attn_mask", "block_mask", "key_lengths", "cu_seqlens_q"}
ARRAYS |= {"cu_seqlens_k", "document_ids", "alibi_slopes", "sinks"}
OF_VALUES = ("key_lengths value", "cu_seqlens_q first", "cu_seqlens_q last", "cu_seqlens_q order")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [x for x in BAD_OPTIONS if not x[2].startswith(OF_VALUES)]
    + [
        ({"attn_mask": np.zeros((5, 5))}, TypeError, "attn_mask dtype: expected bool or float32"),
        ({"attn_mask": np.zeros((4, 5), bool)}, ValueError, "attn_mask shape: expected one that"),
    ],
)
def test_errors_are_those_of_the_cpu(gpu, change, error, message):  # noqa: F811
    arguments = {"query": X, "key": KV, "value": KV} | change

    with pytest.raises(error, match="^scaled_dot_product_attention: " + message):
        ops.scaled_dot_product_attention(
            **{n: gpu(np.asarray(x)) if n in ARRAYS else x for n, x in arguments.items()}
        )
