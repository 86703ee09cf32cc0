"""Matrix products: matmul, linear with a fused epilogue, weights packed once."""

from __future__ import annotations

from typing import Any, Literal

from numpy.typing import ArrayLike, NDArray

from vectile import _core
from vectile._core import Float8Matrix, Int4Matrix, PackedMatrix, QuantizedMatrix

__all__ = ["Activation", "PackedMatrix", "linear", "matmul", "pack"]

Activation = Literal["relu", "gelu", "gelu_tanh", "silu", "tanh", "sigmoid"]


def matmul(a: ArrayLike, b: ArrayLike, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Return the matrix product with :func:`numpy.matmul`'s semantics.

    Any strides are read in place. The error of an element is at most ``k * eps * (|a| @ |b|)``; float16
    and bfloat16 are summed in float32, of which eps is, and rounded once.

    Args:
        a: (..., m, k) or (k,), floating-point.
        b: (..., k, n) or (k,), the dtype of ``a``; batch dimensions broadcast.
        out: written and returned when given; may be strided and may overlap an operand.

    Raises:
        TypeError: a dtype is not floating-point, or they differ.
        ValueError: shapes do not match.
    """
    return _core.matmul(a, b, out)


def linear(
    x: ArrayLike,
    weight: ArrayLike | PackedMatrix | QuantizedMatrix | Int4Matrix | Float8Matrix,
    bias: ArrayLike | None = None,
    *,
    activation: Activation | None = None,
    residual: ArrayLike | None = None,
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

    Raises:
        TypeError: dtypes differ.
        ValueError: shapes do not match, or the activation is unknown.
    """
    return _core.linear(x, weight, bias, activation, residual)


def pack(weight: ArrayLike) -> PackedMatrix:
    """Return ``weight`` (out, in) laid out for :func:`linear`, for weights that are used many times.

    The result keeps the kernels of the instruction set in use when it was packed, and float16 and
    bfloat16 as float32.
    """
    return _core.pack(weight)
