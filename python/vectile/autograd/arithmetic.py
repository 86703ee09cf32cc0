"""Arithmetic, elementwise functions and reductions of Tensors."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import DTypeLike

from vectile import device, ops
from vectile.autograd import arrays, rules
from vectile.autograd.tape import mode
from vectile.autograd.tensor import (
    Tensor,
    TensorLike,
    array_of,
    as_tensor,
    check_view,
    constant,
    edge,
    is_float,
    join_dtypes,
    track,
    wrap,
)
from vectile.device import as_array, beside, is_array, near
from vectile.runtime import is_half, named_dtype

__all__ = [
    "absolute",
    "add",
    "argmax",
    "argmin",
    "astype",
    "cast",
    "clip",
    "compare",
    "copy",
    "cos",
    "cumsum",
    "divide",
    "erf",
    "exp",
    "expm1",
    "gelu",
    "leaky_relu",
    "log",
    "log1p",
    "logsumexp",
    "matmul",
    "max",
    "maximum",
    "mean",
    "min",
    "minimum",
    "multiply",
    "negative",
    "power",
    "prelu",
    "relu",
    "sigmoid",
    "silu",
    "sin",
    "softplus",
    "sqrt",
    "std",
    "subtract",
    "sum",
    "sum_to",
    "tanh",
    "to",
    "var",
    "where",
]

Axis = int | tuple[int, ...] | None
Rule = Callable[..., Any]


class Reduction(Protocol):
    """The signature of `sum` and its like."""

    def __call__(self, x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor: ...


# ---- two operands --------------------------------------------------------------------------------------


def _binary(
    name: str, doc: str, keep: bool = True, keep_a: bool = False, keep_b: bool = False
) -> Callable[[TensorLike, TensorLike], Tensor]:
    """The op `name` of two broadcast operands.

    Its rule gets back nothing unless `keep`, and else each operand that the other's gradient needs
    (`keep_a`, `keep_b`: that its own needs, too).
    """
    kernel, rule = getattr(arrays, name), getattr(rules, name)

    def op(a: Any, b: Any) -> Tensor:
        if isinstance(a, Tensor):
            x, to_a = a._data, (a._node or a) if a.requires_grad else None
            if a._base is not None:
                check_view(a)
        else:
            x, to_a = a, None
        if isinstance(b, Tensor):
            y, to_b = b._data, (b._node or b) if b.requires_grad else None
            if b._base is not None:
                check_view(b)
        else:
            y, to_b = b, None
        try:
            data = kernel(x, y)
        except TypeError:
            return _mixed(op, name, a, b)
        if (to_a is None and to_b is None) or not mode.enabled:
            return wrap(data)
        params = _SAME
        shape_a, shape_b = getattr(x, "shape", None), getattr(y, "shape", None)
        if shape_a is not None and shape_b is not None and shape_a != shape_b:
            params = ((shape_a, shape_b),)
        if not keep:
            return track(data, rule, (to_a, to_b), (), params)
        a = a if keep_a or to_b is not None else None
        b = b if keep_b or to_a is not None else None
        return track(data, rule, (to_a, to_b), (a, b), params)

    op.__name__ = op.__qualname__ = name
    op.__doc__ = doc
    return op


_SAME: tuple[Any, ...] = (None,)  # the parameters of a binary op that broadcast nothing


def _mixed(op: Any, name: str, a: Any, b: Any) -> Tensor:
    """What `op` does when its kernel refused the operands: join their dtypes, or leave it to NumPy."""
    x, y = (v if is_float(array_of(v)) else _operand(v, u) for v, u in ((a, b), (b, a)))
    if not (is_float(array_of(x)) or is_float(array_of(y))):
        return wrap(as_array(getattr(np, name)(x, y)))
    joined = join_dtypes(name, [x, y])
    if joined[0] is a and joined[1] is b:
        getattr(arrays, name)(array_of(a), array_of(b))  # raises what it raised before
    return op(*joined)  # type: ignore[no-any-return]


def _operand(v: Any, other: Any) -> Any:
    """`v` as an array; where `other` is if it is a number or a list."""
    array = as_tensor(v)._data
    return array if is_array(array_of(v)) else near(array, array_of(other))


add = _binary("add", "``a + b``, broadcast.", keep=False)
subtract = _binary("subtract", "``a - b``, broadcast.", keep=False)
multiply = _binary("multiply", "``a * b``, broadcast.")
divide = _binary("divide", "``a / b``, broadcast.", keep_b=True)
maximum = _binary("maximum", "The larger of a and b; NaN if either is.", keep_a=True, keep_b=True)
minimum = _binary("minimum", "The smaller of a and b; NaN if either is.", keep_a=True, keep_b=True)
power = _binary("power", "``a ** b``, broadcast.", keep_a=True, keep_b=True)


def matmul(a: TensorLike, b: TensorLike) -> Tensor:
    """``np.matmul``: batches broadcast, a 1-D operand is a row (left) or a column (right)."""
    a, b = as_tensor(a), as_tensor(b)
    data = ops.matmul(a._data, b._data)
    if not (a.requires_grad or b.requires_grad) or not mode.enabled:
        return wrap(data)
    return track(data, rules.matmul, (edge(a), edge(b)), (a, b))


def compare(name: str, *operands: Any) -> Tensor:
    """The NumPy ufunc `name` as a Tensor without history: comparisons and bitwise logic."""
    return wrap(as_array(getattr(np, name)(*map(array_of, operands))))


# ---- one operand ---------------------------------------------------------------------------------------


def _unary(
    name: str, doc: str, kernel: Callable[..., Any] | None = None, from_result: bool = False
) -> Callable[[TensorLike], Tensor]:
    """The elementwise op `name`, whose rule needs the operand or, if `from_result`, the result."""
    function, rule = kernel or getattr(ops, name), getattr(rules, name)

    def op(x: TensorLike) -> Tensor:
        t = x if isinstance(x, Tensor) else as_tensor(x)
        data = function(t._data)
        if not t.requires_grad or not mode.enabled:
            return wrap(data)
        if from_result:
            return track(data, rule, (edge(t),), (), (), data)
        return track(data, rule, (edge(t),), (t,))

    op.__name__ = op.__qualname__ = name
    op.__doc__ = doc
    return op


absolute = _unary("absolute", "``|x|``; its slope at 0 is 0.")
exp = _unary("exp", "``e**x``.", from_result=True)
expm1 = _unary("expm1", "``e**x - 1``, accurate near 0.", from_result=True)
log = _unary("log", "The natural logarithm.")
log1p = _unary("log1p", "``log(1 + x)``, accurate near 0.")
sqrt = _unary("sqrt", "The square root.", from_result=True)
sin = _unary("sin", "The sine of x in radians.", np.sin)
cos = _unary("cos", "The cosine of x in radians.", np.cos)
tanh = _unary("tanh", "The hyperbolic tangent.", from_result=True)
sigmoid = _unary("sigmoid", "``1 / (1 + exp(-x))``.", from_result=True)
erf = _unary("erf", "The error function.")
relu = _unary("relu", "``max(x, 0)``; its slope at 0 is 0.", from_result=True)
silu = _unary("silu", "``x * sigmoid(x)``.")
softplus = _unary("softplus", "``log(1 + exp(x))``.")


def negative(x: TensorLike) -> Tensor:
    """``-x``."""
    t = as_tensor(x)
    data = ops.negative(t._data) if is_float(t._data) else as_array(np.negative(t._data))
    if not t.requires_grad or not mode.enabled:
        return wrap(data)
    return track(data, rules.negative, (edge(t),))


def leaky_relu(x: TensorLike, negative_slope: float = 0.01) -> Tensor:
    """x where it is positive, else ``negative_slope * x``; that is also its slope at 0."""
    t = as_tensor(x)
    data = ops.leaky_relu(t._data, negative_slope)
    if not t.requires_grad or not mode.enabled:
        return wrap(data)
    return track(data, rules.leaky_relu, (edge(t),), (t,), (negative_slope,))


def prelu(x: TensorLike, weight: TensorLike) -> Tensor:
    """x where it is positive, else ``weight * x``: weight of one element, or (channels,) for x's axis 1."""
    t, w = as_tensor(x), as_tensor(weight)
    data = ops.prelu(t._data, w._data)
    if not (t.requires_grad or w.requires_grad) or not mode.enabled:
        return wrap(data)
    return track(data, rules.prelu, (edge(t), edge(w)), (t, w))


