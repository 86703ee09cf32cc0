"""Exact products of 8-bit integers, and weights quantised for :func:`vectile.ops.linear`."""

from __future__ import annotations

from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from vectile import _core
from vectile._core import Int4Matrix, QuantizedMatrix
from vectile.device import number, on_device
from vectile.ops.device_matrix import DeviceMatrix, quantize
from vectile.ops.gemm import Activation
from vectile.ops.gemm_f8 import Float8Matrix, quantize_fp8

__all__ = [
    "DeviceMatrix",
    "QuantizedMatrix",
    "matmul_integer",
    "qlinear_matmul",
    "quantize_weight",
    "quantized_linear",
]


def matmul_integer(
    a: ArrayLike,
    b: ArrayLike,
    a_zero_point: ArrayLike | None = None,
    b_zero_point: ArrayLike | None = None,
) -> NDArray[np.int32]:
    """Return ``(a - a_zero_point) @ (b - b_zero_point)`` in int32, as ONNX's MatMulInteger.

    Exact on every instruction set as long as the true result fits (else modulo 2**32).

    Args:
        a: (..., m, k) or (k,), int8 or uint8, any strides.
        b: (..., k, n) or (k,), int8 or uint8; batch dimensions broadcast.
        a_zero_point: an integer, or (m,); values of the dtype of ``a``.
        b_zero_point: an integer, or (n,); values of the dtype of ``b``.

    Raises:
        TypeError: an operand is not int8 or uint8, or a zero point is not of an integer type.
        ValueError: shapes do not match, or a zero point is out of range.
    """
    return _core.matmul_integer(a, b, number(a_zero_point, a), number(b_zero_point, a))


def qlinear_matmul(
    a: ArrayLike,
    a_scale: ArrayLike,
    a_zero_point: ArrayLike,
    b: ArrayLike,
    b_scale: ArrayLike,
    b_zero_point: ArrayLike,
    y_scale: ArrayLike,
    y_zero_point: ArrayLike,
) -> NDArray[Any]:
    """Return the product of two quantised matrices, quantised again, as ONNX's QLinearMatMul.

    ``y = saturate(round(c * (a_scale * (b_scale / y_scale))) + y_zero_point)`` in float32, half to
    even, with ``c`` the exact product of :func:`matmul_integer`. The dtype of ``y`` is that of
    ``y_zero_point``, an int8 or uint8 scalar or array of one element.

    Args:
        a, a_zero_point, b, b_zero_point: as in :func:`matmul_integer`.
        a_scale: a float, or (m,).
        b_scale: a float, or (n,).
        y_scale, y_zero_point: scalars.

    Raises:
        TypeError: a dtype is wrong.
        ValueError: shapes do not match, or a zero point is out of range.
    """
    return _core.qlinear_matmul(
        a,
        number(a_scale, a),
        number(a_zero_point, a),
        b,
        number(b_scale, a),
        number(b_zero_point, a),
        number(y_scale, a),
        number(y_zero_point, a),
    )


