// Products in the CPU's 16-bit arithmetic (families gemm_f16 and gemm_bf16): whether one runs, and
// how it is carried out. ops/gemm.h has the ops.
#pragma once

#include "kernels/gemm_types.h"
#include "ops/common.h"
#include "ops/gemm_args.h"

namespace vectile::ops {

// The kernels of one 16-bit arithmetic, or nothing where a tier has none.
struct Unit16 {
  DType dtype = DType::other;  // of the operands it multiplies
  void (*format)(Gemm16Format*) = nullptr;
  void (*rows)(const void*, DType, i64, i64, i64, i64, std::uint16_t*, i64) = nullptr;
  void (*pack)(const void*, DType, i64, i64, i64, i64, std::uint16_t*) = nullptr;
  void (*block)(const Gemm16&, const GemmBlock&) = nullptr;
  explicit operator bool() const { return block != nullptr; }
};

// The unit that products of `dtype` use on this tier, if it is faster than float32 is there.
Unit16 unit_16(const Kernels& kernels, Compute compute, DType dtype);
// Whether products of this size are faster on it, of arrays of `dtype`.
bool worth_16(const Unit16& unit, DType dtype, i64 m, i64 n, i64 k);
// For tests: which units are used of those that the tier has.
enum class Use16 { faster, always, never };
void set_use_16(Use16 use);

// C = activation(A B + bias) + residual, all but the bias of one type, float32 or a half one.
struct Product16 {
  i64 m, n, k;
  DType dtype;
  const void* a;
  i64 a_row, a_col;
  const void* b;
  i64 b_row, b_col;
  const std::uint16_t* strips;  // of pack_16, in place of B; or null
  void* c;
  i64 c_row;  // and c_col == 1
  const float* bias;
  const void* residual;  // as C
  Activation activation;
};
void multiply_16(const Unit16& unit, const Product16& p);

// B (k, n) in the form that the unit reads, of packed_elements_16.
void pack_16(const Unit16& unit, const void* b, DType dtype, i64 row, i64 col, i64 k, i64 n,
             std::uint16_t* strips);
i64 packed_elements_16(const Unit16& unit, i64 k, i64 n);

}  // namespace vectile::ops
