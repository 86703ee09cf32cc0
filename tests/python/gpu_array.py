"""An array library like CuPy whose memory is NumPy's.

It says that it is on a GPU, dispatches NumPy's functions, and never becomes an ndarray by itself.
"""

from __future__ import annotations

import contextlib
import re
from types import SimpleNamespace
from typing import Any

import numpy as np

from vectile import device


def _inside(x: Any) -> Any:
    if isinstance(x, GpuArray):
        return x.values
    if isinstance(x, np.ndarray):
        raise TypeError("GpuArray: expected an array on the GPU, got a NumPy array")
    if isinstance(x, (list, tuple)):
        return type(x)(map(_inside, x))
    return x


def _refuse(options: Any) -> None:
    """CuPy's functions know none of these; NumPy's `ones` and `full` with `like` give them a `device`."""
    if options.keys() & {"initial", "where", "device"}:
        raise TypeError(f"GpuArray: unexpected keyword arguments: {sorted(options)}")


def _around(x: Any, base: Any = None) -> Any:
    """`x` as arrays of the library; one that looks at the memory of `base` says so."""
    if isinstance(x, (np.ndarray, np.generic)):
        found = GpuArray(x)
        if base is not None and np.may_share_memory(found.values, base.values):
            found.base = base if base.base is None else base.base
        return found
    if isinstance(x, tuple):
        return tuple([_around(y, base) for y in x])
    return x


class GpuArray(np.lib.mixins.NDArrayOperatorsMixin):
    """As `cupy.ndarray`: what is not here is not used."""

    __array_priority__ = 100

    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values)
        self.base: Any = None

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("GpuArray: implicit conversion to a NumPy array is not allowed; use get()")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        out = options.pop("out", None)
        if out is not None:
            options["out"] = _inside(out)
        if method != "__call__" or any(isinstance(x, (list, tuple)) for x in inputs):
            return NotImplemented
        found = ufunc(*map(_inside, inputs), **options)
        return out[0] if out is not None else _around(found)

    def __array_function__(self, function: Any, types: Any, inputs: Any, options: Any) -> Any:
        _refuse(options)
        options = {name: _inside(value) for name, value in options.items() if name != "like"}
        first = next((x for x in inputs if isinstance(x, GpuArray)), None)
        return _around(function(*map(_inside, inputs), **options), first)

    def __dlpack__(self, **options: Any) -> Any:
        return self.values.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def __getitem__(self, index: Any) -> Any:
        return _around(self.values[_inside(index)], self)

    def __setitem__(self, index: Any, value: Any) -> None:
        self.values[_inside(index)] = _inside(value)

    def __len__(self) -> int:
        return len(self.values)

    def __bool__(self) -> bool:
        return bool(self.values)

    def __float__(self) -> float:
        return float(self.values)

    def __int__(self) -> int:
        return int(self.values)

    @property
    def __cuda_array_interface__(self) -> Any:
        return self.values.__array_interface__

    def get(self) -> Any:
        """A copy in the host's memory."""
        return self.values.copy()


def cupy() -> Any:
    """The module that makes them, always of memory of their own."""
    return SimpleNamespace(
        asarray=lambda x: GpuArray(np.array(x)),
        empty=lambda shape, dtype: GpuArray(np.full(shape, 77).astype(dtype)),
        cuda=SimpleNamespace(Device=lambda index: contextlib.nullcontext()),
    )


def there(x: Any, place: str) -> Any:
    """Arrays in `x`, a list or a dictionary of them or one, at `place`."""
    if isinstance(x, (list, tuple)):
        return type(x)([there(y, place) for y in x])
    if isinstance(x, dict):
        return {name: there(y, place) for name, y in x.items()}
    return device.to(x, place) if device.is_array(x) else x


def here(x: Any) -> Any:
    """NumPy's array of what a Tensor or an array holds, anywhere."""
    return device.to(device.as_array(x), "cpu")


#: Ops that take numbers in place of arrays.
NUMBERS = "add subtract multiply divide maximum minimum".split()


class Kernels:
    """The emulated ops, which refuse NumPy's memory as those of a GPU do."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def __getattr__(self, name: str) -> Any:
        op = getattr(self.module, name)

        signature = op.__nb_signature__[0][0]
        arrays = [kind.startswith("object") for kind in re.findall(r"\w+: ([\w |]+)", signature)]
        host = (np.ndarray,) if name in NUMBERS else (np.ndarray, np.generic)

        def call(*arguments: Any, **options: Any) -> Any:
            for x, array in zip(arguments, arrays, strict=False):
                for y in x if isinstance(x, (list, tuple)) else (x,):
                    if array and isinstance(y, host):
                        raise TypeError(f"{name}: array device: expected a GPU, got host memory")
            return op(*arguments, **options)

        call.__nb_signature__ = op.__nb_signature__  # type: ignore[attr-defined]
        return call


def _method(name: str) -> Any:
    def call(self: GpuArray, *arguments: Any, **options: Any) -> Any:
        _refuse(options)
        return _around(getattr(self.values, name)(*map(_inside, arguments), **options), self)

    return call


def _attribute(name: str) -> Any:
    return property(lambda self: _around(getattr(self.values, name), self))


for _name in (
    "all any argmax argmin astype copy fill max mean min ravel repeat reshape squeeze sum swapaxes "
    "take transpose var view"
).split():
    setattr(GpuArray, _name, _method(_name))
for _name in "T dtype flags nbytes ndim shape size strides itemsize".split():
    setattr(GpuArray, _name, _attribute(_name))
for _name in ("item", "tolist"):
    setattr(GpuArray, _name, lambda self, _name=_name: getattr(self.values, _name)())