@overload
def quantize_weight(
    weight: ArrayLike, bits: Literal[8] = 8, *, symmetric: bool = True, per_channel: bool = True
) -> QuantizedMatrix: ...
@overload
def quantize_weight(
    weight: ArrayLike, bits: Literal[4], *, group_size: int = 128, symmetric: bool = True
) -> Int4Matrix: ...
@overload
def quantize_weight(
    weight: ArrayLike, bits: Literal[8] = 8, *, dtype: DTypeLike
) -> Float8Matrix: ...
def quantize_weight(
    weight: ArrayLike,
    bits: int = 8,
    *,
    group_size: int | None = None,
    symmetric: bool = True,
    per_channel: bool = True,
    dtype: DTypeLike | None = None,
) -> QuantizedMatrix | Int4Matrix | Float8Matrix | DeviceMatrix:
    """Return ``weight`` (out, in) as integers ``q``, ``w ~ scale * (q - zero_point)``, for :func:`linear`.

    Args:
        weight: (out, in), float32 or float64.
        bits: 8, or 4 for an :class:`Int4Matrix`.
        group_size: with 4 bits, how many neighbours along ``in`` share a scale (and zero point): 32, 64
            or 128, the default; a row's last group may be shorter.
        symmetric: 8 bits: ``scale = max|w| / 127`` and no zero point; else
            ``scale = (max(w, 0) - min(w, 0)) / 255`` and the int8 zero point that makes that range fit.
            4 bits: q in -8..7 and ``scale = max(max(w) / 7, -min(w) / 8)``; else q in 0..15, a zero
            point, and ``scale = (max(w, 0) - min(w, 0)) / 15``. The scale of zeros is 1.
        per_channel: with 8 bits, a scale (and zero point) for each row; else one for the whole matrix.
        dtype: "float8_e4m3fn" or "float8_e5m2" for a :class:`Float8Matrix`: ``q`` is floating point with a
            scale per row, as :func:`quantize_fp8` says, and ``linear`` adds float rounding only.

    With integers ``|w - scale * (q - zero_point)| <= scale / 2``.

    ``linear(x, result)`` quantises ``x`` to 8 bits, exact products follow. With a weight in 8 bits each row
    of ``x`` has its own range (which includes zero), ``step = (max(x, 0) - min(x, 0)) / 255``;
    :func:`quantized_linear` has other ways. With one in 4 bits each of the weight's groups has,
    ``step = max|x| / 127``. With ``W = result.dequantize()`` the error is

        |linear(x, result) - x @ W.T| <= step / 2 * sum(|W|, axis=1)

    up to float rounding, with 4 bits the sum of that over groups. The result keeps the kernels of the
    instruction set in use when it was made. For a weight on a GPU it is a :class:`DeviceMatrix`; there
    ``linear`` beside 4 bits takes ``x`` as it is.

    Raises:
        TypeError: ``weight`` is not float32 or float64.
        ValueError: ``weight`` is not 2-D or holds NaN or infinity, or an option has another value.
    """
    if dtype is not None:
        if (bits, group_size, symmetric, per_channel) != (8, None, True, True):
            raise ValueError("quantize_weight: dtype value: expected None beside other options")
        if np.ndim(weight) != 2:
            raise ValueError(f"quantize_weight: weight ndim: expected 2, got {np.ndim(weight)}")
        return Float8Matrix(*quantize_fp8(weight, dtype, axis=0))
    if bits == 4:
        if not per_channel:
            raise ValueError(
                "quantize_weight: per_channel value: expected True with 4 bits, got False"
            )
        group = 128 if group_size is None else group_size
        if on_device(weight):
            return quantize(weight, symmetric, group=group)
        return _core.quantize_weight_4bit(weight, group, symmetric)
    if bits != 8:
        raise ValueError(f"quantize_weight: bits value: expected 4 or 8, got {bits}")
    if group_size is not None:
        raise ValueError(
            f"quantize_weight: group_size value: expected None with 8 bits, got {group_size}"
        )
    if on_device(weight):
        return quantize(weight, symmetric, per_channel)
    return _core.quantize_weight(weight, symmetric=symmetric, per_channel=per_channel)


def quantized_linear(
    x: ArrayLike,
    weight: QuantizedMatrix | DeviceMatrix,
    bias: ArrayLike | None = None,
    *,
    activation: Activation | None = None,
    x_scale: ArrayLike | None = None,
    x_zero_point: ArrayLike | None = None,
    symmetric: bool = False,
) -> NDArray[Any]:
    """Return ``activation(x @ W.T + bias)`` with ``x`` quantised to 8 bits as the arguments say.

    The product of the integers is exact; its terms are those of ONNX's QuantizeLinear and
    MatMulInteger, ``q = saturate(round(x / scale) + zero_point)``.

    Args:
        x: (..., in), of the dtype of ``weight``; beside float32 also a half type, and so is the result.
        weight: (out, in), from :func:`quantize_weight`.
        bias: (out,).
        activation: as in :func:`linear`.
        x_scale: a positive scalar, one step for all of ``x``, from a calibration; values beyond the 8-bit
            range saturate. None: each row gets its own step from its values.
        x_zero_point: with ``x_scale``, a uint8 or int8 scalar; the middle of the range (128, 0) if None.
        symmetric: without ``x_scale``: ``step = max|x| / 127`` of each row, instead of
            ``(max(x, 0) - min(x, 0)) / 255`` with a zero point.

    With ``W = weight.dequantize()`` the error is that of :func:`quantize_weight` with the step in use, where
    nothing saturates.

    Raises:
        TypeError: a dtype is wrong.
        ValueError: shapes do not match, ``x_scale`` is not positive and finite, or ``x_zero_point`` comes
            without it or, if ``symmetric``, off the middle.
    """
    if isinstance(weight, DeviceMatrix):
        ranges = {"x_scale": number(x_scale, x), "x_zero_point": number(x_zero_point, x)}
        options = {"activation": activation, "symmetric": symmetric, **ranges}
        y: NDArray[Any] = weight.linear("quantized_linear", x, bias, **options)
        return y
    return _core.quantized_linear(
        x,
        weight,
        bias,
        activation=activation,
        x_scale=x_scale,
        x_zero_point=x_zero_point,
        symmetric=symmetric,
    )
