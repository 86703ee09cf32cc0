"""A running average of a model's weights."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import numpy as np

from vectile.nn.module import Module

M = TypeVar("M", bound=Module)


class EMA(Generic[M]):
    """`model`, whose weights follow those of the module given: average <- d * average + (1 - d) * weight.

    d rises as (1 + n) / (10 + n) with the number n of updates until it is `decay`, so that the first weights
    are soon forgotten. Buffers, such as running statistics, are copied. ValueError unless 0 <= decay < 1.
    """

    def __init__(self, model: M, decay: float = 0.999) -> None:
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"EMA: decay: expected in [0, 1), got {decay}")
        self.source, self.decay, self.updates = model, decay, 0
        self.model: M = copy.deepcopy(model).requires_grad_(False)

    def update(self) -> None:
        """Move the average towards the weights as they are now."""
        self.updates += 1
        rest = 1.0 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        for average, weight in zip(self.model.parameters(), self.source.parameters(), strict=True):
            average.data += rest * (weight.data - average.data)
            average.bump_version("EMA.update")
        for kept, now in zip(self.model.buffers(), self.source.buffers(), strict=True):
            np.copyto(kept, now)
