"""One vector-Jacobian rule per op.

    rule(k, needs, g, [out,] *saved, *params) -> one gradient (or None) per operand

`g` is the gradient of the op's result; `out`, the saved operands and the parameters are what the op kept.
`needs[i] is not None` says that operand i wants a gradient. A rule speaks only through `k`: with
`k = arrays` everything is a NumPy array and the fused backward kernels run; with `k = composite` everything
is a Tensor and each call is recorded, which is how second derivatives come about. A rule returns `g`
itself, a view, or an array of its own; never one that it was given to read.
"""

# The rules are read by name and called with whatever `k` works on: annotations would say Any throughout.
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-calls=False

from __future__ import annotations

import math


def _fit(k, needs, shapes, da, db):
    """Sum what broadcasting repeated; `shapes` is None where nothing was."""
    if shapes is None:
        return da, db
    return (
        None if needs[0] is None else k.sum_to(da, shapes[0]),
        None if needs[1] is None else k.sum_to(db, shapes[1]),
    )


# ---- arithmetic ------------------------------------------------------------------------------------


def add(k, needs, g, shapes):
    return _fit(k, needs, shapes, g, g)


def subtract(k, needs, g, shapes):
    return _fit(k, needs, shapes, g, None if needs[1] is None else k.negative(g))


def multiply(k, needs, g, a, b, shapes):
    da = None if needs[0] is None else k.multiply(g, b)
    db = None if needs[1] is None else k.multiply(g, a)
    return _fit(k, needs, shapes, da, db)


def divide(k, needs, g, a, b, shapes):
    da = k.divide(g, b)
    db = None if needs[1] is None else k.negative(k.multiply(da, k.divide(a, b)))
    return _fit(k, needs, shapes, da, db)


def maximum(k, needs, g, a, b, shapes):  # a tie gives half to each; NaN reaches both
    tie = k.where(a == b, k.multiply(g, 0.5), g)
    return _fit(k, needs, shapes, k.where(a < b, 0.0, tie), k.where(a > b, 0.0, tie))


def minimum(k, needs, g, a, b, shapes):
    tie = k.where(a == b, k.multiply(g, 0.5), g)
    return _fit(k, needs, shapes, k.where(a > b, 0.0, tie), k.where(a < b, 0.0, tie))


def power(k, needs, g, a, b, shapes):
    da = db = None
    if needs[0] is not None:  # d(a^b)/da = b a^(b-1)
        if isinstance(b, (int, float)):
            da = k.multiply(g, k.multiply(k.power(a, b - 1), b)) if b else k.multiply(g, 0.0)
        else:
            da = k.multiply(g, k.multiply(b, k.power(a, k.subtract(b, 1.0))))
    if needs[1] is not None:  # d(a^b)/db = a^b log a, and 0 at a = 0
        if isinstance(a, (int, float)):
            log_a = math.log(a) if a else 0.0
        else:
            log_a = k.log(k.where(a == 0, 1.0, a))
        db = k.multiply(g, k.multiply(k.power(a, b), log_a))
    return _fit(k, needs, shapes, da, db)


def negative(k, needs, g):
    return (k.negative(g),)


def absolute(k, needs, g, x):
    return (k.where(x > 0, g, k.where(x < 0, k.negative(g), k.multiply(g, 0.0))),)


def matmul(k, needs, g, a, b):
    shapes = a.shape, b.shape
    if a.ndim == 1:
        a, g = k.expand_dims(a, 0), k.expand_dims(g, -1 if b.ndim == 1 else -2)
    if b.ndim == 1:
        b, g = k.expand_dims(b, 1), k.expand_dims(g, -1)
    da = db = None
    if needs[0] is not None:
        da = k.sum_to(k.matmul(g, k.swapaxes(b, -1, -2)), a.shape)
        da = da if da.shape == shapes[0] else k.reshape(da, shapes[0])
    if needs[1] is not None:
        if b.ndim == 2 and a.ndim > 2:  # one tall product instead of a batch of them and a sum
            a, g = k.reshape(a, (-1, a.shape[-1])), k.reshape(g, (-1, g.shape[-1]))
        db = k.sum_to(k.matmul(k.swapaxes(a, -1, -2), g), b.shape)
        db = db if db.shape == shapes[1] else k.reshape(db, shapes[1])
    return da, db


# ---- elementwise functions -------------------------------------------------------------------------


def exp(k, needs, g, out):
    return (k.multiply(g, out),)


def expm1(k, needs, g, out):
    return (k.multiply(g, k.add(out, 1.0)),)


def log(k, needs, g, x):
    return (k.divide(g, x),)


def log1p(k, needs, g, x):
    return (k.divide(g, k.add(x, 1.0)),)


def sqrt(k, needs, g, out):
    return (k.divide(k.multiply(g, 0.5), out),)


def sin(k, needs, g, x):
    return (k.multiply(g, k.cos(x)),)


def cos(k, needs, g, x):
    return (k.negative(k.multiply(g, k.sin(x))),)


def tanh(k, needs, g, out):
    return (k.tanh_backward(g, out),)


def sigmoid(k, needs, g, out):
    return (k.sigmoid_backward(g, out),)


