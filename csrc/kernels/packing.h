// Copies of matrix panels in the order the register tile reads them.
#pragma once

#include "simd/transpose.h"
#include "simd/vec.h"

namespace vectile::VECTILE_TIER {

// dst[s * kWidth + i] = src[i * row + s * step] for i < count <= kWidth and s < k; zero where i >=
// count. May write up to lanes - 1 elements past the end of dst when kWidth is not a multiple of
// the lanes.
template <class V, int kWidth>
static void pack_panel(const typename V::value_type* src, i64 row, i64 step, int count, i64 k,
                       typename V::value_type* dst) {
  constexpr int w = V::lanes;
  static_assert(kWidth <= w || kWidth % w == 0);
  const auto lanes_from = [&](int i) { return count - i < 0 ? 0 : count - i < w ? count - i : w; };
  if (row == 1 && count == kWidth && kWidth % w == 0) {
    for (i64 s = 0; s < k; ++s)
#pragma GCC unroll 8
      for (int i = 0; i < kWidth; i += w) V::load(src + s * step + i).store(dst + s * kWidth + i);
  } else if (row == 1) {
    for (i64 s = 0; s < k; ++s)
      for (int i = 0; i < kWidth; i += w)
        V::load(src + s * step + i, lanes_from(i)).store(dst + s * kWidth + i);
  } else if (step == 1) {
    for (i64 s = 0; s < k; s += w)
      for (int i = 0; i < kWidth; i += w)
        transpose_block(src + i * row + s, row, lanes_from(i),
                        static_cast<int>(k - s < w ? k - s : w), dst + s * kWidth + i, kWidth, w);
  } else {
    for (i64 s = 0; s < k; ++s)
      for (int i = 0; i < kWidth; ++i)
        dst[s * kWidth + i] = i < count ? src[i * row + s * step] : typename V::value_type(0);
  }
}

}  // namespace vectile::VECTILE_TIER
