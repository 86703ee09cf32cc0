"""Ops on arrays that live on a GPU: CuPy's, torch's, JAX's, whatever exports DLPack.

`vectile.ops` need not know: its core hands a call with such an array to `call`, which runs the device's op
of the same name on the array's own stream and gives the result back as that library's array.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = [
    "Holder",
    "as_array",
    "available",
    "beside",
    "call",
    "empty",
    "is_array",
    "is_place",
    "kernels",
    "near",
    "number",
    "on_device",
    "place_of",
    "to",
]

_CUDA = (2, 13)  # DLDeviceType: memory of a GPU, managed memory


class Holder:
    """What holds an array, as a Tensor does: ops on a GPU take that array."""

    __slots__ = ()
    _data: Any


class Library(NamedTuple):
    """How an array library makes an array of another's, and the stream that it works on, of a GPU."""

    from_dlpack: Callable[[Any], Any]
    stream: Callable[[int], int]


def _cupy() -> Library:
    cupy = importlib.import_module("cupy")
    kept: dict[tuple[int, type], Any] = {}  # CuPy destroys a stream that nobody holds any more

    def stream(gpu: int) -> int:
        """Results go back to the memory pool on the stream that they were made on, so it stays."""
        current = cupy.cuda.get_current_stream(gpu)
        return int(kept.setdefault((current.ptr, type(current)), current).ptr)

    return Library(cupy.from_dlpack, stream)


def _torch() -> Library:
    torch = importlib.import_module("torch")
    return Library(torch.from_dlpack, lambda gpu: int(torch.cuda.current_stream(gpu).cuda_stream))


def _jax() -> Library:  # it names no stream: calls are ordered by the default one
    return Library(importlib.import_module("jax.dlpack").from_dlpack, lambda _: 0)


LIBRARIES: dict[str, Callable[[], Library]] = {
    "cupy": _cupy,
    "torch": _torch,
    "jax": _jax,
    "jaxlib": _jax,
}
_known: dict[type, Library] = {}


def _library(kind: type) -> Library:
    found = _known.get(kind)
    if found is None:
        make = LIBRARIES.get(kind.__module__.partition(".")[0])
        found = _known[kind] = make() if make else Library(lambda x: x, lambda _: 0)
    return found


def on_device(x: Any) -> bool:
    """Whether `x` is an array in the memory of a GPU."""
    where = getattr(x, "__dlpack_device__", None)
    return where is not None and where()[0] in _CUDA


def is_array(x: Any) -> bool:
    """Whether `x` is an ndarray, or one on a GPU that NumPy's functions take (CuPy's)."""
    return isinstance(x, np.ndarray) or (hasattr(type(x), "__array_function__") and on_device(x))


def as_array(x: Any, dtype: DTypeLike | None = None) -> NDArray[Any]:
    """`np.asarray`, which leaves an array on a GPU where it is, also one that a Tensor holds."""
    if isinstance(x, Holder):
        x = x._data
    if isinstance(x, np.ndarray) or not on_device(x):
        return np.asarray(x, dtype)
    array: NDArray[Any] = x if dtype is None or x.dtype == dtype else x.astype(dtype)
    return array


def place_of(x: Any) -> str:
    """Where the array `x` is: "cpu", or "cuda:0" and so on."""
    return f"cuda:{int(x.__dlpack_device__()[1])}" if on_device(x) else "cpu"


def is_place(x: Any) -> bool:
    """Whether `x` names a place for arrays, as `to` takes it."""
    name, colon, number = x.partition(":") if isinstance(x, str) else ("", "", "")
    return x == "cpu" or (name == "cuda" and (number.isdecimal() or not colon))


def to(x: Any, place: str) -> Any:
    """The array `x` in the memory of `place`: "cpu", "cuda" or "cuda:1", there a CuPy array.

    `x` itself where it is there already. ValueError for another place, RuntimeError without a GPU, the device
    ops or CuPy.
    """
    if not is_place(place):
        raise ValueError(f"to: device: expected 'cpu', 'cuda' or 'cuda:0', got {place!r}")
    if place == "cpu":
        return x.get() if on_device(x) else x
    number = place.partition(":")[2]
    cupy = _arrays_of_gpus()
    if on_device(x) and (not number or int(x.__dlpack_device__()[1]) == int(number)):
        return x
    with cupy.cuda.Device(int(number) if number else None):
        return cupy.asarray(x)


