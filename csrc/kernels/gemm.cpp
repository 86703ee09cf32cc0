// gemm: C = activation(A B + bias) + residual.
// 1. K is cut into pieces of kc, columns into strips of nr and rows into panels of mr; a register
//    tile is a panel times a strip. The strip stays in the L1 cache, mc rows of A in the L2 cache.
// 2. Both are copied into that order beforehand, many lines at a time: between tiles, copies would
//    make them wait. Strips are kept where more than mc rows need them, else a few at a time.
// 3. The last piece of K is followed by the epilogue.
// Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008. The order of
// summation depends on k and kc only: |error| <= k eps |A| |B|.
#include "kernels/epilogue.h"
#include "kernels/gemm_skinny.h"
#include "kernels/gemm_tuning.h"
#include "kernels/microkernel.h"
#include "kernels/packing.h"

namespace vectile::VECTILE_TIER {

// How a block is worked through, and where its copies lie in the workspace.
template <class T>
struct Layout {
  static constexpr i64 kShallow = 32;     // steps of K below which C is most of the traffic
  static constexpr i64 kInner = 1 << 16;  // elements of B that stay in the L2 cache
  static constexpr i64 kTogether = 4;     // strips copied at a time: whole runs of a row, few pages
  i64 rows, strips, ring;                 // rows of a row block; strips of the block; strips kept
  bool by_rows;                           // a panel meets all strips in turn: C in memory order
  i64 panel, strip;                       // elements of each
  i64 b, c, total;                        // offsets, each on a cache line
  Layout(const Gemm<T>& g, const GemmBlock& block) {
    using V = Vec<T>;
    constexpr int mr = Tile<V>::mr, nr = Tile<V>::nr;
    const i64 m = block.m1 - block.m0, n = block.n1 - block.n0, kc = g.kc < g.k ? g.kc : g.k;
    const auto ceil_div = [](i64 x, i64 y) { return (x + y - 1) / y; };
    const auto line = [](i64 x) { return (x + 15) / 16 * 16; };
    const i64 row_blocks = g.pack_a || g.pack_b ? ceil_div(m, g.mc) : 1;
    rows = ceil_div(ceil_div(m, row_blocks), mr) * mr;
    strips = ceil_div(n, nr);
    by_rows = g.k <= kShallow && g.k * n <= kInner;
    ring = row_blocks > 1 || by_rows || strips < kTogether ? strips : kTogether;
    if (!g.pack_b) ring = g.b_packed || n % V::lanes == 0 ? 0 : 1;
    panel = line(mr * kc + V::lanes);  // pack_panel writes past its end
    strip = line(kc * nr) + 16;        // off the powers of two
    b = g.pack_a ? ceil_div(rows, mr) * panel : 0;
    c = b + ring * strip;
    total = c + (g.c_col != 1 ? line(m * n) : 0);
  }
};

// The panels of A, kc steps of K from `a` on. Rows that are adjacent in memory are taken a few
// steps of K at a time, so that cache lines shared by two panels are read once, and asked for a
// round ahead: they lie on as many pages.
template <class T>
static void pack_panels(const Gemm<T>& g, const T* a, const Panels& panels, i64 kc, i64 panel,
                        T* to) {
  using V = Vec<T>;
  constexpr int mr = Tile<V>::mr;
  const i64 step = g.a_row == 1 ? 16 : kc;
  for (i64 s = 0; s < kc; s += step) {
    const i64 count = kc - s < step ? kc - s : step;
    const i64 next = kc - s - count < step ? kc - s - count : step;
    for (i64 p = 0; p < panels.count; ++p) {
      const T* const from = a + panels.start(p) * g.a_row + s * g.a_col;
      for (i64 i = 0; i < next; ++i) __builtin_prefetch(from + (step + i) * g.a_col);
      pack_panel<V, mr>(from, g.a_row, g.a_col, panels.rows(p), count, to + p * panel + s * mr);
    }
  }
}

template <class T>
static void gemm_workspace(const Gemm<T>& g, const GemmBlock& block, i64* elements) {
  *elements = Layout<T>(g, block).total;
}

template <class T>
static void transpose_out(const T* src, i64 m, i64 n, T* dst, i64 dst_row) {
  constexpr int w = Vec<T>::lanes;
  for (i64 i = 0; i < m; i += w) {
    const int rows = static_cast<int>(m - i < w ? m - i : w);
    for (i64 j = 0; j < n; j += w)
      transpose_block(src + i * n + j, n, rows, static_cast<int>(n - j < w ? n - j : w),
                      dst + j * dst_row + i, dst_row, rows);
  }
}

// `columns` columns of B, kc steps of K from `b` on, as strips of nr columns, `strip` elements
// apart.
template <class T>
static void pack_strips(const Gemm<T>& g, const T* b, i64 columns, i64 kc, i64 strip, T* to) {
  using V = Vec<T>;
  constexpr i64 nr = Tile<V>::nr;
  const i64 whole = g.b_col == 1 ? columns / nr : 0;
  for (i64 s = 0; whole > 0 && s < kc; ++s)
    for (i64 j = 0; j < whole; ++j)
#pragma GCC unroll 8
      for (i64 i = 0; i < nr; i += V::lanes)
        V::load(b + s * g.b_row + j * nr + i).store(to + j * strip + s * nr + i);
  for (i64 j = whole * nr; j < columns; j += nr)
    pack_panel<V, nr>(b + j * g.b_col, g.b_col, g.b_row,
                      static_cast<int>(columns - j < nr ? columns - j : nr), kc,
                      to + j / nr * strip);
}

// The strips of a piece of B, kc steps of K from `b` on: packed by the caller, copied into a ring,
// or in place where they end with a whole vector.
template <class T>
struct Strips {
  static constexpr i64 nr = Tile<Vec<T>>::nr;
  const Gemm<T>& g;
  const Layout<T>& at;
  i64 n, kc;
  const T* b;
  T* ring;

