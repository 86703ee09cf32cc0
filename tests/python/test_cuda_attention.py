"""Attention and its gradients on a device against float64."""

import ml_dtypes
import numpy as np
import pytest
from on_device import needs_device, run

pytestmark = [needs_device, pytest.mark.usefixtures("before_hopper")]

BF16 = ml_dtypes.bfloat16
HALVES = (np.float16, BF16)
TYPES = (np.float32, np.float64, *HALVES)
# batch, heads, kv_heads, lq, lk, d, dv: lengths about the tiles of every type
SIZES = [
    (1, 1, 1, 1, 1, 1, 1),
    (1, 2, 1, 1, 33, 16, 16),
    (2, 4, 2, 5, 7, 3, 4),
    (1, 2, 2, 16, 63, 17, 33),
    (1, 2, 1, 65, 64, 64, 8),
    (1, 1, 1, 63, 65, 40, 64),
    (1, 3, 1, 33, 31, 72, 120),
    (1, 1, 1, 17, 20, 256, 200),
]
EMPTY = [(0, 2, 2, 3, 3, 4, 4), (1, 2, 1, 0, 5, 4, 4), (1, 2, 1, 5, 0, 4, 4), (1, 0, 0, 5, 6, 4, 4)]


def epsilon(dtype):
    return float(ml_dtypes.finfo(dtype).eps)


def visible(lq, lk, is_causal=False, window=None, cu_seqlens_q=None, cu_seqlens_k=None):
    starts_q = [0, lq] if cu_seqlens_q is None else cu_seqlens_q
    starts_k = starts_q if cu_seqlens_k is None else cu_seqlens_k
    starts_k = [0, lk] if cu_seqlens_q is None else starts_k
    left, right = window or (None, None)
    seen = np.zeros((lq, lk), bool)
    for q0, q1, k0, k1 in zip(
        starts_q[:-1], starts_q[1:], starts_k[:-1], starts_k[1:], strict=True
    ):
        place = np.arange(q0, q1)[:, None] + k1 - q1
        key = np.arange(k0, k1)
        sees = np.ones((q1 - q0, k1 - k0), bool)
        if is_causal:
            sees &= key <= place
        if left is not None:
            sees &= key >= place - left
        if right is not None:
            sees &= key <= place + right
        seen[q0:q1, k0:k1] = sees
    return seen


def oracle(grad, q, k, v, scale=None, softcap=None, key_lengths=None, **masks):
    """out, lse, dq, dk, dv in float64; the absolute sums that bound their errors."""
    heads, kv = q.shape[1], k.shape[1]
    group = heads // max(1, kv)
    q, k, v, grad = (x.astype(np.float64) for x in (q, k, v, grad))
    keys, values = k.repeat(group, 1), v.repeat(group, 1)
    scale = 1 / np.sqrt(q.shape[-1]) if scale is None else scale
    x = scale * np.einsum("bhid,bhjd->bhij", q, keys)
    slope = np.ones_like(x)
    if softcap:
        slope = 1 - np.tanh(x / softcap) ** 2
        x = softcap * np.tanh(x / softcap)
    seen = np.broadcast_to(visible(q.shape[2], k.shape[2], **masks), x.shape)
    if key_lengths is not None:
        seen = seen & (np.arange(k.shape[2]) < key_lengths[:, None, None, None])
    x = np.where(seen, x, -np.inf)
    top = x.max(-1, keepdims=True, initial=-np.inf)
    e = np.exp(x - np.where(np.isinf(top), 0, top))
    total = e.sum(-1, keepdims=True)
    weights = e / np.where(total == 0, 1, total)
    with np.errstate(divide="ignore"):
        lse = (top + np.log(total))[..., 0]
    out = weights @ values
    ds = weights * (grad @ values.swapaxes(-1, -2) - (grad * out).sum(-1, keepdims=True))
    ds *= slope * scale

    def over_group(y):
        return y.reshape(*y.shape[:1], kv, group, *y.shape[2:]).sum(2)

    dk, dv = ds.swapaxes(-1, -2) @ q, weights.swapaxes(-1, -2) @ grad
    return out, lse, ds @ keys, over_group(dk), over_group(dv)


