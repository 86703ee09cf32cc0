"""Inference in 8 or 4 bits: Linear layers with quantised weights and activations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from vectile import checkpoint, device, ops
from vectile.autograd import Tensor, as_tensor, is_grad_enabled, no_grad
from vectile.nn import functional as F
from vectile.nn.layers import Linear
from vectile.nn.module import Module
from vectile.ops.gemm import Activation
from vectile.precision import Advice as Advice
from vectile.precision import advise as advise
from vectile.runtime import named_dtype

M = TypeVar("M", bound=Module)


Matrix = ops.QuantizedMatrix | ops.Int4Matrix | ops.Float8Matrix | ops.DeviceMatrix


def _state(matrix: Matrix) -> dict[str, NDArray[Any]]:
    """Arrays that `_like` makes the same matrix of; 4-bit values lie two in a byte, float8 ones as bytes."""
    values: Any = matrix.values
    zero_points: Any = matrix.zero_points
    if isinstance(matrix, ops.Float8Matrix):
        values = values.view(np.uint8)
    if isinstance(matrix, ops.Int4Matrix):
        codes = values.view(np.uint8) + np.uint8(8) if zero_points is None else values
        codes = np.pad(codes, ((0, 0), (0, codes.shape[1] % 2)))
        values = codes[:, ::2] | codes[:, 1::2] << 4
    state = {"weight": values, "scale": matrix.scales}
    return state if zero_points is None else state | {"zero_point": zero_points}


def _like(matrix: Any, state: Mapping[str, NDArray[Any]], place: str) -> Matrix:
    """A matrix of the shape and scheme of `matrix` with the arrays of `state`, in the memory of `place`."""
    names = "weight", "scale", "zero_point"
    arrays = [None if n not in state else device.to(state[n], place) for n in names]
    values, scales, zero_points = arrays
    if place != "cpu":
        if isinstance(matrix, ops.Float8Matrix):
            raise TypeError(
                "QuantizedLinear.to: matrix: expected 8 or 4 bits as integers, got float8"
            )
        rows, columns = matrix.shape
        group = None if _is_int8(matrix) else matrix.group_size
        return ops.DeviceMatrix(values, scales, zero_points, (rows, columns), group)
    assert values is not None and scales is not None
    if _is_int8(matrix):
        return ops.QuantizedMatrix(values, scales, zero_points)
    if isinstance(matrix, ops.Float8Matrix):
        return ops.Float8Matrix(values.view(named_dtype(matrix.format)), scales)
    codes = np.stack([values & 15, values >> 4], -1).reshape(len(values), -1)
    codes = codes[:, : matrix.shape[1]]
    values = (codes - np.uint8(8)).view(np.int8) if zero_points is None else codes
    return ops.Int4Matrix(values, scales, zero_points, matrix.group_size)


def _is_int8(matrix: Matrix) -> bool:
    return isinstance(matrix, ops.QuantizedMatrix) or (
        isinstance(matrix, ops.DeviceMatrix) and matrix.group_size is None
    )


def _place(matrix: Matrix) -> str:
    return device.place_of(matrix.values) if isinstance(matrix, ops.DeviceMatrix) else "cpu"


class QuantizedLinear(Module):
    """`Linear` for inference: weight (out, in) in 8 or 4 bits, float bias.

    x (..., in_features) is quantised to 8 bits on the way, unless the weight is floating point; the bound
    of the error is that of `vectile.ops.quantize_weight`. Nothing here is trained: RuntimeError where a
    gradient would have to flow. Its state is "weight" (int8, the bytes of a float8, or two 4-bit values in
    a uint8, the first of them in its low half), "scale", "zero_point" (unless symmetric) and "bias"; after
    `calibrate` also "x_scale" and "x_zero_point", one step for all of x.
    """

    def __init__(self, matrix: Matrix, bias: NDArray[Any] | None = None) -> None:
        super().__init__()
        self.matrix = matrix
        self.out_features, self.in_features = matrix.shape
        self.register_buffer("bias", bias)
        self.register_buffer("x_scale", None)
        self.register_buffer("x_zero_point", None)
        self._seen: tuple[float, float] | None = None  # the range of x while `calibrate` runs

    bias: NDArray[Any] | None
    x_scale: NDArray[Any] | None
    x_zero_point: NDArray[Any] | None
    fuses_activation = True

    @classmethod
    def of(cls, layer: Linear, **options: Any) -> QuantizedLinear:
        """The quantised form of a float layer; the options are those of `ops.quantize_weight`."""
        bias = None if layer.bias is None else layer.bias.data.copy()
        return cls(ops.quantize_weight(layer.weight.data, **options), bias)

    def scheme(self) -> dict[str, Any]:
        """The options of `of` that give a layer with this one's state."""
        if isinstance(self.matrix, ops.Float8Matrix):
            return {"dtype": self.matrix.format}
        symmetric = self.matrix.zero_points is None
        if not _is_int8(self.matrix):
            group = self.matrix.group_size  # type: ignore[union-attr]
            return {"bits": 4, "group_size": group, "symmetric": symmetric}
        static = {} if self.x_scale is None else {"static": True}
        return {"symmetric": symmetric, "per_channel": self.matrix.scales.ndim == 1} | static

    def forward(self, x: Any, activation: Activation | None = None) -> Tensor:
        """`activation` names one that `ops.linear` applies while the result is in registers."""
        t = as_tensor(x)
        if self._seen is not None and t.size:
            low, high = self._seen
            least, most = float(t.data.min()), float(t.data.max())
            self._seen = float(np.minimum(low, least)), float(np.maximum(high, most))
        matrix: Any = self.matrix
        refused = t.requires_grad and is_grad_enabled()
        if self.x_scale is None or not _is_int8(matrix) or refused:
            return F.linear(t, matrix, self.bias, activation)
        y = ops.quantized_linear(
            t.data,
            matrix,
            self.bias,
            activation=activation,
            x_scale=self.x_scale,
            x_zero_point=self.x_zero_point,
        )
        return Tensor(y)

    def _quantize_input(self, scale: float, zero_point: int) -> None:
        place, step = _place(self.matrix), np.array(scale, self.matrix.dtype)
        self.register_buffer("x_scale", device.to(step, place))
        self.register_buffer("x_zero_point", device.to(np.array(zero_point, np.uint8), place))

    def _move_local(self, place: str) -> None:
        if _place(self.matrix) != place:
            self.matrix = _like(self.matrix, _state(self.matrix), place)
        super()._move_local(place)

    def _local_state(self) -> dict[str, Any]:
        return _state(self.matrix) | super()._local_state()

    def _load_local(self, state: Mapping[str, NDArray[Any]]) -> None:
        own = _state(self.matrix)
        if own.keys() & state.keys():
            new = {name: state.get(name, a).astype(a.dtype) for name, a in own.items()}
            self.matrix = _like(self.matrix, new, _place(self.matrix))
        super()._load_local({k: v for k, v in state.items() if k not in own})

    def extra_repr(self) -> str:
        form = "int8"
        if isinstance(self.matrix, ops.Float8Matrix):
            form = self.matrix.format
        elif not _is_int8(self.matrix):
            form = f"int4, group_size={self.matrix.group_size}"  # type: ignore[union-attr]
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}, {form}"
        )


