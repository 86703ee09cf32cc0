// Vec<float> of 16 lanes: AVX-512 F, BW, DQ, VL (x86-64-v4).
#pragma once

#include "base/types.h"
#include "simd/intrinsics.h"
#include "simd/scalar.h"

namespace vectile::VECTILE_TIER {

struct Mask16 {
  __mmask16 bits;
  VECTILE_INLINE bool any() const { return bits != 0; }
  VECTILE_INLINE bool all() const { return bits == 0xffff; }
  friend VECTILE_INLINE Mask16 operator&(Mask16 a, Mask16 b) {
    return {_kand_mask16(a.bits, b.bits)};
  }
  friend VECTILE_INLINE Mask16 operator|(Mask16 a, Mask16 b) {
    return {_kor_mask16(a.bits, b.bits)};
  }
  friend VECTILE_INLINE Mask16 operator!(Mask16 a) { return {_knot_mask16(a.bits)}; }
};

template <>
struct Vec<float> {
  static constexpr bool has_lookup = true;  // lookup() below
  static constexpr int lanes = 16;
  using value_type = float;
  using Mask = Mask16;

  __m512 v;

  VECTILE_INLINE Vec() : v(_mm512_setzero_ps()) {}
  VECTILE_INLINE Vec(__m512 x) : v(x) {}
  VECTILE_INLINE Vec(float x) : v(_mm512_set1_ps(x)) {}

  static VECTILE_INLINE __mmask16 bits(int n) { return __mmask16(_bzhi_u32(0xffff, unsigned(n))); }
  VECTILE_INLINE float first_lane() const { return _mm512_cvtss_f32(v); }
  static VECTILE_INLINE Mask first(int n) { return {bits(n)}; }

  static VECTILE_INLINE Vec load(const float* p) { return _mm512_loadu_ps(p); }
  static VECTILE_INLINE Vec load(const float* p, int n) {
    return _mm512_maskz_loadu_ps(bits(n), p);
  }
  // The lanes of `mask` from p, of which nothing else is read; the others are zero, or from `rest`.
  static VECTILE_INLINE Vec load(const float* p, Mask mask) {
    return _mm512_maskz_loadu_ps(mask.bits, p);
  }
  static VECTILE_INLINE Vec load(const float* p, Mask mask, Vec rest) {
    return _mm512_mask_loadu_ps(rest.v, mask.bits, p);
  }
  static VECTILE_INLINE Vec load(const int8_t* p) {
    return from_s8(_mm_loadu_si128((const __m128i*)p));
  }
  static VECTILE_INLINE Vec load(const uint8_t* p) {
    return from_u8(_mm_loadu_si128((const __m128i*)p));
  }
  static VECTILE_INLINE Vec load(const int32_t* p) {
    return _mm512_cvtepi32_ps(_mm512_loadu_si512(p));
  }
  static VECTILE_INLINE Vec load(const int8_t* p, int n) {
    return from_s8(_mm_maskz_loadu_epi8(bits(n), p));
  }
  static VECTILE_INLINE Vec load(const uint8_t* p, int n) {
    return from_u8(_mm_maskz_loadu_epi8(bits(n), p));
  }
  static VECTILE_INLINE Vec load(const int32_t* p, int n) {
    return _mm512_cvtepi32_ps(_mm512_maskz_loadu_epi32(bits(n), p));
  }

  // Lane l is p[start[l] - start[0]], a distance below 2 lanes; from p[n] on nothing is read.
  static VECTILE_INLINE Vec near(const float* p, i64 n, const int32_t* start) {
    const unsigned live = _bzhi_u32(~0u, n < 0 ? 0u : n < 32 ? unsigned(n) : 32u);
    const __m512i index = _mm512_sub_epi32(_mm512_loadu_si512(start), _mm512_set1_epi32(start[0]));
    return _mm512_permutex2var_ps(_mm512_maskz_loadu_ps(__mmask16(live), p), index,
                                  _mm512_maskz_loadu_ps(__mmask16(live >> 16), p + 16));
  }

