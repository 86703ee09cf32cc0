// The elementwise family on a device; see csrc/ops/elementwise.h, whose names and checks these
// have.
#pragma once

#include "kernels/gemm_types.h"
#include "runtime.h"

namespace vectile::cuda {

struct UnaryOp {
  const char* name;
  Array (*run)(const char* op, const TensorView& x, const TensorView* out);
};
struct GradientOp {
  const char *name, *v_name;
  Array (*run)(const char* op, const TensorView& grad, const TensorView& v, const char* v_name);
};
extern const UnaryOp kUnary[15];
extern const GradientOp kGradient[8];

// An array, or a number that takes the dtype of the array beside it and is not rounded to it.
struct Operand {
  const TensorView* array = nullptr;
  double number = 0;
};
struct BinaryOp {
  const char* name;
  Array (*run)(const char* op, const Operand& a, const Operand& b, const TensorView* out);
};
extern const BinaryOp kBinary[6];  // NumPy broadcasting; at least one operand is an array

Array leaky_relu(const TensorView& x, double slope, const TensorView* out);
Array leaky_relu_backward(const TensorView& grad, const TensorView& x, double slope);
Array prelu(const TensorView& x, const TensorView& weight, const TensorView* out);
struct PreluGradient {
  Array dx, dweight;
};
PreluGradient prelu_backward(const TensorView& grad, const TensorView& x, const TensorView& weight);

// The masks of dropout are those of the CPU: of seed and the element's row-major position only.
Array dropout(const TensorView& x, double p, std::uint64_t seed);
Array bias_activation_dropout(const TensorView& x, const TensorView* bias, Activation activation,
                              double p, std::uint64_t seed);
struct BiasActivationDropoutGradient {
  Array dx,
      dbias;  // the latter, empty (data == nullptr) without a bias, is the sum of dx as stored
};
BiasActivationDropoutGradient bias_activation_dropout_backward(const TensorView& grad,
                                                               const TensorView& x,
                                                               const TensorView* bias,
                                                               Activation activation, double p,
                                                               std::uint64_t seed);

}  // namespace vectile::cuda
