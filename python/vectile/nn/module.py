"""Module: the base of every layer. It names parameters, buffers and children as PyTorch does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from vectile import device, ops
from vectile.autograd import Tensor
from vectile.device import as_array
from vectile.nn.parameter import Parameter
from vectile.runtime import is_floating, named_dtype

M = TypeVar("M", bound="Module")

_REGISTRIES = {"_parameters": "a Parameter", "_modules": "a Module", "_buffers": "an array"}


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict(strict=False)` left alone."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module:
    """A node in a tree of layers.

    A subclass assigns Parameters and Modules as attributes in `__init__` (after `super().__init__()`)
    and defines `forward`. Attributes are ordinary ones, so reading `self.weight` costs nothing extra;
    the three dictionaries only remember their names and order.
    """

    training: bool
    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, NDArray[Any] | None]
    _modules: dict[str, Module | None]
    _transient: set[str]  # buffers that are not saved

    def __init__(self) -> None:
        self.__dict__.update(
            training=True, _parameters={}, _buffers={}, _modules={}, _transient=set()
        )

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"{type(self).__name__}: forward: expected a definition in the subclass")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self.forward(*args, **kwargs)
        except (ValueError, TypeError, IndexError) as error:
            _name_the_module(self, error)
            raise

    # -- registration ---------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        fields = self.__dict__
        if "_modules" not in fields:
            raise AttributeError(
                f"{type(self).__name__}.{name}: call super().__init__() before assigning attributes"
            )
        kind = (
            "_parameters"
            if isinstance(value, Parameter)
            else "_modules"
            if isinstance(value, Module)
            else None
        )
        for registry, expected in _REGISTRIES.items():
            if registry != kind and name in fields[registry]:
                if value is None or (registry == "_buffers" and kind is None):
                    kind = registry  # stays registered under its new value
                elif kind is None:
                    raise TypeError(
                        f"{type(self).__name__}.{name}: expected {expected} or None, "
                        f"got {type(value).__name__}"
                    )
                else:
                    del fields[registry][name]
        if kind is not None:
            fields[kind][name] = value
        fields[name] = value

    def __delattr__(self, name: str) -> None:
        for registry in (self._parameters, self._modules, self._buffers):
            registry.pop(name, None)
        object.__delattr__(self, name)

    def register_parameter(self, name: str, parameter: Parameter | None) -> None:
        """Add a parameter under `name`; None keeps the name without a state_dict entry."""
        self._parameters[name] = parameter
        self.__dict__[name] = parameter

    def register_buffer(self, name: str, array: ArrayLike | None, persistent: bool = True) -> None:
        """Add an array that is state but not trained; it is saved unless `persistent` is False."""
        self._buffers[name] = self.__dict__[name] = None if array is None else as_array(array)
        (self._transient.discard if persistent else self._transient.add)(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a child under a name that may be computed, such as "0"."""
        if module is not None and not isinstance(module, Module):
            raise TypeError(
                f"add_module: {name}: expected a Module or None, got {type(module).__name__}"
            )
        if not name or "." in name:
            raise ValueError(f"add_module: name: expected a word without dots, got {name!r}")
        if name not in self._modules and hasattr(self, name):
            raise ValueError(
                f"add_module: name: expected a new one, got {name!r}, which {type(self).__name__} has"
            )
        self._modules[name] = module
        self.__dict__[name] = module

    # -- walking the tree -----------------------------------------------------------------------

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Direct children, each once."""
        seen: set[int] = set()
        for name, module in self._modules.items():
            if module is not None and id(module) not in seen:
                seen.add(id(module))
                yield name, module

    def children(self) -> Iterator[Module]:
        return (module for _, module in self.named_children())

    def named_modules(
        self, prefix: str = "", _seen: set[int] | None = None
    ) -> Iterator[tuple[str, Module]]:
        """This module ("" or `prefix`) and everything below it, parents first, each once."""
        seen = set() if _seen is None else _seen
        if id(self) in seen:
            return
        seen.add(id(self))
        yield prefix, self
        for name, module in self._modules.items():
            if module is not None:
                yield from module.named_modules(f"{prefix}.{name}" if prefix else name, seen)

    def modules(self) -> Iterator[Module]:
        return (module for _, module in self.named_modules())

    def named_parameters(
        self, prefix: str = "", recurse: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """(path, parameter) pairs; a shared parameter appears once, under its first name."""
        return self._walk("_parameters", prefix, recurse, once=True)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True
    ) -> Iterator[tuple[str, NDArray[Any]]]:
        return self._walk("_buffers", prefix, recurse, once=True)

    def buffers(self, recurse: bool = True) -> Iterator[NDArray[Any]]:
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    def _walk(
        self, registry: str, prefix: str, recurse: bool, once: bool
    ) -> Iterator[tuple[str, Any]]:
        """Entries of one registry; with `once`, shared modules and shared values are given once."""
        seen: set[int] = set()
        if not recurse:
            owners: Iterator[tuple[str, Module]] = iter([(prefix, self)])
        else:
            owners = self.named_modules(prefix) if once else self._all_paths(prefix)
        for path, module in owners:
            for name, value in getattr(module, registry).items():
                if value is None or (once and id(value) in seen):
                    continue
                seen.add(id(value))
                yield (f"{path}.{name}" if path else name), value

    def _all_paths(self, prefix: str) -> Iterator[tuple[str, Module]]:
        yield prefix, self
        for name, module in self._modules.items():
            if module is not None:
                yield from module._all_paths(f"{prefix}.{name}" if prefix else name)

    def get_submodule(self, path: str) -> Module:
        """The module at a dotted path ("" is this one); AttributeError when there is none."""
        module: Module | None = self
        for name in path.split(".") if path else ():
            module = module._modules.get(name) if module is not None else None
        if module is None:
            raise AttributeError(f"{type(self).__name__} has no submodule {path!r}")
        return module

    def apply(self: M, function: Callable[[Module], object]) -> M:
        """Call `function` on every module, children first; returns self."""
        for child in self.children():
            child.apply(function)
        function(self)
        return self

    # -- modes and gradients --------------------------------------------------------------------

    def train(self: M, mode: bool = True) -> M:
        """Set `training` here and below (dropout looks at it); returns self."""
        for module in self.modules():
            module.__dict__["training"] = bool(mode)
        return self

    def eval(self: M) -> M:
        return self.train(False)

    def requires_grad_(self: M, requires_grad: bool = True) -> M:
        """Freeze or unfreeze every parameter; returns self."""
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    def zero_grad(self) -> None:
        """Forget every parameter's gradient."""
        for parameter in self.parameters():
            parameter.grad = None

    def to(self: M, dtype: DTypeLike) -> M:
        """Convert floating-point parameters and buffers in place, or move all of them; returns self.

        `dtype` is float16, bfloat16 (of ml_dtypes, or by name), float32 or float64; or "cpu", "cuda" or
        "cuda:1", where arrays are CuPy's (RuntimeError without a GPU, the device ops or CuPy). Give the
        parameters to an optimiser after the move.
        """
        if device.is_place(dtype):
            return self._move(str(dtype))
        target = named_dtype(dtype)
        if not is_floating(target):
            raise TypeError(
                f"Module.to: dtype: expected float16, bfloat16, float32 or float64, got {target}"
            )
        for parameter in self.parameters():
            parameter.data = ops.cast(parameter.data, target)
            parameter.grad = None
        for module in self.modules():
            for name, buffer in module._buffers.items():
                if buffer is not None and is_floating(buffer.dtype):
                    setattr(module, name, ops.cast(buffer, target))
        return self

    def _move(self: M, place: str) -> M:
        for parameter in self.parameters():
            parameter.data = device.to(parameter.data, place)
            parameter.grad = None
        for module in self.modules():
            module._move_local(place)
        return self

    def _move_local(self, place: str) -> None:
        """Move what this module has of its own beside parameters."""
        for name, buffer in self._buffers.items():
            if buffer is not None:
                setattr(self, name, device.to(buffer, place))

    def float(self: M) -> M:
        return self.to(np.float32)

    def double(self: M) -> M:
        return self.to(np.float64)

    def half(self: M) -> M:
        return self.to(np.float16)

    def bfloat16(self: M) -> M:
        return self.to("bfloat16")

    # -- state ----------------------------------------------------------------------------------

    def _local_state(self) -> dict[str, Any]:
        """This module's own parameters and saved buffers by name, without its children's."""
        return {
            name: value
            for registry in (self._parameters, self._buffers)
            for name, value in registry.items()
            if value is not None and name not in self._transient
        }

    def _load_local(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Copy arrays of the right shapes into entries of `_local_state`."""
        for name, array in state.items():
            target = getattr(self, name)
            if isinstance(target, Tensor):
                array = array.astype(target.dtype, order="C")
                target.data = device.to(array, device.place_of(target.data))
            else:
                target[...] = device.to(array, device.place_of(target))

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Arrays by PyTorch's keys, in its order, shared ones repeated.

        They are the arrays that the module holds now, not copies: an optimiser's step writes to them,
        while `load_state_dict` and `to` put others in their place. Copy to keep a snapshot.
        """
        return {
            f"{path}.{name}" if path else name: value.data if isinstance(value, Tensor) else value
            for path, module in self._all_paths("")
            for name, value in module._local_state().items()
        }

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> IncompatibleKeys:
        """Copy arrays (or anything `np.asarray` takes, such as torch tensors) to where this module is.

        Raises KeyError for missing or unexpected keys when `strict`, ValueError naming the key and both
        shapes when a shape differs, and TypeError for a dtype of another kind (floats for integers,
        complex for floats); nothing is changed when an error is raised.
        """
        own = self.state_dict()
        report = IncompatibleKeys(
            [key for key in own if key not in state], [key for key in state if key not in own]
        )
        name = type(self).__name__
        if strict and (report.missing_keys or report.unexpected_keys):
            raise KeyError(
                f"{name}.load_state_dict: missing keys: {_listed(report.missing_keys)}; "
                f"unexpected keys: {_listed(report.unexpected_keys)}"
            )
        incoming = {key: as_array(state[key]) for key in own if key in state}
        for key, array in incoming.items():
            if not np.can_cast(array.dtype, own[key].dtype, "same_kind"):
                raise TypeError(
                    f"{name}.load_state_dict: {key} dtype: "
                    f"expected {own[key].dtype}, got {array.dtype}"
                )
            if array.shape != own[key].shape:
                raise ValueError(
                    f"{name}.load_state_dict: {key} shape: "
                    f"expected {tuple(own[key].shape)}, got {array.shape}"
                )
        for path, module in self._all_paths(""):
            start = f"{path}." if path else ""
            keys = {name: start + name for name in module._local_state()}
            module._load_local({n: incoming[key] for n, key in keys.items() if key in incoming})
        return report

    def __repr__(self) -> str:
        lines = [
            f"({name}): " + repr(module).replace("\n", "\n  ")
            for name, module in self._modules.items()
        ]
        head = f"{type(self).__name__}({self.extra_repr()}"
        return head + "".join(f"\n  {line}" for line in lines) + ("\n)" if lines else ")")

    def extra_repr(self) -> str:
        """The layer's arguments, for `repr`."""
        return ""


class Plain(Module):
    """A layer without parameters whose arguments are its attributes, listed for `repr`."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        self._arguments = tuple(arguments)
        for name, value in arguments.items():
            setattr(self, name, value)

    def _values(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._arguments}

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self._values().items())


def _listed(keys: list[str]) -> str:
    shown = ", ".join(keys[:8])
    return f"{shown}, and {len(keys) - 8} more" if len(keys) > 8 else shown or "none"


def _name_the_module(module: Module, error: Exception) -> None:
    """Append the failing module's path to the message, extending it as the error moves up the tree."""
    failing, path, message = getattr(error, "_vectile_origin", (None, "", None))
    if failing is None:
        message = str(error.args[0]) if len(error.args) == 1 else None
    elif failing is not module:
        step = next((name for name, child in module.named_modules() if child is failing), "")
        path = f"{step}.{path}" if path and step else step or path
    error._vectile_origin = (module, path, message)  # type: ignore[attr-defined]
    if path and message is not None:
        error.args = (f"{message} (in {path})",)