  VECTILE_INLINE void store(float* p) const { _mm512_storeu_ps(p, v); }
  VECTILE_INLINE void store(float* p, int n) const { _mm512_mask_storeu_ps(p, bits(n), v); }
  // Rounds half to even and saturates; NaN stores the lowest value.
  VECTILE_INLINE void store(int8_t* p) const {
    _mm_storeu_si128((__m128i*)p, _mm512_cvtsepi32_epi8(to_int(-128.f, 127.f)));
  }
  VECTILE_INLINE void store(int8_t* p, int n) const {
    _mm_mask_storeu_epi8(p, bits(n), _mm512_cvtsepi32_epi8(to_int(-128.f, 127.f)));
  }
  VECTILE_INLINE void store(uint8_t* p) const {
    _mm_storeu_si128((__m128i*)p, _mm512_cvtusepi32_epi8(to_int(0.f, 255.f)));
  }
  VECTILE_INLINE void store(uint8_t* p, int n) const {
    _mm_mask_storeu_epi8(p, bits(n), _mm512_cvtusepi32_epi8(to_int(0.f, 255.f)));
  }
  VECTILE_INLINE void store(int32_t* p) const {
    _mm512_storeu_si512(p, to_int(-2147483648.f, 2147483520.f));
  }
  VECTILE_INLINE void store(int32_t* p, int n) const {
    _mm512_mask_storeu_epi32(p, bits(n), to_int(-2147483648.f, 2147483520.f));
  }

