"""In which order training sees its examples."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


def shuffled(count: int, size: int, generator: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Row numbers below `count` in batches of `size`, without end: every epoch is a new permutation.

    What is left at an epoch's end is skipped, so that all batches have one shape; a `size` above `count`
    gives batches of `count`. ValueError unless both are at least 1.
    """
    if count < 1 or size < 1:
        raise ValueError(f"shuffled: count and size: expected >= 1, got {count} and {size}")
    size = min(size, count)
    while True:
        order = generator.permutation(count)
        for start in range(0, count - size + 1, size):
            yield order[start : start + size]
