// The arguments of the norm family, checked the same way for every device.
#pragma once

#include "ops/check.h"

namespace vectile::ops {

inline void norm_args(const char* op, const TensorView& x, double eps) {
  check_floating(op, "x", x);
  check(x.ndim() > 0, op, "x", "ndim", "at least 1", 0);
  check(eps >= 0, op, "eps", "value", "at least 0", eps);
}

// A parameter of shape (n,), if it is given.
inline void norm_parameter_args(const char* op, const char* name, const TensorView* p,
                                const TensorView& x) {
  if (!p) return;
  check_parameter_dtype(op, name, *p, x);
  check_shape(op, name, *p, Shape(x.shape.back()));
}

inline void norm_statistic_args(const char* op, const char* name, const TensorView& s,
                                const TensorView& x) {
  check_parameter_dtype(op, name, s, x);
  check_shape(op, name, s, without_last(x.shape));
}

inline void norm_residual_args(const char* op, const TensorView& residual, const TensorView& x) {
  check_same_dtype(op, "residual", residual, x);
  check_shape(op, "residual", residual, x.shape);
}

inline void norm_backward_args(const char* op, const TensorView& grad, const TensorView& x,
                               const TensorView* weight, const TensorView* mean,
                               const TensorView& rstd) {
  norm_args(op, x, 0);
  check_same_dtype(op, "grad", grad, x);
  check_shape(op, "grad", grad, x.shape);
  norm_parameter_args(op, "weight", weight, x);
  if (mean) norm_statistic_args(op, "mean", *mean, x);
  norm_statistic_args(op, "rstd", rstd, x);
}

}  // namespace vectile::ops
