"""Optimizer: parameter groups, per-parameter state, and saving both in PyTorch's layout."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vectile import device
from vectile.autograd import Tensor
from vectile.runtime import is_half

Array = NDArray[Any]
Group = dict[str, Any]


def _state_dtype(parameter: Tensor) -> np.dtype[Any]:
    dtype = parameter.data.dtype
    return np.dtype(np.float32) if is_half(dtype) else dtype


class _Bucket:
    """Parameters of one group that have made the same number of steps, with their state arrays."""

    __slots__ = ("arrays", "params", "step")

    def __init__(self, params: list[Tensor], step: int = 0) -> None:
        self.params, self.step = params, step
        self.arrays: dict[str, list[Array]] = {}

    def state(self, name: str) -> list[Array]:
        """The arrays called `name`, zeros at first; float32 for parameters of a half type."""
        found = self.arrays.get(name)
        if found is None:
            found = self.arrays[name] = [
                np.zeros_like(p.data, _state_dtype(p), order="C") for p in self.params
            ]
        return found

    def split(self, keep: list[bool]) -> _Bucket:
        """Move the parameters that are not to be kept to a new bucket, and return that."""
        other = _Bucket([p for p, k in zip(self.params, keep, strict=True) if not k], self.step)
        self.params = [p for p, k in zip(self.params, keep, strict=True) if k]
        for name, arrays in self.arrays.items():
            other.arrays[name] = [a for a, k in zip(arrays, keep, strict=True) if not k]
            self.arrays[name] = [a for a, k in zip(arrays, keep, strict=True) if k]
        return other


class Optimizer:
    """Base of the optimisers. A subclass names its state arrays and updates one bucket in place.

    `params` is an iterable of parameters, or of dictionaries with "params" and options of their own.
    Every group is updated by one fused call for all its parameters (several only if some of them
    missed steps, because a bias correction depends on a parameter's own step count).
    """

    def __init__(self, params: Iterable[Tensor] | Iterable[Group], defaults: Group) -> None:
        self.defaults = defaults
        self.param_groups: list[Group] = []
        self._buckets: list[list[_Bucket]] = []  # of each group
        self._change = type(self).__name__ + ".step"  # what a graph of older values blames
        entries: list[Any] = [params] if isinstance(params, Tensor) else list(params)
        if isinstance(params, Tensor) or not entries:
            raise ValueError(
                f"{type(self).__name__}: params: expected an iterable of parameters, got "
                + ("one Tensor" if entries else "nothing")
            )
        for group in entries if isinstance(entries[0], dict) else [{"params": entries}]:
            self.add_param_group(group)

    def add_param_group(self, group: Group) -> None:
        """Add a group; options it does not name take the optimiser's defaults."""
        params = group["params"]
        params = [params] if isinstance(params, Tensor) else list(params)
        known = {id(p) for g in self.param_groups for p in g["params"]}
        for parameter in params:
            if not isinstance(parameter, Tensor):
                raise TypeError(
                    f"{type(self).__name__}: params: expected Tensors, got {type(parameter).__name__}"
                )
            if id(parameter) in known:
                raise ValueError(f"{type(self).__name__}: params: a parameter appears twice")
            known.add(id(parameter))
        unknown = group.keys() - self.defaults.keys() - {"params", "initial_lr"}
        if unknown:
            raise ValueError(
                f"{type(self).__name__}: options: expected some of {sorted(self.defaults)}, "
                f"got {sorted(unknown)}"
            )
        group = {**self.defaults, **group, "params": params}
        self._check(group)
        self.param_groups.append(group)
        self._buckets.append([_Bucket(list(params))])

    def _check(self, group: Group) -> None:
        """Raise ValueError for an option out of range."""
        for name in ("lr", "eps", "weight_decay", "momentum", "alpha"):
            if name in group and not group[name] >= 0.0:
                raise ValueError(
                    f"{type(self).__name__}: {name}: expected a number >= 0, got {group[name]}"
                )
        for beta in group.get("betas", ()):
            if not 0.0 <= beta < 1.0:
                raise ValueError(f"{type(self).__name__}: betas: expected in [0, 1), got {beta}")

    def _state_names(self, group: Group) -> tuple[str, ...]:
        """Names of the arrays, shaped like the parameter, that this group keeps."""
        raise TypeError(f"{type(self).__name__}: _state_names: expected in the subclass")

    def _update(
        self, group: Group, step: int, params: list[Array], grads: list[Array], *state: list[Array]
    ) -> None:
        """Update `params` and `state` in place; `step` counts from 1."""
        raise TypeError(f"{type(self).__name__}: _update: expected in the subclass")

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; returns the closure's loss, if given one."""
        loss = closure() if closure is not None else None
        for group, buckets in zip(self.param_groups, self._buckets, strict=True):
            names = self._state_names(group)
            for bucket in buckets:  # of one dtype each; this list grows while it is walked
                dtype = bucket.params[0].data.dtype if bucket.params else None
                same = [parameter.data.dtype == dtype for parameter in bucket.params]
                if not all(same):
                    buckets.append(bucket.split(same))
            for bucket in tuple(buckets):
                grads = [parameter.grad for parameter in bucket.params]
                arrays = [grad.data for grad in grads if grad is not None]
                if len(arrays) < len(grads):
                    if not arrays:
                        continue
                    buckets.append(bucket.split([grad is not None for grad in grads]))
                params = [parameter.data for parameter in bucket.params]
                self._update(group, bucket.step + 1, params, arrays, *map(bucket.state, names))
                bucket.step += 1
                for parameter in bucket.params:
                    parameter.bump_version(self._change)
        return loss

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """{"state": {index: {"step", arrays…}}, "param_groups": [{options, "params": [index…]}]}.

        Arrays share memory with the optimiser. Indices count parameters through all groups.
        """
        params = [p for group in self.param_groups for p in group["params"]]
        index = {id(parameter): i for i, parameter in enumerate(params)}
        state = {
            index[id(parameter)]: {"step": bucket.step}
            | {name: arrays[i] for name, arrays in bucket.arrays.items()}
            for buckets in self._buckets
            for bucket in buckets
            for i, parameter in enumerate(bucket.params)
            if bucket.step
        }
        return {
            "state": dict(sorted(state.items())),
            "param_groups": [
                {**group, "params": [index[id(p)] for p in group["params"]]}
                for group in self.param_groups
            ],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave (arrays are copied); ValueError if the groups do not fit."""
        name = type(self).__name__
        groups = state["param_groups"]
        sizes = [len(group["params"]) for group in groups]
        own = [len(group["params"]) for group in self.param_groups]
        if sizes != own:
            raise ValueError(
                f"{name}.load_state_dict: parameters per group: expected {own}, got {sizes}"
            )
        loaded = []
        for saved, group in zip(groups, self.param_groups, strict=True):
            needed = self._state_names({**group, **saved})
            buckets: dict[Any, _Bucket] = {}  # by step and names of the arrays
            for index, parameter in zip(saved["params"], group["params"], strict=True):
                values = {k: v for k, v in state["state"].get(index, {}).items() if v is not None}
                step = int(values.pop("step", 1 if values else 0))
                missing = [key for key in needed if step and key not in values]
                if missing:
                    raise ValueError(
                        f"{name}.load_state_dict: state of parameter {index}: "
                        f"expected {', '.join(needed)}, got no {', '.join(missing)}"
                    )
                bucket = buckets.setdefault((step, *sorted(values)), _Bucket([], step))
                bucket.params.append(parameter)
                for key, value in values.items():
                    array = device.as_array(value).astype(_state_dtype(parameter), order="C")
                    array = device.to(array, device.place_of(parameter.data))
                    if array.shape != parameter.shape:
                        raise ValueError(
                            f"{name}.load_state_dict: {key} of parameter {index} shape: "
                            f"expected {tuple(parameter.shape)}, got {array.shape}"
                        )
                    bucket.arrays.setdefault(key, []).append(array)
            loaded.append(list(buckets.values()))
        self._buckets = loaded
        for saved, group in zip(groups, self.param_groups, strict=True):
            group.update(
                {k: v for k, v in saved.items() if k in self.defaults or k == "initial_lr"}
            )

    def __repr__(self) -> str:
        groups = ", ".join(
            str(
                {k: v for k, v in group.items() if k != "params"} | {"params": len(group["params"])}
            )
            for group in self.param_groups
        )
        return f"{type(self).__name__}({groups})"
