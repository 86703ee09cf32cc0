// Vec<float> of 8 lanes: AVX2, FMA, BMI2 (x86-64-v3).
#pragma once

#include "simd/intrinsics.h"
#include "simd/scalar.h"

namespace vectile::VECTILE_TIER {

struct Mask8 {
  __m256 bits;  // all ones or all zeros per lane
  VECTILE_INLINE bool any() const { return _mm256_movemask_ps(bits) != 0; }
  VECTILE_INLINE bool all() const { return _mm256_movemask_ps(bits) == 0xff; }
  friend VECTILE_INLINE Mask8 operator&(Mask8 a, Mask8 b) {
    return {_mm256_and_ps(a.bits, b.bits)};
  }
  friend VECTILE_INLINE Mask8 operator|(Mask8 a, Mask8 b) { return {_mm256_or_ps(a.bits, b.bits)}; }
  friend VECTILE_INLINE Mask8 operator!(Mask8 a) {
    return {_mm256_xor_ps(a.bits, _mm256_castsi256_ps(_mm256_set1_epi32(-1)))};
  }
};

template <>
struct Vec<float> {
  static constexpr bool has_lookup = false;
  static constexpr int lanes = 8;
  using value_type = float;
  using Mask = Mask8;

  __m256 v;

  VECTILE_INLINE Vec() : v(_mm256_setzero_ps()) {}
  VECTILE_INLINE Vec(__m256 x) : v(x) {}
  VECTILE_INLINE Vec(float x) : v(_mm256_set1_ps(x)) {}

