"""embedding (rows of a table by index) and its gradient."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike, NDArray

from vectile import _core

__all__ = ["embedding", "embedding_backward"]


def embedding(ids: ArrayLike, weight: ArrayLike) -> NDArray[Any]:
    """Return ``weight[ids]``, of shape ``ids.shape + (n,)``.

    Args:
        ids: any integer dtype, any shape; each in ``[0, num_embeddings)`` (negative ids are errors,
            as in PyTorch).
        weight: floating-point, shape (num_embeddings, n).

    Raises:
        TypeError: ``ids`` is not an integer array, or ``weight`` is not a floating-point array.
        ValueError: ``weight`` is not 2-D.
        IndexError: an id is out of range; the message names its position and value.
    """
    return _core.embedding(ids, weight)


def embedding_backward(grad: ArrayLike, ids: ArrayLike, num_embeddings: int) -> NDArray[Any]:
    """Return the gradient of :func:`embedding`'s weight: row ``v`` sums ``grad`` where ``ids == v``.

    Args:
        grad: floating-point, shape ``ids.shape + (n,)``.
        ids: as in the forward.
        num_embeddings: rows of the result, of shape (num_embeddings, n).

    Raises:
        TypeError, ValueError, IndexError: as the forward.
    """
    return _core.embedding_backward(grad, ids, num_embeddings)
