// gemm: C = activation(A B + bias) + residual.
// 1. K is cut into pieces of kc, columns into strips of nr and rows into panels of mr; a register
//    tile is a panel times a strip. The strip stays in the L1 cache, mc rows of A in the L2 cache.
// 2. Both are copied into that order beforehand, many lines at a time: between tiles, copies would
//    make them wait. Strips are kept where more than mc rows need them, else a few at a time.
// 3. The last piece of K is followed by the epilogue.
// 4. Half types are widened by the copies, and C is rounded by the epilogue: its sums lie in the
//    workspace, a tile where K is one piece, else the block. The sums are those of float32.
// Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008. The order of
// summation depends on k and kc only: |error| <= k eps |A| |B|.
#include "kernels/epilogue.h"
#include "kernels/gemm_skinny.h"
#include "kernels/gemm_tuning.h"
#include "kernels/microkernel.h"
#include "kernels/packing.h"
#include "kernels/rows.h"

namespace vectile::VECTILE_TIER {

// How a block is worked through, and where its copies lie in the workspace.
template <class S>
struct Layout {
  using T = Computed<S>;
  static constexpr i64 kShallow = 32;     // steps of K below which C is most of the traffic
  static constexpr i64 kInner = 1 << 16;  // elements of B that stay in the L2 cache
  static constexpr i64 kTogether = 4;     // strips copied at a time: whole runs of a row, few pages
  static constexpr i64 kWidened = 1 << 13;  // elements of A widened at a time, for the L1 cache
  static constexpr i64 kSmall = 1 << 13;    // elements of C that are rounded in whole rows
  static constexpr i64 kLines = 16;         // rows of C transposed at a time: whole cache lines
  i64 rows, strips, ring;                   // rows of a row block; strips of the block; strips kept
  bool by_rows;                             // a panel meets all strips in turn: C in memory order
  i64 panel, strip;                         // elements of each
  i64 a_row, a_col;                         // strides of A as the tiles read it
  i64 b, c, lines, total;                   // offsets, each on a cache line
  // C is written from the sums of all of the block, at the end, or of one tile.
  bool transposed, at_end, by_tile;
  Layout(const Gemm<S>& g, const GemmBlock& block) {
    using V = Vec<T>;
    constexpr int mr = Tile<V>::mr, nr = Tile<V>::nr;
    const i64 m = block.m1 - block.m0, n = block.n1 - block.n0, kc = g.kc < g.k ? g.kc : g.k;
    const auto ceil_div = [](i64 x, i64 y) { return (x + y - 1) / y; };
    const auto line = [](i64 x) { return (x + 15) / 16 * 16; };
    i64 most = g.pack_a || g.pack_b ? g.mc : m;
    const i64 widened = (g.a_col == 1 ? kWidened : 4 * kWidened) / kc + mr;
    if (widens<S> && !g.pack_a && most > widened) most = widened;
    const i64 row_blocks = ceil_div(m, most);
    rows = ceil_div(ceil_div(m, row_blocks), mr) * mr;
    strips = ceil_div(n, nr);
    by_rows = g.k <= kShallow && g.k * n <= kInner;
    ring = row_blocks > 1 || by_rows || strips < kTogether ? strips : kTogether;
    if (!g.pack_b) ring = g.strips || n % V::lanes == 0 ? 0 : 1;
    panel = line(mr * kc + V::lanes);  // pack_panel writes past its end
    strip = line(kc * nr) + 16;        // off the powers of two
    a_row = g.pack_a ? 1 : widens<S> && g.a_col == 1 ? line(kc) + 16 : g.a_row;
    a_col = g.pack_a ? mr : widens<S> && g.a_col != 1 ? line(rows) + 16 : g.a_col;
    b = g.pack_a ? ceil_div(rows, mr) * panel : widens<S> ? line(rows * a_row + kc * a_col) : 0;
    c = b + ring * strip;
    transposed = g.c_col != 1;
    at_end = !transposed && !g.c && m * n <= kSmall;
    by_tile = !transposed && !g.c && !at_end && g.k <= g.kc;
    lines = c + (by_tile ? line(mr * nr) : transposed || !g.c ? line(m * n) : 0);
    total = lines + (transposed && !g.c ? line(m * kLines) : 0);
  }
};

// The panels of A, kc steps of K from `a` on. Rows that are adjacent in memory are taken a few
// steps of K at a time, so that cache lines shared by two panels are read once, and asked for a
// round ahead: they lie on as many pages.
template <class S>
static void pack_panels(const Gemm<S>& g, const S* a, const Panels& panels, i64 kc, i64 panel,
                        Computed<S>* to) {
  using V = Vec<Computed<S>>;
  constexpr int mr = Tile<V>::mr;
  const i64 step = g.a_row == 1 ? 16 : kc;
  for (i64 s = 0; s < kc; s += step) {
    const i64 count = kc - s < step ? kc - s : step;
    const i64 next = kc - s - count < step ? kc - s - count : step;
    for (i64 p = 0; p < panels.count; ++p) {
      const S* const from = a + panels.start(p) * g.a_row + s * g.a_col;
      for (i64 i = 0; i < next; ++i) __builtin_prefetch(from + (step + i) * g.a_col);
      pack_panel<V, mr>(from, g.a_row, g.a_col, panels.rows(p), count, to + p * panel + s * mr);
    }
  }
}

// Lines of n contiguous elements, to lines `to_line` apart. What lies 1 KiB ahead is asked for: of
// lines far apart no prefetcher knows the next.
template <class S>
static void widen_lines(const S* from, i64 line, i64 lines, i64 n, Computed<S>* to, i64 to_line) {
  using V = Vec<Computed<S>>;
  const i64 ahead = 512 / n + 1;
  for (i64 i = 0; i < lines; ++i, from += line, to += to_line) {
    for (i64 j = 0; j < n && i + ahead < lines; j += 64 / sizeof(S))
      __builtin_prefetch(from + ahead * line + j);
    row_each<Computed<S>>(n, [&](i64 j, auto... count) VECTILE_LAMBDA {
      load_as<V>(from + j, count...).store(to + j);  // whole vectors: to_line leaves room
    });
  }
}

template <class S>
static void gemm_workspace(const Gemm<S>& g, const GemmBlock& block, i64* elements) {
  *elements = Layout<S>(g, block).total;
}

// Where C is finished; null where only its sums are wanted.
template <class S>
static S* finished(const Gemm<S>& g) {
  if constexpr (widens<S>)
    return g.rounded;
  else
    return g.c;
}

// C from its sums, stored as C^T (m, n): runs of kLines rows of C, transposed and finished.
template <class S>
static void transpose_out(const Gemm<S>& g, const GemmBlock& block, const Computed<S>* sums,
                          Computed<S>* lines) {
  using T = Computed<S>;
  constexpr i64 w = Vec<T>::lanes, run = Layout<S>::kLines;
  const i64 m = block.m1 - block.m0, n = block.n1 - block.n0;
  const auto most = [](i64 rest, i64 limit) { return rest < limit ? rest : limit; };
  for (i64 j = 0; j < n; j += run) {
    const i64 count = most(n - j, run), at = block.m0 + (block.n0 + j) * g.c_col;
    T* const to = g.c ? g.c + at : lines;
    const i64 to_row = g.c ? g.c_col : m;
    for (i64 i = 0; i < m; i += w)
      for (i64 l = 0; l < count; l += w)
        transpose_block(sums + i * n + j + l, n, static_cast<int>(most(m - i, w)),
                        static_cast<int>(most(count - l, w)), to + l * to_row + i, to_row,
                        static_cast<int>(most(m - i, w)));
    if (S* const out = finished(g))
      finish_block(to, to_row, out + at, g.c_col, count, m, g.bias ? g.bias + block.m0 : nullptr,
                   g.activation, g.residual ? g.residual + at : nullptr);
  }
}

// `columns` columns of B, kc steps of K from `b` on, as strips of nr columns, `strip` elements
// apart.
template <class S>
static void pack_strips(const Gemm<S>& g, const S* b, i64 columns, i64 kc, i64 strip,
                        Computed<S>* to) {
  using V = Vec<Computed<S>>;
  constexpr i64 nr = Tile<V>::nr;
  const i64 whole = g.b_col == 1 ? columns / nr : 0;
  for (i64 s = 0; whole > 0 && s < kc; ++s)
    for (i64 j = 0; j < whole; ++j)
#pragma GCC unroll 8
      for (i64 i = 0; i < nr; i += V::lanes)
        load_as<V>(b + s * g.b_row + j * nr + i).store(to + j * strip + s * nr + i);
  for (i64 j = whole * nr; j < columns; j += nr)
    pack_panel<V, nr>(b + j * g.b_col, g.b_col, g.b_row,
                      static_cast<int>(columns - j < nr ? columns - j : nr), kc,
                      to + j / nr * strip);
}

// The strips of a piece of B, kc steps of K: packed by the caller, copied into a ring, or in place
// where they end with a whole vector.
template <class S>
struct Strips {
  using T = Computed<S>;
  static constexpr i64 nr = Tile<Vec<T>>::nr;
  const Gemm<S>& g;
  const Layout<S>& at;
  i64 n, kc;
  const S* b;       // from the piece's first row on,
  const T* packed;  // or its first strip
  T* ring;

