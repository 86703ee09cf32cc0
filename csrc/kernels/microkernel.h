// The register tile of every matrix product: MR rows by NV vectors of C, one step of K at a time.
//
// Templates over a vector type V with load, store, broadcast constructor and multiply_add(a, b, c):
// Vec<float>, Vec<double>, and the packed-integer vectors of simd/dot.h. Loops over rows and
// vectors are unrolled whole, so that the accumulators live in registers.
#pragma once

#include "base/types.h"
#include "simd/vec.h"

namespace vectile::VECTILE_TIER {

// c + a b; one rounding where the tier has the instruction.
template <class T>
VECTILE_INLINE Vec<T> multiply_add(Vec<T> a, Vec<T> b, Vec<T> c) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
  return fma(a, b, c);
#else
  return a * b + c;
#endif
}

// Largest tile of V: mr * nv accumulators, nv vectors of B and one of A fit the register file.
template <class V>
struct Tile {
#if defined(VECTILE_TIER_avx512) || defined(VECTILE_TIER_avx512_vnni)
  static constexpr int mr = V::lanes > 1 ? 14 : 6, nv = V::lanes > 1 ? 2 : 4;
#elif defined(VECTILE_TIER_neon)
  static constexpr int mr = V::lanes > 1 ? 8 : 6, nv = V::lanes > 1 ? 3 : 4;
#elif defined(VECTILE_TIER_avx2)
  static constexpr int mr = V::lanes > 1 ? 6 : 3, nv = V::lanes > 1 ? 2 : 4;
#else
  static constexpr int mr = 3, nv = 4;
#endif
  static constexpr int nr = nv * V::lanes;
};

// Memory that will be read later and is asked for on the way, by tiles of whole cache lines and
// many rows, which have load ports to spare: in each step of K one row, as wide as the tile.
struct Ahead {
  const void* row = nullptr;
  i64 step = 0;  // bytes
};

// acc[i][j] += sum over k of a(i, k) * b(k, j); a(i, k) = a[i * a_row + k * a_col], row k of B
// starts at b + k * b_row and is read in whole vectors.
template <class V, int MR, int NV, bool kAsks = false>
VECTILE_INLINE void multiply_tile(V (&acc)[MR][NV], i64 k, const typename V::value_type* a,
                                  i64 a_row, i64 a_col, const typename V::value_type* b, i64 b_row,
                                  Ahead ahead = {}) {
  constexpr int groups =
      (MR + 2) / 3;  // one pointer for three rows: few registers, short addresses
  const typename V::value_type* rows[groups];
#pragma GCC unroll 16
  for (int g = 0; g < groups; ++g) rows[g] = a + 3 * g * a_row;
  for (; k > 0; --k) {
    V bv[NV];
#pragma GCC unroll 16
    for (int j = 0; j < NV; ++j) bv[j] = V::load(b + j * V::lanes);
    if constexpr (kAsks) {
#pragma GCC unroll 16
      for (int j = 0; j < NV; ++j)
        __builtin_prefetch(static_cast<const char*>(ahead.row) + j * sizeof(V));
      ahead.row = static_cast<const char*>(ahead.row) + ahead.step;
    }
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
      const V av(rows[i / 3][i % 3 * a_row]);
#pragma GCC unroll 16
      for (int j = 0; j < NV; ++j) acc[i][j] = multiply_add(av, bv[j], acc[i][j]);
    }
#pragma GCC unroll 16
    for (int g = 0; g < groups; ++g) rows[g] += a_col;
    b += b_row;
  }
}

// A tile from memory to memory: C = A B, or C += A B when `add`; A and B as multiply_tile takes
// them, so the last vector of a row of B is whole even where only `tail` columns of C are.
template <class E>
using TileFunction = void (*)(i64 k, const E* a, i64 a_row, i64 a_col, const E* b, i64 b_row, E* c,
                              i64 c_row, int tail, bool add, Ahead ahead);

template <class V, int MR, int NV, bool kTail>
static void compute_tile(i64 k, const typename V::value_type* a, i64 a_row, i64 a_col,
                         const typename V::value_type* b, i64 b_row, typename V::value_type* c,
                         i64 c_row, int tail, bool add, Ahead ahead) {
  if constexpr (sizeof(V) < 64) {  // beside 28 lines of C, shallow tiles would wait for these
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 16
      for (int j = 0; j < NV; ++j) __builtin_prefetch(c + i * c_row + j * V::lanes, 0, 2);
  }
  V acc[MR][NV];
  constexpr bool asks = MR >= 4 && sizeof(V) == 64;  // a vector is a line
  if (asks && ahead.row)
    multiply_tile<V, MR, NV, asks>(acc, k, a, a_row, a_col, b, b_row, ahead);
  else
    multiply_tile<V, MR, NV>(acc, k, a, a_row, a_col, b, b_row);
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 16
    for (int j = 0; j < NV; ++j) {
      typename V::value_type* p = c + i * c_row + j * V::lanes;
      if (kTail && j == NV - 1) {
        if (add) acc[i][j] = acc[i][j] + V::load(p, tail);
        acc[i][j].store(p, tail);
      } else {
        if (add) acc[i][j] = acc[i][j] + V::load(p);
        acc[i][j].store(p);
      }
    }
  }
}

// compute_tile for every number of rows and vectors.
template <class V, bool kTail>
struct TileTable {
  TileFunction<typename V::value_type> at[Tile<V>::nv][Tile<V>::mr];

  template <int NV, int MR>
  constexpr void fill() {
    at[NV - 1][MR - 1] = &compute_tile<V, MR, NV, kTail>;
    if constexpr (MR > 1)
      fill<NV, MR - 1>();
    else if constexpr (NV > 1)
      fill<NV - 1, Tile<V>::mr>();
  }
  constexpr TileTable() : at{} { fill<Tile<V>::nv, Tile<V>::mr>(); }
};

// The compute_tile for `rows` x `columns` elements, 1 <= rows <= mr, 1 <= columns <= nr.
template <class V>
VECTILE_INLINE TileFunction<typename V::value_type> tile_function(int rows, int columns) {
  static constexpr TileTable<V, false> whole;
  const int vectors = (columns + V::lanes - 1) / V::lanes;
  if constexpr (V::lanes > 1) {
    static constexpr TileTable<V, true> tail;
    if (columns % V::lanes != 0) return tail.at[vectors - 1][rows - 1];
  }
  return whole.at[vectors - 1][rows - 1];
}

// m rows in panels of at most mr, as even as they can be.
struct Panels {
  i64 count, base, longer;
  Panels(i64 m, int mr) : count((m + mr - 1) / mr), base(m / count), longer(m % count) {}
  i64 start(i64 i) const { return i * base + (i < longer ? i : longer); }
  int rows(i64 i) const { return static_cast<int>(base + (i < longer)); }
};

}  // namespace vectile::VECTILE_TIER
