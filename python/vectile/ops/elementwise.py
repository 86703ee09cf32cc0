"""Elementwise functions, their gradients, broadcasting arithmetic and dropout.

Arguments are floating-point arrays of any shape and strides. ``out``, where it is taken, has the
result's shape and dtype; it is written and returned, and may be or overlap an argument. Two-operand
functions broadcast as NumPy does, and a Python or NumPy scalar takes the dtype of the array beside
it. Errors: TypeError for another dtype or two dtypes in one call, ValueError for shapes and values.
Bounds in ulp are for float32, over all its 2**32 values; float64 is libm's.
"""

from __future__ import annotations

from typing import Any, Literal

from numpy.typing import ArrayLike, NDArray

from vectile import _core

__all__ = [
    "absolute",
    "add",
    "bias_activation_dropout",
    "bias_activation_dropout_backward",
    "divide",
    "dropout",
    "erf",
    "erf_backward",
    "exp",
    "expm1",
    "gelu",
    "gelu_backward",
    "leaky_relu",
    "leaky_relu_backward",
    "log",
    "log1p",
    "maximum",
    "minimum",
    "multiply",
    "negative",
    "prelu",
    "prelu_backward",
    "relu",
    "relu_backward",
    "sigmoid",
    "sigmoid_backward",
    "silu",
    "silu_backward",
    "softplus",
    "softplus_backward",
    "sqrt",
    "subtract",
    "tanh",
    "tanh_backward",
]


