// What the 4-bit GEMM kernels and the ops above them agree on.
#pragma once

#include <cstdint>

#include "base/types.h"
#include "kernels/gemm_types.h"

namespace vectile {

constexpr i64 kS4Block = 32;  // k is stored in whole blocks, and a group is some of them
constexpr i64 kS4Rows = 96;   // the most rows of a block of C

constexpr i64 s4_depth(i64 k) { return (k + kS4Block - 1) / kS4Block * kS4Block; }

// y[i, j] = activation(sum over groups q of a_scales[q, i] scales[q, j] (I + zeros[q, j]
//                      minus_sums[q, i]) + bias[j])
// with I the exact sum of a[i, k] w[k, j] over the group, a in -128..127 and w in 0..15.
template <class T>
struct GemmS4 {
  i64 m, n, k, group;
  const std::int8_t* a;  // gemm_s4_quantize_rows
  i64 a_row;
  const T* a_scales;               // (groups, m)
  const std::int32_t* minus_sums;  // (groups, m)
  // Strips of nr columns. One holds, for every eight values along k, four bytes a column: the low
  // halves are the first four values, the high halves the rest.
  const std::uint8_t* strips;
  const T* scales;            // strip by strip (groups, nr)
  const std::uint8_t* zeros;  // the same, or null: 8
  const T* bias;              // (n) or null
  Activation activation;
  const T* residual;  // as y, or null
  T* y;
  i64 y_row;
};

}  // namespace vectile
