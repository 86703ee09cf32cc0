// The arguments of products with quantised operands, checked the same way for every device.
#pragma once

#include "ops/gemm_args.h"
#include "ops/matmul_args.h"

namespace vectile::ops {

inline void check_bytes(const char* op, const char* argument, const TensorView& x) {
  check<TypeError>(x.dtype == DType::i8 || x.dtype == DType::u8, op, argument, "dtype",
                   "int8 or uint8", x.dtype);
}

inline void check_per_line(const char* op, const char* argument, const TensorView& v, i64 count) {
  const bool ok = v.ndim() == 0 || (v.ndim() == 1 && (v.shape[0] == 1 || v.shape[0] == count));
  if (!ok) [[unlikely]]
    fail(op, argument, "shape", text("() or (", count, ",)"), v.shape);
}

inline void check_zero_points(const char* op, const char* argument, const TensorView* v,
                              i64 count) {
  if (!v) return;
  check_per_line(op, argument, *v, count);
  const DType t = v->dtype;
  check<TypeError>(t == DType::i8 || t == DType::u8 || t == DType::i32 || t == DType::i64, op,
                   argument, "dtype", "an integer type", t);
}

inline void check_scales(const char* op, const char* argument, const TensorView& v, i64 count) {
  check_float(op, argument, v);
  check_per_line(op, argument, v, count);
}

inline MatmulShape matmul_integer_args(const char* op, const TensorView& a, const TensorView& b,
                                       const TensorView* a_zero_point,
                                       const TensorView* b_zero_point) {
  check_bytes(op, "a", a);
  check_bytes(op, "b", b);
  const MatmulShape shape(op, a, b);
  check_zero_points(op, "a_zero_point", a_zero_point, shape.a.shape[-2]);
  check_zero_points(op, "b_zero_point", b_zero_point, shape.b.shape[-1]);
  return shape;
}

inline MatmulShape qlinear_matmul_args(const char* op, const TensorView& a,
                                       const TensorView& a_scale, const TensorView& a_zero_point,
                                       const TensorView& b, const TensorView& b_scale,
                                       const TensorView& b_zero_point, const TensorView& y_scale,
                                       const TensorView& y_zero_point) {
  check_bytes(op, "y_zero_point", y_zero_point);
  const MatmulShape shape = matmul_integer_args(op, a, b, &a_zero_point, &b_zero_point);
  check_scales(op, "a_scale", a_scale, shape.a.shape[-2]);
  check_scales(op, "b_scale", b_scale, shape.b.shape[-1]);
  check(y_scale.elements() == 1, op, "y_scale", "shape", "()", y_scale.shape);
  check(y_zero_point.elements() == 1, op, "y_zero_point", "shape", "()", y_zero_point.shape);
  check_scales(op, "y_scale", y_scale, 1);
  return shape;
}

// A weight (out, in) as int8 with scales, and perhaps zero points, of () or (out,).
inline void quantized_matrix_args(const char* op, const TensorView& values,
                                  const TensorView& scales, const TensorView* zero_points) {
  check<TypeError>(values.dtype == DType::i8, op, "values", "dtype", DType::i8, values.dtype);
  check(values.ndim() == 2, op, "values", "ndim", 2, values.ndim());
  check_float(op, "scales", scales);
  if (scales.ndim() != 0) check_shape(op, "scales", scales, Shape(values.shape[0]));
  if (!zero_points) return;
  check<TypeError>(zero_points->dtype == DType::i8, op, "zero_points", "dtype", DType::i8,
                   zero_points->dtype);
  check_shape(op, "zero_points", *zero_points, scales.shape);
}

inline void quantize_weight_args(const char* op, const TensorView& weight) {
  check_float(op, "weight", weight);
  check(weight.ndim() == 2, op, "weight", "ndim", 2, weight.ndim());
}

// The step given for all of x, and its zero point.
inline void activation_range_args(const char* op, const TensorView* scale,
                                  const TensorView* zero_point) {
  if (!scale) {
    check(!zero_point, op, "x_zero_point", "value", "None without x_scale", "a zero point");
    return;
  }
  check_float(op, "x_scale", *scale);
  check_shape(op, "x_scale", *scale, Shape());
  if (!zero_point) return;
  check_bytes(op, "x_zero_point", *zero_point);
  check_shape(op, "x_zero_point", *zero_point, Shape());
}

// (..., in) -> (..., out) beside a quantised weight (out, in) that holds its scales in `dtype`.
inline Shape quantized_linear_args(const char* op, const TensorView& x, i64 out, i64 in,
                                   DType dtype, const TensorView* bias) {
  check_floating(op, "x", x);
  check<TypeError>(compute_dtype(x.dtype) == dtype, op, "weight", "dtype", given_dtype(x), dtype);
  const Shape shape = check_linear(x, out, in, nullptr, op);
  if (bias) {
    check_parameter_dtype(op, "bias", *bias, x);
    check_shape(op, "bias", *bias, Shape(out));
  }
  return shape;
}

}  // namespace vectile::ops
