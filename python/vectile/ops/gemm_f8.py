"""8-bit floating-point storage with scales, for :func:`vectile.ops.linear`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from vectile._core import Float8Matrix
from vectile.device import on_device
from vectile.ops.quantize import quantize_linear
from vectile.runtime import named_dtype

__all__ = ["Float8Matrix", "quantize_fp8"]

#: The largest number of each format.
_LARGEST = {"float8_e4m3fn": 448.0, "float8_e5m2": 57344.0}


def quantize_fp8(
    x: ArrayLike, dtype: DTypeLike = "float8_e4m3fn", axis: int | None = None
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return ``(q, scale)`` with ``x ~ scale * q``: q in 8-bit floating point, its largest value in range.

    ``scale = max|x| / largest`` (1 for zeros) with 448 the largest float8_e4m3fn and 57344 the largest
    float8_e5m2. The error of an element is at most ``max(|x| / 16, scale / 1024)``, and
    ``max(|x| / 8, scale / 131072)`` for float8_e5m2, up to float rounding.
    :func:`dequantize_linear` is the way back: ``dequantize_linear(q, scale, axis=axis)``.

    Args:
        x: float16, bfloat16, float32 or float64, any shape; beside float64 ``scale`` is float64,
            else float32.
        dtype: float8_e4m3fn or float8_e5m2 of ``ml_dtypes``, or its name.
        axis: one scale for each index along this axis; None for one scale in all.

    Raises:
        TypeError: a dtype is another one.
        ValueError: ``x`` holds NaN or infinity, or has no such axis.
    """
    if on_device(x):
        raise TypeError("quantize_fp8: x device: expected the CPU, got a GPU")
    x = np.asarray(x)
    storage = named_dtype(dtype)
    if storage.name not in _LARGEST:
        raise TypeError(
            f"quantize_fp8: dtype: expected float8_e4m3fn or float8_e5m2, got {storage.name}"
        )
    if x.dtype.name not in ("float16", "bfloat16", "float32", "float64"):
        raise TypeError(
            "quantize_fp8: x dtype: expected float16, bfloat16, float32 or float64, "
            f"got {x.dtype.name}"
        )
    if axis is not None and not -x.ndim <= axis < x.ndim:
        raise ValueError(f"quantize_fp8: axis value: expected one of {x.ndim} axes, got {axis}")
    kept = None if axis is None else axis % x.ndim
    others = tuple(i for i in range(x.ndim) if i != kept)
    top = np.maximum(x.max(axis=others, initial=0), -x.min(axis=others, initial=0))
    if not np.isfinite(top).all():
        found = "nan" if np.isnan(top).any() else "inf"
        raise ValueError(f"quantize_fp8: x values: expected finite numbers, got {found}")
    kind = np.float64 if x.dtype == np.float64 else np.float32
    scale = top.astype(kind) / kind(_LARGEST[storage.name])
    scale = np.where(scale < np.finfo(kind).tiny, kind(1), scale)
    return quantize_linear(x, scale, np.zeros(scale.shape, storage), kept), scale
