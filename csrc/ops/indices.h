// Integer indices of any integer dtype and strides, checked and brought to row-major int64.
#pragma once

#include "ops/common.h"

namespace vectile {

// TypeError for what is not an integer array; a uint64 beyond int64 becomes -1.
Buffer<i64> integers(const char* op, const char* argument, const TensorView& values);

// Every index must lie in [0, limit) or equal *ignored; else IndexError names its position and
// value.
Buffer<i64> checked_indices(const char* op, const char* argument, const TensorView& ids, i64 limit,
                            const i64* ignored = nullptr);

}  // namespace vectile
