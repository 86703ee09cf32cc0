// Copies of matrix panels in the order the register tile reads them.
#pragma once

#include "simd/stored.h"
#include "simd/transpose.h"

namespace vectile::VECTILE_TIER {

// dst[s * kWidth + i] = src[i * row + s * step] for i < count <= kWidth and s < k; zero where i >=
// count. May write up to lanes - 1 elements past the end of dst when kWidth is not a multiple of
// the lanes. Half types are widened.
template <class V, int kWidth, class S>
static void pack_panel(const S* src, i64 row, i64 step, int count, i64 k,
                       typename V::value_type* dst) {
  constexpr int w = V::lanes;
  static_assert(kWidth <= w || kWidth % w == 0);
  const auto lanes_from = [&](int i) { return count - i < 0 ? 0 : count - i < w ? count - i : w; };
  if (row == 1 && count == kWidth && kWidth % w == 0) {
    for (i64 s = 0; s < k; ++s)
#pragma GCC unroll 8
      for (int i = 0; i < kWidth; i += w)
        load_as<V>(src + s * step + i).store(dst + s * kWidth + i);
  } else if (row == 1) {
    for (i64 s = 0; s < k; ++s)
      for (int i = 0; i < kWidth; i += w)
        load_as<V>(src + s * step + i, lanes_from(i)).store(dst + s * kWidth + i);
  } else if (step == 1) {
    for (i64 s = 0; s < k; s += w)
      for (int i = 0; i < kWidth; i += w)
        transpose_block(src + i * row + s, row, lanes_from(i),
                        static_cast<int>(k - s < w ? k - s : w), dst + s * kWidth + i, kWidth, w);
  } else if constexpr (std::is_same_v<S, typename V::value_type>) {
    for (i64 s = 0; s < k; ++s)
      for (int i = 0; i < kWidth; ++i)
        dst[s * kWidth + i] = i < count ? src[i * row + s * step] : S(0);
  } else {
    for (i64 s = 0; s < k; ++s)
      for (int i = 0; i < kWidth; i += w) {
        S lanes[w] = {};
        for (int l = 0; l < lanes_from(i); ++l) lanes[l] = src[(i + l) * row + s * step];
        load_as<V>(lanes).store(dst + s * kWidth + i);
      }
  }
}

}  // namespace vectile::VECTILE_TIER
