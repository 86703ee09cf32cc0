"""Rotary position embedding of queries or keys, both pairings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from harness import Case, byte, torch
from vectile import ops

Array = np.ndarray


def rotate(x: Array, cosine: Array, sine: Array, interleaved: bool) -> Array:
    y = np.empty_like(x)
    halves = (np.s_[..., ::2], np.s_[..., 1::2])
    if not interleaved:
        n = x.shape[-1] // 2
        halves = (np.s_[..., :n], np.s_[..., n:])
    a, b = (x[half] for half in halves)
    y[halves[0]], y[halves[1]] = a * cosine - b * sine, b * cosine + a * sine
    return y


def rotate_torch(x: Any, cosine: Any, sine: Any, interleaved: bool) -> Any:
    """As Llama's reference and GPT-NeoX write it."""
    if interleaved:
        pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs * torch.complex(cosine, sine)).flatten(-2)
    a, b = x.chunk(2, -1)
    turned = torch.cat((-b, a), -1)
    return x * torch.cat((cosine, cosine), -1) + turned * torch.cat((sine, sine), -1)


def cases(quick: bool) -> Iterator[Case]:
    # batch, heads, length, dim
    sizes = [(1, 2, 16, 64)] if quick else [(1, 12, 512, 64), (4, 32, 1024, 128)]
    for b, h, n, d in sizes:
        for interleaved in (False, True):

            def inputs(rng: np.random.Generator, b=b, h=h, n=n, d=d) -> tuple[Array, ...]:
                angle = rng.uniform(0, 6, (n, d // 2))
                x = rng.standard_normal((b, h, n, d), np.float32)
                return x, np.cos(angle).astype("f4"), np.sin(angle).astype("f4")

            yield Case(
                f"rotary_embedding B{b} H{h} L{n} D{d}{' interleaved' if interleaved else ''}",
                inputs,
                lambda x, c, s, i=interleaved: ops.rotary_embedding(x, c, s, interleaved=i),
                lambda x, c, s, i=interleaved: rotate(x, c, s, i),
                {
                    "torch": lambda x, c, s, i=interleaved: rotate_torch(x, c, s, i),
                    "numpy": lambda x, c, s, i=interleaved: rotate(x, c, s, i),
                },
                tolerance=1e-6,
                work=byte(2 * 4 * b * h * n * d),
            )
