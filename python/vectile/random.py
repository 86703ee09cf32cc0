"""The package's one random generator: initialisation, dropout seeds and sampling draw from it."""

from __future__ import annotations

from typing import Any

import numpy as np

_generator: np.random.Generator | None = None


def manual_seed(seed: int) -> np.random.Generator:
    """Start the generator (NumPy's Philox) afresh from `seed` and return it."""
    global _generator
    _generator = np.random.Generator(np.random.Philox(seed))
    return _generator


def generator() -> np.random.Generator:
    """The generator; seeded by the operating system unless `manual_seed` was called."""
    return _generator or manual_seed(np.random.SeedSequence().entropy)  # type: ignore[arg-type]


def next_seed() -> int:
    """The next 64-bit seed for an op that makes its own random numbers, such as dropout."""
    return int(generator().integers(0, 2**63))


def get_state() -> dict[str, Any]:
    """The generator's state, for a checkpoint."""
    return dict(generator().bit_generator.state)


def set_state(state: dict[str, Any]) -> None:
    """Continue exactly where `get_state` was taken."""
    generator().bit_generator.state = state
