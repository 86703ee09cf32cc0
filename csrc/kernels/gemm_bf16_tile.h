// The register tile of products of bfloat16: MR rows by NV vectors of float32 sums, a pair along k
// at a time; on AMX blocks of tiles instead.
#pragma once

#include "simd/float16.h"
#if defined(VECTILE_TIER_amx)
#include "kernels/gemm_amx.h"
#endif

namespace vectile::VECTILE_TIER {

struct BF16 {
  using Stored = BFloat16;
  static constexpr int mr = 14, nr = 32, nv = nr / Vec<float>::lanes;
  static constexpr int together = 2;
  static constexpr i64 piece = 256;  // pairs along K that stay in the L1 cache: of a strip 32 KiB
#if defined(VECTILE_TIER_amx)
  static constexpr int panel = kAmxBlock, k_step = 2 * kAmxDepth;
  static void begin() { tiles_begin(); }
  static void end() { tiles_end(); }
#else
  static constexpr int panel = 1, k_step = 2;
  static void begin() {}
  static void end() {}
#endif

#if defined(VECTILE_TIER_amx)
  // c (`rows` rounded up to whole panels, nr apart) = or += A B over `depth` pairs along K.
  static void multiply(i64 depth, const uint16_t* a, i64 a_row, const uint16_t* b, float* c,
                       i64 rows, bool add, const uint16_t* next) {
    multiply_blocks_amx<TileProduct::bf16>(depth, a, a_row, b, c, rows, add, next);
  }
#else
  // c (MR rows, nr apart) = or += A B over `depth` pairs along K.
  template <int MR, int NV>
  static void tile(i64 depth, const uint16_t* a, i64 a_row, const uint16_t* b, float* c, bool add) {
    using V = Vec<float>;
    constexpr int threes = (MR + 2) / 3;  // one pointer for three rows: few registers
    const uint16_t* rows[threes];
#pragma GCC unroll 16
    for (int g = 0; g < threes; ++g) rows[g] = a + 3 * g * a_row;
    const auto pair = [](const uint16_t* p) VECTILE_LAMBDA {
      float bits;
      __builtin_memcpy(&bits, p, sizeof bits);
      return V(bits);
    };
    V acc[MR][NV];
    for (; depth > 0; --depth, b += 2 * nr) {
      V right[NV];
#pragma GCC unroll 16
      for (int j = 0; j < NV; ++j)
        right[j] = V::load(reinterpret_cast<const float*>(b) + j * V::lanes);
#pragma GCC unroll 16
      for (int i = 0; i < MR; ++i) {
        const V left = pair(rows[i / 3] + i % 3 * a_row);
#pragma GCC unroll 16
        for (int j = 0; j < NV; ++j) acc[i][j] = add_pairs(acc[i][j], left, right[j]);
      }
#pragma GCC unroll 16
      for (int g = 0; g < threes; ++g) rows[g] += 2;
    }
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 16
      for (int j = 0; j < NV; ++j) {
        float* p = c + i * nr + j * V::lanes;
        (add ? acc[i][j] + V::load(p) : acc[i][j]).store(p);
      }
  }
#endif
  // n numbers, a multiple of 32.
  static void narrow(const float* from, i64 n, uint16_t* to) {
    for (i64 i = 0; i < n; i += 2 * Vec<float>::lanes)
      store_bf16(Vec<float>::load(from + i), Vec<float>::load(from + i + Vec<float>::lanes),
                 to + i);
  }
  // `steps` rows of a strip of floats, an even number.
  static void narrow_strip(const float* from, i64 steps, uint16_t* to) {
    for (i64 i = 0; i < steps * nr; i += 2 * nr)
      for (int j = 0; j < nr; j += Vec<float>::lanes)
        store_pairs(Vec<float>::load(from + i + j), Vec<float>::load(from + i + nr + j),
                    to + i + 2 * j);
  }
};

}  // namespace vectile::VECTILE_TIER