  int columns(i64 t) const { return static_cast<int>(n - t * nr < nr ? n - t * nr : nr); }
  bool copied(i64 t) const { return g.pack_b || (!g.b_packed && columns(t) % Vec<T>::lanes != 0); }
  T* copy_of(i64 t) const { return ring + t % at.ring * at.strip; }
  // Copies strip t, and with it those that follow until the next multiple of kTogether.
  void copy(i64 t) const {
    if (!copied(t) || (g.pack_b && t % at.kTogether != 0)) return;
    const i64 rest = n - t * nr, most = at.kTogether * nr;
    pack_strips(g, b + t * nr * g.b_col, rest < most ? rest : most, kc, at.strip, copy_of(t));
  }
  // Asks for a share of the strips that are copied after those with t.
  void prefetch(i64 t, i64 part, i64 parts) const {
    const i64 next = (t / at.kTogether + 1) * at.kTogether;
    if (!g.pack_b || next >= at.strips) return;
    part += t % at.kTogether * parts, parts *= at.kTogether;
    const i64 rest = n - next * nr, columns = rest < at.kTogether * nr ? rest : at.kTogether * nr;
    const T* const from = b + next * nr * g.b_col;
    const bool rows = g.b_col == 1;
    const i64 outer = rows ? kc : columns, inner = rows ? columns : kc;
    const i64 stride = rows ? g.b_row : g.b_col;
    for (i64 i = outer * part / parts; i < outer * (part + 1) / parts; ++i)
      for (i64 j = 0; j < inner; j += 64 / sizeof(T))
        __builtin_prefetch(from + i * stride + j, 0, 2);
  }
  const T* begin(i64 t) const {
    return copied(t) ? copy_of(t) : b + t * nr * (g.b_packed ? kc : g.b_col);
  }
  i64 row(i64 t) const { return copied(t) || g.b_packed ? nr : g.b_row; }
};

template <class T>
static void gemm(const Gemm<T>& g, const GemmBlock& block, T* workspace) {
  using V = Vec<T>;
  constexpr i64 mr = Tile<V>::mr, nr = Tile<V>::nr;
  const i64 m = block.m1 - block.m0, n = block.n1 - block.n0;
  const Layout<T> at(g, block);
  const bool transposed = g.c_col != 1;
  T* const c = transposed ? workspace + at.c : g.c + block.m0 * g.c_row + block.n0;
  const i64 c_row = transposed ? n : g.c_row;
  const bool finishing = !transposed && (g.bias || g.residual || g.activation != Activation::none);
  const i64 a_row = g.pack_a ? 1 : g.a_row, a_col = g.pack_a ? mr : g.a_col;

  for (i64 k0 = 0; k0 < g.k; k0 += g.kc) {
    const i64 kc = g.k - k0 < g.kc ? g.k - k0 : g.kc;
    const bool last = k0 + kc == g.k;
    const T* const b = g.b + k0 * g.b_row + block.n0 * (g.b_packed ? kc : g.b_col);
    const Strips<T> strips{g, at, n, kc, b, workspace + at.b};
    for (i64 i0 = 0; i0 < m; i0 += at.rows) {
      const Panels panels(m - i0 < at.rows ? m - i0 : at.rows, mr);
      const T* const a = g.a + (block.m0 + i0) * g.a_row + k0 * g.a_col;
      if (g.pack_a) pack_panels(g, a, panels, kc, at.panel, workspace);
      const auto multiply = [&](i64 p, i64 t) {
        const int rows = panels.rows(p), columns = strips.columns(t);
        T* const tile = c + (i0 + panels.start(p)) * c_row + t * nr;
        tile_function<V>(rows, columns)(
            kc, g.pack_a ? workspace + p * at.panel : a + panels.start(p) * g.a_row, a_row, a_col,
            strips.begin(t), strips.row(t), tile, c_row, columns % V::lanes, k0 > 0);
        if (last && finishing)
          finish_block(tile, c_row, rows, columns, g.bias ? g.bias + block.n0 + t * nr : nullptr,
                       g.activation, g.residual ? g.residual + (tile - g.c) : nullptr);
      };
      if (at.by_rows) {
        for (i64 t = 0; i0 == 0 && t < at.strips; ++t) strips.copy(t);
        for (i64 p = 0; p < panels.count; ++p)
          for (i64 t = 0; t < at.strips; ++t) multiply(p, t);
      } else {
        for (i64 t = 0; t < at.strips; ++t) {
          if (i0 == 0) strips.copy(t);
          for (i64 p = 0; p < panels.count; ++p) {
            if (i0 == 0) strips.prefetch(t, p, panels.count);
            multiply(p, t);
          }
        }
      }
    }
  }
  if (transposed) {
    T* out = g.c + block.m0 + block.n0 * g.c_col;
    transpose_out(c, m, n, out, g.c_col);
    finish_block(out, g.c_col, n, m, g.bias ? g.bias + block.m0 : nullptr, g.activation,
                 g.residual ? g.residual + (out - g.c) : nullptr);
  }
}

template <class T>
static void gemm_pack(const T* b, i64 b_row, i64 b_col, i64 k, i64 n, i64 kc, T* packed) {
  using V = Vec<T>;
  constexpr int nr = Tile<V>::nr;
  const i64 padded = (n + nr - 1) / nr * nr;
  for (i64 k0 = 0; k0 < k; k0 += kc) {
    const i64 depth = k - k0 < kc ? k - k0 : kc;
    for (i64 j = 0; j < n; j += nr)
      pack_panel<V, nr>(b + k0 * b_row + j * b_col, b_col, b_row,
                        static_cast<int>(n - j < nr ? n - j : nr), depth,
                        packed + k0 * padded + j * depth);
  }
}

template <class T>
static void gemm_finish(T* c, i64 c_row, i64 m, i64 n, const T* bias, Activation activation,
                        const T* residual) {
  finish_block(c, c_row, m, n, bias, activation, residual);
}

template <class T>
static void gemm_tiles(GemmTiles* tiles) {
  using V = Vec<T>;
  constexpr GemmBlocks blocks = gemm_blocks(VECTILE_TEXT(VECTILE_TIER));
  *tiles = {Tile<V>::mr, Tile<V>::nr, V::lanes, blocks.kc, blocks.mc / Tile<V>::mr * Tile<V>::mr};
}

}  // namespace vectile::VECTILE_TIER

#include "kernels/register.h"