def gelu(x: TensorLike, approximate: Literal["none", "tanh"] = "none") -> Tensor:
    """``x * Phi(x)`` (Hendrycks & Gimpel, arXiv 1606.08415); `approximate`: "none" or "tanh"."""
    t = as_tensor(x)
    data = ops.gelu(t._data, approximate)
    if not t.requires_grad or not mode.enabled:
        return wrap(data)
    return track(data, rules.gelu, (edge(t),), (t,), (approximate,))


def clip(x: TensorLike, low: float | None = None, high: float | None = None) -> Tensor:
    """x held between two scalars; None leaves that side open. The slope is 1 at the bounds."""
    t = as_tensor(x)
    low, high = arrays.weak(low), arrays.weak(high)
    data, kind = as_array(np.clip(t._data, low, high)), t._data.dtype
    if is_half(kind):  # NumPy clips bfloat16 in float32
        data = data.astype(kind, copy=False)
    if not t.requires_grad or not mode.enabled:
        return wrap(data)
    return track(data, rules.clip, (edge(t),), (t,), (low, high))


def cast(x: TensorLike, dtype: DTypeLike) -> Tensor:
    """x in another dtype, always a copy; between floating-point dtypes it carries gradients."""
    t = as_tensor(x)
    data = arrays.cast(t._data, dtype)
    if not t.requires_grad or not mode.enabled or not is_float(data):
        return wrap(data)
    return track(data, rules.astype, (edge(t),), (), (t._data.dtype,))


def astype(x: TensorLike, dtype: DTypeLike) -> Tensor:
    """x in another dtype; x itself if it has that already."""
    t, kind = as_tensor(x), named_dtype(dtype)
    return t if t._data.dtype == kind else cast(t, kind)


