// Vec<T> of one lane in portable C++: the reference tier, and Vec<double> on every tier.
#pragma once

#include <cstdint>
#include <cstring>

#include "base/types.h"

#define VECTILE_INLINE inline __attribute__((always_inline))
#define VECTILE_LAMBDA __attribute__((always_inline))

namespace vectile::VECTILE_TIER {

template <class To, class From>
VECTILE_INLINE To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

struct BoolMask {
  bool bit;
  VECTILE_INLINE bool any() const { return bit; }
  VECTILE_INLINE bool all() const { return bit; }
  friend VECTILE_INLINE BoolMask operator&(BoolMask a, BoolMask b) { return {a.bit && b.bit}; }
  friend VECTILE_INLINE BoolMask operator|(BoolMask a, BoolMask b) { return {a.bit || b.bit}; }
  friend VECTILE_INLINE BoolMask operator!(BoolMask a) { return {!a.bit}; }
};

template <class T>
struct Float;  // bit layout of an IEEE type
template <>
struct Float<float> {
  using Bits = uint32_t;
  using Int = int32_t;
  static constexpr int mantissa = 23, bias = 127;
};
template <>
struct Float<double> {
  using Bits = uint64_t;
  using Int = int64_t;
  static constexpr int mantissa = 52, bias = 1023;
};

template <class T>
struct Vec {
  static constexpr bool has_lookup = false;
  static constexpr int lanes = 1;
  using value_type = T;
  using Mask = BoolMask;
  using Bits = typename Float<T>::Bits;
  using Int = typename Float<T>::Int;
  static constexpr Bits sign_bit = Bits(1) << (8 * sizeof(T) - 1);

  T v;

  VECTILE_INLINE Vec() : v(0) {}
  VECTILE_INLINE Vec(T x) : v(x) {}

  static VECTILE_INLINE Vec load(const T* p) { return *p; }
  static VECTILE_INLINE Vec load(const T* p, int n) { return n > 0 ? *p : T(0); }
  // The lanes of `mask` from p, of which nothing else is read; the others are zero, or from `rest`.
  static VECTILE_INLINE Vec load(const T* p, Mask mask) { return mask.bit ? *p : T(0); }
  static VECTILE_INLINE Vec load(const T* p, Mask mask, Vec rest) { return mask.bit ? *p : rest.v; }
  static VECTILE_INLINE Vec load(const int8_t* p) { return T(*p); }
  static VECTILE_INLINE Vec load(const uint8_t* p) { return T(*p); }
  static VECTILE_INLINE Vec load(const int32_t* p) { return T(*p); }
  static VECTILE_INLINE Vec load(const int8_t* p, int n) { return n > 0 ? T(*p) : T(0); }
  static VECTILE_INLINE Vec load(const uint8_t* p, int n) { return n > 0 ? T(*p) : T(0); }
  static VECTILE_INLINE Vec load(const int32_t* p, int n) { return n > 0 ? T(*p) : T(0); }

  // Lane l is p[start[l] - start[0]], a distance below 2 lanes; from p[n] on nothing is read.
  static VECTILE_INLINE Vec near(const T* p, i64 n, const int32_t*) { return n > 0 ? *p : T(0); }

  VECTILE_INLINE void store(T* p) const { *p = v; }
  VECTILE_INLINE void store(T* p, int n) const {
    if (n > 0) *p = v;
  }
  // Rounds half to even and saturates; NaN stores the lowest value.
  VECTILE_INLINE void store(int8_t* p, int n = 1) const { store_int(p, n, T(-128), T(127)); }
  VECTILE_INLINE void store(uint8_t* p, int n = 1) const { store_int(p, n, T(0), T(255)); }
  VECTILE_INLINE void store(int32_t* p, int n = 1) const {
    store_int(p, n, T(-2147483648.0), sizeof(T) == 4 ? T(2147483520.0) : T(2147483647.0));
  }

  VECTILE_INLINE T first_lane() const { return v; }
  static VECTILE_INLINE Mask first(int n) { return {n > 0}; }

  friend VECTILE_INLINE Vec operator+(Vec a, Vec b) { return a.v + b.v; }
  friend VECTILE_INLINE Vec operator-(Vec a, Vec b) { return a.v - b.v; }
  friend VECTILE_INLINE Vec operator*(Vec a, Vec b) { return a.v * b.v; }
  friend VECTILE_INLINE Vec operator/(Vec a, Vec b) { return a.v / b.v; }
  friend VECTILE_INLINE Vec operator-(Vec a) { return -a.v; }
  VECTILE_INLINE Vec& operator+=(Vec b) { return *this = *this + b; }
  VECTILE_INLINE Vec& operator-=(Vec b) { return *this = *this - b; }
  VECTILE_INLINE Vec& operator*=(Vec b) { return *this = *this * b; }
  VECTILE_INLINE Vec& operator/=(Vec b) { return *this = *this / b; }
  friend VECTILE_INLINE Mask operator<(Vec a, Vec b) { return {a.v < b.v}; }
  friend VECTILE_INLINE Mask operator<=(Vec a, Vec b) { return {a.v <= b.v}; }
  friend VECTILE_INLINE Mask operator>(Vec a, Vec b) { return {a.v > b.v}; }
  friend VECTILE_INLINE Mask operator>=(Vec a, Vec b) { return {a.v >= b.v}; }
  friend VECTILE_INLINE Mask operator==(Vec a, Vec b) { return {a.v == b.v}; }
  friend VECTILE_INLINE Mask operator!=(Vec a, Vec b) { return {a.v != b.v}; }

