// The types that cast takes and gives, checked the same way for every device.
#pragma once

#include "ops/check.h"

namespace vectile::ops {

inline void cast_args(const TensorView& x, DType dtype) {
  constexpr const char* known = "float16, bfloat16, float32, float64, float8_e4m3fn or float8_e5m2";
  const auto any_float = [](DType t) {
    return t == DType::f32 || t == DType::f64 || is_half(t) || is_float8(t);
  };
  check<TypeError>(any_float(x.dtype), "cast", "x", "dtype", known, x.dtype);
  check<TypeError>(any_float(dtype), "cast", "dtype", "value", known, dtype);
}

}  // namespace vectile::ops