def quantize_dynamic(model: M, skip: Iterable[str] = (), **options: Any) -> M:
    """Replace every Linear in `model` by a QuantizedLinear, in place, and return it for inference.

    `options` say how weights are quantised, as in `ops.quantize_weight`: `bits=4, group_size=32`.

    A layer that the model has in several places stays one layer. The model is left in eval mode and its
    other parameters no longer ask for gradients. Layers with a path in `skip` stay as they are; ValueError
    for a path that is no Linear. A Linear that is the model itself cannot be replaced in place: use
    `QuantizedLinear.of`.
    """
    left = set(_linears_at(model, "quantize_dynamic: skip", skip))
    found = (m for m in model.modules() if isinstance(m, Linear) and m is not model)
    return _quantize(model, {m: options for m in found if m not in left})


def calibrate(model: M, batches: Iterable[Any]) -> M:
    """Give the int8 layers of a quantised model one step for their input each, and return it.

    Instead of every row's own step, measured on each call. `model` is called on every one of `batches`
    (a tuple's items are its arguments); a layer's step is ``(max(x, 0) - min(x, 0)) / 255`` over all that
    reached it, with the zero point of ONNX's QuantizeLinear, and what is beyond saturates later. Layers
    that nothing reached keep the steps they had. ValueError if there is no int8 layer or no batch, or where
    NaN or infinity reached a layer; the layers are then as before.
    """
    layers = [m for m in model.modules() if isinstance(m, QuantizedLinear) and _is_int8(m.matrix)]
    if not layers:
        raise ValueError("calibrate: model: expected int8 layers, got none")
    try:
        for layer in layers:
            layer._seen = (0.0, 0.0)
        count = 0
        with no_grad():
            for count, batch in enumerate(batches, 1):  # noqa: B007
                model(*batch) if isinstance(batch, tuple) else model(batch)
        seen = [layer._seen or (0.0, 0.0) for layer in layers]
    finally:
        for layer in layers:
            layer._seen = None
    if count == 0:
        raise ValueError("calibrate: batches: expected at least one, got none")
    if not np.isfinite(seen).all():
        raise ValueError("calibrate: batches: expected finite inputs of layers, got nan or inf")
    for layer, (low, high) in zip(layers, seen, strict=True):
        scale = high / 255 - low / 255
        if layer.matrix.dtype.type(scale) > 0:
            layer._quantize_input(scale, round(-low / scale))
    return model


