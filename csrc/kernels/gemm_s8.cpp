// gemm_s8: products of 8-bit integers, exact in int32. A strip of B meets every panel of A's rows
// while it is in the cache; what the scheme of the tile and zero points add is taken out of the
// finished sums (Jacob et al., arXiv 1712.05877, equation 7), and these are scaled while hot.
#include "kernels/epilogue.h"
#include "kernels/gemm_s8_pack.h"
#include "kernels/microkernel.h"
#if defined(VECTILE_TIER_amx)
#include "kernels/gemm_amx.h"
#endif

namespace vectile::VECTILE_TIER {

#if defined(VECTILE_TIER_amx)
constexpr int kPanel = kAmxBlock;
static_assert(kNr == kAmxBlock && kStep == kAmxDepth);
#else
constexpr int kPanel = kMr;
#endif

static void gemm_s8_format(GemmS8Format* format) { *format = {kPanel, kNr, kLeft, kStep}; }

// f(j) for every whole vector of w columns, f(j, n) for the n left over.
template <int w, class F>
VECTILE_INLINE void over_columns(int columns, F f) {
  int j = 0;
  for (; j + w <= columns; j += w) f(j);
  if (j < columns) f(j, columns - j);
}

// The sums of rows x columns at (i, j) of C, made exact.
static void correct(const GemmS8& g, i64 i, i64 j, int rows, int columns, int32_t* c) {
  for (int r = 0; r < rows; ++r, c += kNr) {
    const int32_t term = g.row_terms[i + r];
    const VecDot row(term), sum(g.b_zero ? g.row_sums[i + r] : 0);
    over_columns<VecDot::lanes>(columns, [&](int k, auto... n) VECTILE_LAMBDA {
      VecDot v = VecDot::load(c + k);
      const VecDot column = VecDot::load(g.column_terms + j + k, n...);
      v = kPairs ? v - row - column : v - row * column;
      if (g.b_zero) v = v - sum * VecDot::load(g.b_zero + j + k, n...);
      v.store(c + k);
    });
  }
}

constexpr i64 kChunkRows = 4096 / kNr / kPanel * kPanel;  // whose sums stay in the L1 cache
constexpr i64 kPiece = 128;  // groups of a strip that do, for many rows

// c = A B for many rows.
static void multiply_rows(i64 rows, [[maybe_unused]] int columns, i64 depth, const int32_t* a,
                          i64 a_row, const int32_t* strip, int32_t* c) {
#if !defined(VECTILE_TIER_amx)
  alignas(64) int32_t wide[kPairs ? 2 * kPiece * kNr : 1];
  const Panels panels(rows, kMr);
#endif
  i64 s = 0;
  do {
    const i64 count = depth - s < kPiece ? depth - s : kPiece;
    const int32_t *left = a + s * kLeft, *right = strip + s * kNr;
    const int32_t* next = right + kPiece * kNr;  // prefetched, at the end a little past it
#if defined(VECTILE_TIER_amx)
    multiply_blocks_amx<TileProduct::bytes>(count, left, a_row, right, c, rows, s > 0, next);
#else
    const bool few = panels.count <= 3, widened = kPairs && !few;
    if constexpr (kPairs)
      if (widened) widen_strip<VecDot>(count, right, wide), right = wide;
    const i64 share = few ? 0 : (kPiece * kNr / 16 + panels.count - 1) / panels.count * 16;
    for (i64 p = 0; p < panels.count; ++p) {
      const i64 i = panels.start(p);
      const auto tile =
          few && p == 0 ? tile_s8<Strip::streamed>(panels.rows(p), columns)
          : widened     ? tile_s8<kPairs ? Strip::widened : Strip::packed>(panels.rows(p), columns)
                        : tile_s8<Strip::packed>(panels.rows(p), columns);
      for (const int32_t* end = next + share; next < end; next += 16)
        __builtin_prefetch(next, 0, 2);
      tile(count, left + i * a_row, a_row, right, c + i * kNr, s > 0);
    }
#endif
  } while ((s += kPiece) < depth);
}

// finish(i, j, rows, columns, c) takes exact sums, kNr columns apart, to their destination.
template <class Finish>
VECTILE_INLINE void multiply_s8(const GemmS8& g, const GemmBlock& block, Finish finish) {
  alignas(64) int32_t c[kChunkRows * kNr];
  const i64 depth = groups(g.k);
#if defined(VECTILE_TIER_amx)
  tiles_begin();
#endif
  for (i64 j = block.n0; j < block.n1; j += kNr) {
    const int columns = static_cast<int>(block.n1 - j < kNr ? block.n1 - j : kNr);
    const int32_t* strip = g.b + j * depth;
    for (i64 i = block.m0; i < block.m1; i += kChunkRows) {
      const i64 rows = block.m1 - i < kChunkRows ? block.m1 - i : kChunkRows;
      const int32_t* a = g.a + i * g.a_row;
      if (rows <= kMr)
        tile_s8<Strip::streamed>(static_cast<int>(rows), columns)(depth, a, g.a_row, strip, c,
                                                                  false);
      else
        multiply_rows(rows, columns, depth, a, g.a_row, strip, c);
      correct(g, i, j, static_cast<int>(rows), columns, c);
      finish(i, j, static_cast<int>(rows), columns, c);
    }
  }
#if defined(VECTILE_TIER_amx)
  tiles_end();
#endif
}

static void gemm_s8_exact(const GemmS8& g, const GemmBlock& block, int32_t* c, i64 c_row) {
  multiply_s8(g, block, [=](i64 i, i64 j, int rows, int columns, const int32_t* from) {
    for (int r = 0; r < rows; ++r, from += kNr)
      over_columns<VecDot::lanes>(columns, [&](int k, auto... n) VECTILE_LAMBDA {
        VecDot::load(from + k).store(c + (i + r) * c_row + j + k, n...);
      });
  });
}

template <class T>
static void gemm_s8_linear(const GemmS8& g, const GemmBlock& block, const T* a_scale,
                           const T* b_scale, const T* bias, Activation activation,
                           const T* residual, T* y, i64 y_row) {
  using V = Vec<T>;
  with_activation<T>(activation, [&](auto activate) VECTILE_LAMBDA {
    multiply_s8(g, block, [&](i64 i, i64 j, int rows, int columns, const int32_t* from) {
      for (int r = 0; r < rows; ++r, from += kNr) {
        const V row(a_scale[i + r]);
        const i64 at = (i + r) * y_row + j;
        over_columns<V::lanes>(columns, [&](int k, auto... n) VECTILE_LAMBDA {
          const V scale = row * V::load(b_scale + j + k, n...);
          V v = V::load(from + k) * scale;
          if (bias) v = v + V::load(bias + j + k, n...);
          v = activate(v);
          if (residual) v = v + V::load(residual + at + k, n...);
          v.store(y + at + k, n...);
        });
      }
    });
  });
}

template <class Byte>
static void requantize(const GemmS8& g, const GemmBlock& block, const float* a_scale,
                       const float* b_scale, float zero, Byte* y, i64 y_row) {
  using V = Vec<float>;
  multiply_s8(g, block, [=](i64 i, i64 j, int rows, int columns, const int32_t* from) {
    for (int r = 0; r < rows; ++r, from += kNr) {
      const V row(a_scale[i + r]);
      over_columns<V::lanes>(columns, [&](int k, auto... n) VECTILE_LAMBDA {
        const V scale = row * V::load(b_scale + j + k, n...);
        const V q = round(V::load(from + k) * scale) + V(zero);
        q.store(y + (i + r) * y_row + j + k, n...);
      });
    }
  });
}

static void gemm_s8_requantize(const GemmS8& g, const GemmBlock& block, const float* a_scale,
                               const float* b_scale, float zero, bool is_signed, void* y,
                               i64 y_row) {
  if (is_signed)
    requantize(g, block, a_scale, b_scale, zero, static_cast<int8_t*>(y), y_row);
  else
    requantize(g, block, a_scale, b_scale, zero, static_cast<uint8_t*>(y), y_row);
}

}  // namespace vectile::VECTILE_TIER

#include "kernels/register.h"
