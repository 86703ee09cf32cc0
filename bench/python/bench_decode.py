"""Attention of new tokens to a cache, of each dtype, contiguous and in blocks; and appending to it.

torch reads a dense float32 cache, or one of the half type; it has no int8 cache or block tables.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from harness import Case, Work, torch
from vectile import ops

Array = np.ndarray
BLOCK = 16


def made(b: int, h: int, kv: int, lq: int, n: int, d: int, kind: str) -> Any:
    """query, caches, block tables, lengths and scales."""

    def inputs(rng: np.random.Generator) -> tuple[Any, ...]:
        query = rng.standard_normal((b, h, lq, d), np.float32)
        keys, values = rng.standard_normal((2, b, kv, n, d), np.float32)
        tables, lengths = np.arange(b)[:, None], np.full(b, n)
        if kind in ("float32", "blocks"):
            caches: tuple[Array, ...] = (keys, values)
        elif kind != "int8":
            caches = ops.cast(keys, kind), ops.cast(values, kind)
        else:
            caches = tuple(np.empty((2, *keys.shape), np.int8))
            scales = np.empty((2, b, kv, n), np.float32)
            ops.append_to_cache(
                keys,
                values,
                *caches,
                tables,
                lengths - n,
                key_scales=scales[0],
                value_scales=scales[1],
            )
            return query, *caches, tables, lengths, *scales
        if kind == "blocks":
            tables = rng.permutation(b * n // BLOCK).reshape(b, -1)
            caches = tuple(
                x.reshape(b, kv, -1, BLOCK, d)
                .swapaxes(1, 2)
                .reshape(-1, kv, BLOCK, d)[np.argsort(tables.ravel())]
                for x in caches
            )
        return query, *caches, tables, lengths

    return inputs


def ours(query: Array, keys: Array, values: Array, tables: Array, lengths: Array, *s: Array) -> Any:
    scales = dict(zip(("key_scales", "value_scales"), s, strict=True)) if s else {}
    return ops.decode_attention(query, keys, values, tables, lengths, **scales)


def dense(cache: Array, tables: Array, scale: Array | None) -> Array:
    x = cache if scale is None else cache.astype(np.float32) * scale[..., None].astype(np.float32)
    if tables.shape[1] == 1:
        return x
    _, kv, _, d = x.shape
    return np.ascontiguousarray(x[tables].swapaxes(1, 2).reshape(len(tables), kv, -1, d))


def exact(query: Array, keys: Array, values: Array, tables: Array, _: Array, *s: Array) -> Array:
    k, v = (
        dense(x, tables, scale).astype(np.float64)
        for x, scale in zip((keys, values), s or (None, None), strict=True)
    )
    group = query.shape[1] // k.shape[1]
    k, v = k.repeat(group, 1), v.repeat(group, 1)
    s = query @ k.swapaxes(-1, -2) / math.sqrt(query.shape[-1])
    seen = np.tri(query.shape[2], k.shape[2], k.shape[2] - query.shape[2], dtype=bool)
    e = np.exp(np.where(seen, s - s.max(-1, keepdims=True), -np.inf))
    return e / e.sum(-1, keepdims=True) @ v


def in_torch(query: Array, keys: Array, values: Array, tables: Array, _: Array, *s: Array) -> Any:
    """The dense cache; queries of the half type beside one, and a mask for several."""
    k, v = (dense(x, tables, y) for x, y in zip((keys, values), s or (None, None), strict=True))

    def tensor(x: Array) -> Any:
        if x.dtype.name == "bfloat16":
            return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(x)

    k, v = tensor(k), tensor(v)
    lq, n = query.shape[2], k.shape[2]
    seen = torch.from_numpy(np.tri(lq, n, n - lq, dtype=bool)) if lq > 1 else None
    return torch.from_numpy(query).to(k.dtype), k, v, seen, query.shape[1] != k.shape[1]


def torch_attention(q: Any, k: Any, v: Any, seen: Any, grouped: bool) -> Any:
    gqa = {"enable_gqa": True} if grouped else {}
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen, **gqa)


def decode_case(b: int, h: int, kv: int, lq: int, n: int, d: int, kind: str) -> Case:
    heads = f"H{h}" if h == kv else f"H{h}/{kv}"
    size = {"float32": 4, "blocks": 4, "float16": 2, "bfloat16": 2, "int8": 1}[kind]
    read = 2 * b * kv * n * (d * size + (4 if kind == "int8" else 0))
    return Case(
        f"decode B{b} {heads} L{lq}/{n} D{d} {kind}",
        made(b, h, kv, lq, n, d, kind),
        ours,
        exact,
        {"torch": torch_attention},
        tolerance={"float32": 1e-5, "blocks": 1e-5, "int8": 1e-3}.get(kind, 2e-2),
        work=Work("byte", read),
        prepare={"torch": in_torch},
        group=kind,
    )


def appended(kind: type, n: int) -> tuple[Any, Any, Any]:
    """What to append to a cache at token n, our call and NumPy's."""

    def inputs(rng: np.random.Generator) -> tuple[Any, ...]:
        key, value = rng.standard_normal((2, 8, 12, 1, 64), np.float32)
        return key, value, *np.zeros((2, 8, 12, n + 1, 64), kind)

    def append(key: Array, value: Array, keys: Array, values: Array) -> tuple[Array, ...]:
        tables, lengths = np.arange(8)[:, None], np.full(8, n)
        scales = np.zeros((2, *keys.shape[:3]), np.float32) if kind is np.int8 else (None, None)
        ops.append_to_cache(
            key,
            value,
            keys,
            values,
            tables,
            lengths,
            key_scales=scales[0],
            value_scales=scales[1],
        )
        return keys[:, :, n:], values[:, :, n:]

    def in_numpy(key: Array, value: Array, keys: Array, values: Array) -> tuple[Array, ...]:
        for x, cache in ((key, keys), (value, values)):
            if kind is np.int8:
                scale = np.abs(x).max(-1, keepdims=True) / np.float32(127)
                x = np.rint(x / scale)
            cache[:, :, n:] = x
        return keys[:, :, n:], values[:, :, n:]

    return inputs, append, in_numpy


def cases(quick: bool) -> Iterator[Case]:
    # batch, query heads, key heads, queries, keys, dim, dtype of the cache
    sizes = [(1, 2, 1, 2, 64, 32, kind) for kind in ("float32", "blocks", "bfloat16", "int8")]
    if not quick:
        kinds = ("float32", "blocks", "bfloat16", "int8")
        sizes = [
            *((1, 12, 12, 1, n, 64, kind) for n in (1024, 4096, 16384) for kind in kinds),
            *((1, 32, 8, 1, n, 128, kind) for n in (1024, 4096, 16384) for kind in kinds),
            *((1, 4, 4, 1, n, 64, "float32") for n in (512, 1024)),
            *((1, 12, 12, lq, 4096, 64, "float32") for lq in (2, 4, 8)),
            (16, 12, 12, 1, 512, 64, "float32"),
            (1, 12, 12, 1, 4096, 64, "float16"),
        ]
    for size in sizes:
        yield decode_case(*size)
    for kind in (np.float32, np.int8):
        inputs, append, in_numpy = appended(kind, 8 if quick else 511)
        yield Case(
            f"append B8 H12 D64 {np.dtype(kind)}",
            inputs,
            append,
            in_numpy,
            {"numpy": in_numpy},
            tolerance=1 / 127 if kind is np.int8 else 1e-7,
            group="append",
        )