def _linears_at(model: Module, argument: str, paths: Iterable[str]) -> list[Linear]:
    linears = {path: m for path, m in model._all_paths("") if isinstance(m, Linear) and path}
    paths = list(paths)
    unknown = sorted(set(paths) - linears.keys())
    if unknown:
        raise ValueError(f"{argument}: expected paths of Linear layers, got {unknown}")
    return [linears[path] for path in paths]


def _quantize(model: M, layers: Mapping[Linear, Mapping[str, Any]]) -> M:
    """Put a QuantizedLinear of the given scheme for each of `layers` wherever `model` has it."""
    quantized: dict[Module | None, QuantizedLinear] = {
        m: QuantizedLinear.of(m, **scheme) for m, scheme in layers.items()
    }
    for parent in tuple(model.modules()):
        for name, child in parent._modules.items():
            if child in quantized:
                parent.add_module(name, quantized[child])
    return model.eval().requires_grad_(False)


def quantized_layers(model: Module) -> dict[str, dict[str, Any]]:
    """The QuantizedLinear layers: path to scheme."""
    return {path: m.scheme() for path, m in model.named_modules() if isinstance(m, QuantizedLinear)}


class SizeReport(NamedTuple):
    """Bytes of a model's state, shared arrays counted once."""

    total: int
    quantized: int
    quantized_layers: int


def size_report(model: Module) -> SizeReport:
    """How much the model's state takes, and how much of that is in QuantizedLinear layers."""
    arrays = {(_address(array), array.shape): array.nbytes for array in model.state_dict().values()}
    layers = [model.get_submodule(path) for path in quantized_layers(model)]
    quantized = sum(array.nbytes for layer in layers for array in layer.state_dict().values())
    return SizeReport(sum(arrays.values()), quantized, len(layers))


def _address(array: Any) -> int:
    """Of its memory, here or on a GPU."""
    about = getattr(array, "__cuda_array_interface__", None) or array.__array_interface__
    return int(about["data"][0])


def save_quantized(path: str | PathLike[str], model: Module, settings: Mapping[str, Any]) -> None:
    """Write a quantised model as a checkpoint; `settings` say how to build its float form."""
    tensors = {f"model.{key}": array for key, array in model.state_dict().items()}
    checkpoint.save(path, tensors, {**settings, "quantized": quantized_layers(model)})


def restore(model: M, layers: Mapping[str, Mapping[str, Any]] | Iterable[str]) -> M:
    """Give a float model the quantised layers of a saved one, for `load_state_dict` to fill.

    `layers` is what `quantized_layers` said, or paths alone for the default scheme.
    """
    given = layers if isinstance(layers, Mapping) else {path: {} for path in layers}
    schemes = {path: dict(scheme) for path, scheme in given.items()}
    static = [path for path, scheme in schemes.items() if scheme.pop("static", False)]
    found = _linears_at(model, "restore: layers", schemes)
    if not found:
        return model
    _quantize(model, dict(zip(found, schemes.values(), strict=True)))
    for path in static:
        layer = model.get_submodule(path)
        assert isinstance(layer, QuantizedLinear)
        layer._quantize_input(1.0, 128)
    return model