  static VECTILE_INLINE __m256i bits(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  VECTILE_INLINE float first_lane() const { return _mm256_cvtss_f32(v); }
  static VECTILE_INLINE Mask first(int n) { return {_mm256_castsi256_ps(bits(n))}; }

  static VECTILE_INLINE Vec load(const float* p) { return _mm256_loadu_ps(p); }
  static VECTILE_INLINE Vec load(const float* p, int n) { return _mm256_maskload_ps(p, bits(n)); }
  // The lanes of `mask` from p, of which nothing else is read; the others are zero, or from `rest`.
  static VECTILE_INLINE Vec load(const float* p, Mask mask) {
    return _mm256_maskload_ps(p, _mm256_castps_si256(mask.bits));
  }
  static VECTILE_INLINE Vec load(const float* p, Mask mask, Vec rest) {
    const __m256 read = _mm256_maskload_ps(p, _mm256_castps_si256(mask.bits));
    return _mm256_blendv_ps(rest.v, read, mask.bits);
  }
  static VECTILE_INLINE Vec load(const int8_t* p, int n = lanes) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(load_bytes(p, n)));
  }
  static VECTILE_INLINE Vec load(const uint8_t* p, int n = lanes) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(load_bytes(p, n)));
  }
  static VECTILE_INLINE Vec load(const int32_t* p) {
    return _mm256_cvtepi32_ps(_mm256_loadu_si256((const __m256i*)p));
  }
  static VECTILE_INLINE Vec load(const int32_t* p, int n) {
    return _mm256_cvtepi32_ps(_mm256_maskload_epi32(p, bits(n)));
  }

  // Lane l is p[start[l] - start[0]], a distance below 2 lanes; from p[n] on nothing is read.
  static VECTILE_INLINE Vec near(const float* p, i64 n, const int32_t* start) {
    const int live = n < 0 ? 0 : n < 16 ? int(n) : 16;
    const __m256i index =
        _mm256_sub_epi32(_mm256_loadu_si256((const __m256i*)start), _mm256_set1_epi32(start[0]));
    const __m256 low = _mm256_permutevar8x32_ps(_mm256_maskload_ps(p, bits(live)), index);
    const __m256 high = _mm256_permutevar8x32_ps(_mm256_maskload_ps(p + 8, bits(live - 8)), index);
    return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(index, 28)));
  }

  VECTILE_INLINE void store(float* p) const { _mm256_storeu_ps(p, v); }
  // In pieces: AMD's cores before Zen 4 take a dozen cycles for VMASKMOVPS to memory.
  VECTILE_INLINE void store(float* p, int n) const {
    if (n >= lanes) return store(p);
    if (n <= 0) return;
    __m128 rest = _mm256_castps256_ps128(v);
    if (n & 4) {
      _mm_storeu_ps(p, rest);
      rest = _mm256_extractf128_ps(v, 1), p += 4;
    }
    if (n & 2) {
      _mm_storel_pi((__m64*)p, rest);
      rest = _mm_movehl_ps(rest, rest), p += 2;
    }
    if (n & 1) _mm_store_ss(p, rest);
  }
  // Rounds half to even and saturates; NaN stores the lowest value.
  VECTILE_INLINE void store(int8_t* p, int n = lanes) const {
    const __m128i words = pack_words(to_int(-128.f, 127.f));
    store_bytes(p, _mm_packs_epi16(words, words), n);
  }
  VECTILE_INLINE void store(uint8_t* p, int n = lanes) const {
    const __m128i words = pack_words(to_int(0.f, 255.f));
    store_bytes(p, _mm_packus_epi16(words, words), n);
  }
  VECTILE_INLINE void store(int32_t* p) const {
    _mm256_storeu_si256((__m256i*)p, to_int(-2147483648.f, 2147483520.f));
  }
  VECTILE_INLINE void store(int32_t* p, int n) const {
    _mm256_maskstore_epi32(p, bits(n), to_int(-2147483648.f, 2147483520.f));
  }

  friend VECTILE_INLINE Vec operator+(Vec a, Vec b) { return _mm256_add_ps(a.v, b.v); }
  friend VECTILE_INLINE Vec operator-(Vec a, Vec b) { return _mm256_sub_ps(a.v, b.v); }
  friend VECTILE_INLINE Vec operator*(Vec a, Vec b) { return _mm256_mul_ps(a.v, b.v); }
  friend VECTILE_INLINE Vec operator/(Vec a, Vec b) { return _mm256_div_ps(a.v, b.v); }
  friend VECTILE_INLINE Vec operator-(Vec a) { return _mm256_xor_ps(a.v, _mm256_set1_ps(-0.f)); }
  VECTILE_INLINE Vec& operator+=(Vec b) { return *this = *this + b; }
  VECTILE_INLINE Vec& operator-=(Vec b) { return *this = *this - b; }
  VECTILE_INLINE Vec& operator*=(Vec b) { return *this = *this * b; }
  VECTILE_INLINE Vec& operator/=(Vec b) { return *this = *this / b; }
  friend VECTILE_INLINE Mask operator<(Vec a, Vec b) {
    return {_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)};
  }
  friend VECTILE_INLINE Mask operator<=(Vec a, Vec b) {
    return {_mm256_cmp_ps(a.v, b.v, _CMP_LE_OQ)};
  }
  friend VECTILE_INLINE Mask operator>(Vec a, Vec b) {
    return {_mm256_cmp_ps(a.v, b.v, _CMP_GT_OQ)};
  }
  friend VECTILE_INLINE Mask operator>=(Vec a, Vec b) {
    return {_mm256_cmp_ps(a.v, b.v, _CMP_GE_OQ)};
  }
  friend VECTILE_INLINE Mask operator==(Vec a, Vec b) {
    return {_mm256_cmp_ps(a.v, b.v, _CMP_EQ_OQ)};
  }
  friend VECTILE_INLINE Mask operator!=(Vec a, Vec b) {
    return {_mm256_cmp_ps(a.v, b.v, _CMP_NEQ_UQ)};
  }

  friend VECTILE_INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a.v, b.v, c.v); }
  friend VECTILE_INLINE Vec fnma(Vec a, Vec b, Vec c) {
    return _mm256_fnmadd_ps(a.v, b.v, c.v);
  }  // c - a * b
  friend VECTILE_INLINE Vec sqrt(Vec a) { return _mm256_sqrt_ps(a.v); }
  friend VECTILE_INLINE Vec abs(Vec a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.f), a.v); }
  friend VECTILE_INLINE Vec copysign(Vec magnitude, Vec sign) {
    const __m256 s = _mm256_set1_ps(-0.f);
    return _mm256_or_ps(_mm256_andnot_ps(s, magnitude.v), _mm256_and_ps(s, sign.v));
  }
  friend VECTILE_INLINE Vec round(Vec a) {
    return _mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  friend VECTILE_INLINE Vec floor(Vec a) {
    return _mm256_round_ps(a.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  }
  // NaN from either side propagates (VMINPS alone returns b when either is NaN); of two zeros the
  // second is returned.
  friend VECTILE_INLINE Vec min(Vec a, Vec b) {
    return _mm256_blendv_ps(_mm256_min_ps(a.v, b.v), a.v, is_nan(a).bits);
  }
  friend VECTILE_INLINE Vec max(Vec a, Vec b) {
    return _mm256_blendv_ps(_mm256_max_ps(a.v, b.v), a.v, is_nan(a).bits);
  }
  // min and max with a number b; NaN in a propagates. One instruction.
  friend VECTILE_INLINE Vec min_number(Vec a, Vec b) { return _mm256_min_ps(b.v, a.v); }
  friend VECTILE_INLINE Vec max_number(Vec a, Vec b) { return _mm256_max_ps(b.v, a.v); }
  // min(max(v, lo), hi) for lo <= hi; NaN in v propagates.
  friend VECTILE_INLINE Vec clamp(Vec a, Vec lo, Vec hi) {
    return _mm256_max_ps(lo.v, _mm256_min_ps(hi.v, a.v));
  }
  friend VECTILE_INLINE Vec select(Mask m, Vec a, Vec b) {
    return _mm256_blendv_ps(b.v, a.v, m.bits);
  }
  // Elements 0, 2, 4, ... and 1, 3, 5, ... of a followed by b; and back.
  friend VECTILE_INLINE void deinterleave(Vec a, Vec b, Vec& even, Vec& odd) {
    const auto in_order = [](__m256 x) VECTILE_LAMBDA {  // pairs 0, 2, 1, 3
      return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(x), 0xd8));
    };
    even = in_order(_mm256_shuffle_ps(a.v, b.v, 0x88));
    odd = in_order(_mm256_shuffle_ps(a.v, b.v, 0xdd));
  }
  friend VECTILE_INLINE void interleave(Vec even, Vec odd, Vec& a, Vec& b) {
    const __m256 low = _mm256_unpacklo_ps(even.v, odd.v), high = _mm256_unpackhi_ps(even.v, odd.v);
    a = _mm256_permute2f128_ps(low, high, 0x20);
    b = _mm256_permute2f128_ps(low, high, 0x31);
  }
  friend VECTILE_INLINE Mask is_nan(Vec a) { return {_mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q)}; }

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

  // v * 2^n for integral n, |n| <= 252, rounded once when v is in [2^-64, 2^64]; correct into
  // subnormals and infinity.
  friend VECTILE_INLINE Vec ldexp(Vec a, Vec n) {
    const __m256i whole = _mm256_cvtps_epi32(n.v), half = _mm256_srai_epi32(whole, 1);
    return a * power_of_two(half) * power_of_two(_mm256_sub_epi32(whole, half));
  }
  // v * 2^n for integral n in [-126, 127].
  friend VECTILE_INLINE Vec ldexp_normal(Vec a, Vec n) {
    return a * power_of_two(_mm256_cvtps_epi32(n.v));
  }
  // a * 2^n where the representation of t ends in the eight bits of n + 127: zero for n = -127 and
  // infinity for 128.
  friend VECTILE_INLINE Vec times_power_of_two(Vec a, Vec t) {
    return a * Vec(_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(t.v), 23)));
  }
  // For finite a > 0 (subnormals too): a = m * 2^e with m in [0.75, 1.5).
  friend VECTILE_INLINE void split_exponent(Vec a, Vec& m, Vec& e) {
    const Mask tiny = a < Vec(0x1p-126f);
    const __m256i bits = _mm256_castps_si256(select(tiny, a * Vec(0x1p23f), a).v);
    const __m256i exponent =
        _mm256_srai_epi32(_mm256_sub_epi32(bits, _mm256_set1_epi32(0x3f400000)), 23);
    m = _mm256_castsi256_ps(_mm256_sub_epi32(bits, _mm256_slli_epi32(exponent, 23)));
    e = Vec(_mm256_cvtepi32_ps(exponent)) - Vec(_mm256_and_ps(tiny.bits, _mm256_set1_ps(23.f)));
  }

 private:
  static VECTILE_INLINE Vec power_of_two(__m256i n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
  }
  static VECTILE_INLINE __m128i load_bytes(const void* p, int n) {
    int64_t bytes = 0;
    std::memcpy(&bytes, p, size_t(n));
    return _mm_cvtsi64_si128(bytes);
  }
  static VECTILE_INLINE void store_bytes(void* p, __m128i x, int n) {
    const int64_t bytes = _mm_cvtsi128_si64(x);
    std::memcpy(p, &bytes, size_t(n));
  }
  VECTILE_INLINE __m256i to_int(float lo, float hi) const {
    return _mm256_cvtps_epi32(
        _mm256_min_ps(_mm256_max_ps(v, _mm256_set1_ps(lo)), _mm256_set1_ps(hi)));
  }
  static VECTILE_INLINE __m128i pack_words(__m256i x) {
    return _mm_packs_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  }
  // Folds lane i with i + 4, then i + 2, i + 1.
  template <class Op>
  static VECTILE_INLINE float reduce(Vec a, Op op) {
    const __m128 four = op(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
    const __m128 two = op(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(op(two, _mm_movehdup_ps(two)));
  }
};

}  // namespace vectile::VECTILE_TIER
