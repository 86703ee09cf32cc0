"""Float to int8 and back, with ONNX's rounding."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from harness import Case, byte, torch
from vectile import ops

Array = np.ndarray
SCALE, ZERO = np.float32(0.05), np.int8(3)


def quantize(x: Array) -> Array:
    return (np.rint(x / SCALE) + ZERO).clip(-128, 127).astype(np.int8)


def dynamic(x: Array) -> tuple[Array, Array, Array]:
    low, high = np.float32(min(x.min(), 0)), np.float32(max(x.max(), 0))
    scale = (high - low) / np.float32(255)
    zero = np.rint(-low / scale).clip(0, 255)
    return (np.rint(x / scale) + zero).clip(0, 255).astype(np.uint8), scale, zero.astype(np.uint8)


def cases(quick: bool) -> Iterator[Case]:
    for shape in [(128, 128)] if quick else [(128, 128), (1024, 1024), (4096, 4096)]:
        size, n = f"{shape[0]}x{shape[1]}", shape[0] * shape[1]

        def normal(rng: np.random.Generator, shape=shape) -> tuple[Array]:
            return (rng.standard_normal(shape, np.float32),)

        def codes(rng: np.random.Generator, shape=shape) -> tuple[Array]:
            return (rng.integers(-128, 128, shape, np.int8),)

        yield Case(
            f"quantize_linear {size}",
            normal,
            lambda x: ops.quantize_linear(x, SCALE, ZERO),
            lambda x: quantize(x.astype(np.float32)),
            {
                "torch": lambda x: torch.quantize_per_tensor(
                    x, float(SCALE), int(ZERO), torch.qint8
                ),
                "numpy": quantize,
            },
            tolerance=1 / 64,  # torch multiplies by 1 / scale: ties differ by one step
            work=byte(5 * n),
            summary=lambda q: q.int_repr() if hasattr(q, "int_repr") else q,
        )
        yield Case(
            f"dequantize_linear {size}",
            codes,
            lambda q: ops.dequantize_linear(q, SCALE, ZERO),
            lambda q: (q.astype(np.float64) - ZERO) * np.float64(SCALE),
            {"numpy": lambda q: (q - np.float32(ZERO)) * SCALE},
            tolerance=1e-6,
            work=byte(5 * n),
        )
        yield Case(
            f"dynamic_quantize_linear {size}",
            normal,
            ops.dynamic_quantize_linear,
            lambda x: dynamic(x.astype(np.float32)),
            {"numpy": dynamic},
            tolerance=1 / 64,
            work=byte(5 * n),
        )
