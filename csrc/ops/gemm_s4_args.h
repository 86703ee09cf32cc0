// The arguments of products with weights in 4 bits, checked the same way for every device.
#pragma once

#include "ops/check.h"

namespace vectile::ops {

inline void check_group(const char* op, i64 group) {
  check(group == 32 || group == 64 || group == 128, op, "group_size", "value", "32, 64 or 128",
        group);
}

inline void quantize_weight_4bit_args(const char* op, const TensorView& weight, i64 group) {
  check_float(op, "weight", weight);
  check(weight.ndim() == 2, op, "weight", "ndim", 2, weight.ndim());
  check_group(op, group);
}

}  // namespace vectile::ops