def inputs(rng, dtype, size):
    b, h, kv, lq, lk, d, dv = size
    shapes = [(b, h, lq, dv), (b, h, lq, d), (b, kv, lk, d), (b, kv, lk, dv)]
    return [rng.standard_normal(s).astype(dtype) for s in shapes]


def close(got, want, dtype, terms, roundings=8):
    """Within the roundings of sums of `terms` products of normal numbers, and of operands that a
    half type rounds once more (weights and their gradients)."""
    assert got.dtype == dtype and got.shape == want.shape
    if want.size == 0:
        return
    computed = epsilon(np.float64 if dtype == np.float64 else np.float32)
    bound = 16 * terms * computed + (roundings * epsilon(dtype) if dtype in HALVES else 0)
    error = abs(got.astype(np.float64) - want)
    assert (error <= bound * max(1, abs(want).max())).all(), (error.max(), bound)


def check(rng, dtype, size, **options):
    grad, q, k, v = inputs(rng, dtype, size)
    masks = dict(options)
    out, lse = run("scaled_dot_product_attention", q, k, v, return_lse=True, **options)
    want = oracle(grad, q, k, v, **masks)
    terms = size[5] + size[6] + size[4] + size[3] * size[1] / max(1, size[2])
    close(out, want[0], dtype, terms)
    statistic = np.float64 if dtype == np.float64 else np.float32
    seen = np.isfinite(want[1])
    assert (out[~seen] == 0).all() and (lse[~seen] == -np.inf).all()
    close(np.where(seen, lse, 0), np.where(seen, want[1], 0), statistic, terms)
    gradients = run("scaled_dot_product_attention_backward", grad, q, k, v, out, lse, **options)
    for got, w in zip(gradients, want[2:], strict=True):
        close(got, w, dtype, terms)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("is_causal", (False, True))
def test_sizes(rng, size, dtype, is_causal):
    check(rng, dtype, size, is_causal=is_causal)


@pytest.mark.parametrize("size", EMPTY, ids=str)
def test_empty_arrays(rng, size):
    check(rng, np.float32, size, is_causal=True)
    check(rng, BF16, size)


SEQUENCES = np.array([0, 0, 3, 70, 72, 90])


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("softcap", (None, 2.0))
@pytest.mark.parametrize("window", (None, (5, 2), (0, None), (None, 3)))
@pytest.mark.parametrize("is_causal", (False, True))
def test_masks(rng, dtype, is_causal, window, softcap):
    options = {"is_causal": is_causal, "window": window, "softcap": softcap, "scale": -0.3}
    lengths = np.array([0, 71])
    check(rng, dtype, (2, 2, 1, 66, 90, 24, 24), key_lengths=lengths, **options)
    packed = {"cu_seqlens_q": SEQUENCES}
    if window:
        packed["cu_seqlens_k"] = np.array([0, 2, 40, 41, 41, 77], np.int32)
    check(rng, dtype, (1, 2, 1, 90, 77 if window else 90, 24, 24), **packed, **options)


@pytest.mark.parametrize("dtype", (np.float32, BF16))
def test_several_tiles_and_large_scores(rng, dtype):
    # falling and rising maxima, over several steps and blocks of 64 and 128 rows
    grad, q, k, v = inputs(rng, dtype, (1, 1, 1, 131, 200, 64, 64))
    k = (k.astype(np.float32) * np.linspace(8, 0.1, 200)[:, None]).astype(dtype)
    want = oracle(grad, q, k, v)[0]
    close(run("scaled_dot_product_attention", q, k, v), want, dtype, 2000)
    order = np.s_[:, :, ::-1]
    close(run("scaled_dot_product_attention", q, k[order], v[order]), want, dtype, 2000)


