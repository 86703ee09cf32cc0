// The arguments of the rotary family, checked the same way for every device.
#pragma once

#include "ops/check.h"

namespace vectile::ops {

inline void rotary_args(const char* op, const TensorView& x, const TensorView& cosine,
                        const TensorView& sine) {
  check_floating(op, "x", x);
  check(x.ndim() >= 2, op, "x", "ndim", "at least 2", x.ndim());
  check(cosine.ndim() >= 2, op, "cosine", "ndim", "at least 2", cosine.ndim());
  check_shape(op, "sine", sine, cosine.shape);
  const i64 length = x.shape[-2], n = x.shape[-1], pairs = cosine.shape[-1];
  check(2 * pairs <= n, op, "cosine", "pairs", text("at most ", n / 2), pairs);
  check(cosine.shape[-2] == length, op, "cosine", "length", length, cosine.shape[-2]);
  bool fits = cosine.ndim() <= x.ndim();
  for (int i = 3; fits && i <= cosine.ndim(); ++i)
    fits = cosine.shape[-i] == 1 || cosine.shape[-i] == x.shape[-i];
  if (!fits) fail(op, "cosine", "shape", text("leading axes of ", x.shape), cosine.shape);
  check_parameter_dtype(op, "cosine", cosine, x);
  check_parameter_dtype(op, "sine", sine, x);
}

}  // namespace vectile::ops
