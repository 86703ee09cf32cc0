// The register tile of 8-bit products: MR rows by NV vectors of int32, a group of four along k at a
// time. Loops over rows and vectors are unrolled whole, so that the sums live in registers.
#pragma once

#include "base/types.h"
#include "simd/dot.h"

namespace vectile::VECTILE_TIER {

using std::int32_t;
using std::uint8_t;

// Largest tile: kMr * kNv sums, the vectors of B and what one row of A needs fit the registers.
#if defined(VECTILE_TIER_amx)  // for few rows; its strips are as wide as two AMX tiles
constexpr int kMr = VecDot::lanes > 1 ? 6 : 1, kNv = 32 / VecDot::lanes;
#elif defined(VECTILE_TIER_avx512_vnni)
constexpr int kMr = 6, kNv = 4;
#elif defined(VECTILE_TIER_avx512)
constexpr int kMr = 10, kNv = 2;
#elif defined(VECTILE_TIER_avx_vnni)
constexpr int kMr = 6, kNv = 2;
#elif defined(VECTILE_TIER_avx2)
constexpr int kMr = 4, kNv = 2;
#elif defined(VECTILE_TIER_neon)
constexpr int kMr = 4, kNv = 4;
#else
constexpr int kMr = 3, kNv = 4;
#endif
constexpr bool kPairs = VecDot::pairs;
constexpr int kNr = kNv * VecDot::lanes, kLeft = kPairs ? 2 : 1;

// How a tile reads its strip of B: as it is packed, from a near cache or streaming from a far one;
// or widened (pairs only): the even bytes of each vector as words, then the odd ones.
enum class Strip { packed, streamed, widened };
constexpr i64 kAhead =
    2048;  // elements from a stream's prefetch to its use; the next strip follows

// One row of A against the vectors of B at one group.
template <bool kWidened, int NV>
struct RightVectors {
  VecDot low[NV], high[kPairs ? NV : 1];

  VECTILE_INLINE explicit RightVectors(const int32_t* b) {
    constexpr int w = VecDot::lanes;
#pragma GCC unroll 16
    for (int j = 0; j < NV; ++j) {
      if constexpr (kWidened) {
        low[j] = VecDot::load(b + 2 * j * w), high[j] = VecDot::load(b + (2 * j + 1) * w);
      } else {
        low[j] = VecDot::load(b + j * w);
        if constexpr (kPairs) high[j] = low[j].odd_bytes(), low[j] = low[j].even_bytes();
      }
    }
  }
  VECTILE_INLINE void add_to(VecDot (&acc)[NV], const int32_t* a) const {
    const VecDot x(a[0]);
    if constexpr (kPairs) {
      const VecDot y(a[1]);
#pragma GCC unroll 16
      for (int j = 0; j < NV; ++j) acc[j] = multiply_add(x, y, low[j], high[j], acc[j]);
    } else {
#pragma GCC unroll 16
      for (int j = 0; j < NV; ++j) acc[j] = multiply_add(x, low[j], acc[j]);
    }
  }
};

// c (MR rows, kNr apart) = or += A B over `depth` groups.
template <int MR, int NV, Strip kStrip>
static void multiply_tile_s8(i64 depth, const int32_t* a, i64 a_row, const int32_t* b, int32_t* c,
                             bool add) {
  constexpr bool kWidened = kStrip == Strip::widened;
  constexpr int threes = (MR + 2) / 3;  // one pointer for three rows: few registers
  const int32_t* rows[threes];
#pragma GCC unroll 16
  for (int g = 0; g < threes; ++g) rows[g] = a + 3 * g * a_row;
  VecDot acc[MR][NV];
#pragma GCC unroll 2
  for (; depth > 0; --depth) {
    if constexpr (kStrip == Strip::streamed)
#pragma GCC unroll 16
      for (int j = 0; j < kNr; j += 16) __builtin_prefetch(b + kAhead + j);
    const RightVectors<kWidened, NV> right(b);
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) right.add_to(acc[i], rows[i / 3] + i % 3 * a_row);
#pragma GCC unroll 16
    for (int g = 0; g < threes; ++g) rows[g] += kLeft;
    b += kWidened ? 2 * kNr : kNr;
  }
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 16
    for (int j = 0; j < NV; ++j) {
      int32_t* p = c + i * kNr + j * VecDot::lanes;
      (add ? acc[i][j] + VecDot::load(p) : acc[i][j]).store(p);
    }
}

using TileS8 = void (*)(i64 depth, const int32_t* a, i64 a_row, const int32_t* b, int32_t* c,
                        bool add);

template <Strip kStrip>
struct TilesS8 {
  TileS8 at[kNv][kMr];
  template <int NV, int MR>
  constexpr void fill() {
    at[NV - 1][MR - 1] = &multiply_tile_s8<MR, NV, kStrip>;
    if constexpr (MR > 1)
      fill<NV, MR - 1>();
    else if constexpr (NV > 1)
      fill<NV - 1, kMr>();
  }
  constexpr TilesS8() : at{} { fill<kNv, kMr>(); }
};

// The tile for `rows` x `columns`, which may write whole vectors.
template <Strip kStrip>
VECTILE_INLINE TileS8 tile_s8(int rows, int columns) {
  static constexpr TilesS8<kStrip> table;
  return table.at[(columns + VecDot::lanes - 1) / VecDot::lanes - 1][rows - 1];
}

// `depth` groups of a strip, widened.
template <class V>
static void widen_strip(i64 depth, const int32_t* b, int32_t* to) {
  for (i64 i = 0; i < depth * kNr; i += V::lanes) {
    const V v = V::load(b + i);
    v.even_bytes().store(to + 2 * i);
    v.odd_bytes().store(to + 2 * i + V::lanes);
  }
}

}  // namespace vectile::VECTILE_TIER
