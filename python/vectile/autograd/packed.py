"""A weight together with the copy of it that the kernels like best."""

from __future__ import annotations

from typing import Any

from vectile import ops
from vectile.autograd.tensor import Tensor
from vectile.device import on_device


class PackedWeight:
    """A weight (out, in) whose packed copy `linear` multiplies with; the gradient is the weight's own.

    The copy is made when it is first needed and again after the weight has changed: through the Tensor, an
    optimiser's step, `load_state_dict`, or whatever else calls `bump_version`. It takes as much memory as the
    weight, and is worth it where the weight is used many times between changes.
    """

    __slots__ = ("_matrix", "_seen", "weight")

    def __init__(self, weight: Tensor) -> None:
        if weight.ndim != 2:
            raise ValueError(f"pack: weight ndim: expected 2, got {weight.ndim}")
        self.weight = weight
        self._matrix: ops.PackedMatrix | None = None
        self._seen = 0  # tick of the weight's last change that the copy knows

    def __reduce__(self) -> tuple[type[PackedWeight], tuple[Tensor]]:
        return PackedWeight, (self.weight,)

    def matrix(self) -> Any:
        """The packed copy of the weight as it is now; the weight itself on a GPU, which packs as it goes."""
        if on_device(self.weight._data):
            return self.weight._data
        now = self.weight._shared_version().changed
        if self._matrix is None or now != self._seen:
            self._matrix, self._seen = ops.pack(self.weight._data), now
        return self._matrix


def pack(weight: Tensor) -> PackedWeight:
    """`weight` (out, in) for `linear`, packed once per change of the weight; see `PackedWeight`."""
    return PackedWeight(weight)
