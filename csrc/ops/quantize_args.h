// The arguments of the quantize family, checked the same way for every device.
#pragma once

#include "ops/check.h"

namespace vectile::ops {

// The elements of a row-major array that share a scale: `inner` neighbours, then those of the next
// of `count` scales, and so on around.
struct ScaleLines {
  i64 count = 1, inner = 1;
};

inline ScaleLines scale_lines(const char* op, const TensorView& x, const TensorView& scale,
                              const TensorView* zero_point, const i64* axis) {
  ScaleLines lines;
  if (scale.ndim() == 0) {
    lines.inner = x.elements();
  } else {
    check(axis != nullptr, op, "axis", "value", "an axis for a 1-D scale", "None");
    const int a = check_axis(op, *axis, x.ndim());
    check_shape(op, "scale", scale, Shape(x.shape[a]));
    lines.count = x.shape[a];
    for (int i = a + 1; i < x.ndim(); ++i) lines.inner *= x.shape[i];
  }
  if (zero_point) check_shape(op, "zero_point", *zero_point, scale.shape);
  return lines;
}

inline ScaleLines quantize_linear_args(const char* op, const TensorView& x, const TensorView& scale,
                                       const TensorView* zero_point, const i64* axis) {
  check_floating(op, "x", x);
  check_parameter_dtype(op, "scale", scale, x);
  if (zero_point)
    check<TypeError>(zero_point->dtype == DType::i8 || zero_point->dtype == DType::u8 ||
                         is_float8(zero_point->dtype),
                     op, "zero_point", "dtype", "int8, uint8, float8_e4m3fn or float8_e5m2",
                     zero_point->dtype);
  return scale_lines(op, x, scale, zero_point, axis);
}

inline ScaleLines dequantize_linear_args(const char* op, const TensorView& x,
                                         const TensorView& scale, const TensorView* zero_point,
                                         const i64* axis) {
  check<TypeError>(
      x.dtype == DType::i8 || x.dtype == DType::u8 || x.dtype == DType::i32 || is_float8(x.dtype),
      op, "x", "dtype", "int8, uint8, int32, float8_e4m3fn or float8_e5m2", x.dtype);
  check_floating(op, "scale", scale);
  if (zero_point) check_same_dtype(op, "zero_point", *zero_point, x);
  return scale_lines(op, x, scale, zero_point, axis);
}

}  // namespace vectile::ops
