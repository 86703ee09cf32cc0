"""float32 to the half types and back."""

from __future__ import annotations

from collections.abc import Iterator

import ml_dtypes
import numpy as np

from harness import Case, byte, torch
from vectile import ops

Array = np.ndarray
HALVES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def cases(quick: bool) -> Iterator[Case]:
    for name, half in HALVES.items():
        for n in [1 << 16] if quick else [1 << 16, 1 << 24]:

            def normal(rng: np.random.Generator, n=n) -> tuple[Array]:
                return (rng.standard_normal(n, np.float32),)

            yield Case(
                f"cast float32 to {name} {n}",
                normal,
                lambda x, half=half: ops.cast(x, half),
                lambda x: x,
                {
                    "torch": lambda x, name=name: x.to(getattr(torch, name)),
                    "numpy": lambda x, half=half: x.astype(half),
                },
                tolerance=2.0**-7,
                work=byte(6 * n),
            )
