// What the integer GEMM kernels and the ops above them agree on.
#pragma once

#include <cstdint>

#include "base/types.h"
#include "kernels/gemm_types.h"

namespace vectile {

// How a tier stores integer operands. A group is four neighbours along k: one 32-bit element of
// each column of the right operand, `left_elements` of each row of the left one. Rows and columns
// are padded to a multiple of `step` groups; a tile is mr x nr.
struct GemmS8Format {
  int mr, nr, left_elements, step;
};

// The exact product, modulo 2^32. With T the product of the stored operands, of gemm_s8_rows or
// gemm_s8_quantize_rows and of gemm_s8_pack, whose column_terms and row_terms take out what their
// scheme adds,
//   c[i, j] = T[i, j] - (what row_terms[i] and column_terms[j] say) - b_zero[j] row_sums[i].
// The zero points of A are in its terms already. b_zero counts from signed bytes: 128 less for
// unsigned B. row_sums[i] = sum over k of a[i, k] - a_zero[i].
struct GemmS8 {
  i64 m, n, k;
  const std::int32_t* a;  // m rows, a_row elements apart
  i64 a_row;
  const std::int32_t* b;  // strips
  const std::int32_t *row_terms, *column_terms;
  const std::int32_t* b_zero;    // n, or null for zeros
  const std::int32_t* row_sums;  // m; used with b_zero
};

// How a row of floats becomes unsigned bytes: x ~ scale (q - zero).
struct QuantizeRows {
  enum Range {
    asymmetric,  // 0..255 over the range of the row and zero
    symmetric,   // -127..127 over the row's largest magnitude
    fixed        // 0..255 with the given scale and zero
  } range = asymmetric;
  double scale = 0;
  int zero = 0;
};

}  // namespace vectile