def empty(shape: Sequence[int], dtype: DTypeLike, place: str) -> Any:
    """A new array with arbitrary content in the memory of `place`; errors as of `to`."""
    if not is_place(place):
        raise ValueError(f"empty: device: expected 'cpu', 'cuda' or 'cuda:0', got {place!r}")
    if place == "cpu":
        return np.empty(shape, dtype)
    number, cupy = place.partition(":")[2], _arrays_of_gpus()
    with cupy.cuda.Device(int(number) if number else None):
        return cupy.empty(shape, dtype)


def _arrays_of_gpus() -> Any:
    kernels()
    try:
        return importlib.import_module("cupy")
    except ImportError as error:
        raise RuntimeError(
            "cuda: expected CuPy for arrays on a GPU: pip install 'vectile[cuda]'"
        ) from error


def near(array: Any, like: Any) -> Any:
    """`array` in the memory where the array `like` is."""
    return to(array, place_of(like)) if on_device(like) or on_device(array) else array


def beside(x: Any, like: Any, dtype: DTypeLike | None = None) -> Any:
    """`x` as an array: an array where it is; a number or a list, which is nowhere, where `like` is."""
    array = as_array(x, dtype)
    return array if is_array(x) or isinstance(x, Holder) else near(array, like)


def number(x: Any, like: Any) -> Any:
    """`x`, where `like` is if it is a number or an array of one, as scales and zero points are."""
    if not on_device(like) or on_device(x) or x is None or np.ndim(x):
        return x
    return near(np.asarray(x), like)


def kernels() -> Any:
    """The module of device ops; RuntimeError, with what is missing, where there is none or no GPU."""
    try:
        module: Any = importlib.import_module("vectile._cuda")
    except ImportError as error:
        raise RuntimeError(
            "cuda: expected the device ops, which this build lacks; with CUDA's nvcc installed: "
            "pip install . --config-settings=cmake.define.VECTILE_CUDA=ON"
        ) from error
    if module.device_count() == 0:
        raise RuntimeError("cuda: expected a GPU and its driver, found none")
    return module


def available() -> bool:
    """Whether the device ops are there, and a GPU."""
    try:
        kernels()
    except RuntimeError:
        return False
    return True


def _arrays(arguments: Iterable[Any]) -> Iterable[Any]:
    for x in arguments:
        if isinstance(x, (list, tuple)):
            yield from _arrays(x)
        elif on_device(x):
            yield x


def call(op: str, *arguments: Any, **options: Any) -> Any:
    """Run the device's `op`, on the stream of the first array's library; results are its arrays.

    A Tensor counts as its array, without a gradient. RuntimeError without a GPU or the device ops; TypeError
    for an op that has no device kernel, arrays that are not all on one GPU, or a Tensor to write to.
    """
    function = getattr(kernels(), op, None)
    if function is None:
        raise TypeError(f"{op}: arrays device: expected the CPU, got a GPU: no device kernel of it")
    first = next(iter(_arrays(arguments)))
    if any(isinstance(x, Holder) for x in _arrays(arguments)):
        first = first._data if isinstance(first, Holder) else first
        names = re.findall(r"(\w+): ", function.__nb_signature__[0][0])
        arguments = tuple(_bare(op, n, x) for n, x in zip(names, arguments, strict=False))
    library, gpu = _library(type(first)), int(first.__dlpack_device__()[1])
    found = function(*arguments, **options, stream=library.stream(gpu))
    return _as_library(found, library, arguments)


#: Arguments that ops write to, beside those of ops called `…_`. A Tensor would not learn of it.
_WRITTEN = frozenset(
    "out running_mean running_var key_cache value_cache key_scales value_scales".split()
)


def _bare(op: str, name: str, x: Any) -> Any:
    """The argument `x` of that name with arrays in place of Tensors."""
    if isinstance(x, (list, tuple)):
        return type(x)([_bare(op, name, y) for y in x])
    if not isinstance(x, Holder):
        return x
    if name in _WRITTEN or op.endswith("_"):
        raise TypeError(f"{op}: {name} type: expected an array, got {type(x).__name__}")
    return x._data


def _as_library(found: Any, library: Library, arguments: tuple[Any, ...]) -> Any:
    if isinstance(found, tuple):
        return tuple(_as_library(x, library, arguments) for x in found)
    if found is None or any(found is x for x in arguments):  # out=
        return found
    return library.from_dlpack(found)
