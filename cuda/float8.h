// The 8-bit floating-point types, by the bits of a float32 (as csrc/simd/storage.h does for
// vectors).
#pragma once

#include "device.h"

namespace vectile::cuda {

// Rounded to odd, so that rounding to a narrower type next is as if that were the only rounding
// (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", 2008).
__device__ inline float to_odd(double x) {
  const float r = static_cast<float>(x);
  const double back = r;
  unsigned bits = __float_as_uint(r);
  if (back != x && x == x && bits % 2 == 0)
    bits += (back < 0 ? -back : back) < (x < 0 ? -x : x) ? 1u : ~0u;
  return __uint_as_float(bits);
}

template <class S>
struct Float8Format;
template <>
struct Float8Format<Float8E4M3> {
  static constexpr int exponent = 4, mantissa = 3;
  static constexpr bool has_infinity = false;
  static constexpr float largest = 448;
};
template <>
struct Float8Format<Float8E5M2> {
  static constexpr int exponent = 5, mantissa = 2;
  static constexpr bool has_infinity = true;
  static constexpr float largest = 57344;
};

template <class S>
struct Float8 : Float8Format<S> {
  using F = Float8Format<S>;
  static constexpr int shift = 23 - F::mantissa;
  static constexpr unsigned bias = (1u << (F::exponent - 1)) - 1;
  static constexpr unsigned rebias = (127 - bias) << 23;
  static constexpr unsigned top = ((1u << F::exponent) - 1) << F::mantissa;  // infinity, if any
  static constexpr unsigned largest_bits = F::has_infinity ? top - 1 : 0x7e;
  static constexpr unsigned nan = F::has_infinity ? 0x7e : 0x7f;
  // The float32 whose last place is the smallest subnormal: added, it leaves a subnormal's bits.
  static constexpr unsigned magic = (127 + 24 - bias - F::mantissa) << 23;

  __device__ static float to_float(S x) {
    const unsigned m = x.bits & 0x7fu, sign = (x.bits & 0x80u) << 24;
    unsigned r = (m << shift) + rebias;
    if (m < (1u << F::mantissa))
      r = __float_as_uint(__uint_as_float(m | magic) - __uint_as_float(magic));
    else if (m > largest_bits)
      r = F::has_infinity && m == top ? 0x7f800000u : 0x7fc00000u;
    return __uint_as_float(r | sign);
  }
  // To the nearest, ties to even; what is too large is the number beyond the largest.
  __device__ static S from_float(float x) {
    const unsigned u = __float_as_uint(x), a = u & 0x7fffffffu, sign = (u >> 24) & 0x80u;
    unsigned r = nan;
    if (a < ((128 - bias) << 23)) {
      r = __float_as_uint(__uint_as_float(a) + __uint_as_float(magic)) - magic;
    } else if (a <= 0x7f800000u) {
      const unsigned scaled = a - rebias;
      r = (scaled + ((1u << (shift - 1)) - 1) + ((scaled >> shift) & 1u)) >> shift;
      r = r > largest_bits ? largest_bits + 1 : r;
    }
    return {static_cast<std::uint8_t>(r | sign)};
  }
  __device__ static S from_float(double x) { return from_float(to_odd(x)); }
};

}  // namespace vectile::cuda