def to(x: TensorLike, place: str) -> Tensor:
    """x in the memory of "cpu", "cuda" or "cuda:1"; x itself if it is there already."""
    t = as_tensor(x)
    data = device.to(t._data, place)
    if data is t._data:
        return t
    if not t.requires_grad or not mode.enabled:
        return wrap(data)
    return track(data, rules.to, (edge(t),), (), (device.place_of(t._data),))


def copy(x: TensorLike) -> Tensor:
    """x in memory of its own, with its history."""
    t = as_tensor(x)
    return cast(t, t._data.dtype)


def where(condition: TensorLike, a: TensorLike, b: TensorLike) -> Tensor:
    """a where `condition`, else b; all three broadcast. No gradient reaches what was not chosen."""
    x, y = map(array_of, join_dtypes("where", [a, b]))
    chosen = beside(array_of(condition), x if is_array(x) else y, bool)
    data = np.where(chosen, x, y)
    to_a = edge(a) if isinstance(a, Tensor) else None
    to_b = edge(b) if isinstance(b, Tensor) else None
    if (to_a is None and to_b is None) or not mode.enabled:
        return wrap(data)
    shapes = np.shape(x), np.shape(y)
    return track(data, rules.where, (to_a, to_b), (), (constant(chosen), shapes))


# ---- reductions ----------------------------------------------------------------------------------------


def _kept(shape: tuple[int, ...], axis: Axis, keepdims: bool) -> tuple[int, ...] | None:
    """`shape` with the reduced axes at length 1, or None where the result broadcasts as it is."""
    if keepdims or axis is None:
        return None
    axes = axis if isinstance(axis, tuple) else (axis,)
    kept = list(shape)
    for a in axes:
        kept[a] = 1
    return tuple(kept)


def _reduction(name: str, doc: str, rule: Rule, extremum: bool) -> Reduction:
    kernel, fallback = getattr(ops, name), getattr(np, name)

    def op(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
        t = x if isinstance(x, Tensor) else as_tensor(x)
        data = t._data
        if not is_float(data):
            return wrap(as_array(fallback(data, axis=axis, keepdims=keepdims)))
        out = kernel(data, axis, keepdims)
        if not t.requires_grad or not mode.enabled:
            return wrap(out)
        kept = _kept(data.shape, axis, keepdims)
        if extremum:
            return track(out, rule, (edge(t),), (t,), (kept, axis), out)
        return track(out, rule, (edge(t),), (), (data.shape, kept))

    op.__name__ = op.__qualname__ = name
    op.__doc__ = doc
    return op


sum = _reduction("sum", "The sum over `axis` (None: all; an int or a tuple).", rules.sum, False)
mean = _reduction("mean", "The mean over `axis` (None: all).", rules.mean, False)
max = _reduction("max", "The largest over `axis`; ties share the gradient.", rules.extremum, True)
min = _reduction("min", "The smallest over `axis`; ties share the gradient.", rules.extremum, True)


def var(x: TensorLike, axis: Axis = None, ddof: int = 0, keepdims: bool = False) -> Tensor:
    """The variance over `axis`: the centred squares summed and divided by their number less `ddof`."""
    t = as_tensor(x)
    squares = power(subtract(t, mean(t, axis, True)), 2)
    total = sum(squares, axis, keepdims)
    return divide(total, float(squares._data.size // builtins.max(total._data.size, 1) - ddof))


def std(x: TensorLike, axis: Axis = None, ddof: int = 0, keepdims: bool = False) -> Tensor:
    """The square root of `var`."""
    return sqrt(var(x, axis, ddof, keepdims))


def logsumexp(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """``log(sum(exp(x)))`` over `axis` without overflow."""
    t = as_tensor(x)
    top = max(t.detach(), axis, True)
    top = where(np.isfinite(top._data), top, 0.0)
    total = log(sum(exp(subtract(t, top)), axis, keepdims))
    return add(total, top.reshape(total.shape))


def cumsum(x: TensorLike, axis: int) -> Tensor:
    """The running sum along `axis`."""
    t = as_tensor(x)
    data = arrays.cumsum(t._data, axis)
    if not t.requires_grad or not mode.enabled:
        return wrap(data)
    return track(data, rules.cumsum, (edge(t),), (), (axis,))


def sum_to(x: TensorLike, shape: tuple[int, ...]) -> Tensor:
    """x summed down to `shape`, from which it could have been broadcast."""
    t = as_tensor(x)
    if t._data.shape == shape:
        return t
    data = ops.sum_to(t._data, shape)
    if not t.requires_grad or not mode.enabled:
        return wrap(data)
    return track(data, rules.sum_to, (edge(t),), (), (t._data.shape,))


def argmax(x: TensorLike, axis: int | None = None) -> Tensor:
    """Where the largest is along `axis` (None: in the flattened array); no gradient."""
    return wrap(as_array(np.argmax(array_of(x), axis)))


def argmin(x: TensorLike, axis: int | None = None) -> Tensor:
    """Where the smallest is along `axis` (None: in the flattened array); no gradient."""
    return wrap(as_array(np.argmin(array_of(x), axis)))
