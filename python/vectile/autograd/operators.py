"""What a Tensor can be asked to do: NumPy's operators and methods, each the functional form of its name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import DTypeLike

from vectile.autograd import functional as F
from vectile.autograd import inplace
from vectile.device import Holder

if TYPE_CHECKING:
    from vectile.autograd.tensor import Tensor, TensorLike

Axis = int | tuple[int, ...] | None


class Operators(Holder):
    """The operators and methods of `Tensor`, which is its only subclass."""

    __slots__ = ()

    # ---- arithmetic ----------------------------------------------------------------------------------

    def __add__(self, other: TensorLike) -> Tensor:
        return F.add(self, other)

    def __radd__(self, other: TensorLike) -> Tensor:
        return F.add(other, self)

    def __sub__(self, other: TensorLike) -> Tensor:
        return F.subtract(self, other)

    def __rsub__(self, other: TensorLike) -> Tensor:
        return F.subtract(other, self)

    def __mul__(self, other: TensorLike) -> Tensor:
        return F.multiply(self, other)

    def __rmul__(self, other: TensorLike) -> Tensor:
        return F.multiply(other, self)

    def __truediv__(self, other: TensorLike) -> Tensor:
        return F.divide(self, other)

    def __rtruediv__(self, other: TensorLike) -> Tensor:
        return F.divide(other, self)

    def __pow__(self, other: TensorLike) -> Tensor:
        return F.power(self, other)

    def __rpow__(self, other: TensorLike) -> Tensor:
        return F.power(other, self)

    def __matmul__(self, other: TensorLike) -> Tensor:
        return F.matmul(self, other)

    def __rmatmul__(self, other: TensorLike) -> Tensor:
        return F.matmul(other, self)

    def __neg__(self) -> Tensor:
        return F.negative(self)

    def __pos__(self) -> Tensor:
        return self  # type: ignore[return-value]

    def __abs__(self) -> Tensor:
        return F.absolute(self)

    # ---- comparison: bool Tensors without history ------------------------------------------------------

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        return F.compare("equal", self, other)

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        return F.compare("not_equal", self, other)

    def __lt__(self, other: TensorLike) -> Tensor:
        return F.compare("less", self, other)

    def __le__(self, other: TensorLike) -> Tensor:
        return F.compare("less_equal", self, other)

    def __gt__(self, other: TensorLike) -> Tensor:
        return F.compare("greater", self, other)

    def __ge__(self, other: TensorLike) -> Tensor:
        return F.compare("greater_equal", self, other)

    def __and__(self, other: TensorLike) -> Tensor:
        return F.compare("bitwise_and", self, other)

    def __or__(self, other: TensorLike) -> Tensor:
        return F.compare("bitwise_or", self, other)

    def __xor__(self, other: TensorLike) -> Tensor:
        return F.compare("bitwise_xor", self, other)

    def __invert__(self) -> Tensor:
        return F.compare("bitwise_not", self)

    __hash__ = object.__hash__  # by identity: equality is elementwise

    # ---- in place --------------------------------------------------------------------------------------

    def __setitem__(self, index: Any, value: TensorLike) -> None:
        inplace.setitem(self, index, value)

    def add_(self, other: TensorLike) -> Tensor:
        """``self += other``."""
        return inplace.assign(self, F.add(self, other), "add_")

    def sub_(self, other: TensorLike) -> Tensor:
        """``self -= other``."""
        return inplace.assign(self, F.subtract(self, other), "sub_")

    def mul_(self, other: TensorLike) -> Tensor:
        """``self *= other``."""
        return inplace.assign(self, F.multiply(self, other), "mul_")

    def div_(self, other: TensorLike) -> Tensor:
        """``self /= other``."""
        return inplace.assign(self, F.divide(self, other), "div_")

    def copy_(self, value: TensorLike) -> Tensor:
        """Overwrite with `value`, broadcast to self's shape."""
        inplace.setitem(self, ..., value, "copy_")
        return self  # type: ignore[return-value]

    def fill_(self, value: float) -> Tensor:
        """Overwrite every element with `value`."""
        inplace.setitem(self, ..., value, "fill_")
        return self  # type: ignore[return-value]

    def zero_(self) -> Tensor:
        """Overwrite every element with zero."""
        inplace.setitem(self, ..., 0, "zero_")
        return self  # type: ignore[return-value]

    __iadd__ = add_
    __isub__ = sub_
    __imul__ = mul_
    __itruediv__ = div_

    # ---- elementwise -----------------------------------------------------------------------------------

    def exp(self) -> Tensor:
        """See `functional.exp`."""
        return F.exp(self)

    def log(self) -> Tensor:
        """See `functional.log`."""
        return F.log(self)

    def sqrt(self) -> Tensor:
        """See `functional.sqrt`."""
        return F.sqrt(self)

    def abs(self) -> Tensor:
        """See `functional.absolute`."""
        return F.absolute(self)

    def sin(self) -> Tensor:
        """See `functional.sin`."""
        return F.sin(self)

    def cos(self) -> Tensor:
        """See `functional.cos`."""
        return F.cos(self)

    def tanh(self) -> Tensor:
        """See `functional.tanh`."""
        return F.tanh(self)

    def sigmoid(self) -> Tensor:
        """See `functional.sigmoid`."""
        return F.sigmoid(self)

    def relu(self) -> Tensor:
        """See `functional.relu`."""
        return F.relu(self)

    def clip(self, low: float | None = None, high: float | None = None) -> Tensor:
        """See `functional.clip`."""
        return F.clip(self, low, high)

    def astype(self, dtype: DTypeLike) -> Tensor:
        """See `functional.astype`."""
        return F.astype(self, dtype)

    def float(self) -> Tensor:
        """As float32."""
        return F.astype(self, "float32")

    def double(self) -> Tensor:
        """As float64."""
        return F.astype(self, "float64")

    def half(self) -> Tensor:
        """As float16."""
        return F.astype(self, "float16")

    def bfloat16(self) -> Tensor:
        """As bfloat16."""
        return F.astype(self, "bfloat16")

    def to(self, place: str) -> Tensor:
        """See `functional.to`."""
        return F.to(self, place)

    def copy(self) -> Tensor:
        """See `functional.copy`."""
        return F.copy(self)

    def softmax(self, axis: int = -1) -> Tensor:
        """See `functional.softmax`."""
        return F.softmax(self, axis)

    def log_softmax(self, axis: int = -1) -> Tensor:
        """See `functional.log_softmax`."""
        return F.log_softmax(self, axis)

    # ---- reductions ------------------------------------------------------------------------------------

    def sum(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """See `functional.sum`."""
        return F.sum(self, axis, keepdims)

    def mean(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """See `functional.mean`."""
        return F.mean(self, axis, keepdims)

    def max(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """See `functional.max`."""
        return F.max(self, axis, keepdims)

    def min(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """See `functional.min`."""
        return F.min(self, axis, keepdims)

    def var(self, axis: Axis = None, ddof: int = 0, keepdims: bool = False) -> Tensor:
        """See `functional.var`."""
        return F.var(self, axis, ddof, keepdims)

    def std(self, axis: Axis = None, ddof: int = 0, keepdims: bool = False) -> Tensor:
        """See `functional.std`."""
        return F.std(self, axis, ddof, keepdims)

    def cumsum(self, axis: int) -> Tensor:
        """See `functional.cumsum`."""
        return F.cumsum(self, axis)

    def argmax(self, axis: int | None = None) -> Tensor:
        """See `functional.argmax`."""
        return F.argmax(self, axis)

    def argmin(self, axis: int | None = None) -> Tensor:
        """See `functional.argmin`."""
        return F.argmin(self, axis)

    # ---- shape -----------------------------------------------------------------------------------------

    def __getitem__(self, index: Any) -> Tensor:
        return F.getitem(self, index)

    def reshape(self, *shape: int | Sequence[int]) -> Tensor:
        """``t.reshape(2, -1)`` or ``t.reshape((2, -1))``; see `functional.reshape`."""
        return F.reshape(self, shape[0] if len(shape) == 1 else shape)  # type: ignore[arg-type]

    def transpose(self, *axes: int | Sequence[int]) -> Tensor:
        """``t.transpose()`` reverses the axes; ``t.transpose(1, 0)`` permutes them, as NumPy does."""
        if len(axes) == 1 and isinstance(axes[0], Sequence):
            return F.transpose(self, axes[0])
        return F.transpose(self, axes or None)  # type: ignore[arg-type]

    permute = transpose

    @property
    def T(self) -> Tensor:
        """The axes reversed."""
        return F.transpose(self)

    @property
    def mT(self) -> Tensor:
        """The last two axes swapped."""
        return F.swapaxes(self, -1, -2)

    def swapaxes(self, axis1: int, axis2: int) -> Tensor:
        """See `functional.swapaxes`."""
        return F.swapaxes(self, axis1, axis2)

    def expand_dims(self, axis: int | tuple[int, ...]) -> Tensor:
        """See `functional.expand_dims`."""
        return F.expand_dims(self, axis)

    def squeeze(self, axis: Axis = None) -> Tensor:
        """See `functional.squeeze`."""
        return F.squeeze(self, axis)

    def flatten(self) -> Tensor:
        """One axis."""
        return F.reshape(self, -1)

    def broadcast_to(self, shape: Sequence[int]) -> Tensor:
        """See `functional.broadcast_to`."""
        return F.broadcast_to(self, shape)

    def split(self, sections: int | Sequence[int], axis: int = 0) -> list[Tensor]:
        """See `functional.split`."""
        return F.split(self, sections, axis)

    def take(self, indices: Any, axis: int | None = None) -> Tensor:
        """See `functional.take`."""
        return F.take(self, indices, axis)
