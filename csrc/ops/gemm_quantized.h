// What products with quantised weights share: the operands of linear, and how products whose right
// operand lies in strips are cut into tasks.
#pragma once

#include <algorithm>

#include "kernels/gemm_types.h"
#include "ops/gemm.h"
#include "ops/gemm_s8_args.h"
#include "ops/staging.h"

namespace vectile::ops {

// A block has `rows` rows and a multiple of nr columns, `columns` at the least; there are as many
// as tasks of `work` products want.
struct GemmBlocks {
  i64 rows, columns, work;
};

// Runs kernel(block) over the blocks of an m x n result of products of length k.
template <class F>
void over_blocks(i64 m, i64 n, i64 k, int nr, const GemmBlocks& size, F&& kernel) {
  constexpr i64 kMaxTasks = 64;
  const i64 row_blocks = ceil_div(m, size.rows);
  const i64 wanted = std::clamp<i64>(m * n * k / size.work, 1, kMaxTasks);
  const i64 columns =
      std::max<i64>(size.columns, round_up(ceil_div(n, ceil_div(wanted, row_blocks)), nr));
  parallel_for(row_blocks * ceil_div(n, columns), [&](i64 i) {
    const i64 m0 = i % row_blocks * size.rows, n0 = i / row_blocks * columns;
    kernel(GemmBlock{m0, std::min(m, m0 + size.rows), n0, std::min(n, n0 + columns)});
  });
}

// m rows in the fewest blocks of at most `most`, of equal height.
constexpr i64 even_rows(i64 m, i64 most) { return ceil_div(m, ceil_div(m, most)); }

// The operands of linear, row-major; bias and residual may be null.
template <class T>
struct LinearOperands {
  i64 m, n, k;
  const T *x, *bias, *residual;
  T* y;
};

// linear on a weight of the kind Matrix: multiply(LinearOperands<T>) computes y where it has
// elements. A half x is widened and y rounded; the bias beside it may be float32.
template <class Matrix, class F>
Array linear_on(const char* op, const TensorView& x, const Matrix& weight, const TensorView* bias,
                const TensorView* residual, F&& multiply) {
  check_floating(op, "x", x);
  if (is_half(x.dtype)) {
    const auto wide = [&](const TensorView& in, const TensorView* b, const TensorView* r) {
      return linear_on(op, in, weight, b, r, multiply);
    };
    return in_float32(x.dtype, wide, x, bias, residual);
  }
  const i64 n = weight.rows(), k = weight.columns();
  const Shape shape = quantized_linear_args(op, x, n, k, weight.dtype(), bias);
  Array y = Array::empty(x.dtype, shape);
  y.origin = x.origin;
  if (residual) check_residual(*residual, y);
  if (y.elements() == 0) return y;
  const Array in = contiguous(x), dense = bias ? contiguous(*bias) : Array();
  const Array added = residual ? contiguous(*residual) : Array();
  dispatch_float(x.dtype, [&](auto t) {
    using T = decltype(t);
    multiply(LinearOperands<T>{y.elements() / n, n, k, in.as<T>(), dense.as<T>(), added.as<T>(),
                               y.as<T>()});
  });
  return y;
}

}  // namespace vectile::ops