@pytest.mark.parametrize("dtype", (np.float32, np.float16))
def test_ranks_and_strides(rng, dtype):
    grad, q, k, v = inputs(rng, dtype, (2, 4, 2, 9, 12, 16, 8))
    attend = "scaled_dot_product_attention"
    out, lse = run(attend, q, k, v, return_lse=True)
    parts = run(attend, q[1, 2], k[1, 1], v[1, 1], return_lse=True)
    assert (parts[0] == out[1, 2]).all() and (parts[1] == lse[1, 2]).all()
    assert (run(attend, q[0], k[0], v[0]) == out[0]).all()
    five = [x.reshape(2, 1, *x.shape[1:]) for x in (q, k, v)]
    assert (run(attend, *five)[:, 0] == out).all()
    # (batch, length, heads, d) seen as (batch, heads, length, d), and rows that run backwards
    tall = [np.ascontiguousarray(x.swapaxes(1, 2)).swapaxes(1, 2) for x in (grad, q, k, v, out)]
    assert (run(attend, *tall[1:4]) == out).all()
    back = "scaled_dot_product_attention_backward"
    want = run(back, grad, q, k, v, out, lse)
    for a, b in zip(run(back, *tall, lse), want, strict=True):
        assert (a == b).all()
    flipped = np.ascontiguousarray(k[..., ::-1])[..., ::-1]
    assert (run(attend, q, flipped, v) == out).all()
    wide = np.zeros((2, 2, 12, 17), dtype)
    wide[..., 1:] = k
    assert (run(attend, q, wide[..., 1:], v) == out).all()


@pytest.mark.parametrize("dtype", (np.float32, BF16))
def test_padding_never_leaks(rng, dtype):
    grad, q, k, v = inputs(rng, dtype, (2, 2, 1, 20, 70, 16, 16))
    lengths = np.array([5, 66], np.int32)
    attend, back = "scaled_dot_product_attention", "scaled_dot_product_attention_backward"

    def results():
        out, lse = run(attend, q, k, v, key_lengths=lengths, return_lse=True)
        return out, lse, *run(back, grad, q, k, v, out, lse, key_lengths=lengths)

    clean = results()
    for b, n in enumerate(lengths):
        k[b, :, n:] = v[b, :, n:] = np.nan
    for a, b in zip(results(), clean, strict=True):
        np.testing.assert_array_equal(a, b)


def test_nan_and_infinite_scores(rng):
    for dtype in (np.float32, BF16):
        _, q, k, v = inputs(rng, dtype, (1, 1, 1, 3, 5, 8, 8))
        q[0, 0, 1, 0] = np.nan
        out = run("scaled_dot_product_attention", q, k, v).astype(np.float64)
        assert np.isnan(out[0, 0, 1]).all() and np.isfinite(out[0, 0, ::2]).all()


def test_integers_out_of_range_read_nothing(rng):
    grad, q, k, v = inputs(rng, np.float32, (1, 1, 1, 40, 40, 8, 8))
    for starts in ([-5, 90, 20, 7], [0, 1 << 40, -(1 << 40), 40], [40, 30, 20, 0], [0]):
        options = {"cu_seqlens_q": np.array(starts), "key_lengths": np.array([1 << 40])}
        out, lse = run("scaled_dot_product_attention", q, k, v, return_lse=True, **options)
        run("scaled_dot_product_attention_backward", grad, q, k, v, out, lse, **options)


def test_the_same_bits_each_time(rng):
    grad, q, k, v = inputs(rng, np.float16, (1, 2, 1, 70, 70, 16, 16))
    out, lse = run("scaled_dot_product_attention", q, k, v, return_lse=True)
    back = "scaled_dot_product_attention_backward"
    first, second = (run(back, grad, q, k, v, out, lse) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert (a == b).all()


X = np.zeros((2, 4, 3, 8), np.float32)


@pytest.mark.parametrize(
    "arguments, options, message",
    [
        ((X.astype(int), X, X), {}, "query dtype"),
        ((X, X[:, :3], X[:, :3]), {}, "key heads: expected a divisor of the query's 4, got 3"),
        ((X, X, X[:, :, :2]), {}, "value length: expected 3, got 2"),
        ((X, X, X), {"window": (-1, None)}, "window value: expected at least 0, or None, got -1"),
        ((X, X, X), {"key_lengths": np.zeros(3, int)}, "key_lengths shape"),
        ((X, X, X), {"key_lengths": np.zeros(2)}, "key_lengths dtype: expected an integer type"),
        ((X, X, X), {"cu_seqlens_k": np.zeros(2, int)}, "cu_seqlens_q value"),
        ((X, X, X), {"softcap": 0.0}, "softcap value: expected a finite number above 0"),
        ((np.zeros((3, 257)),) * 3, {}, "query dim: expected at most 256 on a device, got 257"),
    ],
)
def test_errors(arguments, options, message):
    with pytest.raises((TypeError, ValueError), match=f"scaled_dot_product_attention: {message}"):
        run("scaled_dot_product_attention", *arguments, **options)
