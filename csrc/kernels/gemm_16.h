// Products in 16-bit arithmetic, for a Unit that says what its tiles multiply: F16, BF16. A strip
// of B meets every panel of A's rows, a piece of K at a time, whose sums stay in the L1 cache and
// are finished from there.
#pragma once

#include "kernels/epilogue.h"
#include "kernels/gemm_16_pack.h"
#include "kernels/microkernel.h"

namespace vectile::VECTILE_TIER {

using Tile16 = void (*)(i64 depth, const uint16_t* a, i64 a_row, const uint16_t* b, float* c,
                        bool add);

// The tile for every number of rows and of vectors.
template <class Unit>
struct Tiles16 {
  Tile16 at[Unit::nv][Unit::mr];
  template <int NV, int MR>
  constexpr void fill() {
    at[NV - 1][MR - 1] = &Unit::template tile<MR, NV>;
    if constexpr (MR > 1)
      fill<NV, MR - 1>();
    else if constexpr (NV > 1)
      fill<NV - 1, Unit::mr>();
  }
  constexpr Tiles16() : at{} { fill<Unit::nv, Unit::mr>(); }
};

// c (`rows` rounded up to whole panels, nr apart) = or += A B over `depth` steps of the strip.
template <class Unit>
static void multiply_panels(i64 depth, const uint16_t* a, i64 a_row, const uint16_t* b, float* c,
                            i64 rows, int columns, bool add) {
  static constexpr Tiles16<Unit> tiles;
  const Panels panels(rows, Unit::mr);
  for (i64 p = 0; p < panels.count; ++p) {
    const i64 i = panels.start(p);
    tiles.at[(columns * Unit::nv + Unit::nr - 1) / Unit::nr - 1][panels.rows(p) - 1](
        depth, a + i * a_row, a_row, b, c + i * Unit::nr, add);
  }
}

constexpr i64 kChunk16 = 1 << 18;  // numbers of A that stay in the L2 cache, for all strips
constexpr i64 kSums16 = 4096;      // of a strip, in the L1 cache

// Asks for `rows` rows of A.
VECTILE_INLINE void prefetch_rows(const uint16_t* a, i64 a_row, i64 rows, i64 k) {
  for (; rows > 0; --rows, a += a_row)
    for (i64 s = 0; s < k; s += 32) __builtin_prefetch(a + s, 0, 2);
}

template <class Unit>
static void block_16(const Gemm16& g, const GemmBlock& block) {
  constexpr i64 line = Unit::nr * Unit::together;  // numbers of a step
  constexpr i64 panel = Unit::panel > 1 ? Unit::panel : Unit::mr, most = kSums16 / Unit::nr;
  alignas(64) float c[most * Unit::nr];
  const i64 k = (g.k + Unit::k_step - 1) / Unit::k_step * Unit::k_step;
  const i64 depth = k / Unit::together;
  const i64 fit = kChunk16 / k < most ? kChunk16 / k : most;
  const i64 chunk = fit < panel ? panel : fit / panel * panel;
  const i64 strips = (block.n1 - block.n0 + Unit::nr - 1) / Unit::nr;
  Unit::begin();
  for (i64 i = block.m0; i < block.m1; i += chunk) {
    const i64 rows = block.m1 - i < chunk ? block.m1 - i : chunk;
    const i64 coming = block.m1 - i - rows < chunk ? block.m1 - i - rows : chunk;
    for (i64 t = 0; t < strips; ++t) {
      const i64 j = block.n0 + t * Unit::nr;
      const int columns = static_cast<int>(block.n1 - j < Unit::nr ? block.n1 - j : Unit::nr);
      const uint16_t* strip = g.strips + j * k;
      const i64 first = coming * t / strips, last = coming * (t + 1) / strips;
      prefetch_rows(g.a + (i + rows + first) * g.a_row, g.a_row, last - first, g.k);
      for (i64 s = 0; s < depth; s += Unit::piece) {
        const i64 count = depth - s < Unit::piece ? depth - s : Unit::piece;
        const uint16_t* right = strip + s * line;
        const uint16_t* next =
            i == block.m0 ? right + count * line : nullptr;  // at the end past it
        const uint16_t* left = g.a + i * g.a_row + s * Unit::together;
        if constexpr (Unit::panel > 1) {
          Unit::multiply(count, left, g.a_row, right, c, rows, s > 0, next);
        } else {
          for (i64 l = 0; next && l < count * line; l += 32) __builtin_prefetch(next + l, 0, 2);
          multiply_panels<Unit>(count, left, g.a_row, right, c, rows, columns, s > 0);
        }
      }
      with_stored(g.c, g.dtype, [&](const auto* typed) VECTILE_LAMBDA {
        using S = std::remove_cvref_t<decltype(*typed)>;
        const i64 at = i * g.c_row + j;
        const S* residual = static_cast<const S*>(g.residual);
        finish_block(c, Unit::nr, static_cast<S*>(g.c) + at, g.c_row, rows, i64{columns},
                     g.bias ? g.bias + j : nullptr, g.activation,
                     residual ? residual + at : nullptr);
      });
    }
  }
  Unit::end();
}

}  // namespace vectile::VECTILE_TIER
