// Vec<float> of 4 lanes: AArch64 Advanced SIMD. There are no masked loads or stores: a part of a
// vector is put together from pieces, and nothing beside it is touched.
#pragma once

#include <arm_neon.h>

#include "simd/scalar.h"

namespace vectile::VECTILE_TIER {

struct Mask4 {
  uint32x4_t bits;  // all ones or all zeros per lane
  VECTILE_INLINE bool any() const { return vmaxvq_u32(bits) != 0; }
  VECTILE_INLINE bool all() const { return vminvq_u32(bits) != 0; }
  friend VECTILE_INLINE Mask4 operator&(Mask4 a, Mask4 b) { return {vandq_u32(a.bits, b.bits)}; }
  friend VECTILE_INLINE Mask4 operator|(Mask4 a, Mask4 b) { return {vorrq_u32(a.bits, b.bits)}; }
  friend VECTILE_INLINE Mask4 operator!(Mask4 a) { return {vmvnq_u32(a.bits)}; }
};

// The first n of 4 words at p, zeros behind them; and the first n words of x to p. Any n.
VECTILE_INLINE uint32x4_t load_words(const void* p, int n) {
  const auto* word = static_cast<const uint32_t*>(p);
  if (n >= 4) return vld1q_u32(word);
  uint32x2_t low = vdup_n_u32(0), high = low;
  if (n >= 2) {
    low = vld1_u32(word);
    if (n == 3) high = vld1_lane_u32(word + 2, high, 0);
  } else if (n == 1) {
    low = vld1_lane_u32(word, low, 0);
  }
  return vcombine_u32(low, high);
}
VECTILE_INLINE void store_words(void* p, uint32x4_t x, int n) {
  auto* word = static_cast<uint32_t*>(p);
  if (n >= 4) return vst1q_u32(word, x);
  if (n >= 2) {
    vst1_u32(word, vget_low_u32(x));
    if (n == 3) vst1q_lane_u32(word + 2, x, 2);
  } else if (n == 1) {
    vst1q_lane_u32(word, x, 0);
  }
}

template <>
struct Vec<float> {
  static constexpr bool has_lookup = false;
  static constexpr int lanes = 4;
  using value_type = float;
  using Mask = Mask4;

  float32x4_t v;

  VECTILE_INLINE Vec() : v(vdupq_n_f32(0)) {}
  VECTILE_INLINE Vec(float32x4_t x) : v(x) {}
  VECTILE_INLINE Vec(float x) : v(vdupq_n_f32(x)) {}

  VECTILE_INLINE float first_lane() const { return vgetq_lane_f32(v, 0); }
  static VECTILE_INLINE Mask first(int n) {
    constexpr int32_t number[] = {0, 1, 2, 3};
    return {vcgtq_s32(vdupq_n_s32(n), vld1q_s32(number))};
  }

