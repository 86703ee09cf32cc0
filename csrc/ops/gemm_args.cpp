#include "ops/gemm_args.h"

#include <cstring>

namespace vectile::ops {
namespace {

constexpr const char* kNames[] = {nullptr, "fp16", "bf16", "tf32"};

}  // namespace

Compute parse_compute(const char* op, const char* name, bool device) {
  if (!name) return Compute::standard;
  for (const Compute c : {Compute::f16, Compute::bf16, Compute::tf32})
    if (std::strcmp(name, compute_name(c)) == 0 && (device || c != Compute::tf32)) return c;
  fail(op, "compute", "value", device ? "None, 'fp16', 'bf16' or 'tf32'" : "None, 'fp16' or 'bf16'",
       text("'", name, "'"));
}

const char* compute_name(Compute compute) { return kNames[static_cast<int>(compute)]; }

void check_compute(const char* op, const char* argument, const TensorView& x, Compute compute) {
  if (compute != Compute::standard)
    check<TypeError>(x.dtype != DType::f64, op, argument, "dtype",
                     text("float32, float16 or bfloat16 for compute='", compute_name(compute), "'"),
                     x.dtype);
}

Activation parse_activation(const char* op, const char* name) {
  constexpr const char* names[] = {"none", "relu", "gelu", "gelu_tanh", "silu", "tanh", "sigmoid"};
  if (!name) return Activation::none;
  for (int i = 1; i < 7; ++i)
    if (std::strcmp(name, names[i]) == 0) return static_cast<Activation>(i);
  fail(op, "activation", "value", "None, 'relu', 'gelu', 'gelu_tanh', 'silu', 'tanh' or 'sigmoid'",
       text("'", name, "'"));
}

Shape check_linear(const TensorView& x, i64 out, i64 in, const TensorView* bias, const char* op) {
  check(x.ndim() > 0, op, "x", "ndim", "at least 1", 0);
  if (x.shape.back() != in) [[unlikely]]
    fail(op, "x", "shape", text("(..., ", in, ")"), x.shape);
  if (bias) {
    check_same_dtype(op, "bias", *bias, x);
    check_shape(op, "bias", *bias, Shape(out));
  }
  return with_last(x.shape, out);
}

Shape linear_args(const TensorView& x, const TensorView& weight, const TensorView* bias,
                  Compute compute) {
  check_floating("linear", "x", x);
  check_compute("linear", "x", x, compute);
  check_same_dtype("linear", "weight", weight, x);
  check(weight.ndim() == 2, "linear", "weight", "ndim", 2, weight.ndim());
  return check_linear(x, weight.shape[0], weight.shape[1], bias);
}

void check_residual(const TensorView& residual, const TensorView& y) {
  check_same_dtype("linear", "residual", residual, y);
  check_shape("linear", "residual", residual, y.shape);
}

}  // namespace vectile::ops
