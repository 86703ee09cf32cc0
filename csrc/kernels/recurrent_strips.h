// Products of a step's few rows with a packed w_hh. Its strips are as wide as the register file
// allows for that many rows: with few rows, more columns give enough independent sums and long
// runs of memory.
#pragma once

#include "kernels/microkernel.h"
#include "kernels/recurrent_types.h"
#include "simd/transpose.h"

namespace vectile::VECTILE_TIER {

// The pairs of a tile's rows and vectors, widest first; the last entry is Tile<V>.
template <class V>
struct StripTiles {
  struct Pair {
    int rows, vectors;
  };
#if defined(VECTILE_TIER_avx512) || defined(VECTILE_TIER_avx512_vnni)
  static constexpr Pair wide[] = {{3, 8}, {6, 4}};
#elif defined(VECTILE_TIER_neon)
  static constexpr Pair wide[] = {{2, 8}, {6, 4}};
#else
  static constexpr Pair wide[] = {{1, 8}, {2, 4}};
#endif
  static constexpr int max_vectors = V::lanes > 1 ? 8 : Tile<V>::nv;

  // The tile for a block of `rows` rows.
  static constexpr Pair of(i64 rows) {
    if (V::lanes > 1)
      for (const Pair p : wide)
        if (rows <= p.rows) return p;
    return {Tile<V>::mr, Tile<V>::nv};
  }
};

// compute_tile for every number of rows and the vectors of its strips.
template <class V, bool kTail>
struct StripTable {
  TileFunction<typename V::value_type> at[Tile<V>::mr][StripTiles<V>::max_vectors];

  template <int MR, int NV>
  constexpr void fill() {
    at[MR - 1][NV - 1] = &compute_tile<V, MR, NV, kTail>;
    if constexpr (NV > 1)
      fill<MR, NV - 1>();
    else if constexpr (MR > 1)
      fill<MR - 1, StripTiles<V>::of(MR - 1).vectors>();
  }
  constexpr StripTable() : at{} { fill<Tile<V>::mr, Tile<V>::nv>(); }
};

template <class V>
VECTILE_INLINE TileFunction<typename V::value_type> strip_function(int rows, int columns) {
  static constexpr StripTable<V, false> whole;
  const int vectors = (columns + V::lanes - 1) / V::lanes;
  if constexpr (V::lanes > 1) {
    static constexpr StripTable<V, true> tail;
    if (columns % V::lanes != 0) return tail.at[rows - 1][vectors - 1];
  }
  return whole.at[rows - 1][vectors - 1];
}

// Columns of a strip, and how the units [0, hidden) fall into strips. The last strip is only as
// wide as it must be, so strips start at multiples of their first column.
template <class T>
struct Strips {
  using V = Vec<T>;
  i64 hidden, width;
  int rows;  // of a tile
  Strips(i64 hidden, i64 batch_rows) : hidden(hidden) {
    const auto tile = StripTiles<V>::of(batch_rows);
    rows = tile.rows;
    width = tile.vectors * V::lanes;
  }
  int columns(i64 u) const { return static_cast<int>(hidden - u < width ? hidden - u : width); }
  i64 stored(i64 u) const { return (columns(u) + V::lanes - 1) / V::lanes * V::lanes; }
  i64 padded() const { return (hidden + V::lanes - 1) / V::lanes * V::lanes; }
};

constexpr i64 kStripDepth = 256;  // steps of K between two looks at C: a strip of them fits L1

// Rows [0, n) of C += A B for one strip of B of depth k, or C = A B unless `add`.
template <class T>
static void multiply_strip(const Panels& panels, i64 k, const T* a, i64 a_row, const T* strip,
                           i64 stored, int columns, T* c, i64 c_row, bool add) {
  using V = Vec<T>;
  const i64 pieces = (k + kStripDepth - 1) / kStripDepth;
  for (i64 piece = 0; piece < pieces; ++piece) {
    const i64 k0 = k * piece / pieces, k1 = k * (piece + 1) / pieces;
    for (i64 p = 0; p < panels.count; ++p) {
      const i64 i = panels.start(p);
      strip_function<V>(panels.rows(p), columns)(k1 - k0, a + i * a_row + k0, a_row, 1,
                                                 strip + k0 * stored, stored, c + i * c_row, c_row,
                                                 columns % V::lanes, add || piece > 0, {});
    }
  }
}

}  // namespace vectile::VECTILE_TIER