  int columns(i64 t) const { return static_cast<int>(n - t * nr < nr ? n - t * nr : nr); }
  bool copied(i64 t) const { return g.pack_b || (!g.strips && columns(t) % Vec<T>::lanes != 0); }
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
    const S* const from = b + next * nr * g.b_col;
    const bool rows = g.b_col == 1;
    const i64 outer = rows ? kc : columns, inner = rows ? columns : kc;
    const i64 stride = rows ? g.b_row : g.b_col;
    for (i64 i = outer * part / parts; i < outer * (part + 1) / parts; ++i)
      for (i64 j = 0; j < inner; j += 64 / sizeof(S))
        __builtin_prefetch(from + i * stride + j, 0, 2);
  }
  const T* begin(i64 t) const {
    if (copied(t)) return copy_of(t);
    if constexpr (!widens<S>)
      if (!g.strips) return b + t * nr * g.b_col;
    return packed + t * nr * kc;
  }
  // What the tiles of strip t ask for: a copy a little ahead, or once the next strip in place.
  Ahead ahead(i64 t, bool first) const {
    const i64 step = row(t) * i64(sizeof(T));
    if (copied(t) || g.strips) return {begin(t) + 8 * nr, step};
    if constexpr (!widens<S>)
      if (first) return {t + 1 < at.strips ? b + (t + 1) * nr * g.b_col : b + kc * g.b_row, step};
    return {};
  }
  i64 row(i64 t) const { return copied(t) || g.strips ? nr : g.b_row; }
};

