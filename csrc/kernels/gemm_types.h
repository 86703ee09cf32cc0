// What the GEMM kernels and the ops that plan them agree on.
#pragma once

#include "base/types.h"

namespace vectile {

// Applied to a finished row of C, after the bias.
enum class Activation { none, relu, gelu, gelu_tanh, silu, tanh, sigmoid };

// Block sizes of a tier.
struct GemmTuning {
  i64 kc;                          // depth of a pass over K
  i64 mc;                          // rows of A that stay in the L2 cache for that depth,
  i64 mc_alone;                    // and up to which one block has them all
  i64 kc_in_place, rows_in_place;  // the same where large B is read in place, and for which rows
  i64 strips_in_place;  // strips of B up to which rows of A, contiguous, are read in place,
  i64 strips_paged;     // and where these are a multiple of 1 KiB apart
};

// A tile is mr x nr elements of C held in registers.
struct GemmTiles : GemmTuning {
  int mr, nr, lanes;
};

// C = activation(A B + bias) + residual; A (m, k), B (k, n), strides in elements, any sign, all
// held as S and computed in T: half types are widened while they are copied, and results rounded
// once. C is written with c_col == 1, or transposed (c_row == 1): bias runs along its unit-stride
// axis.
template <class S>
struct Gemm {
  using T = Computed<S>;
  i64 m, n, k;
  const S* a;
  i64 a_row, a_col;
  const S* b;
  i64 b_row, b_col;
  const T* strips;  // of gemm_pack, b_row apart in k, in place of B; or null
  T* c;             // where S is half: C without its epilogue, or null for
  S* rounded;       // C
  i64 c_row, c_col;
  const T* bias;      // or null
  const S* residual;  // with the strides of C, or null
  Activation activation;
  i64 kc, mc;  // K is cut into pieces of kc, in order; rows into blocks of about mc
  // Copy panels of A, strips of B to dense memory; b_col != 1 needs pack_b, and a half type needs
  // pack_b, and pack_a unless a_row or a_col is 1.
  bool pack_a, pack_b;
};

struct GemmBlock {  // the part of C that one call computes
  i64 m0, m1, n0, n1;
};

// How a tier stores operands of 16 bits, for products in real 16-bit arithmetic. A: rows,
// contiguous along k, a multiple of `mr` of them. B: strips of nr columns, one after the other;
// `together` neighbours along k of a column lie side by side. k is padded with zeros to a multiple
// of k_step.
struct Gemm16Format {
  int mr, nr, together, k_step;
};

// C = activation(A B + bias) + residual, summed in float32; k > 0.
struct Gemm16 {
  i64 m, n, k;
  const std::uint16_t* a;
  i64 a_row;
  const std::uint16_t* strips;
  const float* bias;  // n, or null
  Activation activation;
  DType dtype;           // of C: float32, float16 or bfloat16
  void* c;               // row-major, c_row apart
  const void* residual;  // as C, or null
  i64 c_row;
};

}  // namespace vectile
