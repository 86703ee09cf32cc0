// VecDot: int32 lanes that accumulate products of 8-bit integers, exactly (modulo 2^32), four
// neighbours along the summed axis at a time. The right operand is a 32-bit element of four bytes
// per lane. Two schemes, by what the tier has:
//   bytes (VPDPBUSD, NEON, plain code): unsigned left and signed right bytes, one element each;
//   pairs (VPMADDWD): the left operand is widened to int16, two elements x = (a0, a1), y = (a2, a3)
//     for four values, the right one's bytes lie b0 b2 b1 b3, and
//       (a0 + b2) (a2 + b0) + (a1 + b3) (a3 + b1)
//     is the product sum plus a0 a2 + a1 a3 + b0 b2 + b1 b3, which only rows and columns know
//     (Winograd, "A New Algorithm for Inner Product", 1968). Half the multiplications: three
//     additions and one VPMADDWD do what two of each would, and additions have ports to spare.
#pragma once

#include <cstdint>

#include "simd/vec.h"

namespace vectile::VECTILE_TIER {

#if defined(VECTILE_TIER_avx512)

struct VecDot {
  static constexpr int lanes = 16;
  using value_type = int32_t;
#if defined(VECTILE_TIER_avx512_vnni)
  static constexpr bool pairs = false;
#else
  static constexpr bool pairs = true;
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
#if defined(VECTILE_TIER_avx512_vnni)
  friend VECTILE_INLINE VecDot multiply_add(VecDot a, VecDot b, VecDot c) {
    return _mm512_dpbusd_epi32(c.v, a.v, b.v);
  }
#else
  VECTILE_INLINE VecDot even_bytes() const { return _mm512_and_si512(v, _mm512_set1_epi16(255)); }
  VECTILE_INLINE VecDot odd_bytes() const { return _mm512_srli_epi16(v, 8); }
  VECTILE_INLINE VecDot odd_elements() const { return _mm512_srli_epi64(v, 32); }
  static VECTILE_INLINE VecDot widen(const uint8_t* p) {
    return _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i*)p));
  }
  static VECTILE_INLINE VecDot widen(const int8_t* p) {
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i*)p));
  }
  // Bytes of two rows as pairs of words: columns [0, lanes) and [lanes, 2 lanes).
  static VECTILE_INLINE void widen_pairs(const int8_t* a, const int8_t* b, VecDot& first,
                                         VecDot& second) {
    const auto sixteen = [=](int at) VECTILE_LAMBDA {
      const __m128i x = _mm_loadu_si128((const __m128i*)(a + at));
      const __m128i y = _mm_loadu_si128((const __m128i*)(b + at));
      return VecDot(
          _mm512_cvtepi8_epi16(_mm256_set_m128i(_mm_unpackhi_epi8(x, y), _mm_unpacklo_epi8(x, y))));
    };
    first = sixteen(0), second = sixteen(16);
  }
  static VECTILE_INLINE VecDot words(int x) { return _mm512_set1_epi16(static_cast<short>(x)); }
  friend VECTILE_INLINE VecDot add_words(VecDot a, VecDot b) { return _mm512_add_epi16(a.v, b.v); }
  friend VECTILE_INLINE VecDot multiply_words(VecDot a, VecDot b) {
    return _mm512_madd_epi16(a.v, b.v);
  }
#endif
};

#elif defined(VECTILE_TIER_avx2)

struct VecDot {
  static constexpr int lanes = 8;
  using value_type = int32_t;
#if defined(VECTILE_TIER_avx_vnni)
  static constexpr bool pairs = false;
#else
  static constexpr bool pairs = true;
#endif

  __m256i v;

  VECTILE_INLINE VecDot() : v(_mm256_setzero_si256()) {}
  VECTILE_INLINE VecDot(__m256i x) : v(x) {}
  VECTILE_INLINE VecDot(int32_t x) : v(_mm256_set1_epi32(x)) {}

