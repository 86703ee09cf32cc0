// Integer indices of any integer dtype and strides, checked and brought to row-major int64.
#pragma once

#include "ops/common.h"

namespace vectile {

// Every index must lie in [0, limit) or equal *ignored; else IndexError names its position and
// value. TypeError for what is not an integer array.
Buffer<i64> checked_indices(const char* op, const char* argument, const TensorView& ids, i64 limit,
                            const i64* ignored = nullptr);

}  // namespace vectile