  friend VECTILE_INLINE Vec operator+(Vec a, Vec b) { return _mm512_add_ps(a.v, b.v); }
  friend VECTILE_INLINE Vec operator-(Vec a, Vec b) { return _mm512_sub_ps(a.v, b.v); }
  friend VECTILE_INLINE Vec operator*(Vec a, Vec b) { return _mm512_mul_ps(a.v, b.v); }
  friend VECTILE_INLINE Vec operator/(Vec a, Vec b) { return _mm512_div_ps(a.v, b.v); }
  friend VECTILE_INLINE Vec operator-(Vec a) { return _mm512_xor_ps(a.v, _mm512_set1_ps(-0.f)); }
  VECTILE_INLINE Vec& operator+=(Vec b) { return *this = *this + b; }
  VECTILE_INLINE Vec& operator-=(Vec b) { return *this = *this - b; }
  VECTILE_INLINE Vec& operator*=(Vec b) { return *this = *this * b; }
  VECTILE_INLINE Vec& operator/=(Vec b) { return *this = *this / b; }
  friend VECTILE_INLINE Mask operator<(Vec a, Vec b) {
    return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)};
  }
  friend VECTILE_INLINE Mask operator<=(Vec a, Vec b) {
    return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LE_OQ)};
  }
  friend VECTILE_INLINE Mask operator>(Vec a, Vec b) {
    return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ)};
  }
  friend VECTILE_INLINE Mask operator>=(Vec a, Vec b) {
    return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GE_OQ)};
  }
  friend VECTILE_INLINE Mask operator==(Vec a, Vec b) {
    return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ)};
  }
  friend VECTILE_INLINE Mask operator!=(Vec a, Vec b) {
    return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_NEQ_UQ)};
  }

  friend VECTILE_INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a.v, b.v, c.v); }
  friend VECTILE_INLINE Vec fnma(Vec a, Vec b, Vec c) {
    return _mm512_fnmadd_ps(a.v, b.v, c.v);
  }  // c - a * b
  friend VECTILE_INLINE Vec sqrt(Vec a) { return _mm512_sqrt_ps(a.v); }
  friend VECTILE_INLINE Vec abs(Vec a) { return _mm512_andnot_ps(_mm512_set1_ps(-0.f), a.v); }
  friend VECTILE_INLINE Vec copysign(Vec magnitude, Vec sign) {
    const __m512 s = _mm512_set1_ps(-0.f);
    return _mm512_or_ps(_mm512_andnot_ps(s, magnitude.v), _mm512_and_ps(s, sign.v));
  }
  friend VECTILE_INLINE Vec round(Vec a) {
    return _mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  friend VECTILE_INLINE Vec floor(Vec a) {
    return _mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  }
  // NaN from either side propagates (VMINPS alone returns b when either is NaN); of two zeros the
  // second is returned.
  friend VECTILE_INLINE Vec min(Vec a, Vec b) {
    return _mm512_mask_min_ps(a.v, _mm512_cmp_ps_mask(a.v, a.v, _CMP_ORD_Q), a.v, b.v);
  }
  friend VECTILE_INLINE Vec max(Vec a, Vec b) {
    return _mm512_mask_max_ps(a.v, _mm512_cmp_ps_mask(a.v, a.v, _CMP_ORD_Q), a.v, b.v);
  }
  // min and max with a number b; NaN in a propagates. One instruction.
  friend VECTILE_INLINE Vec min_number(Vec a, Vec b) { return _mm512_min_ps(b.v, a.v); }
  friend VECTILE_INLINE Vec max_number(Vec a, Vec b) { return _mm512_max_ps(b.v, a.v); }
  // min(max(v, lo), hi) for lo <= hi; NaN in v propagates.
  friend VECTILE_INLINE Vec clamp(Vec a, Vec lo, Vec hi) {
    return _mm512_max_ps(lo.v, _mm512_min_ps(hi.v, a.v));
  }
  friend VECTILE_INLINE Vec select(Mask m, Vec a, Vec b) {
    return _mm512_mask_blend_ps(m.bits, b.v, a.v);
  }
  friend VECTILE_INLINE Mask is_nan(Vec a) { return {_mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q)}; }

  // Elements 0, 2, 4, ... and 1, 3, 5, ... of a followed by b; and back.
  friend VECTILE_INLINE void deinterleave(Vec a, Vec b, Vec& even, Vec& odd) {
    const __m512i i = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    even = _mm512_permutex2var_ps(a.v, i, b.v);
    odd = _mm512_permutex2var_ps(a.v, _mm512_add_epi32(i, _mm512_set1_epi32(1)), b.v);
  }
  friend VECTILE_INLINE void interleave(Vec even, Vec odd, Vec& a, Vec& b) {
    const __m512i i = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    a = _mm512_permutex2var_ps(even.v, i, odd.v);
    b = _mm512_permutex2var_ps(even.v, _mm512_add_epi32(i, _mm512_set1_epi32(8)), odd.v);
  }

  // table[i], where i is the low five bits of each lane of `index`.
  friend VECTILE_INLINE Vec lookup(const float (&table)[32], Vec index) {
    return _mm512_permutex2var_ps(_mm512_load_ps(table), _mm512_castps_si512(index.v),
                                  _mm512_load_ps(table + 16));
  }

  friend VECTILE_INLINE float reduce_add(Vec a) {
    return reduce(a, [](__m128 x, __m128 y) VECTILE_LAMBDA { return _mm_add_ps(x, y); });
  }
  friend VECTILE_INLINE float reduce_max(Vec a) {  // lanes with NaN win, as in max
    const float m = reduce(a, [](__m128 x, __m128 y) VECTILE_LAMBDA { return _mm_max_ps(x, y); });
    return is_nan(a).any() ? __builtin_nanf("") : m;
  }
  friend VECTILE_INLINE float reduce_min(Vec a) {
    const float m = reduce(a, [](__m128 x, __m128 y) VECTILE_LAMBDA { return _mm_min_ps(x, y); });
    return is_nan(a).any() ? __builtin_nanf("") : m;
  }

  // v * 2^n for integral n, rounded once; correct into subnormals and infinity.
  friend VECTILE_INLINE Vec ldexp(Vec a, Vec n) { return _mm512_scalef_ps(a.v, n.v); }
  // v * 2^n where that is a normal number.
  friend VECTILE_INLINE Vec ldexp_normal(Vec a, Vec n) { return _mm512_scalef_ps(a.v, n.v); }
  // a * 2^n where the representation of t ends in the eight bits of n + 127: zero for n = -127 and
  // infinity for 128.
  friend VECTILE_INLINE Vec times_power_of_two(Vec a, Vec t) {
    return a * Vec(_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(t.v), 23)));
  }
  // For finite a > 0 (subnormals too): a = m * 2^e with m in [0.75, 1.5).
  friend VECTILE_INLINE void split_exponent(Vec a, Vec& m, Vec& e) {
    m = _mm512_getmant_ps(a.v, _MM_MANT_NORM_p75_1p5, _MM_MANT_SIGN_src);
    const __m512 exponent = _mm512_getexp_ps(a.v);
    e = _mm512_mask_add_ps(exponent, (m < Vec(1.f)).bits, exponent, _mm512_set1_ps(1.f));
  }

 private:
  static VECTILE_INLINE Vec from_s8(__m128i x) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(x));
  }
  static VECTILE_INLINE Vec from_u8(__m128i x) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(x));
  }
  VECTILE_INLINE __m512i to_int(float lo, float hi) const {
    return _mm512_cvtps_epi32(
        _mm512_min_ps(_mm512_max_ps(v, _mm512_set1_ps(lo)), _mm512_set1_ps(hi)));
  }
  // Folds lane i with i + 8, then i + 4, i + 2, i + 1.
  template <class Op>
  static VECTILE_INLINE float reduce(Vec a, Op op) {
    const __m128 q0 = _mm512_castps512_ps128(a.v), q1 = _mm512_extractf32x4_ps(a.v, 1);
    const __m128 q2 = _mm512_extractf32x4_ps(a.v, 2), q3 = _mm512_extractf32x4_ps(a.v, 3);
    const __m128 four = op(op(q0, q2), op(q1, q3));
    const __m128 two = op(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(op(two, _mm_movehdup_ps(two)));
  }
};

}  // namespace vectile::VECTILE_TIER
