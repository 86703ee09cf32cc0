#include "ops/check.h"

#include <utility>

namespace vectile {
namespace {

// Lowest and one-past-highest byte a view touches.
std::pair<const char*, const char*> extent(const TensorView& v) {
  i64 low = 0, high = 1;
  for (int i = 0; i < v.ndim(); ++i)
    (v.strides[i] < 0 ? low : high) += (v.shape[i] - 1) * v.strides[i];
  const auto size = static_cast<i64>(item_size(v.dtype));
  const char* base = static_cast<const char*>(v.data);
  return {base + low * size, base + high * size};
}

}  // namespace

bool overlaps(const TensorView& a, const TensorView& b) {
  if (a.elements() == 0 || b.elements() == 0) return false;
  const auto [a0, a1] = extent(a);
  const auto [b0, b1] = extent(b);
  return a0 < b1 && b0 < a1;
}

TensorView permuted(const TensorView& x, const int* order) {
  TensorView v = x;
  for (int i = 0; i < x.ndim(); ++i) {
    v.shape[i] = x.shape[order[i]];
    v.strides[i] = x.strides[order[i]];
  }
  return v;
}

TensorView axis_last(const TensorView& x, int axis) {
  int order[kMaxDims], n = 0;
  for (int i = 0; i < x.ndim(); ++i)
    if (i != axis) order[n++] = i;
  order[n] = axis;
  return permuted(x, order);
}

void check_float(const char* op, const char* argument, const TensorView& x) {
  check<TypeError>(x.dtype == DType::f32 || x.dtype == DType::f64, op, argument, "dtype",
                   "float32 or float64", x.dtype);
}

void check_floating(const char* op, const char* argument, const TensorView& x) {
  check<TypeError>(x.dtype == DType::f32 || x.dtype == DType::f64 || is_half(x.dtype), op, argument,
                   "dtype", "float16, bfloat16, float32 or float64", x.dtype);
}

void check_same_dtype(const char* op, const char* argument, const TensorView& x,
                      const TensorView& reference) {
  const DType expected = given_dtype(reference), got = given_dtype(x);
  check<TypeError>(got == expected, op, argument, "dtype", expected, got);
}

void check_parameter_dtype(const char* op, const char* argument, const TensorView& x,
                           const TensorView& reference) {
  const DType expected = given_dtype(reference);
  if (!is_half(expected)) return check_same_dtype(op, argument, x, reference);
  const DType got = given_dtype(x);
  if (got != expected && got != DType::f32) [[unlikely]]
    fail<TypeError>(op, argument, "dtype", text(expected, " or float32"), got);
}

void check_shape(const char* op, const char* argument, const TensorView& x, const Shape& expected) {
  check(x.shape == expected, op, argument, "shape", expected, x.shape);
}

void check_out(const char* op, const TensorView& out, DType dtype, const Shape& shape) {
  check<TypeError>(out.dtype == dtype, op, "out", "dtype", dtype, out.dtype);
  check(out.shape == shape, op, "out", "shape", shape, out.shape);
  check(out.writable, op, "out", "flags", "a writable array", "a read-only one");
}

int check_axis(const char* op, i64 axis, int ndim) {
  if (axis < -ndim || axis >= ndim) [[unlikely]]
    fail(op, "axis", "value", text("an axis of ", ndim, " dimensions"), axis);
  return static_cast<int>(axis < 0 ? axis + ndim : axis);
}

}  // namespace vectile
