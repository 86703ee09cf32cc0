// elementwise family: float32 or float64 arrays of any shape and strides.
#pragma once

#include <tuple>

#include "kernels/gemm_types.h"
#include "ops/common.h"
#include "ops/float_op.h"

namespace vectile::ops {

template <class T>
using UnaryKernel = void (*)(const T* x, Out<T> y, i64 n);
template <class T>
using GradientKernel = void (*)(const T* grad, const T* v, Out<T> dx, i64 n);
template <class T>
using BinaryKernel = void (*)(Lines<T> a, Lines<T> b, Out<T> y, i64 rows, i64 n);

inline constexpr FloatOp<UnaryKernel> kUnary[] = {
    VECTILE_FLOAT_OP(exp, exp),           VECTILE_FLOAT_OP(log, log),
    VECTILE_FLOAT_OP(tanh, tanh),         VECTILE_FLOAT_OP(sigmoid, sigmoid),
    VECTILE_FLOAT_OP(erf, erf),           VECTILE_FLOAT_OP(sqrt, sqrt),
    VECTILE_FLOAT_OP(absolute, absolute), VECTILE_FLOAT_OP(negative, negative),
    VECTILE_FLOAT_OP(relu, relu),         VECTILE_FLOAT_OP(silu, silu),
    VECTILE_FLOAT_OP(softplus, softplus), VECTILE_FLOAT_OP(expm1, expm1),
    VECTILE_FLOAT_OP(log1p, log1p),
};
// Their gradients from grad and the forward's result y ...
inline constexpr FloatOp<GradientKernel> kGradientFromY[] = {
    VECTILE_FLOAT_OP(tanh_backward, tanh_backward),
    VECTILE_FLOAT_OP(sigmoid_backward, sigmoid_backward),
    VECTILE_FLOAT_OP(relu_backward, relu_backward),
};
// ... or its argument x.
inline constexpr FloatOp<GradientKernel> kGradientFromX[] = {
    VECTILE_FLOAT_OP(erf_backward, erf_backward),
    VECTILE_FLOAT_OP(silu_backward, silu_backward),
    VECTILE_FLOAT_OP(softplus_backward, softplus_backward),
};
inline constexpr FloatOp<BinaryKernel> kBinary[] = {
    VECTILE_FLOAT_OP(add, add),           VECTILE_FLOAT_OP(subtract, subtract),
    VECTILE_FLOAT_OP(multiply, multiply), VECTILE_FLOAT_OP(divide, divide),
    VECTILE_FLOAT_OP(maximum, maximum),   VECTILE_FLOAT_OP(minimum, minimum),
};
// Indexed by whether the tanh approximation is asked for.
inline constexpr FloatOp<UnaryKernel> kGelu[] = {VECTILE_FLOAT_OP(gelu, gelu),
                                                 VECTILE_FLOAT_OP(gelu, gelu_tanh)};
inline constexpr FloatOp<GradientKernel> kGeluGradient[] = {
    VECTILE_FLOAT_OP(gelu_backward, gelu_backward),
    VECTILE_FLOAT_OP(gelu_backward, gelu_tanh_backward)};

Array unary(const FloatOp<UnaryKernel>& op, const TensorView& x, const TensorView* out = nullptr);
// grad and v have one shape and dtype; `v_name` is what messages call v.
Array gradient(const FloatOp<GradientKernel>& op, const TensorView& grad, const TensorView& v,
               const char* v_name);
// x where it is positive, else slope * x.
Array leaky_relu(const TensorView& x, double slope, const TensorView* out = nullptr);
Array leaky_relu_backward(const TensorView& grad, const TensorView& x, double slope);
// x where it is positive, else weight * x: weight of shape () or (1,), or (channels,) for axis 1 of
// x.
Array prelu(const TensorView& x, const TensorView& weight, const TensorView* out = nullptr);
struct PreluGradient {
  Array dx, dweight;
  auto results() { return std::tie(dx, dweight); }
};
PreluGradient prelu_backward(const TensorView& grad, const TensorView& x, const TensorView& weight);
// NumPy broadcasting.
Array binary(const FloatOp<BinaryKernel>& op, const TensorView& a, const TensorView& b,
             const TensorView* out = nullptr);

// Zeroes elements with probability p and scales the others by 1 / (1 - p). Which ones depends on
// seed and the element's row-major position only.
Array dropout(const TensorView& x, double p, std::uint64_t seed);

// dropout(activation(x + bias), p, seed) in one pass; bias (n,) or null, where n is x's last axis.
Array bias_activation_dropout(const TensorView& x, const TensorView* bias, Activation activation,
                              double p, std::uint64_t seed);
struct BiasActivationDropoutGradient {
  Array dx, dbias;  // the latter empty (data == nullptr) without a bias
  auto results() { return std::tie(dx, dbias); }
};
BiasActivationDropoutGradient bias_activation_dropout_backward(const TensorView& grad,
                                                               const TensorView& x,
                                                               const TensorView* bias,
                                                               Activation activation, double p,
                                                               std::uint64_t seed);

}  // namespace vectile::ops
