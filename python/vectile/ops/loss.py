"""cross_entropy of logits against class indices, fused with log-softmax, and its gradient."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike, NDArray

from vectile import _core

__all__ = ["cross_entropy", "cross_entropy_backward"]


def cross_entropy(
    logits: ArrayLike,
    targets: ArrayLike,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    *,
    return_lse: bool = False,
) -> Any:
    """Return the cross entropy of ``softmax(logits)`` against ``targets``, without forming either.

    With ``p = softmax(logits[i])`` and ``s = label_smoothing`` a row's loss is
    ``-(1 - s) * log(p[target]) - s * mean(log(p))``. Rows whose target is ``ignore_index`` have loss
    0 and do not count in the mean; the mean over no rows at all is NaN, as in PyTorch.

    Args:
        logits: floating-point, shape (..., C).
        targets: any integer dtype, shape (...); each in ``[0, C)`` or ``ignore_index``.
        ignore_index: the target that marks rows to leave out.
        label_smoothing: 0 to 1 (Szegedy et al., 2016, section 7).
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        return_lse: also return ``log(sum(exp(logits)))`` of each row, for the backward.

    Returns:
        The loss, 0-D or for ``"none"`` of the shape of ``targets``; or ``(loss, lse)``.

    Raises:
        TypeError: ``logits`` is not a floating-point array, or ``targets`` is not an integer array.
        ValueError: the shapes differ, or an option is out of range.
        IndexError: a target is out of range; the message names its position and value.
    """
    return _core.cross_entropy(
        logits, targets, ignore_index, label_smoothing, reduction, return_lse
    )


def cross_entropy_backward(
    grad: ArrayLike,
    logits: ArrayLike,
    targets: ArrayLike,
    lse: ArrayLike,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> NDArray[Any]:
    """Return the gradient of :func:`cross_entropy` with respect to ``logits``.

    ``grad`` is 0-D, or for ``reduction="none"`` of the shape of ``targets``; ``lse`` is the
    forward's. Ignored rows get zeros. The softmax is formed as ``exp(logits - lse)``: its relative
    error grows with ``|lse|`` times the machine epsilon.
    """
    return _core.cross_entropy_backward(
        grad, logits, targets, lse, ignore_index, label_smoothing, reduction
    )
