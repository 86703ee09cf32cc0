"""Settings that are one integer for all spatial axes or one for each: kernel sizes, strides, padding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Sizes = int | Sequence[int]


def sizes(op: str, name: str, value: Sizes, axes: int) -> tuple[int, ...]:
    """One int per axis from an int, or from a sequence of one or of `axes`.

    TypeError for anything else than integers, ValueError for another number of them.
    """
    if isinstance(value, (int, np.integer)):
        return (int(value),) * axes
    try:
        numbers = tuple([v.__index__() for v in value])
    except (TypeError, AttributeError):
        raise TypeError(
            f"{op}: {name} type: expected int or {axes} of them, got {value!r}"
        ) from None
    if len(numbers) == 1:
        return numbers * axes
    if len(numbers) != axes:
        raise ValueError(f"{op}: {name} length: expected 1 or {axes}, got {len(numbers)}")
    return numbers
