// What the pooling kernels and the ops above them agree on.
#pragma once

#include <cstdint>

#include "base/types.h"

namespace vectile {

// One axis of a pooling: output o looks at the `count[o]` >= 1 inputs start[o], start[o] + step,
// ...; start never falls.
struct Windows {
  const std::int32_t *start, *count;
  i64 inputs, outputs, step;
  i64 most;      // the largest count
  bool uniform;  // every count is `most`
  bool rising;   // start never falls (with padding and dilation it may)
};

// One axis of a resampling: output o = sum over k < count[o] of weight[k * pitch + o]
// input[start[o] + k]. start never falls; weights of k >= count[o] are zero and their inputs do not
// count.
template <class T>
struct Taps {
  const std::int32_t *start, *count;
  const T* weight;
  i64 inputs, outputs, pitch;
  i64 most;       // the largest count
  bool full;      // every count is `most` and no weight is zero
  bool identity;  // output o is input o
};

// Arrays over an axis' outputs are padded to a multiple of this many elements.
constexpr i64 kAxisPadding = 16;

}  // namespace vectile
