// The arguments of the softmax family, checked the same way for every device. Each returns the axis
// in [0, ndim).
#pragma once

#include "ops/check.h"

namespace vectile::ops {

inline int softmax_args(const char* op, const TensorView& x, i64 axis) {
  check_floating(op, "x", x);
  check(x.ndim() > 0, op, "x", "ndim", "at least 1", 0);
  return check_axis(op, axis, x.ndim());
}

inline int softmax_backward_args(const char* op, const TensorView& grad, const TensorView& y,
                                 i64 axis) {
  check_floating(op, "y", y);
  check_same_dtype(op, "grad", grad, y);
  check_shape(op, "grad", grad, y.shape);
  check(y.ndim() > 0, op, "y", "ndim", "at least 1", 0);
  return check_axis(op, axis, y.ndim());
}

}  // namespace vectile::ops
