"""Attention beside torch: thread CPU time, runs interleaved, median of the ratios.

python bench/python/bench_attention.py [forward|backward|decode ...]
"""

import argparse
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import torch.nn.functional as F

import vectile
from vectile import ops

# group: batch, heads, lq, lk, d, causal
CASES = {
    "forward": [
        (8, 12, 8, 8, 64, False),
        (8, 12, 32, 32, 64, False),
        (8, 12, 64, 64, 64, True),
        (1, 12, 128, 128, 64, False),
        (8, 12, 128, 128, 64, False),
        (1, 12, 512, 512, 64, False),
        (1, 12, 512, 512, 64, True),
        (1, 12, 512, 512, 128, False),
        (1, 4, 2048, 2048, 64, False),
        (1, 4, 2048, 2048, 64, True),
    ],
    "backward": [
        (12, 4, 64, 64, 32, True),
        (4, 6, 256, 256, 64, True),
        (1, 12, 512, 512, 64, False),
        (1, 12, 512, 512, 64, True),
        (1, 4, 2048, 2048, 64, True),
    ],
    "decode": [
        (1, 12, 1, 1024, 64, False),
        (1, 12, 1, 8192, 64, False),
        (1, 12, 4, 1024, 64, False),
    ],
}


def seconds(f):
    start = time.thread_time()
    f()
    return time.thread_time() - start


def compare(ours, theirs, budget=0.6):
    """Median seconds of both and the median ratio of interleaved runs."""
    ours(), theirs()
    repeat = max(1, int(0.004 / max(1e-6, seconds(ours))))

    def many(f):
        for _ in range(repeat):
            f()

    pairs, end = [], time.perf_counter() + budget
    while len(pairs) < 7 or time.perf_counter() < end:
        pairs.append((seconds(lambda: many(ours)), seconds(lambda: many(theirs))))
    a, b = np.array(pairs).T / repeat
    return np.median(a), np.median(b), np.median(b / a)


def run_case(group, b, h, lq, lk, d, causal):
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(b, h, n, d)).astype("f4") for n in (lq, lk, lk))
    grad = rng.normal(size=q.shape).astype("f4")
    train = group == "backward"
    tq, tk, tv = (torch.from_numpy(x).requires_grad_(train) for x in (q, k, v))
    tgrad = torch.from_numpy(grad)

    def ours():
        if not train:
            return (ops.scaled_dot_product_attention(q, k, v, is_causal=causal),)
        out, lse = ops.scaled_dot_product_attention(q, k, v, is_causal=causal, return_lse=True)
        return ops.scaled_dot_product_attention_backward(grad, q, k, v, out, lse, is_causal=causal)

    def theirs():
        out = F.scaled_dot_product_attention(tq, tk, tv, is_causal=causal)
        return torch.autograd.grad(out, (tq, tk, tv), tgrad) if train else (out,)

    for x, y in zip(ours(), theirs(), strict=True):
        np.testing.assert_allclose(x, y.numpy(), rtol=0, atol=2e-4)
    mine, other, ratio = compare(ours, theirs)
    flops = b * h * lq * lk * d * (14 if train else 4) * (0.5 if causal else 1)
    shape = f"B{b} H{h} {lq}x{lk} D{d}{' causal' if causal else ''}"
    print(
        f"{group:9} {shape:28} {mine * 1e6:9.1f} us {flops / mine * 1e-9:6.1f} GF   "
        f"torch {other * 1e6:9.1f} us   {ratio:5.2f}x",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("groups", nargs="*", default=list(CASES))
    groups = parser.parse_args().groups
    vectile.set_num_threads(1)
    torch.set_num_threads(1)
    print(f"{vectile.config()['isa']}, one thread; GF counts live multiply-adds twice")
    for group in groups:
        for case in CASES[group]:
            run_case(group, *case)


if __name__ == "__main__":
    main()
