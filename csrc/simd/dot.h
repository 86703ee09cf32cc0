// VecDot: int32 lanes that accumulate products of small integers, exactly (modulo 2^32). A 32-bit
// element of an operand is a group of neighbours along the summed axis: four bytes, unsigned in the
// left operand and signed in the right (VPDPBUSD's types), or two int16 where only VPMADDWD is
// there, whose int32 sums cannot saturate.
#pragma once

#include <cstdint>

#include "simd/vec.h"

namespace vectile::VECTILE_TIER {

#if defined(VECTILE_TIER_avx512) || defined(VECTILE_TIER_avx512_vnni)

struct VecDot {
  static constexpr int lanes = 16;
  using value_type = int32_t;
#if defined(VECTILE_TIER_avx512_vnni)
  static constexpr int group = 4;
#else
  static constexpr int group = 2;
#endif

  __m512i v;

  VECTILE_INLINE VecDot() : v(_mm512_setzero_si512()) {}
  VECTILE_INLINE VecDot(__m512i x) : v(x) {}
  VECTILE_INLINE VecDot(int32_t x) : v(_mm512_set1_epi32(x)) {}

  static VECTILE_INLINE VecDot load(const int32_t* p) { return _mm512_loadu_si512(p); }
  static VECTILE_INLINE VecDot load(const int32_t* p, int n) {
    return _mm512_maskz_loadu_epi32(Vec<float>::bits(n), p);
  }
  VECTILE_INLINE void store(int32_t* p) const { _mm512_storeu_si512(p, v); }
  VECTILE_INLINE void store(int32_t* p, int n) const {
    _mm512_mask_storeu_epi32(p, Vec<float>::bits(n), v);
  }
  friend VECTILE_INLINE VecDot operator+(VecDot a, VecDot b) { return _mm512_add_epi32(a.v, b.v); }
  friend VECTILE_INLINE VecDot operator-(VecDot a, VecDot b) { return _mm512_sub_epi32(a.v, b.v); }
  friend VECTILE_INLINE VecDot operator*(VecDot a, VecDot b) {
    return _mm512_mullo_epi32(a.v, b.v);
  }
  friend VECTILE_INLINE VecDot multiply_add(VecDot a, VecDot b, VecDot c) {
#if defined(VECTILE_TIER_avx512_vnni)
    return _mm512_dpbusd_epi32(c.v, a.v, b.v);
#else
    return _mm512_add_epi32(c.v, _mm512_madd_epi16(a.v, b.v));
#endif
  }
};

#elif defined(VECTILE_TIER_avx2)

struct VecDot {
  static constexpr int lanes = 8, group = 2;
  using value_type = int32_t;

  __m256i v;

  VECTILE_INLINE VecDot() : v(_mm256_setzero_si256()) {}
  VECTILE_INLINE VecDot(__m256i x) : v(x) {}
  VECTILE_INLINE VecDot(int32_t x) : v(_mm256_set1_epi32(x)) {}

  static VECTILE_INLINE VecDot load(const int32_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  static VECTILE_INLINE VecDot load(const int32_t* p, int n) {
    return _mm256_maskload_epi32(p, Vec<float>::bits(n));
  }
  VECTILE_INLINE void store(int32_t* p) const {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v);
  }
  VECTILE_INLINE void store(int32_t* p, int n) const {
    _mm256_maskstore_epi32(p, Vec<float>::bits(n), v);
  }
  friend VECTILE_INLINE VecDot operator+(VecDot a, VecDot b) { return _mm256_add_epi32(a.v, b.v); }
  friend VECTILE_INLINE VecDot operator-(VecDot a, VecDot b) { return _mm256_sub_epi32(a.v, b.v); }
  friend VECTILE_INLINE VecDot operator*(VecDot a, VecDot b) {
    return _mm256_mullo_epi32(a.v, b.v);
  }
  friend VECTILE_INLINE VecDot multiply_add(VecDot a, VecDot b, VecDot c) {
    return _mm256_add_epi32(c.v, _mm256_madd_epi16(a.v, b.v));
  }
};

#else

struct VecDot {
  static constexpr int lanes = 1, group = 4;
  using value_type = int32_t;

  uint32_t v;  // unsigned, so that sums wrap

  VECTILE_INLINE VecDot() : v(0) {}
  VECTILE_INLINE VecDot(int32_t x) : v(static_cast<uint32_t>(x)) {}

  static VECTILE_INLINE VecDot load(const int32_t* p) { return *p; }
  static VECTILE_INLINE VecDot load(const int32_t* p, int n) { return n > 0 ? *p : 0; }
  VECTILE_INLINE void store(int32_t* p) const { *p = static_cast<int32_t>(v); }
  VECTILE_INLINE void store(int32_t* p, int n) const {
    if (n > 0) store(p);
  }
  static VECTILE_INLINE VecDot wrap(uint32_t x) { return static_cast<int32_t>(x); }
  friend VECTILE_INLINE VecDot operator+(VecDot a, VecDot b) { return wrap(a.v + b.v); }
  friend VECTILE_INLINE VecDot operator-(VecDot a, VecDot b) { return wrap(a.v - b.v); }
  friend VECTILE_INLINE VecDot operator*(VecDot a, VecDot b) { return wrap(a.v * b.v); }
  friend VECTILE_INLINE VecDot multiply_add(VecDot a, VecDot b, VecDot c) {
    int32_t sum = 0;
    for (int s = 0; s < 32; s += 8)
      sum += static_cast<uint8_t>(a.v >> s) * static_cast<int8_t>(b.v >> s);
    return wrap(c.v + static_cast<uint32_t>(sum));
  }
};

#endif

}  // namespace vectile::VECTILE_TIER
