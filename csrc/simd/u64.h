// VecU64: 8, 4, 2 or 1 unsigned 64-bit integers and their 32 x 32 -> 64 bit products.
#pragma once

#include "simd/vec.h"

namespace vectile::VECTILE_TIER {

#if defined(VECTILE_TIER_avx512) || defined(VECTILE_TIER_avx512_vnni)
struct VecU64 {
  static constexpr int lanes = 8;
  __m512i v;

  VECTILE_INLINE VecU64(__m512i x) : v(x) {}
  VECTILE_INLINE VecU64(uint64_t x) : v(_mm512_set1_epi64(static_cast<long long>(x))) {}
  static VECTILE_INLINE VecU64 iota() { return _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7); }
  VECTILE_INLINE void store_low(uint32_t* p) const {
    _mm256_storeu_si256((__m256i*)p, _mm512_cvtepi64_epi32(v));
  }
  VECTILE_INLINE VecU64 high() const { return _mm512_srli_epi64(v, 32); }
  friend VECTILE_INLINE VecU64 operator+(VecU64 a, VecU64 b) { return _mm512_add_epi64(a.v, b.v); }
  friend VECTILE_INLINE VecU64 operator^(VecU64 a, VecU64 b) { return _mm512_xor_si512(a.v, b.v); }
  // The product of the low halves.
  friend VECTILE_INLINE VecU64 multiply_low(VecU64 a, VecU64 b) {
    return _mm512_mul_epu32(a.v, b.v);
  }
};
#elif defined(VECTILE_TIER_avx2)
struct VecU64 {
  static constexpr int lanes = 4;
  __m256i v;

  VECTILE_INLINE VecU64(__m256i x) : v(x) {}
  VECTILE_INLINE VecU64(uint64_t x) : v(_mm256_set1_epi64x(static_cast<long long>(x))) {}
  static VECTILE_INLINE VecU64 iota() { return _mm256_setr_epi64x(0, 1, 2, 3); }
  VECTILE_INLINE void store_low(uint32_t* p) const {
    const __m256i even = _mm256_permutevar8x32_epi32(v, _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6));
    _mm_storeu_si128((__m128i*)p, _mm256_castsi256_si128(even));
  }
  VECTILE_INLINE VecU64 high() const { return _mm256_srli_epi64(v, 32); }
  friend VECTILE_INLINE VecU64 operator+(VecU64 a, VecU64 b) { return _mm256_add_epi64(a.v, b.v); }
  friend VECTILE_INLINE VecU64 operator^(VecU64 a, VecU64 b) { return _mm256_xor_si256(a.v, b.v); }
  // The product of the low halves.
  friend VECTILE_INLINE VecU64 multiply_low(VecU64 a, VecU64 b) {
    return _mm256_mul_epu32(a.v, b.v);
  }
};
#elif defined(VECTILE_TIER_neon)
struct VecU64 {
  static constexpr int lanes = 2;
  uint64x2_t v;

  VECTILE_INLINE VecU64(uint64x2_t x) : v(x) {}
  VECTILE_INLINE VecU64(uint64_t x) : v(vdupq_n_u64(x)) {}
  static VECTILE_INLINE VecU64 iota() { return vcombine_u64(vcreate_u64(0), vcreate_u64(1)); }
  VECTILE_INLINE void store_low(uint32_t* p) const { vst1_u32(p, vmovn_u64(v)); }
  VECTILE_INLINE VecU64 high() const { return vshrq_n_u64(v, 32); }
  friend VECTILE_INLINE VecU64 operator+(VecU64 a, VecU64 b) { return vaddq_u64(a.v, b.v); }
  friend VECTILE_INLINE VecU64 operator^(VecU64 a, VecU64 b) { return veorq_u64(a.v, b.v); }
  // The product of the low halves.
  friend VECTILE_INLINE VecU64 multiply_low(VecU64 a, VecU64 b) {
    return vmull_u32(vmovn_u64(a.v), vmovn_u64(b.v));
  }
};
#else
struct VecU64 {
  static constexpr int lanes = 1;
  uint64_t v;

  VECTILE_INLINE VecU64(uint64_t x) : v(x) {}
  static VECTILE_INLINE VecU64 iota() { return 0; }
  VECTILE_INLINE void store_low(uint32_t* p) const { *p = static_cast<uint32_t>(v); }
  VECTILE_INLINE VecU64 high() const { return v >> 32; }
  friend VECTILE_INLINE VecU64 operator+(VecU64 a, VecU64 b) { return a.v + b.v; }
  friend VECTILE_INLINE VecU64 operator^(VecU64 a, VecU64 b) { return a.v ^ b.v; }
  // The product of the low halves.
  friend VECTILE_INLINE VecU64 multiply_low(VecU64 a, VecU64 b) {
    return (a.v & 0xffffffff) * (b.v & 0xffffffff);
  }
};
#endif

}  // namespace vectile::VECTILE_TIER
