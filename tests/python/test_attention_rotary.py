"""Queries and keys turned on their way into attention: as if they had been turned before.

test_attention_options.py has the float64 oracle, with every other option.
"""

import ml_dtypes
import numpy as np
import pytest
from test_attention import inputs, rounding, row_norm

import vectile as vt
from vectile import nn, ops
from vectile.autograd import functional as F

sdpa, sdpa_backward = ops.scaled_dot_product_attention, ops.scaled_dot_product_attention_backward


def tables(length, pairs, dtype=np.float32):
    rotary = nn.RotaryEmbedding(2 * pairs, length, dtype=dtype)
    return rotary.tables(length)


# One query and few (dot products with rows of K), many, and heads of more than one chunk.
@pytest.mark.sanitize
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize(
    "size",
    [(1, 2, 1, 1, 40, 16, 16), (2, 4, 2, 3, 70, 24, 8), (1, 2, 2, 90, 90, 33, 20),
     (1, 1, 1, 5, 30, 530, 12)],
    ids=str,
)  # fmt: skip
def test_equals_turning_before(isa, dtype, rng, size, interleaved):
    q, k, v = inputs(rng, dtype, size)
    lq, lk, d = size[3], size[4], size[5]
    cosine, sine = tables(lk, d // 2 - 1, dtype)
    turned = [
        ops.rotary_embedding(q, cosine[lk - lq :], sine[lk - lq :], interleaved=interleaved),
        ops.rotary_embedding(k, cosine, sine, interleaved=interleaved),
    ]
    o = {"rotary": (cosine, sine), "rotary_interleaved": interleaved}
    out, lse = sdpa(q, k, v, return_lse=True, is_causal=True, **o)
    want, want_lse = sdpa(*turned, v, return_lse=True, is_causal=True)
    # A score of one and a score of the other differ by their rounding, and weights by twice that.
    score = rounding(dtype, d) * d**-0.5 * row_norm(q) * row_norm(k)
    error = 2 * score + rounding(dtype, lk)
    np.testing.assert_allclose(lse, want_lse, rtol=0, atol=score + rounding(dtype, lk))
    np.testing.assert_allclose(out, want, rtol=0, atol=error * np.abs(v).max())
    grad = rng.normal(size=out.shape).astype(dtype)
    found = sdpa_backward(grad, q, k, v, out, lse, is_causal=True, **o)
    dq, dk, dv = sdpa_backward(grad, *turned, v, want, want_lse, is_causal=True)
    back = {"interleaved": interleaved, "inverse": True}
    dq = ops.rotary_embedding(dq, cosine[lk - lq :], sine[lk - lq :], **back)
    dk = ops.rotary_embedding(dk, cosine, sine, **back)
    group = size[1] // size[2]
    ds = 4 * row_norm(grad) * row_norm(v) * d**-0.5
    bound = (error + rounding(dtype, size[6], lk, lq * group)) * group * lq
    for got, expected, scale in zip(
        found, (dq, dk, dv), (ds * np.abs(k).max(), ds * np.abs(q).max(), np.abs(grad).max()),
        strict=True,
    ):  # fmt: skip
        np.testing.assert_allclose(got, expected, rtol=0, atol=bound * scale)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_types_turn_before_they_round(rng, dtype):
    q, k, v = (x.astype(dtype) for x in inputs(rng, np.float32, (1, 2, 1, 20, 30, 16, 16)))
    rotary = tables(30, 8)
    wide = [x.astype(np.float32) for x in (q, k, v)]
    want, want_lse = sdpa(*wide, rotary=rotary, return_lse=True)
    out, lse = sdpa(q, k, v, rotary=rotary, return_lse=True)
    np.testing.assert_array_equal(lse, want_lse)
    np.testing.assert_array_equal(out, want.astype(dtype))


def test_packed_sequences_turn_by_their_places(rng):
    """Angles count from wherever: only distances within a sequence matter."""
    q, k, v = inputs(rng, np.float64, (1, 2, 2, 24, 24, 8, 8))
    rotary = tables(24, 4, np.float64)
    out = sdpa(q, k, v, rotary=rotary, cu_seqlens_q=[0, 9, 24], is_causal=True)
    for part in (slice(0, 9), slice(9, 24)):
        n = part.stop - part.start
        first = tuple(table[:n] for table in rotary)
        alone = sdpa(*(x[:, :, part] for x in (q, k, v)), rotary=first, is_causal=True)
        np.testing.assert_allclose(out[:, :, part], alone, rtol=0, atol=1e-13)


def test_any_thread_count_gives_the_same_bits(rng, same_for_any_thread_count):
    q, k, v = inputs(rng, np.float32, (1, 2, 1, 330, 700, 16, 24))
    o = {"rotary": tables(700, 8), "is_causal": True}
    out, lse = same_for_any_thread_count(lambda: sdpa(q, k, v, return_lse=True, **o))
    grad = rng.normal(size=out.shape).astype(np.float32)
    same_for_any_thread_count(lambda: sdpa_backward(grad, q, k, v, out, lse, **o))


def test_second_derivatives_match_turning_before(rng):
    shape, o = (2, 2, 5, 6), {"rotary_interleaved": True}
    rotary = tables(5, 2, np.float64)

    def second(attend):
        q, k, v = (vt.tensor(x, requires_grad=True) for x in arrays)
        (grad,) = vt.grad((attend(q, k, v) ** 2).sum(), [k], create_graph=True)
        return [x.numpy() for x in vt.grad((grad**2).sum(), [q, k, v])]

    arrays = rng.normal(size=(3, *shape))
    fused = second(
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, rotary=rotary, is_causal=True, **o)
    )
    before = second(
        lambda q, k, v: F.scaled_dot_product_attention(
            *(F.rotary_embedding(x, *rotary, True) for x in (q, k)), v, is_causal=True
        )
    )
    for x, y in zip(fused, before, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-10 * np.abs(y).max())


@pytest.mark.parametrize(
    ("rotary", "error", "message"),
    [
        ((np.ones((5, 2), "f4"),) * 2, ValueError, "rotary length: expected 6, got 5"),
        ((np.ones((6, 3), "f4"),) * 2, ValueError, "rotary pairs: expected at most 2, got 3"),
        ((np.ones((6, 2), "f4"), np.ones((6, 1), "f4")), ValueError, "rotary sine shape: expected"),
        ((np.ones((6, 2), "f8"),) * 2, TypeError, "rotary cosine dtype: expected float32"),
        ((np.ones((3, 6, 2), "f4"),) * 2, ValueError, "rotary shape: expected"),
        ((np.ones(6, "f4"),) * 2, ValueError, "rotary ndim: expected at least 2, got 1"),
        ((np.ones((6, 2), "f4"), None), ValueError, "rotary value: expected .cosine, sine., got None"),
    ],
)  # fmt: skip
def test_bad_tables(rotary, error, message):
    q, k = np.ones((2, 1, 4, 5), "f4"), np.ones((2, 1, 6, 5), "f4")
    with pytest.raises(error, match="scaled_dot_product_attention: " + message):
        sdpa(q, k, k, rotary=rotary)


def test_queries_need_places():
    q, k = np.ones((1, 7, 4), "f4"), np.ones((1, 6, 4), "f4")
    with pytest.raises(ValueError, match="rotary key length: expected at least the query's"):
        sdpa(q, k, k, rotary=tables(6, 2))
