"""Ops on arrays that live on a GPU: CuPy's, torch's, JAX's, whatever exports DLPack.

`vectile.ops` need not know: its core hands a call with such an array to `call`, which runs the device's op
of the same name on the array's own stream and gives the result back as that library's array.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

__all__ = ["available", "call", "kernels", "on_device"]

_CUDA = (2, 13)  # DLDeviceType: memory of a GPU, managed memory


class Library(NamedTuple):
    """How an array library makes an array of another's, and the stream that it works on."""

    from_dlpack: Callable[[Any], Any]
    stream: Callable[[], int]


def _cupy() -> Library:
    cupy = importlib.import_module("cupy")
    return Library(cupy.from_dlpack, lambda: int(cupy.cuda.get_current_stream().ptr))


def _torch() -> Library:
    torch = importlib.import_module("torch")
    return Library(torch.from_dlpack, lambda: int(torch.cuda.current_stream().cuda_stream))


def _jax() -> Library:  # it names no stream: calls are ordered by the default one
    return Library(importlib.import_module("jax.dlpack").from_dlpack, lambda: 0)


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
        found = _known[kind] = make() if make else Library(lambda x: x, lambda: 0)
    return found


def on_device(x: Any) -> bool:
    """Whether `x` is an array in the memory of a GPU."""
    where = getattr(x, "__dlpack_device__", None)
    return where is not None and where()[0] in _CUDA


def kernels() -> Any:
    """The module of device ops; RuntimeError, with what is missing, where there is none or no GPU."""
    try:
        module: Any = importlib.import_module("vectile._cuda")
    except ImportError as error:
        raise RuntimeError(
            "cuda: expected the device ops, which this build lacks; with CUDA's nvcc installed: "
            "pip install . -Ccmake.define.VECTILE_CUDA=ON"
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


def call(op: str, *arguments: Any) -> Any:
    """Run the device's `op`, on the stream of the first array's library; results are its arrays.

    RuntimeError without a GPU or the device ops; TypeError for an op that has no device kernel, or arrays
    that are not all on one GPU.
    """
    library = _library(type(next(iter(_arrays(arguments)))))
    function = getattr(kernels(), op, None)
    if function is None:
        raise TypeError(f"{op}: arrays device: expected the CPU, got a GPU: no device kernel of it")
    found = function(*arguments, stream=library.stream())
    return _as_library(found, library, arguments)


def _as_library(found: Any, library: Library, arguments: tuple[Any, ...]) -> Any:
    if isinstance(found, tuple):
        return tuple(_as_library(x, library, arguments) for x in found)
    if found is None or any(found is x for x in arguments):  # out=
        return found
    return library.from_dlpack(found)
