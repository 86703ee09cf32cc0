// The register tile of products in binary16: MR rows by NV vectors. Sums of kSteps products stay in
// registers as float16, are then widened and added to those of float32 in memory.
#pragma once

#include "simd/float16.h"

namespace vectile::VECTILE_TIER {

struct F16 {
  using Stored = Float16;
  static constexpr int mr = 14, nv = 2, nr = nv * VecF16::lanes;
  static constexpr int panel = 1;  // rows of A come in multiples of it
  static constexpr int together = 1, k_step = 1;
  static void begin() {}
  static void end() {}
  static constexpr i64 kSteps = 32;  // longer sums are faster (10% at 64) and less exact
  static constexpr i64 piece = 128;  // steps of a strip that stay in the L1 cache: 16 KiB

  // c (MR rows, nr apart) = or += A B over `depth` steps of K.
  template <int MR, int NV>
  static void tile(i64 depth, const uint16_t* a, i64 a_row, const uint16_t* b, float* c, bool add) {
    constexpr int threes = (MR + 2) / 3;  // one pointer for three rows: few registers
    const uint16_t* rows[threes];
#pragma GCC unroll 16
    for (int g = 0; g < threes; ++g) rows[g] = a + 3 * g * a_row;
    for (; depth > 0; depth -= kSteps, add = true) {
      VecF16 acc[MR][NV];
      for (i64 s = depth < kSteps ? depth : kSteps; s > 0; --s, b += nr) {
        VecF16 right[NV];
#pragma GCC unroll 16
        for (int j = 0; j < NV; ++j) right[j] = VecF16::load(b + j * VecF16::lanes);
#pragma GCC unroll 16
        for (int i = 0; i < MR; ++i)
#pragma GCC unroll 16
          for (int j = 0; j < NV; ++j) acc[i][j].add_product(rows[i / 3] + i % 3 * a_row, right[j]);
#pragma GCC unroll 16
        for (int g = 0; g < threes; ++g) ++rows[g];
      }
      // By way of memory: a load that converts is cheaper than taking a register apart.
      alignas(64) Float16 sums[MR * NV * VecF16::lanes];
#pragma GCC unroll 16
      for (int i = 0; i < MR; ++i)
#pragma GCC unroll 16
        for (int j = 0; j < NV; ++j) acc[i][j].store(&sums[(i * NV + j) * VecF16::lanes].bits);
      for (int i = 0; i < MR; ++i)
#pragma GCC unroll 16
        for (int j = 0; j < NV * VecF16::lanes; j += Vec<float>::lanes) {
          const Vec<float> v = load_as<Vec<float>>(sums + i * NV * VecF16::lanes + j);
          float* p = c + i * nr + j;
          (add ? v + Vec<float>::load(p) : v).store(p);
        }
    }
  }
  // n numbers, a multiple of 16.
  static void narrow(const float* from, i64 n, uint16_t* to) {
    for (i64 i = 0; i < n; i += Vec<float>::lanes)
      store_as(Vec<float>::load(from + i), reinterpret_cast<Float16*>(to) + i);
  }
  // `steps` rows of a strip of floats.
  static void narrow_strip(const float* from, i64 steps, uint16_t* to) {
    narrow(from, steps * nr, to);
  }
};

}  // namespace vectile::VECTILE_TIER
