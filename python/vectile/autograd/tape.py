"""The tape: what an op leaves behind for the backward walk, and the switch that turns recording off."""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

#: The one clock of the tape: orders nodes (a parent is always older) and dates in-place changes.
tick: Callable[[], int] = itertools.count(1).__next__


class Node:
    """One recorded op. The rule gets `out` (if kept), the saved operands and the parameters back.

    `edges` has one entry per operand: the operand's own Node, the operand itself when it is a leaf that
    requires grad, or None. `saved` is None once the graph has been freed.
    """

    __slots__ = ("edges", "out", "params", "rule", "saved", "seq", "version")

    rule: Callable[..., Any]
    edges: tuple[Any, ...]
    saved: tuple[Any, ...] | None
    params: tuple[Any, ...]
    out: Any  # the result's array, where the rule needs it; not the Tensor, which owns this node
    version: Version | None  # of the result, once somebody else can change it
    seq: int

    @property
    def name(self) -> str:
        """The op's name."""
        return self.rule.__name__

    def __repr__(self) -> str:
        return f"<Node {self.name}>"


class _Dead(threading.local):
    """What the dying anchors of this thread have let go of; the first of them empties the list."""

    def __init__(self) -> None:
        self.links: list[Any] = []
        self.emptying = False

    def empty(self) -> None:
        """Free the links one after the other, however many more they add."""
        if not self.emptying:
            self.emptying = True
            try:
                while self.links:
                    self.links.pop()
            finally:
                self.emptying = False


#: Every so many nodes is an Anchor: then freeing a graph nests no deeper than this many objects.
#: Prime, so that no loop body's rhythm steps over them all.
ANCHOR_EVERY = 61

_dead = _Dead()


class Anchor(Node):
    """A node at which freeing a long graph stops nesting; CPython's own guard differs by version."""

    __slots__ = ()

    def __del__(self, dead: _Dead = _dead) -> None:
        dead.links.append((self.edges, self.saved))
        self.edges, self.saved = (), None
        dead.empty()


class Base:
    """What a view looks at: ``tensor[index]``, since that tick; `index` is None for other views."""

    __slots__ = ("index", "since", "tensor")

    def __init__(self, tensor: Any, index: Any, since: int) -> None:
        self.tensor, self.index, self.since = tensor, index, since


class BaseAnchor(Base):
    """The same for a view of a view of a view ..."""

    __slots__ = ()

    def __del__(self, dead: _Dead = _dead) -> None:
        dead.links.append(self.tensor)
        self.tensor = None
        dead.empty()


class Version:
    """When an array last changed in place; shared by every Tensor that looks at the same memory."""

    __slots__ = ("changed", "op", "rebased")

    def __init__(self) -> None:
        self.changed = 0  # tick of the last change, whoever made it
        self.rebased = 0  # tick of the last change that was itself recorded on the tape
        self.op = ""

    def bump(self, op: str) -> None:
        """Date a change made by `op`."""
        self.changed = tick()
        self.op = op


class _Mode(threading.local):
    enabled = True


mode = _Mode()


def is_grad_enabled() -> bool:
    """Whether this thread records operations for `backward`."""
    return mode.enabled


class _SetGrad:
    """Sets grad mode for a `with` block or a decorated function, in the current thread only."""

    _value: bool

    def __init__(self) -> None:
        self._previous: list[bool] = []

    def __enter__(self) -> None:
        self._previous.append(mode.enabled)
        mode.enabled = self._value

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        mode.enabled = self._previous.pop()

    def __call__(self, function: F) -> F:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with type(self)():
                return function(*args, **kwargs)

        return wrapper  # type: ignore[return-value]


class no_grad(_SetGrad):
    """Context manager and decorator: operations inside are not recorded. Per thread, reentrant."""

    _value = False


class enable_grad(_SetGrad):
    """Context manager and decorator: operations inside are recorded, even within `no_grad`."""

    _value = True
