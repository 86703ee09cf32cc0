#pragma once

#include <vector>

#include "ops/reduce_args.h"
#include "runtime.h"

namespace vectile::cuda {

// y[o, i] = reduction of x[o, k, i] over k, divided by `divisor`; x is (outer, n, inner) and y
// (outer, inner), both row-major, y of any floating type that x computes in or is stored as.
using ReduceMiddle = void (*)(const TensorView& x, i64 outer, i64 n, i64 inner, double divisor,
                              const TensorView& y);
struct Reduction {
  const char* name;
  ReduceMiddle run;
  bool mean;
  ops::Empty empty;
};
extern const Reduction kReductions[4];

// Bit i of `axes` says that axis i is reduced. The order of the additions depends on the shape
// only.
Array reduce(const Reduction& op, const TensorView& x, unsigned axes, bool keepdims,
             const TensorView* out);
Array sum_to(const TensorView& x, const Shape& shape);
// y[j] = sum of x[i, j] over i < n; see ReduceMiddle.
void sum_columns(const TensorView& x, i64 n, const TensorView& y);

// sqrt of the sum of all squares, float64 of shape (), on the device: nothing waits for it. float32
// arrays cannot overflow it.
Array global_norm(const std::vector<TensorView>& arrays);

}  // namespace vectile::cuda
