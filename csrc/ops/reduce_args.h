// The arguments of the reduce family, checked the same way for every device.
#pragma once

#include "ops/check.h"

namespace vectile::ops {

enum class Empty { zero, nan, error };  // what no elements reduce to

struct Reduced {
  bool axis[kMaxDims];
  Shape kept, shape;  // axes that stay; those of the result
  i64 count = 1;      // elements that each element of the result takes
};

// Bit i of `axes` says that axis i is reduced.
inline Reduced reduce_args(const char* op, const TensorView& x, unsigned axes, bool keepdims,
                           Empty empty) {
  check_floating(op, "x", x);
  Reduced r;
  for (int i = 0; i < x.ndim(); ++i) {
    r.axis[i] = axes >> i & 1;
    if (r.axis[i]) r.count *= x.shape[i];
    if (!r.axis[i]) r.kept.push(x.shape[i]);
    if (!r.axis[i] || keepdims) r.shape.push(r.axis[i] ? 1 : x.shape[i]);
  }
  check(r.count > 0 || empty != Empty::error, op, "x", "shape",
        "at least one element along the reduced axes", x.shape);
  return r;
}

// The axes along which `shape` was broadcast to x's shape.
inline unsigned sum_to_args(const TensorView& x, const Shape& shape) {
  check_floating("sum_to", "x", x);
  const int extra = x.ndim() - shape.ndim;
  unsigned axes = 0;
  bool fits = extra >= 0;
  for (int i = 0; fits && i < x.ndim(); ++i) {
    const i64 target = i < extra ? 1 : shape[i - extra];
    if (i < extra || (target == 1 && x.shape[i] != 1))
      axes |= 1u << i;
    else
      fits = target == x.shape[i];
  }
  if (!fits) [[unlikely]]
    fail("sum_to", "shape", "value", text("one that broadcasts to ", x.shape), shape);
  return axes;
}

}  // namespace vectile::ops
