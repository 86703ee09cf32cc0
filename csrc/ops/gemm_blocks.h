// How products whose right operand lies in strips are cut into tasks.
#pragma once

#include <algorithm>

#include "kernels/gemm_types.h"
#include "ops/common.h"

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

}  // namespace vectile::ops
