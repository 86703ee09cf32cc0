"""Linear quantisation with ONNX's semantics: round half to even, saturate."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vectile import _core
from vectile.device import as_array, number, on_device

__all__ = ["dequantize_linear", "dynamic_quantize_linear", "quantize_linear"]


def quantize_linear(
    x: ArrayLike,
    scale: ArrayLike,
    zero_point: ArrayLike | None = None,
    axis: int | None = None,
) -> NDArray[Any]:
    """Return ``saturate(round(x / scale) + zero_point)``, halves to even (ONNX QuantizeLinear).

    Args:
        x: float16, bfloat16, float32 or float64, any shape.
        scale: the dtype of ``x``, or float32 beside a half type; a scalar, or 1-D along ``axis``. A
            Python float is float64 beside float64 and float32 beside everything else.
        zero_point: int8 or uint8, the shape of ``scale``; its dtype is the result's. None means
            uint8 zero. Zeros of ``float8_e4m3fn`` or ``float8_e5m2`` (ml_dtypes) give a result of
            that type, ``x / scale`` rounded once more and held at its largest number.
        axis: the axis of ``x`` that a 1-D ``scale`` belongs to.

    Raises:
        TypeError: a dtype is wrong.
        ValueError: ``scale`` is 1-D without an axis, or shapes do not match.
    """
    x = as_array(x)
    if type(scale) in (int, float):
        scale = np.asarray(scale, np.float64 if x.dtype == np.float64 else np.float32)
    return _core.quantize_linear(x, number(scale, x), number(zero_point, x), axis)


def dequantize_linear(
    x: ArrayLike,
    scale: ArrayLike,
    zero_point: ArrayLike | None = None,
    axis: int | None = None,
) -> NDArray[Any]:
    """Return ``(x - zero_point) * scale`` in the dtype of ``scale`` (ONNX DequantizeLinear).

    Args:
        x: int8, uint8, int32, float8_e4m3fn or float8_e5m2, any shape.
        scale: a floating-point scalar, or 1-D along ``axis``; a Python float means float32.
        zero_point: the dtype of ``x`` and the shape of ``scale``; None means zero.
        axis: the axis of ``x`` that a 1-D ``scale`` belongs to.

    Raises:
        TypeError: a dtype is wrong.
        ValueError: ``scale`` is 1-D without an axis, or shapes do not match.
    """
    if isinstance(scale, (int, float)) and not isinstance(scale, np.generic):
        scale = np.float32(scale)
    return _core.dequantize_linear(x, number(scale, x), number(zero_point, x), axis)


def dynamic_quantize_linear(x: ArrayLike) -> tuple[NDArray[np.uint8], Any, Any]:
    """Return ``(y, scale, zero_point)`` with ``x ~ scale * (y - zero_point)``, y uint8.

    ``scale = (max(x, 0) - min(x, 0)) / 255`` (1 when x is all zeros), ``zero_point =
    saturate(round(-min(x, 0) / scale))`` (ONNX DynamicQuantizeLinear); ``scale`` is float64 for
    float64 and float32 for everything else. On a GPU both are arrays there of shape (), and NaN or infinity
    makes ``scale`` NaN.

    Raises:
        TypeError: ``x`` is not float16, bfloat16, float32 or float64.
        ValueError: ``x`` holds NaN or infinity.
    """
    x = as_array(x)
    y, scale, zero_point = _core.dynamic_quantize_linear(x)
    if on_device(x):
        return y, scale, zero_point
    kind = np.float64 if x.dtype == np.float64 else np.float32
    return y, kind(scale), np.uint8(zero_point)
