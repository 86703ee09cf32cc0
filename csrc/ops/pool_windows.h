// The windows of one pooled axis, shared by maxima and averages.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/pool.h"

namespace vectile::ops {

struct AxisWindows {
  std::vector<std::int32_t> start, count;  // padded to kAxisPadding
  i64 inputs = 1, outputs = 1, step = 1;
};

// x as planes of rows of its last `axes` (1 or 2) axes.
struct Planes {
  i64 count, height, width;
};
// Checks that x has one or two sizes' worth of pooled axes, none of them empty, after at least one
// other axis.
Planes planes_of(const char* op, const char* name, const TensorView& x, std::size_t axes);

// x's shape with the pooled axes replaced.
Shape with_sizes(const TensorView& x, const Sizes& sizes);

// The numbers of an argument: `axes` of them, each from `least` to 2^31 - 1.
void check_sizes(const char* op, const char* name, const Sizes& sizes, std::size_t axes, i64 least);

void check_pooling(const char* op, const Pooling& p);
i64 pooled_length(const char* op, const Pooling& p, std::size_t axis, i64 inputs);
AxisWindows pooling_windows(const char* op, const Pooling& p, std::size_t axis, i64 inputs);
// Output o of n looks at [floor(o inputs / n), ceil((o + 1) inputs / n)).
AxisWindows adaptive_windows(i64 inputs, i64 outputs);

}  // namespace vectile::ops
