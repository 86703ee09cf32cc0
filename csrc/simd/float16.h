// Registers of 16-bit floats that the CPU multiplies as they are: binary16 (AVX512-FP16), and
// bfloat16 in pairs (AVX512-BF16). On tiers with those instructions only.
#pragma once

#include <cstdint>

#include "simd/stored.h"

namespace vectile::VECTILE_TIER {

using std::uint16_t;

#if defined(VECTILE_TIER_avx512_fp16)

// 32 numbers of binary16; every operation rounds to it once, subnormals too.
struct VecF16 {
  static constexpr int lanes = 32;
  __m512h v;

  VECTILE_INLINE VecF16() : v(_mm512_setzero_ph()) {}
  VECTILE_INLINE VecF16(__m512h x) : v(x) {}
  static VECTILE_INLINE VecF16 load(const uint16_t* p) { return _mm512_loadu_ph(p); }
  VECTILE_INLINE void store(uint16_t* p) const { _mm512_storeu_ph(p, v); }
  // this += *a b. The instruction broadcasts from memory; from the intrinsics g++ 12 makes a
  // broadcast of its own, which takes a multiplication's port.
  VECTILE_INLINE void add_product(const uint16_t* a, VecF16 b) {
#if defined(VECTILE_EMULATED)
    v = _mm512_fmadd_ph(_mm512_castsi512_ph(_mm512_set1_epi16(short(*a))), b.v, v);
#else
    asm("vfmadd231ph %2%{1to32%}, %1, %0" : "+v"(v) : "v"(b.v), "m"(*a));
#endif
  }
};

#endif

#if defined(VECTILE_TIER_avx512_bf16)

// sums += x0 y0 + x1 y1 of the pairs of bfloat16 in 32 bits. What is subnormal counts as zero.
VECTILE_INLINE Vec<float> add_pairs(Vec<float> sums, Vec<float> x, Vec<float> y) {
  return _mm512_dpbf16_ps(sums.v, bit_cast<__m512bh>(x.v), bit_cast<__m512bh>(y.v));
}

// Two vectors in bfloat16, one after the other, rounded half to even. Subnormals become zero.
VECTILE_INLINE void store_bf16(Vec<float> first, Vec<float> second, uint16_t* p) {
  _mm512_storeu_si512(p, bit_cast<__m512i>(_mm512_cvtne2ps_pbh(second.v, first.v)));
}

// The 32 numbers at `even` and those at `odd` side by side, as 32 pairs.
VECTILE_INLINE void interleave_pairs(const void* even, const void* odd, uint16_t* p) {
  const __m512i low =
      _mm512_setr_epi32(0x00200000, 0x00210001, 0x00220002, 0x00230003, 0x00240004, 0x00250005,
                        0x00260006, 0x00270007, 0x00280008, 0x00290009, 0x002a000a, 0x002b000b,
                        0x002c000c, 0x002d000d, 0x002e000e, 0x002f000f);
  const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
  const __m512i a = _mm512_loadu_si512(even), b = _mm512_loadu_si512(odd);
  _mm512_storeu_si512(p, _mm512_permutex2var_epi16(a, low, b));
  _mm512_storeu_si512(p + 32, _mm512_permutex2var_epi16(a, high, b));
}

// Lanes of `even` and `odd`, rounded half to even, side by side: pairs. Subnormals become zero.
VECTILE_INLINE void store_pairs(Vec<float> even, Vec<float> odd, uint16_t* p) {
  const __m512i order =
      _mm512_setr_epi32(0x00100000, 0x00110001, 0x00120002, 0x00130003, 0x00140004, 0x00150005,
                        0x00160006, 0x00170007, 0x00180008, 0x00190009, 0x001a000a, 0x001b000b,
                        0x001c000c, 0x001d000d, 0x001e000e, 0x001f000f);
  _mm512_storeu_si512(
      p, _mm512_permutexvar_epi16(order, bit_cast<__m512i>(_mm512_cvtne2ps_pbh(odd.v, even.v))));
}

#else  // for AMX on a model of its tiles

VECTILE_INLINE void store_bf16(Vec<float> first, Vec<float> second, uint16_t* p) {
  store_as(first, reinterpret_cast<BFloat16*>(p));
  store_as(second, reinterpret_cast<BFloat16*>(p) + Vec<float>::lanes);
}
VECTILE_INLINE void interleave_pairs(const void* even, const void* odd, uint16_t* p) {
  for (int i = 0; i < 32; ++i) {
    p[2 * i] = static_cast<const uint16_t*>(even)[i];
    p[2 * i + 1] = static_cast<const uint16_t*>(odd)[i];
  }
}
VECTILE_INLINE void store_pairs(Vec<float> even, Vec<float> odd, uint16_t* p) {
  static_assert(Vec<float>::lanes == 1);
  store_bf16(even, odd, p);
}

#endif

}  // namespace vectile::VECTILE_TIER