  static VECTILE_INLINE VecDot load(const int32_t* p) {
    return _mm256_loadu_si256((const __m256i*)p);
  }
  static VECTILE_INLINE VecDot load(const int32_t* p, int n) {
    return _mm256_maskload_epi32(p, Vec<float>::bits(n));
  }
  VECTILE_INLINE void store(int32_t* p) const { _mm256_storeu_si256((__m256i*)p, v); }
  VECTILE_INLINE void store(int32_t* p, int n) const {
    if (n >= lanes) return store(p);
    _mm256_maskstore_epi32(p, Vec<float>::bits(n), v);
  }
  friend VECTILE_INLINE VecDot operator+(VecDot a, VecDot b) { return _mm256_add_epi32(a.v, b.v); }
  friend VECTILE_INLINE VecDot operator-(VecDot a, VecDot b) { return _mm256_sub_epi32(a.v, b.v); }
  friend VECTILE_INLINE VecDot operator*(VecDot a, VecDot b) {
    return _mm256_mullo_epi32(a.v, b.v);
  }
#if defined(VECTILE_TIER_avx_vnni)
  friend VECTILE_INLINE VecDot multiply_add(VecDot a, VecDot b, VecDot c) {
    return _mm256_dpbusd_avx_epi32(c.v, a.v, b.v);
  }
#else
  VECTILE_INLINE VecDot even_bytes() const { return _mm256_and_si256(v, _mm256_set1_epi16(255)); }
  VECTILE_INLINE VecDot odd_bytes() const { return _mm256_srli_epi16(v, 8); }
  VECTILE_INLINE VecDot odd_elements() const { return _mm256_srli_epi64(v, 32); }
  static VECTILE_INLINE VecDot widen(const uint8_t* p) {
    return _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i*)p));
  }
  static VECTILE_INLINE VecDot widen(const int8_t* p) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)p));
  }
  // Bytes of two rows as pairs of words: columns [0, lanes) and [lanes, 2 lanes).
  static VECTILE_INLINE void widen_pairs(const int8_t* a, const int8_t* b, VecDot& first,
                                         VecDot& second) {
    const __m128i x = _mm_loadu_si128((const __m128i*)a), y = _mm_loadu_si128((const __m128i*)b);
    first = _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(x, y));
    second = _mm256_cvtepi8_epi16(_mm_unpackhi_epi8(x, y));
  }
  static VECTILE_INLINE VecDot words(int x) { return _mm256_set1_epi16(static_cast<short>(x)); }
  friend VECTILE_INLINE VecDot add_words(VecDot a, VecDot b) { return _mm256_add_epi16(a.v, b.v); }
  friend VECTILE_INLINE VecDot multiply_words(VecDot a, VecDot b) {
    return _mm256_madd_epi16(a.v, b.v);
  }
#endif
};

#elif defined(VECTILE_TIER_neon)

struct VecDot {
  static constexpr int lanes = 4;
  static constexpr bool pairs = false;
  using value_type = int32_t;

  int32x4_t v;

  VECTILE_INLINE VecDot() : v(vdupq_n_s32(0)) {}
  VECTILE_INLINE VecDot(int32x4_t x) : v(x) {}
  VECTILE_INLINE VecDot(int32_t x) : v(vdupq_n_s32(x)) {}

