"""attention family against a float64 oracle, on every tier and thread count."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vectile import _core, config, ops

sdpa, sdpa_backward = ops.scaled_dot_product_attention, ops.scaled_dot_product_attention_backward

# batch, heads, kv_heads, lq, lk, d, dv: lengths around the tile sizes of all tiers, odd dims
SIZES = [
    (1, 1, 1, 1, 1, 1, 1),
    (1, 2, 1, 1, 33, 16, 16),
    (2, 4, 2, 5, 7, 3, 4),
    (1, 3, 3, 12, 32, 64, 64),
    (1, 2, 2, 13, 31, 17, 33),
    (2, 6, 2, 37, 61, 24, 8),
    (1, 2, 1, 65, 257, 32, 40),
    (1, 1, 1, 130, 530, 64, 64),
    (1, 2, 2, 530, 67, 48, 64),
    (1, 1, 1, 9, 20, 300, 270),
    (1, 4, 1, 1, 1100, 64, 64),
]

EMPTY = [
    (0, 2, 2, 3, 3, 4, 4),
    (1, 2, 1, 0, 5, 4, 4),
    (1, 2, 1, 5, 0, 4, 4),
    (1, 2, 1, 5, 6, 4, 0),
    (1, 0, 0, 5, 6, 4, 4),
]


def scores_of(q, k, mask, causal, scale):
    s = q @ np.swapaxes(k, -1, -2) * (1 / np.sqrt(q.shape[-1]) if scale is None else scale)
    if mask is not None:
        with np.errstate(invalid="ignore"):
            s = np.where(mask, s, -np.inf) if mask.dtype == bool else s + mask
            s = np.where(np.isneginf(mask), -np.inf, s) if mask.dtype != bool else s
    if causal:
        i, j = np.indices(s.shape[-2:])
        s = np.where(j <= i + s.shape[-1] - s.shape[-2], s, -np.inf)
    return s


def oracle(q, k, v, mask=None, causal=False, scale=None):
    """out, lse, weights in float64."""
    group = q.shape[-3] // k.shape[-3]
    q, k, v = q.astype("f8"), k.astype("f8").repeat(group, -3), v.astype("f8").repeat(group, -3)
    s = scores_of(q, k, mask, causal, scale)
    top = s.max(-1, keepdims=True, initial=-np.inf)
    e = np.exp(s - np.where(np.isneginf(top), 0, top))
    total = e.sum(-1, keepdims=True)
    weights = np.divide(e, total, out=np.zeros_like(e), where=total > 0)
    with np.errstate(divide="ignore"):
        lse = (top + np.log(total))[..., 0]
    return weights @ v, lse, weights


def oracle_backward(grad, q, k, v, mask=None, causal=False, scale=None):
    group, kv_heads = q.shape[-3] // k.shape[-3], k.shape[-3]
    weights = oracle(q, k, v, mask, causal, scale)[2]
    grad, q = grad.astype("f8"), q.astype("f8")
    keys, values = k.astype("f8").repeat(group, -3), v.astype("f8").repeat(group, -3)
    dp = grad @ np.swapaxes(values, -1, -2)
    ds = weights * (dp - (weights * dp).sum(-1, keepdims=True))
    ds *= 1 / np.sqrt(q.shape[-1]) if scale is None else scale

    def over_group(x):
        return x.reshape(*x.shape[:-3], kv_heads, group, *x.shape[-2:]).sum(-3)

    dk, dv = np.swapaxes(ds, -1, -2) @ q, np.swapaxes(weights, -1, -2) @ grad
    return ds @ keys, over_group(dk), over_group(dv)


def inputs(rng, dtype, size):
    b, h, kv, lq, lk, d, dv = size
    shapes = [(b, h, lq, d), (b, kv, lk, d), (b, kv, lk, dv)]
    return [rng.normal(size=s).astype(dtype) for s in shapes]


def random_mask(rng, kind, shape, dtype):
    if kind == "bool":
        return rng.random(shape) < 0.7
    if kind == "float":
        mask = rng.normal(size=shape)
        return np.where(rng.random(shape) < 0.2, -np.inf, mask).astype(dtype)
    return None


def rounding(dtype, *terms):
    """Relative error of sums of so many terms: sqrt(n) eps, up to a factor that fails with
    probability near zero (Higham and Mary 2019), and a few roundings each."""
    return sum(3 * np.sqrt(n) + 6 for n in terms) * np.finfo(dtype).eps


def row_norm(x):
    return np.linalg.norm(x.astype("f8"), axis=-1).max(initial=0)


def weight_error(q, k, scale=None):
    """Relative error of a weight: twice its score's absolute error (numerator and sum), the sum of
    lk exponentials, and exp itself."""
    d, lk = q.shape[-1], k.shape[-2]
    scale = 1 / np.sqrt(max(1, d)) if scale is None else abs(scale)
    score = rounding(q.dtype, d) * scale * row_norm(q) * row_norm(k)
    return 2 * score + rounding(q.dtype, lk)


def forward_bound(q, k, v, scale=None):
    """out is a mean of the values, under weights that are off by weight_error."""
    relative = weight_error(q, k, scale) + rounding(q.dtype, k.shape[-2])
    return relative * np.abs(v).max(initial=0)


def check_forward(q, k, v, mask, causal, scale=None):
    out, lse, weights = sdpa(
        q, k, v, mask, is_causal=causal, scale=scale, return_lse=True, return_weights=True
    )
    want, want_lse, want_weights = oracle(q, k, v, mask, causal, scale)
    assert out.dtype == lse.dtype == weights.dtype == q.dtype
    np.testing.assert_allclose(out, want, rtol=0, atol=forward_bound(q, k, v, scale))
    atol = weight_error(q, k, scale) + 4 * np.finfo(q.dtype).eps
    np.testing.assert_allclose(lse, want_lse, rtol=4 * np.finfo(q.dtype).eps, atol=atol)
    np.testing.assert_allclose(weights, want_weights, rtol=0, atol=atol)
    return out, lse


def backward_bounds(grad, q, k, v, mask=None, causal=False, scale=None):
    """Absolute errors of the three gradients."""
    # dQ = scale P (dP - delta) K sums over a row of P, which adds up to 1; dK and dV over a column
    # (of every head of the group), which adds up to `column`.
    lq, lk, dim = q.shape[-2], k.shape[-2], v.shape[-1]
    group = q.shape[-3] // max(1, k.shape[-3])
    relative = weight_error(q, k, scale) + rounding(q.dtype, dim, lk, lq * group)
    column = group * oracle(q, k, v, mask, causal, scale)[2].sum(-2).max(initial=1)
    ds = 2 * row_norm(grad) * row_norm(v) * (q.shape[-1] ** -0.5 if scale is None else abs(scale))
    sizes = {
        "dq": ds * np.abs(k).max(initial=0),
        "dk": column * ds * np.abs(q).max(initial=0),
        "dv": column * np.abs(grad).max(initial=0),
    }
    return {name: relative * size for name, size in sizes.items()}


def check_backward(rng, q, k, v, mask, causal, scale=None):
    out, lse = sdpa(q, k, v, mask, is_causal=causal, scale=scale, return_lse=True)
    grad = rng.normal(size=out.shape).astype(q.dtype)
    got = sdpa_backward(grad, q, k, v, out, lse, mask, is_causal=causal, scale=scale)
    want = oracle_backward(grad, q, k, v, mask, causal, scale)
    bounds = backward_bounds(grad, q, k, v, mask, causal, scale)
    for g, w, (name, bound) in zip(got, want, bounds.items(), strict=True):
        assert g.dtype == q.dtype
        np.testing.assert_allclose(g, w, rtol=0, atol=bound, err_msg=name)


@pytest.mark.sanitize
@pytest.mark.parametrize("causal", [False, True], ids=["dense", "causal"])
@pytest.mark.parametrize("kind", ["none", "bool", "float"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_matches_float64(isa, dtype, rng, size, kind, causal):
    q, k, v = inputs(rng, dtype, size)
    b, h, _, lq, lk = size[:5]
    mask = random_mask(rng, kind, (b, h, lq, lk), dtype)
    check_forward(q, k, v, mask, causal)
    check_backward(rng, q, k, v, mask, causal)


@pytest.mark.sanitize
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_combination(data):
    draw = data.draw
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    kv, group, b = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(0, 2))
    lq, lk = draw(st.integers(0, 70)), draw(st.integers(0, 70))
    d, dv = draw(st.integers(1, 40)), draw(st.integers(0, 40))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    q, k, v = inputs(rng, dtype, (b, kv * group, kv, lq, lk, d, dv))
    if draw(st.booleans()):  # the heads of a fused projection: (batch, length, head, dim)
        q, k, v = (np.ascontiguousarray(x.swapaxes(1, 2)).swapaxes(1, 2) for x in (q, k, v))
    if draw(st.booleans()):  # a last axis that is not contiguous, and a negative stride
        k = np.ascontiguousarray(k.swapaxes(2, 3)).swapaxes(2, 3)
        v = np.ascontiguousarray(v[:, :, ::-1])[:, :, ::-1]
    full = (b, kv * group, lq, lk)
    shape = tuple(n if draw(st.booleans()) else 1 for n in full)[draw(st.integers(0, 4)) :]
    mask = random_mask(rng, draw(st.sampled_from(["none", "bool", "float"])), shape, dtype)
    causal = draw(st.booleans())
    scale = draw(st.sampled_from([None, 0.3, -0.2, 0.0]))
    before = _core.config()["isa"]
    _core.set_isa(draw(st.sampled_from(config()["supported_isas"])))
    try:
        check_forward(q, k, v, mask, causal, scale)
        check_backward(rng, q, k, v, mask, causal, scale)
    finally:
        _core.set_isa(before)


def test_finite_differences(isa, rng):
    q, k, v = inputs(rng, np.float64, (1, 4, 2, 5, 6, 3, 4))
    mask = rng.normal(size=(5, 6))
    mask[1, 2:] = -np.inf
    grad = rng.normal(size=(1, 4, 5, 4))

    def loss():
        return float((sdpa(q, k, v, mask, is_causal=True) * grad).sum())

    out, lse = sdpa(q, k, v, mask, is_causal=True, return_lse=True)
    got = sdpa_backward(grad, q, k, v, out, lse, mask, is_causal=True)
    step = 1e-5  # central differences: step^2 truncation, eps / step rounding
    for x, g in zip((q, k, v), got, strict=True):
        for i in np.ndindex(x.shape):
            x0 = x[i]
            x[i] = x0 + step
            up = loss()
            x[i] = x0 - step
            down = loss()
            x[i] = x0
            assert abs((up - down) / (2 * step) - g[i]) < 1e-8


@pytest.mark.parametrize(
    "size", [(2, 4, 2, 150, 150, 32, 32), (1, 1, 1, 300, 1100, 16, 24)], ids=str
)
@pytest.mark.parametrize("causal", [False, True])
def test_any_thread_count_gives_the_same_bits(isa, rng, size, causal, same_for_any_thread_count):
    q, k, v = inputs(rng, np.float32, size)
    out, lse, _ = same_for_any_thread_count(
        lambda: sdpa(q, k, v, is_causal=causal, return_lse=True, return_weights=True)
    )
    grad = rng.normal(size=out.shape).astype(np.float32)
    same_for_any_thread_count(lambda: sdpa_backward(grad, q, k, v, out, lse, is_causal=causal))


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_masked_keys_never_leak(isa, dtype, rng, poison):
    q, k, v = inputs(rng, dtype, (2, 4, 2, 30, 45, 24, 20))
    keep = rng.random((2, 1, 1, 45)) < 0.6
    grad = rng.normal(size=(2, 4, 30, 20)).astype(dtype)

    def run(k, v, mask):
        out, lse = sdpa(q, k, v, mask, return_lse=True)
        return out, lse, *sdpa_backward(grad, q, k, v, out, lse, mask)

    dead = np.broadcast_to(~keep[:, 0, 0, :, None], (2, 45, 1))[:, None]
    bad_k, bad_v = np.where(dead, poison, k).astype(dtype), np.where(dead, poison, v).astype(dtype)
    for mask in (keep, np.where(keep, 0, -np.inf).astype(dtype)):
        clean, poisoned = (
            run(np.where(dead, 0, k), np.where(dead, 0, v), mask),
            run(bad_k, bad_v, mask),
        )
        for a, b in zip(clean, poisoned, strict=True):
            np.testing.assert_array_equal(a, b)  # the same arithmetic on all that counts


def test_causal_future_never_leaks(isa, dtype, rng):
    q, k, v = inputs(rng, dtype, (1, 1, 1, 40, 40, 16, 16))
    out = sdpa(q, k, v, is_causal=True)
    k[..., 25:, :] = v[..., 25:, :] = np.nan
    poisoned = sdpa(q, k, v, is_causal=True)
    np.testing.assert_array_equal(poisoned[..., :25, :], out[..., :25, :])
    assert np.isnan(poisoned[..., 25:, :]).all()


@pytest.mark.sanitize
def test_masked_queries_give_zeros(isa, dtype, rng):
    q, k, v = inputs(rng, dtype, (1, 2, 2, 20, 33, 16, 16))
    dead = np.zeros((20, 1), bool)
    dead[[0, 7, 19]] = True
    grad = rng.normal(size=(1, 2, 20, 16)).astype(dtype)
    q[..., dead[:, 0], :] = grad[..., dead[:, 0], :] = np.nan
    for mask in (~dead, np.where(dead, -np.inf, 0).astype(dtype)):
        out, lse, w = sdpa(q, k, v, mask, return_lse=True, return_weights=True)
        assert (out[..., dead[:, 0], :] == 0).all() and (w[..., dead[:, 0], :] == 0).all()
        assert (lse[..., dead[:, 0]] == -np.inf).all()
        dq, dk, dv = sdpa_backward(grad, q, k, v, out, lse, mask)
        assert (dq[..., dead[:, 0], :] == 0).all()
        live = ~dead[:, 0]
        operands = grad[..., live, :], q[..., live, :], k, v
        want, bounds = oracle_backward(*operands), backward_bounds(*operands)
        for got, expected, bound in zip(
            (dq[..., live, :], dk, dv), want, bounds.values(), strict=True
        ):
            np.testing.assert_allclose(got, expected, rtol=0, atol=bound)


def test_padding_equals_unpadded(isa, rng):
    q, k, v = inputs(rng, np.float32, (1, 2, 2, 21, 50, 16, 16))
    pad = [(0, 0), (0, 0), (0, 30), (0, 0)]
    keep = np.arange(80) < 50
    got = sdpa(q, np.pad(k, pad, constant_values=3), np.pad(v, pad, constant_values=9), keep)
    np.testing.assert_allclose(got, sdpa(q, k, v), rtol=0, atol=forward_bound(q, k, v))


def test_decoding_equals_the_last_row(isa, dtype, rng):
    q, k, v = inputs(rng, dtype, (1, 4, 2, 70, 70, 32, 32))
    full = sdpa(q, k, v, is_causal=True)
    for n in (1, 2, 3, 5, 13):
        step = sdpa(q[..., -n:, :], k, v, is_causal=True)
        np.testing.assert_allclose(step, full[..., -n:, :], rtol=0, atol=forward_bound(q, k, v))


def test_keys_may_be_permuted(isa, rng):
    q, k, v = inputs(rng, np.float32, (1, 1, 1, 33, 90, 16, 8))
    p = rng.permutation(90)
    got = sdpa(q, k[..., p, :], v[..., p, :])
    np.testing.assert_allclose(got, sdpa(q, k, v), rtol=0, atol=2 * forward_bound(q, k, v))


@pytest.mark.sanitize
def test_fused_projection_is_read_in_place(isa, rng):
    qkv = rng.normal(size=(2, 40, 3, 4, 16)).astype(np.float32)
    q, k, v = qkv.transpose(2, 0, 3, 1, 4)
    packed = [np.ascontiguousarray(x) for x in (q, k, v)]
    out, lse = sdpa(q, k, v, return_lse=True)
    assert out.flags.c_contiguous
    np.testing.assert_array_equal(out, sdpa(*packed))
    got = sdpa_backward(out, q, k, v, out, lse)
    for a, b in zip(got, sdpa_backward(out, *packed, out, lse), strict=True):
        np.testing.assert_array_equal(a, b)


def test_matrices_are_one_head(rng):
    q, k, v = (x[0, 0] for x in inputs(rng, np.float64, (1, 1, 1, 7, 9, 4, 5)))
    out, lse = sdpa(q, k, v, return_lse=True)
    assert out.shape == (7, 5) and lse.shape == (7,)
    np.testing.assert_array_equal(out, sdpa(q[None], k[None], v[None])[0])
    dq, dk, dv = sdpa_backward(out, q, k, v, out, lse)
    assert dq.shape == q.shape and dk.shape == k.shape and dv.shape == v.shape


@pytest.mark.sanitize
@pytest.mark.parametrize("size", EMPTY, ids=str)
def test_empty(isa, dtype, rng, size):
    q, k, v = inputs(rng, dtype, size)
    out, lse, w = sdpa(q, k, v, return_lse=True, return_weights=True)
    assert (out == 0).all() if size[4] == 0 else out.size == 0
    assert w.shape == (*q.shape[:3], size[4])
    for g, x in zip(sdpa_backward(out, q, k, v, out, lse), (q, k, v), strict=True):
        assert g.shape == x.shape and (g == 0).all()


def test_large_scores_do_not_overflow(isa, dtype):
    q = np.full((1, 3, 4), 100, dtype)
    k = np.concatenate([np.full((1, 1, 4), x, dtype) for x in (100, -100, 99)], 1)
    v = np.eye(3, dtype=dtype)[None]
    np.testing.assert_allclose(sdpa(q, k, v)[0, 0], [1, 0, 0], rtol=0, atol=1e-80)


X = np.zeros((2, 4, 5, 8), np.float32)
KV = np.zeros((2, 2, 5, 8), np.float32)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"value": KV[..., :4, :]}, ValueError, "value length: expected 5, got 4"),
        ({"value": np.zeros((2, 2, 6, 8), "f4")}, ValueError, "value length: expected 5, got 6"),
        ({"key": KV[..., :7]}, ValueError, "key dim: expected 8, got 7"),
        (
            {"key": X[:, :3], "value": X[:, :3]},
            ValueError,
            "key heads: expected a divisor .* 4, got 3",
        ),
        ({"value": X}, ValueError, "value heads: expected 2, got 4"),
        ({"key": KV[:1]}, ValueError, r"key batch: expected \(2,\), got \(1,\)"),
        ({"key": KV[0]}, ValueError, "key ndim: expected 4, got 3"),
        ({"query": X[0, 0, 0]}, ValueError, "query ndim: expected at least 2, got 1"),
        (
            {"query": X.astype("i4")},
            TypeError,
            "query dtype: expected float16, bfloat16, float32 or float64, got",
        ),
        ({"key": KV.astype("f8")}, TypeError, "key dtype: expected float32, got float64"),
        (
            {"attn_mask": np.zeros((5, 6), "f4")},
            ValueError,
            r"attn_mask shape: .*\(2, 4, 5, 5\), got",
        ),
        ({"attn_mask": np.zeros((5, 5))}, TypeError, "attn_mask dtype: expected bool or float32"),
        ({"attn_mask": np.zeros((1, 2, 4, 5, 5), bool)}, ValueError, "attn_mask shape"),
        ({"scale": np.inf}, ValueError, "scale value: expected a finite number, got inf"),
    ],
)
def test_bad_input(change, error, message):
    arguments = {"query": X, "key": KV, "value": KV} | change
    with pytest.raises(error, match="^scaled_dot_product_attention: " + message):
        sdpa(**arguments)
    arguments |= {"grad": X, "out": X, "lse": X[..., 0]}
    with pytest.raises(error, match="^scaled_dot_product_attention_backward: " + message):
        sdpa_backward(**arguments)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"grad": X[..., :7]}, ValueError, r"grad shape: expected \(2, 4, 5, 8\), got"),
        ({"out": X[:1]}, ValueError, "out shape"),
        ({"lse": X}, ValueError, r"lse shape: expected \(2, 4, 5\)"),
        ({"lse": X[..., 0].astype("f8")}, TypeError, "lse dtype: expected float32, got float64"),
    ],
)
def test_bad_backward_input(change, error, message):
    arguments = {"grad": X, "query": X, "key": KV, "value": KV, "out": X, "lse": X[..., 0]} | change
    with pytest.raises(error, match="^scaled_dot_product_attention_backward: " + message):
        sdpa_backward(**arguments)


MEMORY = """
import numpy as np, vectile
from vectile import ops
x = np.ones((2, 8192, 64), np.float32)
out, lse = ops.scaled_dot_product_attention(x, x, x, is_causal=True, return_lse=True)
print(vectile.memory_stats()["peak_in_use"])
ops.scaled_dot_product_attention_backward(out, x, x, x, out, lse, is_causal=True)
print(vectile.memory_stats()["peak_in_use"])
"""


def test_memory_grows_with_the_length():
    """The scores would be 512 MiB; results and gradients are 4 MiB each, 2 and 5 of them."""
    found = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, check=True)
    forward, both = map(int, found.stdout.split())
    assert forward < 16 << 20
    assert both < 64 << 20  # pieces of the keys have gradients of the queries of their own
