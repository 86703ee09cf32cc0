// reduce family: float32 or float64 arrays of any shape and strides, over any set of axes.
// The order of the additions depends on the shape and strides only. The error of a float sum is at
// most 64 eps sum |x| for up to 2^30 elements.
#pragma once

#include "ops/common.h"
#include "ops/float_op.h"
#include "ops/reduce_args.h"

namespace vectile::ops {

template <class T>
using RowsKernel = void (*)(const T* x, T* y, i64 rows, i64 n);
template <class T>
using ColumnsKernel = void (*)(const T* x, i64 stride, T* y, i64 n, i64 columns);

struct Reduction {
  FloatOp<RowsKernel> rows;  // its name is the op's
  FloatOp<ColumnsKernel> columns;
  bool mean;
  Empty empty;
};

inline constexpr Reduction kReductions[] = {
    {VECTILE_FLOAT_OP(sum, row_sum), VECTILE_FLOAT_OP(sum, column_sum), false, Empty::zero},
    {VECTILE_FLOAT_OP(mean, row_sum), VECTILE_FLOAT_OP(mean, column_sum), true, Empty::nan},
    {VECTILE_FLOAT_OP(max, row_max), VECTILE_FLOAT_OP(max, column_max), false, Empty::error},
    {VECTILE_FLOAT_OP(min, row_min), VECTILE_FLOAT_OP(min, column_min), false, Empty::error},
};

// Bit i of `axes` says that axis i is reduced; see axes_of.
Array reduce(const Reduction& op, const TensorView& x, unsigned axes, bool keepdims,
             const TensorView* out = nullptr);

// Sums x over the axes along which `shape` was broadcast to x's shape; the result has `shape`.
Array sum_to(const TensorView& x, const Shape& shape);

// sqrt of the sum of all squares; 0 for no arrays. float32 arrays cannot overflow it.
double global_norm(const TensorView* arrays, i64 count);

}  // namespace vectile::ops
