// Transposing blocks of 32-bit elements (float, int32, and half types that become float) in
// registers; other types go element by element.
#pragma once

#include "base/types.h"
#include "simd/stored.h"

namespace vectile::VECTILE_TIER {

// dst[c * dst_stride + r] = src[r * src_stride + c] for r < rows and c < cols, both at most
// Vec<float>::lanes. Every column is written to `width` <= lanes elements; those past `rows` are
// zero.
template <class S, class T>
VECTILE_INLINE void transpose_elements(const S* src, i64 src_stride, int rows, int cols, T* dst,
                                       i64 dst_stride, int width) {
  for (int c = 0; c < cols; ++c)
    for (int r = 0; r < width; ++r) {
      T& to = dst[c * dst_stride + r];
      if (r >= rows)
        to = T(0);
      else if constexpr (std::is_same_v<S, T>)
        to = src[r * src_stride + c];
      else
        load_as<Vec<T>>(src + r * src_stride + c, 1).store(&to, 1);
    }
}

#if defined(VECTILE_TIER_avx512) || defined(VECTILE_TIER_avx512_vnni)

template <class S>
static void transpose_words(const S* src, i64 src_stride, int rows, int cols, float* dst,
                            i64 dst_stride, int width) {
  constexpr int w = 16;
  using V = Vec<float>;
  const __mmask16 out = V::bits(width);
  __m512 r[w], t[w];
#pragma GCC unroll 16
  for (int i = 0; i < w; ++i)
    r[i] = i >= rows   ? _mm512_setzero_ps()
           : cols == w ? load_as<V>(src + i * src_stride).v
                       : load_as<V>(src + i * src_stride, cols).v;
  // 4x4 blocks within each 128-bit lane
#pragma GCC unroll 16
  for (int i = 0; i < w; i += 2) {
    t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
  }
#pragma GCC unroll 16
  for (int i = 0; i < w; i += 4)
#pragma GCC unroll 16
    for (int j = 0; j < 2; ++j) {
      const __m512d low = _mm512_castps_pd(t[i + j]), high = _mm512_castps_pd(t[i + j + 2]);
      r[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
      r[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
    }
  // 4x4 lanes: r[4i + j] holds columns j, 4 + j, 8 + j, 12 + j of rows 4i .. 4i + 3
#pragma GCC unroll 16
  for (int j = 0; j < 4; ++j) {
    const __m512 even0 = _mm512_shuffle_f32x4(r[j], r[4 + j], 0x88);
    const __m512 odd0 = _mm512_shuffle_f32x4(r[j], r[4 + j], 0xdd);
    const __m512 even1 = _mm512_shuffle_f32x4(r[8 + j], r[12 + j], 0x88);
    const __m512 odd1 = _mm512_shuffle_f32x4(r[8 + j], r[12 + j], 0xdd);
    t[j] = _mm512_shuffle_f32x4(even0, even1, 0x88);
    t[4 + j] = _mm512_shuffle_f32x4(odd0, odd1, 0x88);
    t[8 + j] = _mm512_shuffle_f32x4(even0, even1, 0xdd);
    t[12 + j] = _mm512_shuffle_f32x4(odd0, odd1, 0xdd);
  }
#pragma GCC unroll 16
  for (int i = 0; i < w; ++i)
    if (i < cols) _mm512_mask_storeu_ps(dst + i * dst_stride, out, t[i]);
}

#elif defined(VECTILE_TIER_avx2)

template <class S>
static void transpose_words(const S* src, i64 src_stride, int rows, int cols, float* dst,
                            i64 dst_stride, int width) {
  constexpr int w = 8;
  using V = Vec<float>;
  __m256 r[w], t[w];
#pragma GCC unroll 8
  for (int i = 0; i < w; ++i)
    r[i] = i >= rows   ? _mm256_setzero_ps()
           : cols == w ? load_as<V>(src + i * src_stride).v
                       : load_as<V>(src + i * src_stride, cols).v;
#pragma GCC unroll 8
  for (int i = 0; i < w; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
#pragma GCC unroll 8
  for (int i = 0; i < w; i += 4)
#pragma GCC unroll 8
    for (int j = 0; j < 2; ++j) {
      r[i + 2 * j] = _mm256_shuffle_ps(t[i + j], t[i + j + 2], 0x44);
      r[i + 2 * j + 1] = _mm256_shuffle_ps(t[i + j], t[i + j + 2], 0xee);
    }
#pragma GCC unroll 8
  for (int j = 0; j < 4; ++j) {
    t[j] = _mm256_permute2f128_ps(r[j], r[4 + j], 0x20);
    t[4 + j] = _mm256_permute2f128_ps(r[j], r[4 + j], 0x31);
  }
#pragma GCC unroll 8
  for (int i = 0; i < w; ++i)
    if (i < cols) {
      if (width == w)
        _mm256_storeu_ps(dst + i * dst_stride, t[i]);
      else
        V(t[i]).store(dst + i * dst_stride, width);
    }
}

#elif defined(VECTILE_TIER_neon)

template <class S>
static void transpose_words(const S* src, i64 src_stride, int rows, int cols, float* dst,
                            i64 dst_stride, int width) {
  constexpr int w = 4;
  using V = Vec<float>;
  float32x4_t r[w];
#pragma GCC unroll 4
  for (int i = 0; i < w; ++i) r[i] = i < rows ? load_as<V>(src + i * src_stride, cols).v : V().v;
  float64x2_t t[w];  // columns j and j + 2 of a pair of rows
#pragma GCC unroll 4
  for (int i = 0; i < w; i += 2) {
    t[i] = vreinterpretq_f64_f32(vtrn1q_f32(r[i], r[i + 1]));
    t[i + 1] = vreinterpretq_f64_f32(vtrn2q_f32(r[i], r[i + 1]));
  }
#pragma GCC unroll 4
  for (int j = 0; j < 2; ++j) {
    r[j] = vreinterpretq_f32_f64(vtrn1q_f64(t[j], t[j + 2]));
    r[j + 2] = vreinterpretq_f32_f64(vtrn2q_f64(t[j], t[j + 2]));
  }
#pragma GCC unroll 4
  for (int i = 0; i < w; ++i)
    if (i < cols) V(r[i]).store(dst + i * dst_stride, width);
}

#endif

template <class S, class T>
VECTILE_INLINE void transpose_block(const S* src, i64 src_stride, int rows, int cols, T* dst,
                                    i64 dst_stride, int width) {
#if defined(VECTILE_TIER_avx2) || defined(VECTILE_TIER_avx512) || \
    defined(VECTILE_TIER_avx512_vnni) || defined(VECTILE_TIER_neon)
  if constexpr (std::is_same_v<S, T> && sizeof(T) == 4) {
    transpose_words(reinterpret_cast<const float*>(src), src_stride, rows, cols,
                    reinterpret_cast<float*>(dst), dst_stride, width);
    return;
  } else if constexpr (sizeof(T) == 4) {
    transpose_words(src, src_stride, rows, cols, dst, dst_stride, width);
    return;
  }
#endif
  transpose_elements(src, src_stride, rows, cols, dst, dst_stride, width);
}

}  // namespace vectile::VECTILE_TIER
