"""Tensor: a NumPy array with a place on the tape."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Union

import numpy as np
from numpy.typing import DTypeLike, NDArray

from vectile.autograd.operators import Operators
from vectile.autograd.tape import ANCHOR_EVERY, Anchor, Base, BaseAnchor, Node, Version, mode, tick
from vectile.device import as_array, beside, is_array, on_device, to
from vectile.runtime import is_floating

Array = NDArray[Any]
TensorLike = Union["Operators", Array, np.generic, float, int, bool, Sequence[Any]]

_new = object.__new__
_KINDS = "float16, bfloat16, float32 or float64"


class Tensor(Operators):
    """An array that remembers how it was computed.

    ``Tensor(data)`` shares the memory of an ndarray. Arithmetic, comparisons and indexing follow NumPy,
    with broadcasting; a Python or NumPy scalar never changes the dtype, an integer or bool array joins a
    float Tensor in its dtype, and two different float dtypes are a TypeError. Gradients are kept for
    float16, bfloat16, float32 and float64, each in the dtype of its Tensor.

    Changes made through a Tensor (``+=``, ``t[i] = v``, ``t.data = a``) are noticed by `backward` where they
    would make it wrong. Whoever writes to ``t.numpy()`` directly says so with `bump_version`. Indices, masks
    and integer targets may change at any time: an op that needs them later keeps a copy.
    """

    __slots__ = ("__weakref__", "_base", "_data", "_node", "_version", "grad", "requires_grad")

    _data: Array
    grad: Tensor | None
    requires_grad: bool
    _node: Node | None  # None for a leaf
    _version: Version | None  # None until the memory is shared or changed
    _base: Base | None  # for a view

    __array_ufunc__ = None  # ndarray * Tensor is Tensor.__rmul__
    __array_priority__ = 1000

    def __init__(self, data: TensorLike, requires_grad: bool = False) -> None:
        self._data = _as_array(data)
        self.grad = None
        self.requires_grad = False
        self._node = None
        self._version = data._shared_version() if isinstance(data, Tensor) else None
        self._base = None
        if requires_grad:
            self.requires_grad_()

    # ---- what it holds -------------------------------------------------------------------------------

    @property
    def data(self) -> Array:
        """The array itself. Assigning replaces it, which `backward` notices."""
        return self._data

    @data.setter
    def data(self, value: TensorLike) -> None:
        array = _as_array(value)
        if self.requires_grad and not is_floating(array.dtype):
            raise TypeError(f"data: expected {_KINDS} to keep grad, got {array.dtype}")
        self.bump_version("data")
        self._data = array

    def numpy(self) -> Array:
        """The array itself, not a copy; CuPy's where the Tensor is on a GPU."""
        return self._data

    @property
    def dtype(self) -> np.dtype[Any]:
        """The NumPy dtype."""
        return self._data.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape."""
        return self._data.shape

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self._data.ndim

    @property
    def size(self) -> int:
        """The number of elements."""
        return self._data.size

    @property
    def nbytes(self) -> int:
        """The bytes that the elements take."""
        return self._data.nbytes

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded op made it."""
        return self._node is None

    def item(self) -> Any:
        """The only element, as a Python scalar. ValueError if there is not exactly one."""
        return self._data.item()

    def tolist(self) -> Any:
        """The elements as nested lists of Python scalars."""
        return self._data.tolist()

    def detach(self) -> Tensor:
        """The same memory without the history."""
        out = wrap(self._data)
        out._version = self._shared_version()
        return out

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Start or stop keeping a gradient for this leaf; returns self."""
        if requires_grad and not is_floating(self._data.dtype):
            raise TypeError(f"requires_grad: expected {_KINDS}, got {self._data.dtype}")
        if self._node is not None and not requires_grad:
            raise RuntimeError("requires_grad_: only a leaf can stop requiring grad; use detach()")
        self.requires_grad = requires_grad
        return self

    def zero_grad(self) -> None:
        """Forget the gradient."""
        self.grad = None

    def backward(
        self,
        grad: TensorLike | None = None,
        retain_graph: bool = False,
        create_graph: bool = False,
    ) -> None:
        """Add d(self)/d(leaf), weighted by `grad`, to ``.grad`` of every leaf that requires grad.

        `grad` has self's shape and may be left out for a single element. The graph is freed on the way
        unless `retain_graph` or `create_graph` (which also records the backward pass itself).

        Raises ValueError for a missing or misshapen `grad`, and RuntimeError if self does not require grad,
        if the graph has been freed, or if an array that it needs was changed in place.
        """
        engine.backward([self], None if grad is None else [grad], retain_graph, create_graph)

    # ---- change in place -----------------------------------------------------------------------------

    def bump_version(self, op: str = "bump_version") -> None:
        """Say that the memory was changed behind the tape's back, so that `backward` can refuse."""
        self._shared_version().bump(op)

    def _shared_version(self) -> Version:
        version = self._version
        if version is None:
            self._version = version = Version()
            if self._node is not None:
                self._node.version = version
        return version

    # ---- protocols -----------------------------------------------------------------------------------

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Array:
        if on_device(self._data):
            raise TypeError('Tensor: expected the CPU, got a GPU; use t.to("cpu")')
        if dtype is not None and self._data.dtype != dtype:
            if copy is False:
                raise ValueError(f"Tensor: {self._data.dtype} to {np.dtype(dtype)} needs a copy")
            return self._data.astype(dtype)
        return self._data.copy() if copy else self._data

    def __dlpack__(self, **kwargs: Any) -> Any:
        if self.requires_grad:
            raise BufferError("__dlpack__: the Tensor requires grad; export t.detach()")
        return self._data.__dlpack__(**kwargs)

    def __dlpack_device__(self) -> tuple[int, int]:
        kind, index = self._data.__dlpack_device__()
        return int(kind), int(index)

    def __len__(self) -> int:
        return len(self._data)

    def __iter__(self) -> Iterator[Tensor]:
        if self._data.ndim == 0:
            raise TypeError("iteration over a 0-d Tensor")
        return (self[i] for i in range(len(self._data)))

    def __contains__(self, value: Any) -> bool:
        return bool((self._data == array_of(value)).any())

    def __bool__(self) -> bool:
        return bool(self._data)

    def __int__(self) -> int:
        return int(self._data.item())

    def __float__(self) -> float:
        return float(self._data.item())

    def __index__(self) -> int:
        return self._data.__index__()

    def __format__(self, spec: str) -> str:
        return format(self._data.item() if self._data.ndim == 0 else to(self._data, "cpu"), spec)

    def __repr__(self) -> str:
        text = np.array2string(to(self._data, "cpu"), separator=", ", prefix="tensor(")
        dtype = "" if self._data.dtype == np.float32 else f", dtype={self._data.dtype}"
        if self._node is not None:
            return f"tensor({text}{dtype}, op={self._node.name})"
        return f"tensor({text}{dtype}{', requires_grad=True' if self.requires_grad else ''})"

    def __copy__(self) -> Tensor:
        return self.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if self._node is not None:
            raise RuntimeError("deepcopy: only a leaf can be copied deeply; use detach() first")
        out = _new(type(self))
        out.__setstate__(self.__getstate__())
        out._data = out._data.copy()
        out.grad = None if self.grad is None else self.grad.detach().copy()
        memo[id(self)] = out
        return out

    def __getstate__(self) -> Any:
        if self._node is not None:
            raise RuntimeError("pickle: only a leaf can be pickled; use detach() first")
        return self._data, self.requires_grad, getattr(self, "__dict__", None)

    def __setstate__(self, state: Any) -> None:
        self._data, self.requires_grad, attributes = state
        self.grad = self._node = self._version = self._base = None
        if attributes:
            self.__dict__.update(attributes)


