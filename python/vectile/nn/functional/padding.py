"""Padding of the last axes by a constant or by what lies inside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from vectile.autograd import Tensor, as_tensor
from vectile.autograd import functional as _F

__all__ = ["pad"]

Pairs = Sequence[tuple[int, int]]  # how much to add before and after, for each of the last axes


def _reflected(n: int, before: int, after: int) -> tuple[slice, slice]:
    end = n - 2 - after
    return slice(before, 0, -1), slice(n - 2, end if end >= 0 else None, -1)


#: mode: (what to repeat of an axis of n, and what that axis lacks of n at most; None: no limit)
MODES: dict[str, tuple[Callable[[int, int, int], tuple[slice, slice]], int | None]] = {
    "reflect": (_reflected, 1),
    "replicate": (lambda n, before, after: (slice(0, 1), slice(n - 1, n)), None),
    "circular": (lambda n, before, after: (slice(n - before, n), slice(0, after)), 0),
}


def pad(
    input: Any, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Tensor:
    """Add elements at both ends of the last axes; a negative number removes as many.

    Args:
        input: of any shape; modes other than "constant" need elements to repeat.
        pad: (before, after) of the last axis, then of the one before it, and so on.
        mode: "constant" adds `value` (0 by default), "reflect" mirrors without repeating the end,
            "replicate" repeats the end, "circular" goes on at the other end.

    Raises:
        ValueError: an odd length of `pad`, more pairs than axes, an unknown mode, a value in another mode
            than "constant", more than "reflect" or "circular" can repeat, or more removed than there is.
    """
    t, numbers = as_tensor(input), [int(p) for p in pad]
    if len(numbers) % 2 or len(numbers) > 2 * t.ndim:
        raise ValueError(
            f"pad: pad length: expected an even number up to {2 * t.ndim}, got {len(numbers)}"
        )
    if mode != "constant" and mode not in MODES:
        known = ["constant", *MODES]
        raise ValueError(f"pad: mode: expected one of {', '.join(known)}, got {mode!r}")
    if mode != "constant" and value is not None:
        raise ValueError(f"pad: value: expected None for {mode}, got {value}")
    pairs = list(zip(numbers[::2], numbers[1::2], strict=True))[::-1]
    return padded("pad: pad", t, pairs, mode, value or 0.0)


def padded(what: str, t: Tensor, pairs: Pairs, mode: str, value: float = 0.0) -> Tensor:
    """`pad`, with the pairs in the order of the axes; `what` is what messages call them."""
    first = t.ndim - len(pairs)
    added = [(max(before, 0), max(after, 0)) for before, after in pairs]
    removed = [(max(-before, 0), max(-after, 0)) for before, after in pairs]
    removed_last = mode in ("reflect", "replicate")  # which may repeat what is removed, as PyTorch
    if not removed_last:
        t = _cropped(what, t, removed)
    if mode != "constant":
        for axis, (before, after) in enumerate(added, first):
            t = _extended(what, t, axis, before, after, mode)
    elif any(map(any, added)):
        t = _F.pad(t, [(0, 0)] * first + added, value)
    return _cropped(what, t, removed) if removed_last else t


def _cropped(what: str, t: Tensor, removed: Pairs) -> Tensor:
    """t without the first and the last elements of its last axes."""
    if not any(map(any, removed)):
        return t
    index = []
    for n, (before, after) in zip(t.shape[t.ndim - len(removed) :], removed, strict=True):
        if before + after > n:
            raise ValueError(f"{what}: expected at most {n} removed, got {before + after}")
        index.append(slice(before, n - after))
    return t[(..., *index)]


def _extended(what: str, t: Tensor, axis: int, before: int, after: int, mode: str) -> Tensor:
    """t with what `mode` repeats at both ends of `axis`: views, joined in one copy."""
    if not (before or after):
        return t
    outside, lacking = MODES[mode]
    n, count = t.shape[axis], max(before, after)
    if n == 0 or (lacking is not None and count > n - lacking):
        most = max(n - (lacking or 0), 0)
        raise ValueError(
            f"{what}: expected at most {most} of {mode!r} on an axis of {n}, got {count}"
        )

    def repeated(part: slice, count: int) -> list[Tensor]:
        shape = (*t.shape[:axis], count, *t.shape[axis + 1 :])
        return [_F.broadcast_to(t[(slice(None),) * axis + (part,)], shape)] if count else []

    left, right = outside(n, before, after)
    return _F.concatenate([*repeated(left, before), t, *repeated(right, after)], axis)
