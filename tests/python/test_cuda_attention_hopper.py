"""Attention by the kernels for sm_90a, which the emulation is, against float64."""

import numpy as np
import pytest
from on_device import EMULATED, needs_device, older_device, run
from test_cuda_attention import BF16, HALVES, close, inputs, oracle

pytestmark = [needs_device, pytest.mark.usefixtures("few_multiprocessors")]

# Tiles of 128 queries and of 128 keys, which begin where the first query's keys do; the gradients' of
# 128 and 64. Columns in 64.
SIZES = [
    (1, 2, 1, 64, 128, 64, 64),
    (1, 2, 1, 130, 200, 56, 40),
    (1, 1, 1, 129, 257, 72, 128),
]
OPTIONS = [
    {},
    {"is_causal": True},
    {"window": (40, 3)},
    {"softcap": 2.0, "scale": -0.3},
    {"scale": 0.0},
]


def check(rng, dtype, arrays, **options):
    """The result, checked as its gradients are."""
    q, k, v = arrays
    out, lse = run("scaled_dot_product_attention", q, k, v, return_lse=True, **options)
    grad = rng.standard_normal((*q.shape[:-1], v.shape[-1])).astype(dtype)
    want, want_lse, *slopes = oracle(grad, q, k, v, **options)
    terms = q.shape[-1] + v.shape[-1] + k.shape[-2] + q.shape[-2] * q.shape[1] / k.shape[1]
    close(out, want, dtype, terms)
    seen = np.isfinite(want_lse)
    assert (out[~seen] == 0).all() and (lse[~seen] == -np.inf).all()
    close(np.where(seen, lse, 0), np.where(seen, want_lse, 0), np.float32, terms)
    got = run("scaled_dot_product_attention_backward", grad, q, k, v, out, lse, **options)
    for slope, want in zip(got, slopes, strict=True):
        close(slope, want, dtype, terms)
    return out


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_sizes(rng, size, dtype, options):
    check(rng, dtype, inputs(rng, dtype, size)[1:], **options)


def test_kernels_for_older_devices_give_the_same(rng):
    _, *arrays = inputs(rng, BF16, (1, 1, 1, 128, 256, 64, 64))
    newest = check(rng, BF16, arrays)
    with older_device():
        older = check(rng, BF16, arrays)
    if EMULATED:  # tiles of other sizes, so other roundings: both ran
        assert (newest != older).any()


@pytest.mark.parametrize("is_causal", (False, True))
def test_sequences(rng, is_causal):
    starts = np.array([0, 0, 3, 140, 142, 260])
    _, *arrays = inputs(rng, BF16, (1, 2, 1, 260, 260, 64, 64))
    check(rng, BF16, arrays, is_causal=is_causal, cu_seqlens_q=starts)


def test_keys_beyond_a_length_may_hold_anything(rng):
    _, q, k, v = inputs(rng, np.float16, (3, 1, 1, 66, 300, 64, 72))
    lengths = np.array([0, 150, 300])
    grad = rng.standard_normal((*q.shape[:-1], v.shape[-1])).astype(q.dtype)

    def both():
        options = {"key_lengths": lengths}
        out, lse = run("scaled_dot_product_attention", q, k, v, return_lse=True, **options)
        name = "scaled_dot_product_attention_backward"
        return out, *run(name, grad, q, k, v, out, lse, **options)

    check(rng, np.float16, (q, k, v), key_lengths=lengths)
    want = both()
    for b, n in enumerate(lengths):
        k[b, :, n:] = v[b, :, n:] = np.nan
    for x, y in zip(both(), want, strict=True):
        np.testing.assert_array_equal(x, y)


def test_views(rng):
    packed = rng.standard_normal((2, 130, 3, 2, 64)).astype(BF16)  # batch, length, qkv, heads
    q, k, v = (packed[:, :, i].swapaxes(1, 2) for i in range(3))
    check(rng, BF16, (q, k, v))
    check(rng, BF16, (q, np.broadcast_to(k[:1], k.shape), v[..., ::-1]))


def test_weights_far_from_each_other(rng):
    _, q, k, v = inputs(rng, np.float16, (1, 1, 1, 64, 256, 64, 64))
    q *= 16
    check(rng, np.float16, (q, k, v), scale=1.0)


def test_repeated_calls_give_the_same_bits(rng):
    _, *arrays = inputs(rng, BF16, (1, 3, 1, 150, 150, 64, 64))
    grad = rng.standard_normal(arrays[0].shape).astype(BF16)
    first, second = (
        run("scaled_dot_product_attention", *arrays, return_lse=True) for _ in range(2)
    )
    backward = "scaled_dot_product_attention_backward"
    gradients = (run(backward, grad, *arrays, *forward) for forward in (first, second))
    for x, y in zip((*first, *next(gradients)), (*second, *next(gradients)), strict=True):
        np.testing.assert_array_equal(x, y)