# ---- what the functional forms are made of -------------------------------------------------------------


def wrap(data: Array) -> Tensor:
    """A leaf around `data`, which must be an ndarray."""
    out = _new(Tensor)
    out._data = data
    out.grad = None
    out.requires_grad = False
    out._node = None
    out._version = None
    out._base = None
    return out


def track(
    data: Array,
    rule: Any,
    edges: tuple[Any, ...],
    saved: tuple[Any, ...] = (),
    params: tuple[Any, ...] = (),
    keep: Array | None = None,
) -> Tensor:
    """The result `data` of a recorded op; `keep` is the array that the rule gets back as `out`."""
    seq = tick()
    node = _new(Node if seq % ANCHOR_EVERY else Anchor)
    node.rule = rule
    node.edges = edges
    node.saved = saved
    node.params = params
    node.out = keep
    node.version = None
    node.seq = seq
    out = _new(Tensor)
    out._data = data
    out.grad = None
    out.requires_grad = True
    out._node = node
    out._version = None
    out._base = None
    return out


def edge(t: Tensor) -> Node | Tensor | None:
    """Where the gradient of operand `t` goes: its node, itself if a leaf that requires grad, or None."""
    if t._base is not None:
        check_view(t)
    return (t._node or t) if t.requires_grad else None


