"""Parameter: a Tensor that a Module finds and an optimiser updates."""

from __future__ import annotations

from typing import Any

from vectile.autograd import Tensor


class Parameter(Tensor):
    """A leaf Tensor that belongs to a module's state; assigning one to a module registers it."""

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        super().__init__(data, requires_grad=requires_grad)