def exp(x: ArrayLike, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Return e**x, within 1 ulp."""
    return _core.exp(x, out)


def expm1(x: ArrayLike, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Return e**x - 1, within 2 ulp, also where x is tiny."""
    return _core.expm1(x, out)


def log(x: ArrayLike, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Return the natural logarithm, within 2 ulp; -inf at 0 and NaN below."""
    return _core.log(x, out)


def log1p(x: ArrayLike, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Return log(1 + x), within 2 ulp, also where x is tiny; -inf at -1 and NaN below."""
    return _core.log1p(x, out)


def tanh(x: ArrayLike, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Return the hyperbolic tangent, within 2 ulp."""
    return _core.tanh(x, out)


def sigmoid(x: ArrayLike, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Return 1 / (1 + exp(-x)), within 2 ulp, also where the result is tiny."""
    return _core.sigmoid(x, out)


def erf(x: ArrayLike, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Return the error function, 2 / sqrt(pi) times the integral of exp(-t**2) from 0 to x, within 2 ulp."""
    return _core.erf(x, out)


def sqrt(x: ArrayLike, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Return the correctly rounded square root; NaN below 0."""
    return _core.sqrt(x, out)


def absolute(x: ArrayLike, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Return |x|."""
    return _core.absolute(x, out)


def negative(x: ArrayLike, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Return -x."""
    return _core.negative(x, out)


def relu(x: ArrayLike, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Return max(x, 0); NaN stays NaN."""
    return _core.relu(x, out)


def silu(x: ArrayLike, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Return x * sigmoid(x) (Elfwing et al., arXiv 1702.03118); -0 at -inf."""
    return _core.silu(x, out)


def softplus(x: ArrayLike, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Return log(1 + exp(x)), computed as max(x, 0) + log1p(exp(-|x|)), within 2 ulp."""
    return _core.softplus(x, out)


def gelu(
    x: ArrayLike,
    approximate: Literal["none", "tanh"] = "none",
    *,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Return the Gaussian error linear unit, x * P(X <= x) for a standard normal X.

    ``approximate="tanh"`` gives 0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3))) instead
    (Hendrycks and Gimpel, arXiv 1606.08415). The absolute error is at most 2**-22 * |x| in float32.
    """
    return _GELU[_variant("gelu", approximate)](x, out)


def leaky_relu(
    x: ArrayLike, negative_slope: float = 0.01, *, out: NDArray[Any] | None = None
) -> NDArray[Any]:
    """Return x where it is positive, else ``negative_slope * x`` (Maas et al., 2013)."""
    return _core.leaky_relu(x, negative_slope, out)


def prelu(x: ArrayLike, weight: ArrayLike, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Return x where it is positive, else ``weight * x`` (He et al., arXiv 1502.01852).

    ``weight`` is one number, () or (1,), or one for each place on axis 1 of x, (channels,); an x of fewer
    than two axes has one channel.
    """
    return _core.prelu(x, weight, out)


def tanh_backward(grad: ArrayLike, y: ArrayLike) -> NDArray[Any]:
    """Return ``grad * (1 - y**2)`` with ``y = tanh(x)``."""
    return _core.tanh_backward(grad, y)


def sigmoid_backward(grad: ArrayLike, y: ArrayLike) -> NDArray[Any]:
    """Return ``grad * y * (1 - y)`` with ``y = sigmoid(x)``."""
    return _core.sigmoid_backward(grad, y)


def relu_backward(grad: ArrayLike, y: ArrayLike) -> NDArray[Any]:
    """Return ``grad`` where ``y = relu(x)`` is positive, else 0."""
    return _core.relu_backward(grad, y)


def erf_backward(grad: ArrayLike, x: ArrayLike) -> NDArray[Any]:
    """Return ``grad * 2 / sqrt(pi) * exp(-x**2)``."""
    return _core.erf_backward(grad, x)


def silu_backward(grad: ArrayLike, x: ArrayLike) -> NDArray[Any]:
    """Return ``grad`` times the derivative of :func:`silu` at ``x``."""
    return _core.silu_backward(grad, x)


def softplus_backward(grad: ArrayLike, x: ArrayLike) -> NDArray[Any]:
    """Return ``grad * sigmoid(x)``."""
    return _core.softplus_backward(grad, x)


def gelu_backward(
    grad: ArrayLike, x: ArrayLike, approximate: Literal["none", "tanh"] = "none"
) -> NDArray[Any]:
    """Return ``grad`` times the derivative of :func:`gelu` at ``x``."""
    return _GELU_BACKWARD[_variant("gelu_backward", approximate)](grad, x)


def leaky_relu_backward(
    grad: ArrayLike, x: ArrayLike, negative_slope: float = 0.01
) -> NDArray[Any]:
    """Return ``grad`` where ``x`` is positive, else ``negative_slope * grad``."""
    return _core.leaky_relu_backward(grad, x, negative_slope)


def prelu_backward(
    grad: ArrayLike, x: ArrayLike, weight: ArrayLike
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the gradients of :func:`prelu` for ``x`` and ``weight``, in one pass."""
    return _core.prelu_backward(grad, x, weight)


def add(a: ArrayLike, b: ArrayLike, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Return a + b."""
    return _core.add(a, b, out)


def subtract(a: ArrayLike, b: ArrayLike, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Return a - b."""
    return _core.subtract(a, b, out)


def multiply(a: ArrayLike, b: ArrayLike, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Return a * b."""
    return _core.multiply(a, b, out)


def divide(a: ArrayLike, b: ArrayLike, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Return a / b; a zero divisor gives inf or NaN without a warning."""
    return _core.divide(a, b, out)


def maximum(a: ArrayLike, b: ArrayLike, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Return the larger of a and b; NaN where either is."""
    return _core.maximum(a, b, out)


def minimum(a: ArrayLike, b: ArrayLike, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Return the smaller of a and b; NaN where either is."""
    return _core.minimum(a, b, out)


def dropout(x: ArrayLike, p: float, seed: int) -> NDArray[Any]:
    """Zero each element with probability ``p`` and scale the others by ``1 / (1 - p)``.

    Element i (row-major) is dropped when its 32-bit random number is below ``p * 2**32``. The
    numbers come from the counter-based generator Philox4x32-10 (Salmon et al., SC'11) keyed by
    ``seed``, so the mask depends on ``seed`` and position only, and the gradient is the same call
    on ``grad``.

    Raises:
        ValueError: ``p`` is outside [0, 1] or ``seed`` outside [0, 2**64).
    """
    return _core.dropout(x, p, seed)


def bias_activation_dropout(
    x: ArrayLike,
    bias: ArrayLike | None = None,
    activation: str | None = None,
    p: float = 0.0,
    seed: int = 0,
) -> NDArray[Any]:
    """Return ``dropout(activation(x + bias), p, seed)`` in one pass over memory.

    Args:
        x: floating, shape (..., n).
        bias: shape (n,), the dtype of ``x``; None means zeros.
        activation: None, "relu", "gelu", "gelu_tanh", "silu", "tanh" or "sigmoid".
        p: as of :func:`dropout`, whose mask for ``seed`` this is.
        seed: as of :func:`dropout`.

    Raises:
        TypeError: ``x`` is not float16, bfloat16, float32 or float64, or the dtypes differ.
        ValueError: ``x`` is 0-D, ``bias`` is not of shape (n,), the activation is unknown, ``p`` is
            outside [0, 1] or ``seed`` outside [0, 2**64).
    """
    name: Any = activation  # the stub knows no None without a default
    return _core.bias_activation_dropout(x, bias, name, p, seed)


def bias_activation_dropout_backward(
    grad: ArrayLike,
    x: ArrayLike,
    bias: ArrayLike | None,
    activation: str | None,
    p: float,
    seed: int,
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Return the gradients ``(dx, dbias)`` of :func:`bias_activation_dropout`.

    ``grad`` has the shape of ``x``. Sum and mask are computed again, so the forward keeps nothing.
    ``dbias`` is None without a bias. Errors as for the forward.
    """
    name: Any = activation
    return _core.bias_activation_dropout_backward(grad, x, bias, name, p, seed)


_GELU = {"none": _core.gelu, "tanh": _core.gelu_tanh}
_GELU_BACKWARD = {"none": _core.gelu_backward, "tanh": _core.gelu_tanh_backward}


def _variant(op: str, approximate: str) -> str:
    if approximate not in _GELU:
        raise ValueError(f"{op}: approximate value: expected 'none' or 'tanh', got {approximate!r}")
    return approximate