def view(t: Tensor, data: Array, rule: Any, params: tuple[Any, ...], index: Any = None) -> Tensor:
    """The result `data` of an op that only looks at t's memory in another way (`index`: as ``t[index]``)."""
    to = edge(t)
    out = wrap(data) if to is None or not mode.enabled else track(data, rule, (to,), (), params)
    base = data.base
    if base is not None and (base is t._data or base is t._data.base):
        out._version = t._shared_version()
        since = tick()
        out._base = (Base if since % ANCHOR_EVERY else BaseAnchor)(t, index, since)
    return out


def check_view(t: Tensor) -> None:
    """Refuse a view whose base has since got another history: gradients through it would be wrong."""
    assert t._base is not None and t._version is not None
    base, since = t._base.tensor, t._base.since
    if t._version.rebased > since and mode.enabled and (base.requires_grad or t.requires_grad):
        raise RuntimeError(
            f"a view was used after the Tensor that it looks at was changed in place by "
            f"{t._version.op} (view taken at tick {since}, changed at tick {t._version.rebased}): "
            "take the view again"
        )


def _as_array(data: TensorLike, dtype: DTypeLike | None = None) -> Array:
    """`data` as an ndarray without a copy where possible; Python floats become float32."""
    if isinstance(data, Tensor):
        data = data._data
    if is_array(data) or isinstance(data, np.generic) or dtype is not None:
        return as_array(data, dtype)
    array = np.asarray(data)
    if array.dtype == np.float64:
        first: Any = data
        while isinstance(first, Sequence) and first:
            first = first[0]
        if not isinstance(first, (np.ndarray, np.generic)):
            return array.astype(np.float32)
    return array


def array_of(value: Any) -> Any:
    """The array inside a Tensor; anything else unchanged."""
    return value._data if isinstance(value, Tensor) else value


def constant(value: Any) -> Array:
    """The array of `value` in memory that nobody else can change, for an op to keep until its backward.

    An axis that only repeats is not spelled out.
    """
    array = as_array(array_of(value))
    if 0 not in array.strides or 0 in array.shape:
        return array.copy()
    once = tuple([slice(None if step else 1) for step in array.strides])
    return np.broadcast_to(array[once].copy(), array.shape)


def is_float(x: Any) -> bool:
    """Whether `x` is an array that can have a gradient."""
    return is_array(x) and is_floating(x.dtype)


def join_dtypes(op: str, operands: list[Any]) -> list[Any]:
    """Operands with scalars, integers and bools brought to the dtype of the float arrays beside them.

    Numbers and lists also come to where these are. TypeError if there are several float dtypes.
    """
    floats = [array_of(x) for x in operands if is_float(array_of(x))]
    dtypes = {x.dtype for x in floats}
    if len(dtypes) > 1:
        names = " and ".join(sorted(map(str, dtypes)))
        raise TypeError(
            f"{op}: operand dtypes: expected the same, got {names}; convert one with astype"
        )
    if not dtypes:
        return operands
    (dtype,) = dtypes
    return [x if is_float(array_of(x)) else beside(array_of(x), floats[0], dtype) for x in operands]


def as_tensor(data: TensorLike) -> Tensor:
    """`data` itself if it is a Tensor, else a Tensor around it, without a copy where possible."""
    return data if isinstance(data, Tensor) else wrap(_as_array(data))


def tensor(data: TensorLike, dtype: DTypeLike | None = None, requires_grad: bool = False) -> Tensor:
    """A new leaf with a copy of `data` (scalar, nested list, ndarray or Tensor).

    Python floats become float32; arrays and NumPy scalars keep their dtype. TypeError if `requires_grad`
    is asked of anything but float16, bfloat16, float32 and float64.
    """
    array = _as_array(data, dtype)
    out = wrap(np.array(array) if isinstance(array, np.ndarray) else array.copy())
    return out.requires_grad_() if requires_grad else out


from vectile.autograd import engine  # noqa: E402  (it needs the class)
