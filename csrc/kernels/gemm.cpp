// gemm: C = activation(A B + bias).
// 1. K is cut into pieces of kc; for each, the block's rows of A are packed into panels of mr rows
//    (unless read in place), which stay in the L2 cache.
// 2. For every strip of nr columns, its kc x nr piece of B is brought into the L1 cache: packed, or
//    copied by the first panel's tiles on their way (B contiguous along n).
// 3. Every panel meets the strip in one register tile; the last piece of K is followed by the
// epilogue. Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008, with
// the two inner packings fused. The order of summation depends on k and kc only: |error| <= k eps
// |A| |B|.
#include "kernels/epilogue.h"
#include "kernels/gemm_skinny.h"
#include "kernels/microkernel.h"
#include "kernels/packing.h"

namespace vectile::VECTILE_TIER {

template <class T>
struct Workspace {             // offsets in elements, each on a cache line
  i64 panel, strip, c, total;  // panels of A lie at multiples of `panel`
  Workspace(const Gemm<T>& g, const GemmBlock& block) {
    using V = Vec<T>;
    const i64 m = block.m1 - block.m0, n = block.n1 - block.n0, kc = g.kc < g.k ? g.kc : g.k;
    const auto line = [](i64 x) { return (x + 15) / 16 * 16; };
    panel = line(Tile<V>::mr * kc + V::lanes);  // pack_panel writes past its end
    strip = g.pack_a ? Panels(m, Tile<V>::mr).count * panel : 0;
    c = strip + (g.pack_b ? line(kc * Tile<V>::nr) : 0);
    total = c + (g.c_col != 1 ? line(m * n) : 0);
  }
};

// The block's rows of A, kc steps of K from `a` on, as panels. Rows that are adjacent in memory are
// taken a few steps of K at a time, so that cache lines shared by two panels are read once, and
// asked for a round ahead: they lie on as many pages.
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
  *elements = Workspace<T>(g, block).total;
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

// Asks for the share part / parts of a kc x columns piece of B: the next strip arrives in the L2
// cache while this one is in use, however far apart its lines lie.
template <class T>
static void prefetch_strip(const Gemm<T>& g, const T* b, i64 kc, i64 columns, i64 part, i64 parts) {
  constexpr i64 line = 64 / sizeof(T);
  const bool rows = g.b_col == 1;  // lines run along n
  const i64 outer = rows ? kc : columns, inner = rows ? columns : kc;
  const i64 stride = rows ? g.b_row : g.b_col;
  for (i64 i = outer * part / parts; i < outer * (part + 1) / parts; ++i)
    for (i64 j = 0; j < inner; j += line) __builtin_prefetch(b + i * stride + j, 0, 2);
}

template <class T>
static void gemm(const Gemm<T>& g, const GemmBlock& block, T* workspace) {
  using V = Vec<T>;
  constexpr int mr = Tile<V>::mr, nr = Tile<V>::nr;
  const i64 m = block.m1 - block.m0, n = block.n1 - block.n0;
  const Workspace<T> at(g, block);
  const Panels panels(m, mr);
  const bool transposed = g.c_col != 1;
  T* const c = transposed ? workspace + at.c : g.c + block.m0 * g.c_row + block.n0;
  const i64 c_row = transposed ? n : g.c_row;
  const bool finishing = !transposed && (g.bias || g.activation != Activation::none);
  T* const strip = workspace + at.strip;

  for (i64 k0 = 0; k0 < g.k; k0 += g.kc) {
    const i64 kc = g.k - k0 < g.kc ? g.k - k0 : g.kc;
    const bool last = k0 + kc == g.k;
    const T* a = g.a + block.m0 * g.a_row + k0 * g.a_col;
    if (g.pack_a) pack_panels(g, a, panels, kc, at.panel, workspace);
    for (i64 j = 0; j < n; j += nr) {
      const int columns = static_cast<int>(n - j < nr ? n - j : nr), tail = columns % V::lanes;
      const T* b = strip;
      i64 b_row = nr;
      bool copy = false;
      const T* next = nullptr;
      if (g.b_packed) {
        b = g.b + k0 * g.b_row + (block.n0 + j) * kc;
      } else {
        const T* source = g.b + k0 * g.b_row + (block.n0 + j) * g.b_col;
        copy = g.pack_b && g.b_col == 1 && panels.count > 1;
        if (j + nr < n) next = source + nr * g.b_col;
        if (g.b_col != 1)
          pack_panel<V, nr>(source, g.b_col, g.b_row, columns, kc, strip);
        else
          b = source, b_row = g.b_row;
      }
      for (i64 p = 0; p < panels.count; ++p) {
        const i64 i = panels.start(p);
        const int rows = panels.rows(p);
        const T* panel = g.pack_a ? workspace + p * at.panel : a + i * g.a_row;
        const i64 a_row = g.pack_a ? 1 : g.a_row, a_col = g.pack_a ? mr : g.a_col;
        T* tile = c + i * c_row + j;
        if (next && panels.count > 1)
          prefetch_strip(g, next, kc, n - j - nr < nr ? n - j - nr : nr, p, panels.count);
        const auto function =
            copy ? tile_function<V, true>(rows, columns) : tile_function<V, false>(rows, columns);
        function(kc, panel, a_row, a_col, b, b_row, tile, c_row, tail, k0 > 0, strip);
        if (copy) b = strip, b_row = nr, copy = false;
        if (last && finishing)
          finish_block(tile, c_row, rows, columns, g.bias ? g.bias + block.n0 + j : nullptr,
                       g.activation);
      }
    }
  }
  if (transposed) {
    T* out = g.c + block.m0 + block.n0 * g.c_col;
    transpose_out(c, m, n, out, g.c_col);
    finish_block(out, g.c_col, n, m, g.bias ? g.bias + block.m0 : nullptr, g.activation);
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
static void gemm_finish(T* c, i64 c_row, i64 m, i64 n, const T* bias, Activation activation) {
  finish_block(c, c_row, m, n, bias, activation);
}

template <class T>
static void gemm_tiles(GemmTiles* tiles) {
  using V = Vec<T>;
  *tiles = {Tile<V>::mr, Tile<V>::nr, V::lanes, 256, 448 / Tile<V>::mr * Tile<V>::mr};
}

}  // namespace vectile::VECTILE_TIER

#include "kernels/register.h"
