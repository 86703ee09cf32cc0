// What ops check and derive from the shapes and types of their arguments before any memory is read:
// the same for every device.
#pragma once

#include "base/error.h"
#include "base/types.h"

namespace vectile {

// What kernels compute in: float32 for the half types, which are storage only.
constexpr DType compute_dtype(DType t) { return is_half(t) ? DType::f32 : t; }
// What the caller passed: float32 that was widened inside an op answers for its origin.
inline DType given_dtype(const TensorView& x) {
  return x.origin == DType::other ? x.dtype : x.origin;
}

// Validation. Each throws `op: argument property: expected X, got Y`.
void check_float(const char* op, const char* argument, const TensorView& x);  // float32 or float64
void check_floating(const char* op, const char* argument, const TensorView& x);  // or a half type
void check_same_dtype(const char* op, const char* argument, const TensorView& x,
                      const TensorView& reference);
// The same; float32 will do beside a half type, for parameters and statistics.
void check_parameter_dtype(const char* op, const char* argument, const TensorView& x,
                           const TensorView& reference);
void check_shape(const char* op, const char* argument, const TensorView& x, const Shape& expected);
void check_out(const char* op, const TensorView& out, DType dtype, const Shape& shape);
int check_axis(const char* op, i64 axis, int ndim);  // into [0, ndim)

// Runs f(T{}) with T = double for float64, else float.
template <class F>
decltype(auto) dispatch_float(DType dtype, F&& f) {
  return dtype == DType::f64 ? f(double{}) : f(float{});
}

// The same, with S = Float16 or BFloat16 for the half types.
template <class F>
decltype(auto) dispatch_floating(DType dtype, F&& f) {
  return dtype == DType::f16    ? f(Float16{})
         : dtype == DType::bf16 ? f(BFloat16{})
                                : dispatch_float(dtype, f);
}

constexpr i64 ceil_div(i64 a, i64 b) { return (a + b - 1) / b; }  // a >= 0, b > 0
constexpr i64 round_up(i64 a, i64 b) { return ceil_div(a, b) * b; }

// A shape with another last axis, or without it.
inline Shape with_last(Shape s, i64 last) {
  s[-1] = last;
  return s;
}
inline Shape without_last(Shape s) {
  --s.ndim;
  return s;
}

// `x` with its axes in the given order, or with `axis` moved last; no data moves.
TensorView permuted(const TensorView& x, const int* order);
TensorView axis_last(const TensorView& x, int axis);

bool overlaps(const TensorView& a, const TensorView& b);

}  // namespace vectile
