"""Matrix products: matmul, linear with a fused epilogue, weights packed once."""

from __future__ import annotations

from typing import Any, Literal

from numpy.typing import ArrayLike, NDArray

from vectile import _core
from vectile._core import Float8Matrix, Int4Matrix, PackedMatrix, QuantizedMatrix
from vectile.ops.device_matrix import DeviceMatrix

__all__ = ["Activation", "Compute", "PackedMatrix", "linear", "matmul", "pack"]

Activation = Literal["relu", "gelu", "gelu_tanh", "silu", "tanh", "sigmoid"]
Compute = Literal["fp16", "bf16", "tf32"]
"""Arithmetic that a product of float32, float16 or bfloat16 may use where the CPU has it and it is faster
for the product's size; elsewhere the ordinary product runs. :func:`vectile.config` says in
``arithmetic_16`` what this machine uses. The result keeps the dtype of the operands.

``"fp16"`` (AVX512-FP16) rounds the operands to float16, sums 32 products in it and these sums in
float32. Before the result is rounded to its dtype

    |error| <= (0.017 + k 2^-24) |a| @ |b| + 2^-25 (k + sum |a| + sum |b|)

with sums along k: 0.017 is 34 roundings of 2^-11, of both operands and of 32 sums; the last term is
float16's subnormals. An operand or a sum of 32 products beyond 65504 becomes infinite.

``"bf16"`` (AVX512-BF16, AMX) rounds the operands to bfloat16, where they are not that, and sums in
float32:

    |error| <= (0.0079 + k 2^-23) |a| @ |b| + 2^-126 (4 k + sum |a| + sum |b|)

without 0.0079, two roundings of 2^-8, for bfloat16 arrays; what is below 2^-126, an operand or a
sum, counts as zero.

``"tf32"`` is for arrays on a GPU, where float32 is rounded to 11 bits for either of the others too; on
the CPU it is a ValueError.
"""


def matmul(
    a: ArrayLike,
    b: ArrayLike,
    *,
    out: NDArray[Any] | None = None,
    compute: Compute | None = None,
) -> NDArray[Any]:
    """Return the matrix product with :func:`numpy.matmul`'s semantics.

    Any strides are read in place. The error of an element is at most ``k * eps * (|a| @ |b|)``; float16
    and bfloat16 are summed in float32, of which eps is, and rounded once. Products of bfloat16 arrays use
    the CPU's bfloat16 arithmetic where that is faster: its bound is that of ``compute="bf16"``
    (:data:`Compute`), and elsewhere the bits are those of float32.

    Args:
        a: (..., m, k) or (k,), floating-point.
        b: (..., k, n) or (k,), the dtype of ``a``; batch dimensions broadcast.
        out: written and returned when given; may be strided and may overlap an operand.
        compute: a faster, less exact arithmetic that may be used, one of :data:`Compute`.

    Raises:
        TypeError: a dtype is not floating-point, or they differ, or it is float64 beside ``compute``.
        ValueError: shapes do not match, or ``compute`` is unknown.
    """
    return _core.matmul(a, b, out, compute)


def linear(
    x: ArrayLike,
    weight: ArrayLike | PackedMatrix | QuantizedMatrix | Int4Matrix | Float8Matrix | DeviceMatrix,
    bias: ArrayLike | None = None,
    *,
    activation: Activation | None = None,
    residual: ArrayLike | None = None,
    compute: Compute | None = None,
) -> NDArray[Any]:
    """Return ``activation(x @ weight.T + bias) + residual``, finished while the product is in cache.

    Beside a quantised weight, whose scales are float32, ``x`` and ``residual`` may be float16 or bfloat16,
    and so is the result then; ``bias`` may be of either type.

    Args:
        x: (..., in), floating-point.
        weight: (out, in), an array of the dtype of ``x``, or the result of :func:`pack` or
            :func:`quantize_weight` from such an array.
        bias: (out,) or None.
        activation: one of :data:`Activation`, or None.
        residual: (..., out), added last, or None.
        compute: as in :func:`matmul`; beside a packed weight None or what it was packed for.

    Raises:
        TypeError: dtypes differ, or are float64 beside ``compute``.
        ValueError: shapes do not match, the activation or ``compute`` is unknown, or the weight is
            quantised or packed for another arithmetic than ``compute``.
    """
    if isinstance(weight, DeviceMatrix):
        if compute is not None:
            raise ValueError(
                f"linear: compute value: expected None beside a quantised weight, got {compute!r}"
            )
        y: NDArray[Any] = weight.linear("linear", x, bias, activation, residual)
        return y
    return _core.linear(x, weight, bias, activation, residual, compute)


def pack(weight: ArrayLike, *, compute: Compute | None = None) -> PackedMatrix:
    """Return ``weight`` (out, in) laid out for :func:`linear`, for weights that are used many times.

    The result keeps the kernels of the instruction set in use when it was packed, and float16 and
    bfloat16 as float32; or 16-bit numbers for the arithmetic that ``compute`` allows, for bfloat16 also
    without it, where this machine uses that (:data:`Compute`). Every :func:`linear` with the result then
    does, with any number of rows.

    Raises:
        TypeError: not floating-point, or float64 beside ``compute``.
        ValueError: not 2-D, or ``compute`` is unknown.
    """
    return _core.pack(weight, compute)