  // a * b + c, with one rounding where there is an FMA unit and two where there is none: libm's
  // software fma would cost a hundred times more, and every bound of simd/math.h holds either way.
  friend VECTILE_INLINE Vec fma(Vec a, Vec b, Vec c) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
    if constexpr (sizeof(T) == 4) return __builtin_fmaf(a.v, b.v, c.v);
    return T(__builtin_fma(a.v, b.v, c.v));
#else
    return a.v * b.v + c.v;
#endif
  }
  friend VECTILE_INLINE Vec fnma(Vec a, Vec b, Vec c) { return fma(-a, b, c); }  // c - a * b
  friend VECTILE_INLINE Vec sqrt(Vec a) {
    if constexpr (sizeof(T) == 4) return __builtin_sqrtf(a.v);
    return T(__builtin_sqrt(a.v));
  }
  friend VECTILE_INLINE Vec abs(Vec a) {
    return bit_cast<T>(Bits(bit_cast<Bits>(a.v) & ~sign_bit));
  }
  friend VECTILE_INLINE Vec copysign(Vec magnitude, Vec sign) {
    return bit_cast<T>(
        Bits((bit_cast<Bits>(magnitude.v) & ~sign_bit) | (bit_cast<Bits>(sign.v) & sign_bit)));
  }
  friend VECTILE_INLINE Vec
  round(Vec a) {  // half to even: adding 2^mantissa leaves no fraction bits
    const T limit = T(Bits(1) << Float<T>::mantissa);
    const T m = abs(a).v;
    return m < limit ? copysign(Vec((m + limit) - limit), a) : a;
  }
  friend VECTILE_INLINE Vec floor(Vec a) {
    const T r = round(a).v;
    return r > a.v ? r - T(1) : r;
  }
  // NaN from either side propagates; of two zeros the second is returned.
  friend VECTILE_INLINE Vec min(Vec a, Vec b) { return a.v < b.v || a.v != a.v ? a : b; }
  friend VECTILE_INLINE Vec max(Vec a, Vec b) { return a.v > b.v || a.v != a.v ? a : b; }
  // min and max with a number b; NaN in a propagates. One instruction.
  friend VECTILE_INLINE Vec min_number(Vec a, Vec b) { return b.v < a.v ? b : a; }
  friend VECTILE_INLINE Vec max_number(Vec a, Vec b) { return a.v < b.v ? b : a; }
  // min(max(v, lo), hi) for lo <= hi; NaN in v propagates.
  friend VECTILE_INLINE Vec clamp(Vec a, Vec lo, Vec hi) {
    return a.v < lo.v ? lo : hi.v < a.v ? hi : a;
  }
  friend VECTILE_INLINE Vec select(Mask m, Vec a, Vec b) { return m.bit ? a : b; }
  // Elements 0, 2, 4, ... and 1, 3, 5, ... of a followed by b; and back.
  friend VECTILE_INLINE void deinterleave(Vec a, Vec b, Vec& even, Vec& odd) { even = a, odd = b; }
  friend VECTILE_INLINE void interleave(Vec even, Vec odd, Vec& a, Vec& b) { a = even, b = odd; }
  friend VECTILE_INLINE Mask is_nan(Vec a) { return {a.v != a.v}; }

  friend VECTILE_INLINE T reduce_add(Vec a) { return a.v; }
  friend VECTILE_INLINE T reduce_max(Vec a) { return a.v; }
  friend VECTILE_INLINE T reduce_min(Vec a) { return a.v; }

  // v * 2^n for integral n, |n| <= 2 * bias - 2, rounded once when v is in [2^-64, 2^64]; correct
  // into subnormals and infinity.
  friend VECTILE_INLINE Vec ldexp(Vec a, Vec n) {
    const Int whole = Int(n.v), half = whole >> 1;
    return a * power_of_two(half) * power_of_two(whole - half);
  }
  // v * 2^n for integral n in [1 - bias, bias].
  friend VECTILE_INLINE Vec ldexp_normal(Vec a, Vec n) { return a * power_of_two(Int(n.v)); }
  // a * 2^n where the representation of t ends in the exponent bits of 2^n: zero for n = -bias and
  // infinity for bias + 1.
  friend VECTILE_INLINE Vec times_power_of_two(Vec a, Vec t) {
    return a * Vec(bit_cast<T>(Bits(bit_cast<Bits>(t.v) << Float<T>::mantissa)));
  }
  // For finite a > 0 (subnormals too): a = m * 2^e with m in [0.75, 1.5).
  friend VECTILE_INLINE void split_exponent(Vec a, Vec& m, Vec& e) {
    using F = Float<T>;
    const bool tiny = a.v < bit_cast<T>(Bits(1) << F::mantissa);
    const Int bits = bit_cast<Int>(tiny ? a.v * T(Bits(1) << F::mantissa) : a.v);
    const Int exponent = (bits - bit_cast<Int>(T(0.75))) >> F::mantissa;
    e = T(exponent - (tiny ? F::mantissa : 0));
    m = bit_cast<T>(Int(bits - Int(Bits(exponent) << F::mantissa)));
  }

 private:
  static VECTILE_INLINE T power_of_two(Int n) {
    return bit_cast<T>(Bits(n + Float<T>::bias) << Float<T>::mantissa);
  }
  template <class I>
  VECTILE_INLINE void store_int(I* p, int n, T lo, T hi) const {
    const T r = round(*this).v;
    if (n > 0) *p = I(r > lo ? (r < hi ? r : hi) : lo);
  }
};

}  // namespace vectile::VECTILE_TIER
