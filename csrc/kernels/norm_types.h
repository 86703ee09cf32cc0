// What the norm kernels and the ops above them agree on.
#pragma once

#include "base/out.h"

namespace vectile {

// The elements that share a mean and a variance: for each of `parameters` weights, `segments` runs
// of n adjacent elements. Run q of parameter p begins at p * parameter_stride + q * segment_stride.
struct NormGroup {
  i64 parameters, parameter_stride, segments, segment_stride, n;
};

}  // namespace vectile
