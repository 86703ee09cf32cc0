"""Scaled dot-product attention: prefill, causal, decoding, grouped heads, options; with its backward."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import median
from typing import Any

import numpy as np

from harness import Case, Options, Row, figure, flop, torch
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


# Keywords by name: what to pass, and the pairs that count, for a length.
Keywords = dict[str, Any]


def windowed(n: int) -> tuple[Keywords, Array]:
    back = np.arange(n)[:, None] - np.arange(n)
    return {"window": (n // 8, 0)}, (back >= 0) & (back <= n // 8)


def packed(n: int) -> tuple[Keywords, Array]:
    sequence = np.arange(n) * 8 // n
    return (
        {"cu_seqlens_q": np.arange(0, n + 1, n // 8), "is_causal": True},
        (sequence[:, None] == sequence) & np.tri(n, dtype=bool),
    )


def big_bird(n: int) -> tuple[Keywords, Array]:
    """Blocks of 64: neighbours, the first one, and two random ones a row (arXiv 2007.14062)."""
    at = np.arange(n // 64)
    blocks = abs(at[:, None] - at) <= 1
    blocks[0] = blocks[:, 0] = True
    chosen = np.random.default_rng(0).integers(0, len(at), (len(at), 2))
    np.put_along_axis(blocks, chosen, True, 1)
    return {"block_mask": blocks}, blocks.repeat(64, 0).repeat(64, 1)


def padded(n: int) -> tuple[Keywords, Array]:
    return {"key_lengths": n // 2}, np.broadcast_to(np.arange(n) < n // 2, (n, n))


SPARSE = {"window": windowed, "packed causal": packed, "BigBird": big_bird, "half padding": padded}


def masked(q: Array, k: Array, v: Array, seen: Array) -> Array:
    s = np.where(seen, q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1]), -np.inf)
    e = np.exp(s - s.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True) @ v


def masked_gradients(grad: Array, q: Array, k: Array, v: Array, seen: Array) -> tuple[Array, ...]:
    s = np.where(seen, q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1]), -np.inf)
    p = np.exp(s - s.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    dp = grad @ v.swapaxes(-1, -2)
    ds = p * (dp - (dp * p).sum(-1, keepdims=True)) / math.sqrt(q.shape[-1])
    return ds @ k, ds.swapaxes(-1, -2) @ q, p.swapaxes(-1, -2) @ grad


def train_with(grad: Array, q: Array, k: Array, v: Array, options: Keywords) -> tuple[Array, ...]:
    out, lse = ops.scaled_dot_product_attention(q, k, v, return_lse=True, **options)
    return ops.scaled_dot_product_attention_backward(grad, q, k, v, out, lse, **options)


def train_torch_masked(grad: Any, q: Any, k: Any, v: Any, seen: Any) -> Any:
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)
    return torch.autograd.grad(out, (q, k, v), grad)


def sparse_cases(quick: bool) -> Iterator[Case]:
    """Masks as work; the peer gets them as a matrix. The work is that of the pairs that count."""
    b, h, n, d = (1, 2, 128, 32) if quick else (1, 12, 2048, 64)
    for name, make in SPARSE.items():
        options, seen = make(n)
        pairs = int(seen.sum())
        yield Case(
            f"forward {name} B{b} H{h} L{n} D{d}",
            normal(*[(b, h, n, d)] * 3),
            lambda q, k, v, o=options: ops.scaled_dot_product_attention(q, k, v, **o),
            lambda q, k, v, seen=seen: masked(q, k, v, seen),
            {
                "torch": lambda q, k, v, seen=seen: (
                    torch.nn.functional.scaled_dot_product_attention(
                        q, k, v, attn_mask=torch.from_numpy(np.ascontiguousarray(seen))
                    )
                )
            },
            tolerance=1e-5,
            work=flop(4 * b * h * pairs * d),
            group="sparse",
        )
        yield Case(
            f"forward+backward {name} B{b} H{h} L{n} D{d}",
            normal(*[(b, h, n, d)] * 4),
            lambda g, q, k, v, o=options: train_with(g, q, k, v, o),
            lambda g, q, k, v, seen=seen: masked_gradients(g, q, k, v, seen),
            {
                "torch": lambda g, q, k, v, seen=seen: train_torch_masked(
                    g, q, k, v, torch.from_numpy(np.ascontiguousarray(seen))
                )
            },
            tolerance=1e-5,
            work=flop(14 * b * h * pairs * d),
            prepare={"torch": with_grad},
            group="sparse",
        )


def cases(quick: bool) -> Iterator[Case]:
    yield from dense_cases(quick)
    yield from sparse_cases(quick)


def dense_cases(quick: bool) -> Iterator[Case]:
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


def live(seen: Array, size: int = 64) -> float:
    """The share of tiles of size x size that hold a pair that counts."""
    m, n = (x // size for x in seen.shape)
    return float(seen.reshape(m, size, n, size).any((1, 3)).mean())


def figures(options: Options) -> Iterator[Row]:
    """What masks as work cost: their time over the dense time times their share of live tiles."""
    n, h, rounds = (256, 2, 3) if options.quick else (2048, 4, 7)
    g, q, k, v = np.random.default_rng(0).standard_normal((4, 1, h, n, 64), np.float32)
    kinds = {name: make(n) for name, make in SPARSE.items()}
    kinds["dense"] = {}, np.ones((n, n), bool)
    times: dict[tuple[str, str], list[float]] = {}
    for name in list(kinds) * rounds:
        with_options = kinds[name][0]
        start = options.clock()
        out, lse = ops.scaled_dot_product_attention(q, k, v, return_lse=True, **with_options)
        middle = options.clock()
        ops.scaled_dot_product_attention_backward(g, q, k, v, out, lse, **with_options)
        times.setdefault((name, "forward"), []).append(middle - start)
        times.setdefault((name, "backward"), []).append(options.clock() - middle)
    for name, (_, seen) in list(kinds.items())[:-1]:
        for way in ("forward", "backward"):
            ratio = median(times[name, way]) / median(times["dense", way]) / live(seen)
            yield figure("attention", f"{way} {name} L{n} over its live tiles", "", ratio)