  static VECTILE_INLINE Vec load(const float* p) { return vld1q_f32(p); }
  static VECTILE_INLINE Vec load(const float* p, int n) {
    return vreinterpretq_f32_u32(load_words(p, n));
  }
  // The lanes of `mask` from p, of which nothing else is read; the others are zero, or from `rest`.
  static VECTILE_INLINE Vec load(const float* p, Mask mask) { return load(p, mask, Vec()); }
  static VECTILE_INLINE Vec load(const float* p, Mask mask, Vec rest) {
    if (mask.all()) return load(p);
    float32x4_t x = rest.v;
    if (vgetq_lane_u32(mask.bits, 0)) x = vld1q_lane_f32(p, x, 0);
    if (vgetq_lane_u32(mask.bits, 1)) x = vld1q_lane_f32(p + 1, x, 1);
    if (vgetq_lane_u32(mask.bits, 2)) x = vld1q_lane_f32(p + 2, x, 2);
    if (vgetq_lane_u32(mask.bits, 3)) x = vld1q_lane_f32(p + 3, x, 3);
    return x;
  }
  static VECTILE_INLINE Vec load(const int8_t* p, int n = lanes) {
    const int16x8_t wide = vmovl_s8(vreinterpret_s8_u64(load_bytes(p, n)));
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide)));
  }
  static VECTILE_INLINE Vec load(const uint8_t* p, int n = lanes) {
    const uint16x8_t wide = vmovl_u8(vreinterpret_u8_u64(load_bytes(p, n)));
    return vcvtq_f32_u32(vmovl_u16(vget_low_u16(wide)));
  }
  static VECTILE_INLINE Vec load(const int32_t* p) { return vcvtq_f32_s32(vld1q_s32(p)); }
  static VECTILE_INLINE Vec load(const int32_t* p, int n) {
    return vcvtq_f32_s32(vreinterpretq_s32_u32(load_words(p, n)));
  }

  // Lane l is p[start[l] - start[0]], a distance below 2 lanes; from p[n] on nothing is read.
  static VECTILE_INLINE Vec near(const float* p, i64 n, const int32_t* start) {
    const int live = n < 0 ? 0 : n < 8 ? int(n) : 8;
    const uint8x16x2_t table = {{vreinterpretq_u8_u32(load_words(p, live)),
                                 vreinterpretq_u8_u32(load_words(p + 4, live - 4))}};
    const int32x4_t index = vsubq_s32(vld1q_s32(start), vdupq_n_s32(start[0]));
    // Byte b of word i is byte 4 i + b of the table.
    const int32x4_t bytes = vmlaq_s32(vdupq_n_s32(0x03020100), index, vdupq_n_s32(0x04040404));
    return vreinterpretq_f32_u8(vqtbl2q_u8(table, vreinterpretq_u8_s32(bytes)));
  }

  VECTILE_INLINE void store(float* p) const { vst1q_f32(p, v); }
  VECTILE_INLINE void store(float* p, int n) const { store_words(p, vreinterpretq_u32_f32(v), n); }
  // Rounds half to even and saturates; NaN stores the lowest value.
  VECTILE_INLINE void store(int8_t* p, int n = lanes) const { store_bytes(p, n, -128.f, 127.f); }
  VECTILE_INLINE void store(uint8_t* p, int n = lanes) const { store_bytes(p, n, 0.f, 255.f); }
  VECTILE_INLINE void store(int32_t* p, int n = lanes) const {
    store_words(p, vreinterpretq_u32_s32(to_int(-2147483648.f, 2147483520.f)), n);
  }

  friend VECTILE_INLINE Vec operator+(Vec a, Vec b) { return vaddq_f32(a.v, b.v); }
  friend VECTILE_INLINE Vec operator-(Vec a, Vec b) { return vsubq_f32(a.v, b.v); }
  friend VECTILE_INLINE Vec operator*(Vec a, Vec b) { return vmulq_f32(a.v, b.v); }
  friend VECTILE_INLINE Vec operator/(Vec a, Vec b) { return vdivq_f32(a.v, b.v); }
  friend VECTILE_INLINE Vec operator-(Vec a) { return vnegq_f32(a.v); }
  VECTILE_INLINE Vec& operator+=(Vec b) { return *this = *this + b; }
  VECTILE_INLINE Vec& operator-=(Vec b) { return *this = *this - b; }
  VECTILE_INLINE Vec& operator*=(Vec b) { return *this = *this * b; }
  VECTILE_INLINE Vec& operator/=(Vec b) { return *this = *this / b; }
  friend VECTILE_INLINE Mask operator<(Vec a, Vec b) { return {vcltq_f32(a.v, b.v)}; }
  friend VECTILE_INLINE Mask operator<=(Vec a, Vec b) { return {vcleq_f32(a.v, b.v)}; }
  friend VECTILE_INLINE Mask operator>(Vec a, Vec b) { return {vcgtq_f32(a.v, b.v)}; }
  friend VECTILE_INLINE Mask operator>=(Vec a, Vec b) { return {vcgeq_f32(a.v, b.v)}; }
  friend VECTILE_INLINE Mask operator==(Vec a, Vec b) { return {vceqq_f32(a.v, b.v)}; }
  friend VECTILE_INLINE Mask operator!=(Vec a, Vec b) { return !(a == b); }

  friend VECTILE_INLINE Vec fma(Vec a, Vec b, Vec c) { return vfmaq_f32(c.v, a.v, b.v); }
  // c - a * b
  friend VECTILE_INLINE Vec fnma(Vec a, Vec b, Vec c) { return vfmsq_f32(c.v, a.v, b.v); }
  friend VECTILE_INLINE Vec sqrt(Vec a) { return vsqrtq_f32(a.v); }
  friend VECTILE_INLINE Vec abs(Vec a) { return vabsq_f32(a.v); }
  friend VECTILE_INLINE Vec copysign(Vec magnitude, Vec sign) {
    return vbslq_f32(vdupq_n_u32(0x80000000), sign.v, magnitude.v);
  }
  friend VECTILE_INLINE Vec round(Vec a) { return vrndnq_f32(a.v); }
  friend VECTILE_INLINE Vec floor(Vec a) { return vrndmq_f32(a.v); }
  // NaN from either side propagates; of two zeros the second is returned, where FMIN and FMAX would
  // choose by sign.
  friend VECTILE_INLINE Vec min(Vec a, Vec b) { return select((a < b) | is_nan(a), a, b); }
  friend VECTILE_INLINE Vec max(Vec a, Vec b) { return select((a > b) | is_nan(a), a, b); }
  // min and max with a number b; NaN in a propagates.
  friend VECTILE_INLINE Vec min_number(Vec a, Vec b) { return select(b < a, b, a); }
  friend VECTILE_INLINE Vec max_number(Vec a, Vec b) { return select(b > a, b, a); }
  // min(max(v, lo), hi) for lo <= hi; NaN in v propagates.
  friend VECTILE_INLINE Vec clamp(Vec a, Vec lo, Vec hi) {
    return max_number(min_number(a, hi), lo);
  }
  friend VECTILE_INLINE Vec select(Mask m, Vec a, Vec b) { return vbslq_f32(m.bits, a.v, b.v); }
  // Elements 0, 2, 4, ... and 1, 3, 5, ... of a followed by b; and back.
  friend VECTILE_INLINE void deinterleave(Vec a, Vec b, Vec& even, Vec& odd) {
    even = vuzp1q_f32(a.v, b.v);
    odd = vuzp2q_f32(a.v, b.v);
  }
  friend VECTILE_INLINE void interleave(Vec even, Vec odd, Vec& a, Vec& b) {
    a = vzip1q_f32(even.v, odd.v);
    b = vzip2q_f32(even.v, odd.v);
  }
  friend VECTILE_INLINE Mask is_nan(Vec a) { return !(a == a); }

  friend VECTILE_INLINE float reduce_add(Vec a) { return vaddvq_f32(a.v); }
  friend VECTILE_INLINE float reduce_max(Vec a) { return vmaxvq_f32(a.v); }  // NaN wins, as in max
  friend VECTILE_INLINE float reduce_min(Vec a) { return vminvq_f32(a.v); }

  // v * 2^n for integral n, |n| <= 252, rounded once when v is in [2^-64, 2^64]; correct into
  // subnormals and infinity.
  friend VECTILE_INLINE Vec ldexp(Vec a, Vec n) {
    const int32x4_t whole = vcvtnq_s32_f32(n.v), half = vshrq_n_s32(whole, 1);
    return a * power_of_two(half) * power_of_two(vsubq_s32(whole, half));
  }
  // v * 2^n for integral n in [-126, 127].
  friend VECTILE_INLINE Vec ldexp_normal(Vec a, Vec n) {
    return a * power_of_two(vcvtnq_s32_f32(n.v));
  }
  // a * 2^n where the representation of t ends in the eight bits of n + 127: zero for n = -127 and
  // infinity for 128.
  friend VECTILE_INLINE Vec times_power_of_two(Vec a, Vec t) {
    const int32x4_t power = vshlq_n_s32(vreinterpretq_s32_f32(t.v), 23);
    return a * Vec(vreinterpretq_f32_s32(power));
  }
  // For finite a > 0 (subnormals too): a = m * 2^e with m in [0.75, 1.5).
  friend VECTILE_INLINE void split_exponent(Vec a, Vec& m, Vec& e) {
    const Mask tiny = a < Vec(0x1p-126f);
    const int32x4_t bits = vreinterpretq_s32_f32(select(tiny, a * Vec(0x1p23f), a).v);
    const int32x4_t exponent = vshrq_n_s32(vsubq_s32(bits, vdupq_n_s32(0x3f400000)), 23);
    m = vreinterpretq_f32_s32(vsubq_s32(bits, vshlq_n_s32(exponent, 23)));
    e = Vec(vcvtq_f32_s32(exponent)) - select(tiny, Vec(23.f), Vec());
  }

 private:
  static VECTILE_INLINE Vec power_of_two(int32x4_t n) {
    return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n, vdupq_n_s32(127)), 23));
  }
  static VECTILE_INLINE uint64x1_t load_bytes(const void* p, int n) {
    uint32_t bytes = 0;
    std::memcpy(&bytes, p, size_t(n));
    return vcreate_u64(bytes);
  }
  // The low byte of a two's complement number in range is its int8 or uint8.
  VECTILE_INLINE void store_bytes(void* p, int n, float lo, float hi) const {
    const int16x4_t words = vmovn_s32(to_int(lo, hi));
    const int8x8_t low = vmovn_s16(vcombine_s16(words, words));
    const uint32_t bytes = vget_lane_u32(vreinterpret_u32_s8(low), 0);
    std::memcpy(p, &bytes, size_t(n));
  }
  VECTILE_INLINE int32x4_t to_int(float lo, float hi) const {
    const Vec above = select(*this > Vec(lo), *this, Vec(lo));  // NaN is not above
    return vcvtnq_s32_f32(min_number(above, Vec(hi)).v);
  }
};

}  // namespace vectile::VECTILE_TIER
