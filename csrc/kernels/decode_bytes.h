// The products of a cache of int8 in integers: the other factor is rounded to 16 bits with a scale
// of its own, an error of 2^-16 of its largest element, and pairs of words are multiplied and
// added.
#pragma once

#include "kernels/decode_tile.h"
#include "kernels/rows.h"
#include "simd/dot_u4.h"

namespace vectile::VECTILE_TIER {

// Whether this tier multiplies words; else bytes become float (decode_tile.h).
constexpr bool kBytesAsWords = VecDot::pairs;
constexpr i64 kWordDepth = 512;  // sums of so many products of a byte and a word fit 32 bits

// y[j] = x[j] times the largest scale that fits; returns its reciprocal, NaN where x has one. Both
// are read and written up to a whole vector.
static inline float to_words(const float* x, i64 n, std::int16_t* y) {
  using V = Vec<float>;
  V largest(0.f);
  row_each<float>(n, [&](i64 j, auto... m)
                         VECTILE_LAMBDA { largest = max(largest, abs(V::load(x + j, m...))); });
  const float top = reduce_max(largest);
  const float scale = 32767.f / top < 0x1p126f ? 32767.f / top : top == 0.f ? 0.f : 0x1p126f;
  for (i64 j = 0; j < n; j += V::lanes) {
    std::int32_t words[V::lanes];
    (V::load(x + j) * V(scale)).store(words);
    for (int l = 0; l < V::lanes; ++l) y[j + l] = static_cast<std::int16_t>(words[l]);
  }
  return top > 0.f ? 1.f / scale : top;
}

// acc = factor acc + p V for MR rows; p in words and their scale, and as they were.
template <int MR>
static void value_rows_words(const std::int16_t* p, const float* p_float,
                             const DecodePiece<std::int8_t>* pieces, int n, i64 dv, float* acc,
                             i64 acc_row, const float* factor, const float* scale);

#if defined(VECTILE_TIER_avx2)

template <class T, class S, int MR, bool full>
static void score_tile(const std::int16_t* q, i64 q_row, const S* k, i64 d, i64 keys, T* s) {
  constexpr int columns = kScoreSums / MR, words = 2 * VecDot::lanes;
  const S* key[columns];
  unroll<columns>([&](auto j)
                      VECTILE_LAMBDA { key[j] = k + (full ? j : smaller(j, keys - 1)) * d; });
  VecDot acc[MR][columns];
  i64 x = 0;
  for (; x + words <= d; x += words) {
    VecDot a[MR];
    unroll<MR>([&](auto i) VECTILE_LAMBDA {
      a[i] = VecDot::load(reinterpret_cast<const std::int32_t*>(q + i * q_row + x));
    });
    unroll<columns>([&](auto j) VECTILE_LAMBDA {
      const VecDot b = VecDot::widen(key[j] + x);
      unroll<MR>([&](auto i) VECTILE_LAMBDA { acc[i][j] = acc[i][j] + multiply_words(a[i], b); });
    });
  }
  store_sums<MR>(acc[0], s);
  for (; x < d; ++x)
    for (int i = 0; i < MR; ++i)
      for (int j = 0; j < columns; ++j)
        s[i * kDecodeStride + j] += static_cast<T>(q[i * q_row + x] * key[j][x]);
}

// 2 NV registers of MR rows of acc = factor acc + scale p V.
template <int MR, int NV>
static void value_tile_words(const std::int16_t* p, const DecodePiece<std::int8_t>* pieces, int n,
                             i64 first, i64 dv, float* acc, i64 acc_row, const float* factor,
                             const float* scale) {
  using V = Vec<float>;
  VecDot sum[MR][2 * NV];
  const auto add = [&](const std::int8_t* a, const std::int8_t* b,
                       const std::int32_t* pair) VECTILE_LAMBDA {
    VecDot weight[MR];
    unroll<MR>([&](auto i) VECTILE_LAMBDA { weight[i] = VecDot(pair[i]); });
    unroll<NV>([&](auto j) VECTILE_LAMBDA {
      VecDot v[2];
      VecDot::widen_pairs(a + j * 2 * V::lanes, b + j * 2 * V::lanes, v[0], v[1]);
      unroll<MR>([&](auto i) VECTILE_LAMBDA {
        sum[i][2 * j] = sum[i][2 * j] + multiply_words(v[0], weight[i]);
        sum[i][2 * j + 1] = sum[i][2 * j + 1] + multiply_words(v[1], weight[i]);
      });
    });
  };
  for (int x = 0; x < n; ++x) {
    const std::int8_t* value = pieces[x].value + first;
    const std::int16_t* weight = p + pieces[x].column;
    const i64 count = pieces[x].count;
    std::int32_t pair[MR];
    for (i64 key = 0; key + 2 <= count; key += 2, value += 2 * dv) {
      unroll<MR>([&](auto i) VECTILE_LAMBDA {
        std::memcpy(&pair[i], weight + i * kDecodeStride + key, sizeof pair[i]);
      });
      add(value, value + dv, pair);
    }
    if (count % 2) {  // beside itself, with the weight 0
      unroll<MR>([&](auto i) VECTILE_LAMBDA {
        pair[i] = static_cast<std::uint16_t>(weight[i * kDecodeStride + count - 1]);
      });
      add(value, value, pair);
    }
  }
  unroll<MR>([&](auto i) VECTILE_LAMBDA {
    unroll<2 * NV>([&](auto j) VECTILE_LAMBDA {
      float* y = acc + i * acc_row + j * V::lanes;
      fma(V::load(y), V(factor[i]), to_float(sum[i][j]) * V(scale[i])).store(y);
    });
  });
}

// Whole registers in words, the columns past them in float.
template <int MR>
static void value_rows_words(const std::int16_t* p, const float* p_float,
                             const DecodePiece<std::int8_t>* pieces, int n, i64 dv, float* acc,
                             i64 acc_row, const float* factor, const float* scale) {
  constexpr i64 width = 2 * Vec<float>::lanes;
  const i64 whole = dv / width * width;
  row_groups<(MR < 4 ? 4 / MR : 1)>(0, whole / width, [&](auto nv, i64 v) VECTILE_LAMBDA {
    value_tile_words<MR, nv>(p, pieces, n, v * width, dv, acc + v * width, acc_row, factor, scale);
  });
  value_rows<float, std::int8_t, MR>(p_float, pieces, n, whole, dv, acc, acc_row, factor);
}

#endif

}  // namespace vectile::VECTILE_TIER
