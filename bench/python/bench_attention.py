"""Scaled dot-product attention: prefill, causal, decoding, grouped heads; with its backward."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from harness import Case, flop, torch
from vectile import ops

Array = np.ndarray


def scores(q: Array, k: Array, causal: bool) -> Array:
    k = np.repeat(k, q.shape[-3] // k.shape[-3], axis=-3)
    s = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])
    if causal:
        seen = np.tri(q.shape[-2], k.shape[-2], k.shape[-2] - q.shape[-2], dtype=bool)
        s = np.where(seen, s, -np.inf)
    e = np.exp(s - s.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def attention(q: Array, k: Array, v: Array, causal: bool) -> Array:
    return scores(q, k, causal) @ np.repeat(v, q.shape[-3] // v.shape[-3], axis=-3)


def gradients(grad: Array, q: Array, k: Array, v: Array, causal: bool) -> tuple[Array, ...]:
    p = scores(q, k, causal)
    dp = grad @ v.swapaxes(-1, -2)
    ds = p * (dp - (dp * p).sum(-1, keepdims=True)) / math.sqrt(q.shape[-1])
    return ds @ k, ds.swapaxes(-1, -2) @ q, p.swapaxes(-1, -2) @ grad


def train(grad: Array, q: Array, k: Array, v: Array, causal: bool) -> tuple[Array, ...]:
    out, lse = ops.scaled_dot_product_attention(q, k, v, is_causal=causal, return_lse=True)
    return ops.scaled_dot_product_attention_backward(grad, q, k, v, out, lse, is_causal=causal)


def train_torch(grad: Any, q: Any, k: Any, v: Any, causal: bool) -> Any:
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
    return torch.autograd.grad(out, (q, k, v), grad)


def with_grad(grad: Array, *qkv: Array) -> tuple[Any, ...]:
    return torch.from_numpy(grad), *(torch.from_numpy(a).requires_grad_() for a in qkv)


def normal(*shapes: tuple[int, ...]) -> Any:
    return lambda rng: tuple(rng.standard_normal(s, np.float32) for s in shapes)


def cases(quick: bool) -> Iterator[Case]:
    # batch, query heads, key heads, queries, keys, dim, causal
    forward = [
        (1, 2, 2, 128, 128, 64, False),
        (1, 2, 2, 128, 128, 64, True),
        (1, 4, 2, 1, 256, 64, False),
    ]
    both = [(1, 2, 64, 32, True)]
    if not quick:
        forward = [
            (8, 12, 12, 8, 8, 64, False),
            (8, 12, 12, 64, 64, 64, True),
            (12, 4, 4, 64, 64, 32, True),
            (1, 12, 12, 128, 128, 64, False),
            (1, 12, 12, 512, 512, 64, False),
            (1, 12, 12, 512, 512, 64, True),
            (1, 12, 12, 512, 512, 128, False),
            (1, 12, 12, 2048, 2048, 64, True),
            (1, 32, 8, 256, 256, 128, False),
            (1, 12, 12, 1, 1024, 64, False),
            (1, 12, 12, 4, 1024, 64, False),
            (1, 12, 12, 1, 8192, 64, False),
            (1, 32, 8, 1, 1024, 128, False),
        ]
        both = [
            (12, 4, 64, 32, True),
            (4, 6, 256, 64, True),
            (1, 12, 512, 64, False),
            (1, 12, 512, 64, True),
            (1, 4, 2048, 64, True),
        ]
    for b, h, kv, m, n, d, causal in forward:
        pairs = m * n - (m * (m - 1) // 2 if causal else 0)  # masked ones are not counted
        name = f"B{b} H{h}{f'/{kv}' if kv != h else ''} L{m}{f'/{n}' if n != m else ''} D{d}"
        gqa = {"enable_gqa": True} if kv != h else {}
        yield Case(
            f"forward {name}{' causal' if causal else ''}",
            normal((b, h, m, d), (b, kv, n, d), (b, kv, n, d)),
            lambda q, k, v, c=causal: ops.scaled_dot_product_attention(q, k, v, is_causal=c),
            lambda q, k, v, c=causal: attention(q, k, v, c),
            {
                "torch": lambda q, k, v, c=causal, gqa=gqa: (
                    torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=c, **gqa)
                ),
                "numpy": lambda q, k, v, c=causal: attention(q, k, v, c),
            },
            tolerance=1e-5,
            work=flop(4 * b * h * pairs * d),
        )
    for b, h, m, d, causal in both:
        pairs = m * m - (m * (m - 1) // 2 if causal else 0)
        yield Case(
            f"forward+backward B{b} H{h} L{m} D{d}{' causal' if causal else ''}",
            normal(*[(b, h, m, d)] * 4),
            lambda g, q, k, v, c=causal: train(g, q, k, v, c),
            lambda g, q, k, v, c=causal: gradients(g, q, k, v, c),
            {"torch": lambda g, q, k, v, c=causal: train_torch(g, q, k, v, c)},
            tolerance=1e-5,
            work=flop(14 * b * h * pairs * d),  # 2 products forward, 5 backward
            prepare={"torch": with_grad},
        )