def relu(k, needs, g, out):
    return (k.relu_backward(g, out),)


def erf(k, needs, g, x):
    return (k.erf_backward(g, x),)


def gelu(k, needs, g, x, approximate):
    return (k.gelu_backward(g, x, approximate),)


def leaky_relu(k, needs, g, x, negative_slope):
    return (k.leaky_relu_backward(g, x, negative_slope),)


def prelu(k, needs, g, x, weight):
    return k.prelu_backward(g, x, weight)


def silu(k, needs, g, x):
    return (k.silu_backward(g, x),)


def softplus(k, needs, g, x):
    return (k.softplus_backward(g, x),)


def clip(k, needs, g, x, low, high):
    g = g if low is None else k.where(x < low, 0.0, g)
    return (g if high is None else k.where(x > high, 0.0, g),)


def bias_activation_dropout(k, needs, g, x, bias, activation, p, seed):
    return k.bias_activation_dropout_backward(g, x, bias, activation, p, seed)


def dropout(k, needs, g, p, seed):  # the same seed draws the same mask
    return (k.dropout(g, p, seed),)


def astype(k, needs, g, dtype):
    return (k.cast(g, dtype),)


def to(k, needs, g, place):
    return (k.to(g, place),)


def where(k, needs, g, condition, shapes):
    da = None if needs[0] is None else k.where(condition, g, 0.0)
    db = None if needs[1] is None else k.where(condition, 0.0, g)
    return (
        None if da is None else k.sum_to(da, shapes[0]),
        None if db is None else k.sum_to(db, shapes[1]),
    )


# ---- reductions; `kept`: the result's shape with the reduced axes at length 1, where it must be restored


def sum(k, needs, g, shape, kept):
    return (k.broadcast_to(g if kept is None else k.reshape(g, kept), shape),)


def mean(k, needs, g, shape, kept):
    return sum(k, needs, k.multiply(g, g.size / max(math.prod(shape), 1)), shape, kept)


def extremum(k, needs, g, out, x, kept, axis):  # of max and min: ties share
    if kept is not None:
        g, out = k.reshape(g, kept), k.reshape(out, kept)
    hit = k.cast(x == out, x.dtype)
    return (k.multiply(hit, k.divide(g, k.sum(hit, axis, True))),)


def cumsum(k, needs, g, axis):
    return (k.flip(k.cumsum(k.flip(g, axis), axis), axis),)


def sum_to(k, needs, g, shape):
    return (k.broadcast_to(g, shape),)


# ---- moving data -------------------------------------------------------------------------------------


def broadcast_to(k, needs, g, shape):
    return (k.sum_to(g, shape),)


def reshape(k, needs, g, shape):
    return (k.reshape(g, shape),)


def transpose(k, needs, g, inverse):
    return (k.transpose(g, inverse),)


def swapaxes(k, needs, g, axis1, axis2):
    return (k.swapaxes(g, axis1, axis2),)


def flip(k, needs, g, axis):
    return (k.flip(g, axis),)


def getitem(k, needs, g, index, shape):
    return (k.getitem_backward(g, index, shape),)


def getitem_backward(k, needs, g, index, shape):
    return (k.getitem(g, index),)


def setitem(k, needs, g, index, value_shape):
    dx = None if needs[0] is None else k.setitem(g, index, 0.0)
    if needs[1] is None:
        return dx, None
    dv = k.getitem(g, index)
    extra = max(len(value_shape) - dv.ndim, 0)  # leading axes of length 1, which assignment drops
    return dx, k.reshape(k.sum_to(dv, value_shape[extra:]), value_shape)


def gather(k, needs, g, index, axis, shape):
    return (k.gather_backward(g, index, axis, shape),)


def gather_backward(k, needs, g, index, axis, shape):
    return (k.gather(g, index, axis),)


def concatenate(k, needs, g, axis, bounds):
    before = (slice(None),) * axis
    return tuple(
        None if need is None else k.getitem(g, (*before, slice(start, stop)))
        for need, start, stop in zip(needs, bounds[:-1], bounds[1:], strict=True)
    )


def stack(k, needs, g, axis):
    before = (slice(None),) * axis
    return tuple(
        None if need is None else k.getitem(g, (*before, i)) for i, need in enumerate(needs)
    )


def pad(k, needs, g, inside):
    return (k.getitem(g, inside),)


def embedding(k, needs, g, ids, rows):
    return (k.embedding_backward(g, ids, rows),)


def embedding_backward(k, needs, g, ids, rows):
    return (k.embedding(ids, g),)


# ---- networks ----------------------------------------------------------------------------------------


def linear(k, needs, g, x, weight):
    dx = None if needs[0] is None else k.matmul(g, weight)
    dw = db = None
    if g.ndim != 2:
        x, g = k.reshape(x, (-1, x.shape[-1])), k.reshape(g, (-1, g.shape[-1]))
    if needs[1] is not None:
        dw = k.matmul(k.swapaxes(g, 0, 1), x)
    if needs[2] is not None:
        db = k.sum(g, 0)
    return dx, dw, db


def linear_residual(k, needs, g, x, weight):
    return *linear(k, needs, g, x, weight), g


