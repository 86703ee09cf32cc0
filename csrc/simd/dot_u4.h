// DotU4: int32 lanes that accumulate products of unsigned 4-bit and signed 8-bit integers, exactly.
// A lane takes four neighbours along the summed axis at a time, a byte each. Where there is no
// VPDPBUSD the products are summed in int16, which has room for `steps` of them: a pair is at most
// 2 * 15 * 128 = 3840 and 8 * 3840 < 2^15.
#pragma once

#include "simd/dot.h"

namespace vectile::VECTILE_TIER {

#if defined(VECTILE_TIER_avx512)

struct DotU4 {
  static constexpr int lanes = 16, steps = 8;
  using Bytes = __m512i;

  __m512i v;

  VECTILE_INLINE DotU4() : v(_mm512_setzero_si512()) {}
  static VECTILE_INLINE Bytes load(const uint8_t* p) { return _mm512_loadu_si512(p); }
  static VECTILE_INLINE void store(Bytes b, uint8_t* p) { _mm512_storeu_si512(p, b); }
  static VECTILE_INLINE Bytes broadcast(const int8_t* p) {
    int32_t four;
    std::memcpy(&four, p, 4);
    return _mm512_set1_epi32(four);
  }
  static VECTILE_INLINE Bytes low(Bytes b) { return _mm512_and_si512(b, _mm512_set1_epi8(15)); }
  static VECTILE_INLINE Bytes high(Bytes b) { return low(_mm512_srli_epi16(b, 4)); }
  VECTILE_INLINE void add_products(Bytes w, Bytes a) {
#if defined(VECTILE_TIER_avx512_vnni)
    v = _mm512_dpbusd_epi32(v, w, a);
#else
    v = _mm512_add_epi16(v, _mm512_maddubs_epi16(w, a));
#if !defined(VECTILE_EMULATED)
    asm("" : "+v"(v));  // else g++ adds products to each other first, and spills them
#endif
#endif
  }
  VECTILE_INLINE VecDot sum() const {
#if defined(VECTILE_TIER_avx512_vnni)
    return v;
#else
    return _mm512_madd_epi16(v, _mm512_set1_epi16(1));
#endif
  }
};

VECTILE_INLINE Vec<float> to_float(VecDot x) { return _mm512_cvtepi32_ps(x.v); }
VECTILE_INLINE VecDot load_bytes(const uint8_t* p) {
  return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

#elif defined(VECTILE_TIER_avx2)

struct DotU4 {
  static constexpr int lanes = 8, steps = 8;
  using Bytes = __m256i;

  __m256i v;

  VECTILE_INLINE DotU4() : v(_mm256_setzero_si256()) {}
  static VECTILE_INLINE Bytes load(const uint8_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  static VECTILE_INLINE void store(Bytes b, uint8_t* p) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), b);
  }
  static VECTILE_INLINE Bytes broadcast(const int8_t* p) {
    int32_t four;
    std::memcpy(&four, p, 4);
    return _mm256_set1_epi32(four);
  }
  static VECTILE_INLINE Bytes low(Bytes b) { return _mm256_and_si256(b, _mm256_set1_epi8(15)); }
  static VECTILE_INLINE Bytes high(Bytes b) { return low(_mm256_srli_epi16(b, 4)); }
  VECTILE_INLINE void add_products(Bytes w, Bytes a) {
#if defined(VECTILE_TIER_avx_vnni)
    v = _mm256_dpbusd_avx_epi32(v, w, a);
#else
    v = _mm256_add_epi16(v, _mm256_maddubs_epi16(w, a));
    asm("" : "+x"(v));  // else g++ adds products to each other first, and spills them
#endif
  }
  VECTILE_INLINE VecDot sum() const {
#if defined(VECTILE_TIER_avx_vnni)
    return v;
#else
    return _mm256_madd_epi16(v, _mm256_set1_epi16(1));
#endif
  }
};

VECTILE_INLINE Vec<float> to_float(VecDot x) { return _mm256_cvtepi32_ps(x.v); }
VECTILE_INLINE VecDot load_bytes(const uint8_t* p) {
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
}

#elif defined(VECTILE_TIER_neon)

struct DotU4 {
  static constexpr int lanes = 4, steps = 8;
  using Bytes = uint8x16_t;

  VecDot v;

  static VECTILE_INLINE Bytes load(const uint8_t* p) { return vld1q_u8(p); }
  static VECTILE_INLINE void store(Bytes b, uint8_t* p) { vst1q_u8(p, b); }
  static VECTILE_INLINE Bytes broadcast(const int8_t* p) {
    uint32_t four;
    std::memcpy(&four, p, 4);
    return vreinterpretq_u8_u32(vdupq_n_u32(four));
  }
  static VECTILE_INLINE Bytes low(Bytes b) { return vandq_u8(b, vdupq_n_u8(15)); }
  static VECTILE_INLINE Bytes high(Bytes b) { return vshrq_n_u8(b, 4); }
  VECTILE_INLINE void add_products(Bytes w, Bytes a) {
    v = multiply_add(VecDot(vreinterpretq_s32_u8(w)), VecDot(vreinterpretq_s32_u8(a)), v);
  }
  VECTILE_INLINE VecDot sum() const { return v; }
};

VECTILE_INLINE Vec<float> to_float(VecDot x) { return vcvtq_f32_s32(x.v); }
VECTILE_INLINE VecDot load_bytes(const uint8_t* p) {
  uint32_t four;
  std::memcpy(&four, p, 4);
  const uint8x8_t bytes = vreinterpret_u8_u32(vdup_n_u32(four));
  return vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(bytes))));
}

#else

struct DotU4 {
  static constexpr int lanes = 1, steps = 8;
  using Bytes = uint32_t;

  int32_t v = 0;

  static VECTILE_INLINE Bytes load(const void* p) {
    uint32_t four;
    std::memcpy(&four, p, 4);
    return four;
  }
  static VECTILE_INLINE void store(Bytes b, uint8_t* p) { std::memcpy(p, &b, 4); }
  static VECTILE_INLINE Bytes broadcast(const int8_t* p) { return load(p); }
  static VECTILE_INLINE Bytes low(Bytes b) { return b & 0x0f0f0f0fu; }
  static VECTILE_INLINE Bytes high(Bytes b) { return b >> 4 & 0x0f0f0f0fu; }
  VECTILE_INLINE void add_products(Bytes w, Bytes a) {
    for (int s = 0; s < 32; s += 8)
      v += static_cast<int>(w >> s & 15) * static_cast<int8_t>(a >> s);
  }
  VECTILE_INLINE VecDot sum() const { return v; }
};

VECTILE_INLINE Vec<float> to_float(VecDot x) {
  return static_cast<float>(static_cast<int32_t>(x.v));
}
VECTILE_INLINE VecDot load_bytes(const uint8_t* p) { return static_cast<int32_t>(*p); }

#endif

}  // namespace vectile::VECTILE_TIER