template <class S>
static void gemm(const Gemm<S>& g, const GemmBlock& block, Computed<S>* workspace) {
  using T = Computed<S>;
  using V = Vec<T>;
  constexpr i64 mr = Tile<V>::mr, nr = Tile<V>::nr;
  const i64 m = block.m1 - block.m0, n = block.n1 - block.n0;
  const Layout<S> at(g, block);
  const bool in_place = !at.transposed && g.c;
  T* const c = in_place ? g.c + block.m0 * g.c_row + block.n0 : workspace + at.c;
  const i64 c_row = in_place ? g.c_row : at.by_tile ? nr : n;
  S* const out = at.transposed || at.at_end ? nullptr : finished(g);
  const bool finishing =
      out && (widens<S> || g.bias || g.residual || g.activation != Activation::none);

  for (i64 k0 = 0; k0 < g.k; k0 += g.kc) {
    const i64 kc = g.k - k0 < g.kc ? g.k - k0 : g.kc;
    const bool last = k0 + kc == g.k;
    const Strips<S> strips{g,
                           at,
                           n,
                           kc,
                           g.strips ? nullptr : g.b + k0 * g.b_row + block.n0 * g.b_col,
                           g.strips ? g.strips + k0 * g.b_row + block.n0 * kc : nullptr,
                           workspace + at.b};
    for (i64 i0 = 0; i0 < m; i0 += at.rows) {
      const i64 rows_here = m - i0 < at.rows ? m - i0 : at.rows;
      const Panels panels(rows_here, mr);
      const S* const a = g.a + (block.m0 + i0) * g.a_row + k0 * g.a_col;
      if (g.pack_a)
        pack_panels(g, a, panels, kc, at.panel, workspace);
      else if (widens<S> && g.a_col == 1)
        widen_lines(a, g.a_row, rows_here, kc, workspace, at.a_row);
      else if (widens<S>)
        widen_lines(a, g.a_col, kc, rows_here, workspace, at.a_col);
      const auto panel = [&](i64 p) -> const T* {
        if (g.pack_a) return workspace + p * at.panel;
        if constexpr (widens<S>)
          return workspace + panels.start(p) * at.a_row;
        else
          return a + panels.start(p) * at.a_row;
      };
      const auto multiply = [&](i64 p, i64 t) {
        const int rows = panels.rows(p), columns = strips.columns(t);
        T* const tile = at.by_tile ? c : c + (i0 + panels.start(p)) * c_row + t * nr;
        tile_function<V>(rows, columns)(kc, panel(p), at.a_row, at.a_col, strips.begin(t),
                                        strips.row(t), tile, c_row, columns % V::lanes, k0 > 0,
                                        strips.ahead(t, p == 0));
        const i64 to = (block.m0 + i0 + panels.start(p)) * g.c_row + block.n0 + t * nr;
        if (last && finishing)
          finish_block(tile, c_row, out + to, g.c_row, rows, columns,
                       g.bias ? g.bias + block.n0 + t * nr : nullptr, g.activation,
                       g.residual ? g.residual + to : nullptr);
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
  if (at.transposed) transpose_out(g, block, c, workspace + at.lines);
  if (at.at_end) {
    const i64 to = block.m0 * g.c_row + block.n0;
    finish_block(c, n, finished(g) + to, g.c_row, m, n, g.bias ? g.bias + block.n0 : nullptr,
                 g.activation, g.residual ? g.residual + to : nullptr);
  }
}

template <class S>
static void gemm_pack(const S* b, i64 b_row, i64 b_col, i64 k, i64 n, i64 kc, Computed<S>* packed) {
  using V = Vec<Computed<S>>;
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

template <class S>
static void gemm_finish(const Computed<S>* sums, i64 sums_row, S* c, i64 c_row, i64 m, i64 n,
                        const Computed<S>* bias, Activation activation, const S* residual) {
  finish_block(sums, sums_row, c, c_row, m, n, bias, activation, residual);
}

template <class T>
static void gemm_tiles(GemmTiles* tiles) {
  using V = Vec<T>;
  constexpr GemmTuning sizes = tuned(VECTILE_TEXT(VECTILE_TIER));
  *tiles = {sizes, Tile<V>::mr, Tile<V>::nr, V::lanes};
}

}  // namespace vectile::VECTILE_TIER

#include "kernels/register.h"
