"""Linear on a weight in 4 bits: one row reads the weight, many rows compute."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from harness import Case, Work, byte, int8_op, torch
from vectile import ops

Array = np.ndarray


def weight_bytes(n: int, k: int, group: int) -> Work:
    """Half a byte a value and a float32 scale a group, read once, and both vectors."""
    return byte(n * k // 2 + 4 * n * k // group + 4 * (n + k))


def on_grid(m: int, n: int, k: int, group: int) -> Any:
    """Weights that 4 bits hold exactly on either side, so that only the arithmetic is compared."""

    def inputs(rng: np.random.Generator) -> tuple[Array, Array, Array]:
        codes = rng.integers(0, 16, (n, k), np.uint8)
        scales = rng.uniform(0.01, 0.02, (n, k // group)).astype(np.float32)
        return rng.standard_normal((m, k), np.float32), codes, scales

    return inputs


def exact(group: int) -> Any:
    def product(x: Array, codes: Array, scales: Array) -> Array:
        return x @ ((codes.astype(np.float64) - 8) * np.repeat(scales, group, axis=1)).T

    return product


def in_vectile(group: int) -> Any:
    def prepare(x: Array, codes: Array, scales: Array) -> tuple[Any, ...]:
        return x, ops.Int4Matrix((codes - np.uint8(8)).view(np.int8), scales, None, group)

    return prepare


def in_torch(x: Array, codes: Array, scales: Array) -> tuple[Any, ...]:
    """torch's packed weight; it is fastest on bfloat16."""
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(
        torch.from_numpy(codes.astype(np.int32)), 1
    )
    s = torch.from_numpy(scales.T.copy()).bfloat16()
    return torch.from_numpy(x).bfloat16(), packed, torch.stack([s, torch.zeros_like(s)], -1)


def int8_linear(x: Array, codes: Array, scales: Array) -> Array:
    return ops.linear(x, codes)


def in_int8(group: int) -> Any:
    def prepare(x: Array, codes: Array, scales: Array) -> tuple[Any, ...]:
        w = (codes.astype(np.float32) - 8) * np.repeat(scales, group, axis=1)
        return x, ops.quantize_weight(w), scales

    return prepare


def cases(quick: bool) -> Iterator[Case]:
    shapes = [(1, 96, 128), (33, 64, 256)]
    if not quick:
        shapes = [(1, 4096, 4096), (8, 4096, 4096), (128, 3072, 768), (128, 4096, 4096)]
    for m, n, k in shapes:
        for group in (32, 64, 128):
            size = f"{m}x{n}x{k} groups of {group}"
            work = weight_bytes(n, k, group) if m == 1 else int8_op(2 * m * n * k)
            case = {
                "inputs": on_grid(m, n, k, group),
                "ours": ops.linear,
                "exact": exact(group),
                "tolerance": 0.03,  # 8-bit activations here, bfloat16 there
                "work": work,
            }
            yield Case(
                f"linear int4 weight {size}",
                peers={"torch": lambda x, w, s, g=group: int4pack(x, w, g, s)},
                prepare={"vectile": in_vectile(group), "torch": in_torch},
                **case,
            )
        yield Case(
            f"linear int4 weight {m}x{n}x{k} groups of 128 (peer: int8 weight)",
            peers={"int8": int8_linear},
            prepare={"vectile": in_vectile(group), "int8": in_int8(group)},
            **case,
        )


def int4pack(x: Any, packed: Any, group: int, scales_and_zeros: Any) -> Any:
    return torch.ops.aten._weight_int4pack_mm_for_cpu(x, packed, group, scales_and_zeros).float()