  static VECTILE_INLINE VecDot load(const int32_t* p) { return vld1q_s32(p); }
  static VECTILE_INLINE VecDot load(const int32_t* p, int n) {
    return vreinterpretq_s32_u32(load_words(p, n));
  }
  VECTILE_INLINE void store(int32_t* p) const { vst1q_s32(p, v); }
  VECTILE_INLINE void store(int32_t* p, int n) const {
    store_words(p, vreinterpretq_u32_s32(v), n);
  }
  friend VECTILE_INLINE VecDot operator+(VecDot a, VecDot b) { return vaddq_s32(a.v, b.v); }
  friend VECTILE_INLINE VecDot operator-(VecDot a, VecDot b) { return vsubq_s32(a.v, b.v); }
  friend VECTILE_INLINE VecDot operator*(VecDot a, VecDot b) { return vmulq_s32(a.v, b.v); }
#if defined(VECTILE_TIER_neon_dotprod)
  // UDOT has one type for both: a b = a (b + 128) - 128 a, and the last term serves a row's
  // vectors.
  friend VECTILE_INLINE VecDot multiply_add(VecDot a, VecDot b, VecDot c) {
    const uint8x16_t x = vreinterpretq_u8_s32(a.v), y = vreinterpretq_u8_s32(b.v);
    const uint8x16_t half = vdupq_n_u8(128);
    const uint32x4_t sum = vdotq_u32(vreinterpretq_u32_s32(c.v), x, veorq_u8(y, half));
    return vreinterpretq_s32_u32(vsubq_u32(sum, vdotq_u32(vdupq_n_u32(0), x, half)));
  }
#else
  friend VECTILE_INLINE VecDot multiply_add(VecDot a, VecDot b, VecDot c) {
    const uint8x16_t x = vreinterpretq_u8_s32(a.v);
    const int8x16_t y = vreinterpretq_s8_s32(b.v);
    const int32x4_t low = group_sums(vmovl_u8(vget_low_u8(x)), vmovl_s8(vget_low_s8(y)));
    const int32x4_t high = group_sums(vmovl_high_u8(x), vmovl_high_s8(y));
    return vaddq_s32(c.v, vpaddq_s32(low, high));
  }

 private:
  // The products of two groups, added in pairs.
  static VECTILE_INLINE int32x4_t group_sums(uint16x8_t a, int16x8_t b) {
    const int16x8_t x = vreinterpretq_s16_u16(a);
    return vpaddq_s32(vmull_s16(vget_low_s16(x), vget_low_s16(b)), vmull_high_s16(x, b));
  }
#endif
};

#else

struct VecDot {
  static constexpr int lanes = 1;
  static constexpr bool pairs = false;
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

template <class V>
VECTILE_INLINE int32_t reduce_sum(V v) {  // modulo 2^32
  int32_t lanes[V::lanes];
  v.store(lanes);
  uint32_t sum = 0;
  for (const int32_t lane : lanes) sum += static_cast<uint32_t>(lane);
  return static_cast<int32_t>(sum);
}

// One step of the pairs scheme: c + the product sum and its excess.
template <class V>
VECTILE_INLINE V multiply_add(V x, V y, V even, V odd, V c) {
  return c + multiply_words(add_words(x, odd), add_words(y, even));
}

constexpr int kInterleaved = VecDot::lanes > 1 ? 16 : 4;

// Bytes of kInterleaved columns of four rows to elements of four neighbours, in this tier's order;
// every byte is xored with `flip`.
VECTILE_INLINE void interleave_rows(const uint8_t* const (&rows)[4], i64 at, uint8_t flip,
                                    int32_t* to) {
  constexpr int second = VecDot::pairs ? 2 : 1;
#if defined(VECTILE_TIER_avx2)
  const __m128i mask = _mm_set1_epi8(static_cast<char>(flip));
  const auto row = [&](int r) VECTILE_LAMBDA {
    return _mm_xor_si128(_mm_loadu_si128((const __m128i*)(rows[r] + at)), mask);
  };
  const __m128i a = row(0), b = row(second), c = row(3 - second), d = row(3);
  const __m128i low = _mm_unpacklo_epi8(a, b), low2 = _mm_unpacklo_epi8(c, d);
  const __m128i high = _mm_unpackhi_epi8(a, b), high2 = _mm_unpackhi_epi8(c, d);
  _mm_storeu_si128((__m128i*)to, _mm_unpacklo_epi16(low, low2));
  _mm_storeu_si128((__m128i*)(to + 4), _mm_unpackhi_epi16(low, low2));
  _mm_storeu_si128((__m128i*)(to + 8), _mm_unpacklo_epi16(high, high2));
  _mm_storeu_si128((__m128i*)(to + 12), _mm_unpackhi_epi16(high, high2));
#else
  const uint8_t* const order[] = {rows[0], rows[second], rows[3 - second], rows[3]};
  auto* bytes = reinterpret_cast<uint8_t*>(to);
  for (int j = 0; j < kInterleaved; ++j)
    for (int t = 0; t < 4; ++t) bytes[4 * j + t] = static_cast<uint8_t>(order[t][at + j] ^ flip);
#endif
}

}  // namespace vectile::VECTILE_TIER