def linear_activation(k, needs, g, out, x, weight, activation):  # slope known from the result alone
    return linear(k, needs, getattr(k, activation + "_backward")(g, out), x, weight)


# A convolution, its input's and its weight's gradient: each rule is written in the other two.


def conv(k, needs, g, x, weight, settings):
    dx = None if needs[0] is None else k.conv_input_grad(g, weight, x.shape, settings)
    dw = None if needs[1] is None else k.conv_weight_grad(g, x, weight.shape, settings)
    return dx, dw, None if needs[2] is None else _channel_sum(k, g, settings)


def conv_input_grad(k, needs, g, grad, weight, settings):  # also the transposed convolution
    dg = None if needs[0] is None else k.conv(g, weight, settings)
    dw = None if needs[1] is None else k.conv_weight_grad(grad, g, weight.shape, settings)
    return dg, dw, None if needs[2] is None else _channel_sum(k, g, settings)


def conv_weight_grad(k, needs, g, grad, x, settings):
    dg = None if needs[0] is None else k.conv(x, g, settings)
    return dg, None if needs[1] is None else k.conv_input_grad(grad, g, x.shape, settings)


def _channel_sum(k, g, settings):
    channel = g.ndim - len(settings.stride) - 1
    return k.sum(g, tuple(axis for axis in range(g.ndim) if axis != channel))


def conv_activation(k, needs, g, out, x, weight, settings, activation):
    return conv(k, needs, getattr(k, activation + "_backward")(g, out), x, weight, settings)


def conv_transpose_activation(k, needs, g, out, x, weight, settings, activation):
    g = getattr(k, activation + "_backward")(g, out)
    return conv_input_grad(k, needs, g, x, weight, settings)


def softmax(k, needs, g, out, axis):
    return (k.softmax_backward(g, out, axis),)


def log_softmax(k, needs, g, out, axis):
    return (k.log_softmax_backward(g, out, axis),)


def layer_norm(k, needs, g, x, weight, *stats):  # stats: mean, rstd, eps
    dx, dw, db = k.layer_norm_backward(g, x, weight, *stats)
    if db is None and needs[2] is not None:  # the kernel gives it only beside a weight
        db = k.sum_to(g, x.shape[-1:])
    return dx, dw, db


def rms_norm(k, needs, g, x, weight, *stats):  # stats: rstd, eps
    return k.rms_norm_backward(g, x, weight, *stats)


def batch_norm(k, needs, g, x, weight, *settings):  # mean, rstd, training, eps
    return k.batch_norm_backward(g, x, weight, *settings)


def group_norm(k, needs, g, x, weight, *settings):  # num_groups, mean, rstd, eps
    return k.group_norm_backward(g, x, weight, *settings)


def max_pool(k, needs, g, index, size):
    return (k.max_pool_backward(g, index, size),)


def max_pool_backward(k, needs, g, index, size):
    return (k.pick_pooled(g, index, size),)


def avg_pool(k, needs, g, size, *windows):
    return (k.avg_pool_backward(g, size, *windows),)


def avg_pool_backward(k, needs, g, *windows):
    return (k.avg_pool(g, *windows),)


def adaptive_avg_pool(k, needs, g, size):
    return (k.adaptive_avg_pool_backward(g, size),)


def adaptive_avg_pool_backward(k, needs, g, size):
    return (k.adaptive_avg_pool(g, size),)


def interpolate(k, needs, g, size, *settings):
    return (k.interpolate_backward(g, size, *settings),)


def interpolate_backward(k, needs, g, size, *settings):
    return (k.interpolate(g, size, *settings),)


def mean_squared_error(k, needs, g, x, target):
    dx = k.multiply(k.subtract(x, target), k.multiply(g, 2.0 / (x.size or 1)))
    return dx, None if needs[1] is None else k.negative(dx)


def binary_cross_entropy(k, needs, g, x, target):  # elementwise; the bound is PyTorch's
    variance = k.maximum(k.multiply(x, k.subtract(1.0, x)), 1e-12)
    dx = k.multiply(g, k.divide(k.subtract(x, target), variance))
    if needs[1] is None:
        return dx, None
    return dx, k.multiply(g, k.subtract(k.log1p(k.negative(x)), k.log(x)))


def cross_entropy(k, needs, g, logits, *settings):
    return (k.cross_entropy_backward(g, logits, *settings),)


def scaled_dot_product_attention(k, needs, g, out, q, key, value, sinks, *settings):
    return k.scaled_dot_product_attention_backward(g, q, key, value, sinks, out, *settings)


def rotary_embedding(k, needs, g, cosine, sine, interleaved, inverse):
    return (k.rotary_embedding(g, cosine, sine, interleaved, not inverse),)


def recurrent(k, needs, g, out, x, h0, c0, w_ih, w_hh, b_ih, b_hh, cell, reverse, lengths, *kept):
    wanted = needs[0] is not None, any(need is not None for need in needs[3:])
    operands = x, h0, c0, w_ih, w_hh, b_ih, b_hh
    return k.recurrent_backward(cell, g, out, kept, operands, reverse, lengths, *wanted)
