// What the integer GEMM kernels and the ops above them agree on.
#pragma once

#include <cstdint>

#include "base/types.h"
#include "kernels/gemm_types.h"

namespace vectile {

// How a tier stores integer operands: `group` neighbours along k in each 32-bit element, and the
// offset it adds to signed left (a) and unsigned right (b) operands to make them the types it
// wants.
struct GemmS8Format {
  int mr, nr, group;
  std::int32_t a_offset, b_offset;
};

// acc = A' B' with A' the stored left operand (gemm_s8_rows or gemm_s8_quantize_rows) and B' the
// stored right operand (gemm_s8_pack); the exact product with zero points is
//   c[i, j] = acc[i, j] - a_zero[i] column_terms[j] - b_zero[j] row_sums[i]   (modulo 2^32)
// where zero points count from the stored values and column_terms[j] = sum_k b'[k, j] - k
// b_zero[j].
struct GemmS8 {
  i64 m, n, k;
  const std::int32_t* a;  // m rows, a_row elements apart
  i64 a_row;
  const std::int32_t* b;             // strips
  const std::int32_t* a_zero;        // m, or null for zeros
  const std::int32_t* column_terms;  // n; used with a_zero
  const std::int32_t* b_zero;        // n, or null for zeros
  const std::int32_t* row_sums;      // m; used with b_zero
};

}  // namespace vectile
