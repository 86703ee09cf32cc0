// Products of few rows, for which packing B would cost more than the arithmetic: B is read once, in
// memory order, where the register tile of gemm would jump from row to row.
//   gemm_dot   B contiguous along k: inner products, K along the lanes
//   gemm_axpy  B contiguous along n: whole rows of B, scaled by A, added to rows of C in the L1
//   cache
#pragma once

#include "kernels/gemm_types.h"
#include "kernels/microkernel.h"
#include "simd/stored.h"

namespace vectile::VECTILE_TIER {

// MR x NC inner products of length k, with K along the lanes.
template <class S, int MR, int NC>
static void dot_tile(i64 k, const Computed<S>* a, i64 a_row, const S* b, i64 b_col, Computed<S>* c,
                     i64 c_row, i64 c_col) {
  using V = Vec<Computed<S>>;
  V acc[MR][NC];
  const auto step = [&](i64 s, auto... count) VECTILE_LAMBDA {
    V av[MR];
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i) av[i] = V::load(a + i * a_row + s, count...);
#pragma GCC unroll 8
    for (int j = 0; j < NC; ++j) {
      const V bv = load_as<V>(b + j * b_col + s, count...);
#pragma GCC unroll 8
      for (int i = 0; i < MR; ++i) acc[i][j] = multiply_add(av[i], bv, acc[i][j]);
    }
  };
  i64 s = 0;
  for (; s + V::lanes <= k; s += V::lanes) step(s);
  if (s < k) step(s, static_cast<int>(k - s));
#pragma GCC unroll 8
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < NC; ++j) c[i * c_row + j * c_col] = reduce_add(acc[i][j]);
}

template <class S>
using DotFunction = void (*)(i64, const Computed<S>*, i64, const S*, i64, Computed<S>*, i64, i64);

constexpr int kDotRows = 8;
constexpr int kDotAccumulators = kRegisters / 8 * 6;
constexpr int dot_columns(int rows) {
  return kDotAccumulators / rows > 8 ? 8 : kDotAccumulators / rows;
}

template <class S>
struct DotTable {
  DotFunction<S> at[kDotRows][8];
  template <int MR, int NC>
  constexpr void fill() {
    at[MR - 1][NC - 1] = &dot_tile<S, MR, NC>;
    if constexpr (NC > 1)
      fill<MR, NC - 1>();
    else if constexpr (MR > 1)
      fill<MR - 1, dot_columns(MR - 1)>();
  }
  constexpr DotTable() : at{} { fill<kDotRows, dot_columns(kDotRows)>(); }
};

template <class S>
static void gemm_dot(const Gemm<S>& g, const GemmBlock& block, const Computed<S>* a, i64 a_row) {
  static constexpr DotTable<S> table;
  const Panels panels(block.m1 - block.m0, kDotRows);
  const i64 step = dot_columns(panels.rows(0));
  for (i64 j = block.n0; j < block.n1; j += step) {
    const i64 columns = block.n1 - j < step ? block.n1 - j : step;
    for (i64 p = 0; p < panels.count; ++p) {
      const i64 i = block.m0 + panels.start(p);
      table.at[panels.rows(p) - 1][columns - 1](g.k, a + i * a_row, a_row, g.b + j * g.b_col,
                                                g.b_col, g.c + i * g.c_row + j * g.c_col, g.c_row,
                                                g.c_col);
    }
  }
}

// One vector or its tail of `steps` rows of B times A, added to MR rows of C (or, unless `add`,
// stored).
template <class S, int MR, int U>
static void axpy_rows(i64 n, const Computed<S>* a, i64 a_row, i64 a_col, const S* b, i64 b_row,
                      Computed<S>* c, i64 c_row, bool add) {
  using V = Vec<Computed<S>>;
  constexpr i64 w = V::lanes;
  V av[MR][U];
#pragma GCC unroll 8
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 8
    for (int u = 0; u < U; ++u) av[i][u] = V(a[i * a_row + u * a_col]);
  const auto step = [&](i64 j, auto... count) VECTILE_LAMBDA {
    V acc[MR];
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i)
      if (add) acc[i] = V::load(c + i * c_row + j, count...);
#pragma GCC unroll 8
    for (int u = 0; u < U; ++u) {
      const V bv = load_as<V>(b + u * b_row + j, count...);
#pragma GCC unroll 8
      for (int i = 0; i < MR; ++i) acc[i] = multiply_add(av[i][u], bv, acc[i]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i) acc[i].store(c + i * c_row + j, count...);
  };
  i64 j = 0;
  for (; j + w <= n; j += w) step(j);
  if (j < n) step(j, static_cast<int>(n - j));
}

template <class S, int MR>
static void axpy_block(const Gemm<S>& g, const GemmBlock& block, const Computed<S>* a, i64 a_row,
                       i64 a_col) {
  constexpr int steps = kDotAccumulators / 3 * 2 / MR;
  const i64 n = block.n1 - block.n0;
  a += block.m0 * a_row;
  const S* b = g.b + block.n0;
  Computed<S>* c = g.c + block.m0 * g.c_row + block.n0;
  i64 s = 0;
  for (; s + steps <= g.k; s += steps)
    axpy_rows<S, MR, steps>(n, a + s * a_col, a_row, a_col, b + s * g.b_row, g.b_row, c, g.c_row,
                            s > 0);
  for (; s < g.k; ++s)
    axpy_rows<S, MR, 1>(n, a + s * a_col, a_row, a_col, b + s * g.b_row, g.b_row, c, g.c_row,
                        s > 0);
}

template <class S>
static void gemm_axpy(const Gemm<S>& g, const GemmBlock& block, const Computed<S>* a, i64 a_row,
                      i64 a_col) {
  static constexpr decltype(&axpy_block<S, 1>) by_rows[] = {
      axpy_block<S, 1>, axpy_block<S, 2>, axpy_block<S, 3>, axpy_block<S, 4>,
      axpy_block<S, 5>, axpy_block<S, 6>, axpy_block<S, 7>, axpy_block<S, 8>};
  by_rows[block.m1 - block.m0 - 1](g, block, a, a_row, a_col);
}

}  // namespace vectile::VECTILE_TIER
