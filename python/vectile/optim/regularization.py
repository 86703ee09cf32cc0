"""Penalties on parameters, to be added to a loss."""

from __future__ import annotations

from collections.abc import Iterable

from vectile.autograd import Tensor


def penalty(params: Iterable[Tensor], l1: float = 0.0, l2: float = 0.0) -> Tensor | float:
    """l1 * sum|p| + l2 * sum p^2 over all parameters: a scalar Tensor (0.0 when both factors are 0).

    `loss = cross_entropy(...) + penalty(model.parameters(), l1=1e-5)`. Weight decay in an optimiser is
    the l2 term with l2 = weight_decay / 2, without the extra work.
    """
    if l1 < 0 or l2 < 0:
        raise ValueError(f"penalty: l1 and l2: expected numbers >= 0, got {l1} and {l2}")
    total: Tensor | float = 0.0
    for parameter in params:
        if l1:
            total = total + l1 * abs(parameter).sum()
        if l2:
            total = total + l2 * (parameter * parameter).sum()
    return total
