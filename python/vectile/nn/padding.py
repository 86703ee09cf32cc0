"""Padding as layers, over the last axis or the last two; see `functional.pad`."""

from __future__ import annotations

from typing import Any, ClassVar

from vectile.autograd import Tensor
from vectile.nn import functional as F
from vectile.nn.module import Plain
from vectile.ops.sizes import Sizes, sizes


class _Pad(Plain):
    """`padding`: one int for all ends, or (before, after) of the last axis, then of the one before it."""

    axes: ClassVar[int]
    mode: ClassVar[str] = "constant"
    padding: tuple[int, ...]

    def __init__(self, padding: Sizes, **options: float) -> None:
        ends = sizes(type(self).__name__, "padding", padding, 2 * self.axes)
        super().__init__(padding=ends, **options)

    def forward(self, x: Any) -> Tensor:
        return F.pad(x, self.padding, self.mode)

    def extra_repr(self) -> str:
        return str(self.padding)


class _ConstantPad(_Pad):
    value: float

    def __init__(self, padding: Sizes, value: float) -> None:
        super().__init__(padding, value=value)

    def forward(self, x: Any) -> Tensor:
        return F.pad(x, self.padding, self.mode, self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_ConstantPad):
    """`value` at both ends of the last axis; `padding`: int or (left, right)."""

    axes = 1


class ConstantPad2d(_ConstantPad):
    """`value` around the last two axes; `padding`: int or (left, right, top, bottom)."""

    axes = 2


class ZeroPad1d(_Pad):
    """Zeros at both ends of the last axis; `padding`: int or (left, right)."""

    axes = 1


class ZeroPad2d(_Pad):
    """Zeros around the last two axes; `padding`: int or (left, right, top, bottom)."""

    axes = 2


class ReflectionPad1d(_Pad):
    """The last axis mirrored at both ends; `padding`: int or (left, right)."""

    axes, mode = 1, "reflect"


class ReflectionPad2d(_Pad):
    """The last two axes mirrored at their ends; `padding`: int or (left, right, top, bottom)."""

    axes, mode = 2, "reflect"


class ReplicationPad1d(_Pad):
    """The ends of the last axis repeated; `padding`: int or (left, right)."""

    axes, mode = 1, "replicate"


class ReplicationPad2d(_Pad):
    """The ends of the last two axes repeated; `padding`: int or (left, right, top, bottom)."""

    axes, mode = 2, "replicate"


class CircularPad1d(_Pad):
    """The last axis continued at its other end; `padding`: int or (left, right)."""

    axes, mode = 1, "circular"


class CircularPad2d(_Pad):
    """The last two axes continued at their other ends; `padding`: int or (left, right, top, bottom)."""

    axes, mode = 2, "circular"
