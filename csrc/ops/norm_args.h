// The arguments of the norm family, checked the same way for every device.
#pragma once

#include "ops/check.h"

namespace vectile::ops {

inline void check_eps(const char* op, double eps) {
  check(eps >= 0, op, "eps", "value", "at least 0", eps);
}

inline void norm_args(const char* op, const TensorView& x, double eps) {
  check_floating(op, "x", x);
  check(x.ndim() > 0, op, "x", "ndim", "at least 1", 0);
  check_eps(op, eps);
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

// x as (batch, channels, n): n is the product of the axes after the second.
struct Channels {
  i64 batch, channels, n;
  Channels(const char* op, const TensorView& x) {
    check_floating(op, "x", x);
    check(x.ndim() >= 2, op, "x", "ndim", "at least 2", x.ndim());
    batch = x.shape[0];
    channels = x.shape[1];
    n = 1;
    for (int i = 2; i < x.ndim(); ++i) n *= x.shape[i];
  }
  i64 per_channel() const { return batch * n; }
};

// An argument of shape (channels,), if it is given.
inline void channel_args(const char* op, const char* name, const TensorView* p,
                         const TensorView& x) {
  if (!p) return;
  check_parameter_dtype(op, name, *p, x);
  check_shape(op, name, *p, Shape(x.shape[1]));
}

// Statistics that training changes in place, or that are used instead of the batch's own.
inline void check_running(const char* op, const char* name, const TensorView* r,
                          const TensorView& x, bool training) {
  if (!training) check(r != nullptr, op, name, "value", "an array unless training", "None");
  channel_args(op, name, r, x);
  if (training && r) check(r->writable, op, name, "flags", "a writable array", "a read-only one");
}

inline void check_training_count(const char* op, const Channels& c) {
  check(c.per_channel() != 1, op, "x", "values per channel", "more than 1 in training",
        c.per_channel());
}

inline void check_groups(const char* op, const Channels& c, i64 groups) {
  check(groups > 0 && c.channels % groups == 0, op, "num_groups", "value",
        text("a divisor of the ", c.channels, " channels"), groups);
}

inline void group_statistic_args(const char* op, const char* name, const TensorView& s,
                                 const TensorView& x, i64 groups) {
  check_parameter_dtype(op, name, s, x);
  check_shape(op, name, s, Shape(x.shape[0], groups));
}

}  // namespace vectile::ops
