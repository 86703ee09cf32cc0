// Vec<float> from and to the types that exist in memory only: Float16, BFloat16, Float8E4M3,
// Float8E5M2 (base/types.h).
//
// Widening is exact. Narrowing rounds half to even, into subnormals too; what is too large becomes
// infinity, or NaN in Float8E4M3, which has none. NaN stays NaN with its sign. Written once over
// the compiler's vectors of as many lanes as Vec<float> has; binary16 takes F16C where that exists.
#pragma once

#include "simd/vec.h"

namespace vectile::VECTILE_TIER {

// One integer per lane of Vec<float>, and the same lanes as stored.
template <int n>
struct Lanes {
  typedef uint32_t U32 __attribute__((vector_size(4 * n)));
  typedef int32_t I32 __attribute__((vector_size(4 * n)));
  typedef float F32 __attribute__((vector_size(4 * n)));
  typedef uint16_t U16 __attribute__((vector_size(2 * n)));
  typedef uint8_t U8 __attribute__((vector_size(n)));
  template <class To, class From>
  static VECTILE_INLINE To convert(From x) {
    return __builtin_convertvector(x, To);
  }
};
template <>
struct Lanes<1> {
  using U32 = uint32_t;
  using I32 = int32_t;
  using F32 = float;
  using U16 = uint16_t;
  using U8 = uint8_t;
  template <class To, class From>
  static VECTILE_INLINE To convert(From x) {
    return static_cast<To>(x);
  }
};

using FloatLanes = Lanes<Vec<float>::lanes>;

// A word a lane; g++ 12 makes more of a vector conversion than it is.
template <class Bits>
static VECTILE_INLINE FloatLanes::U32 words(Bits x) {
#if defined(VECTILE_TIER_avx512)
  if constexpr (sizeof(x) == 16)
    return bit_cast<FloatLanes::U32>(_mm512_cvtepu8_epi32(bit_cast<__m128i>(x)));
  if constexpr (sizeof(x) == 32)
    return bit_cast<FloatLanes::U32>(_mm512_cvtepu16_epi32(bit_cast<__m256i>(x)));
#elif defined(VECTILE_TIER_avx2)
  if constexpr (sizeof(x) == 8)
    return bit_cast<FloatLanes::U32>(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(bit_cast<i64>(x))));
  if constexpr (sizeof(x) == 16)
    return bit_cast<FloatLanes::U32>(_mm256_cvtepu16_epi32(bit_cast<__m128i>(x)));
#endif
  return FloatLanes::convert<FloatLanes::U32>(x);
}

// Float lanes seen as integers.
struct Words {
  using U32 = FloatLanes::U32;
  using I32 = FloatLanes::I32;
  // For a, b < 2^31: signed comparisons are the ones that registers have.
  static VECTILE_INLINE auto less(U32 a, uint32_t b) {
    return bit_cast<I32>(a) < static_cast<int32_t>(b);
  }
  static VECTILE_INLINE U32 of(Vec<float> x) { return bit_cast<U32>(x.v); }
  static VECTILE_INLINE Vec<float> to_float(U32 x) {
    return Vec<float>(bit_cast<decltype(Vec<float>::v)>(x));
  }
};

// A binary format of a sign, `exponent` and `mantissa` bits, below float32's in both.
template <int exponent, int mantissa, bool has_infinity>
struct SmallFloat {
  using U32 = Words::U32;
  static constexpr int shift = 23 - mantissa, bits = 1 + exponent + mantissa;
  static constexpr uint32_t bias = (1u << (exponent - 1)) - 1;
  static constexpr uint32_t rebias = (127 - bias) << 23;
  static constexpr uint32_t magnitude = (1u << (bits - 1)) - 1;
  static constexpr uint32_t top = ((1u << exponent) - 1) << mantissa;  // infinity, where it exists
  static constexpr uint32_t largest = has_infinity ? top - 1 : magnitude - 1;
  static constexpr uint32_t quiet = 1u << (mantissa - 1);
  // The float32 whose last place is the smallest subnormal: added, it leaves a subnormal's bits.
  static constexpr uint32_t magic = (127 + 24 - bias - mantissa) << 23;

  static VECTILE_INLINE Vec<float> widen(U32 x) {
    const U32 m = x & magnitude;
    const U32 sign = (x >> (bits - 1)) << 31;
    const U32 subnormal = Words::of(Words::to_float(m | magic) - Words::to_float(U32{} + magic));
    U32 r = Words::less(m, 1u << mantissa) ? subnormal : (m << shift) + rebias;
    if constexpr (has_infinity) {
      r = Words::less(m, top) ? r : (m << shift) | 0x7f800000u;
      r = Words::less(m, top + 1) ? r : r | 0x00400000u;
    } else {
      r = Words::less(m, magnitude) ? r : U32{} + 0x7fc00000u;
    }
    return Words::to_float(r | sign);
  }

  static VECTILE_INLINE U32 narrow(Vec<float> v) {
    const U32 x = Words::of(v), a = x & 0x7fffffffu;
    const U32 sign = (x >> 31) << (bits - 1);
    const U32 subnormal = Words::of(Words::to_float(a) + Words::to_float(U32{} + magic)) - magic;
    // Below the smallest normal number the subtraction wraps around and the lane is not used.
    const U32 scaled = a - rebias;
    const U32 normal = (scaled + ((1u << (shift - 1)) - 1) + ((scaled >> shift) & 1u)) >> shift;
    U32 r = Words::less(a, (128 - bias) << 23) ? subnormal : normal;
    r = Words::less(r, largest + 1) ? r : U32{} + (largest + 1);
    const U32 nan = has_infinity ? top | quiet | ((a >> shift) & (quiet - 1)) : U32{} + magnitude;
    return (Words::less(a, 0x7f800001u) ? r : nan) | sign;
  }
};

// The lanes of a type as stored, unpacked and packed.
template <class Format, class B>
struct Packed {
  using Bits = B;
  static VECTILE_INLINE Vec<float> unpack(Bits x) { return Format::widen(words(x)); }
  static VECTILE_INLINE Bits pack(Vec<float> v) {
#if defined(VECTILE_TIER_avx2) && !defined(VECTILE_TIER_avx512)
    if constexpr (sizeof(Bits) == 16) {
      const __m256i words = bit_cast<__m256i>(Format::narrow(v));
      return bit_cast<Bits>(
          _mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
    }
#endif
    return FloatLanes::convert<Bits>(Format::narrow(v));
  }
};

struct UpperHalf {  // of a float32
  using U32 = Words::U32;
  static VECTILE_INLINE Vec<float> widen(U32 x) { return Words::to_float(x << 16); }
  static VECTILE_INLINE U32 narrow(Vec<float> v) {
    const U32 x = Words::of(v), even = (x >> 16) & 1u;
    return (Words::less(x & 0x7fffffffu, 0x7f800001u) ? x + 0x7fffu + even : x | 0x00400000u) >> 16;
  }
};

template <class S>
struct Storage;
template <>
struct Storage<BFloat16> : Packed<UpperHalf, FloatLanes::U16> {
#if defined(VECTILE_TIER_avx512_bf16)  // what is subnormal becomes zero, as in that unit's products
  static VECTILE_INLINE Bits pack(Vec<float> v) { return bit_cast<Bits>(_mm512_cvtneps_pbh(v.v)); }
#endif
};
template <>
struct Storage<Float8E4M3> : Packed<SmallFloat<4, 3, false>, FloatLanes::U8> {};
template <>
struct Storage<Float8E5M2> : Packed<SmallFloat<5, 2, true>, FloatLanes::U8> {};
#if defined(VECTILE_TIER_avx512) || defined(VECTILE_TIER_avx512_vnni)
template <>
struct Storage<Float16> {
  using Bits = __m256i;
  static VECTILE_INLINE Vec<float> unpack(Bits x) { return _mm512_cvtph_ps(x); }
  static VECTILE_INLINE Bits pack(Vec<float> v) {
    return _mm512_cvtps_ph(v.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
};
#elif defined(VECTILE_TIER_avx2)
template <>
struct Storage<Float16> {
  using Bits = __m128i;
  static VECTILE_INLINE Vec<float> unpack(Bits x) { return _mm256_cvtph_ps(x); }
  static VECTILE_INLINE Bits pack(Vec<float> v) {
    return _mm256_cvtps_ph(v.v, _MM_FROUND_TO_NEAREST_INT);
  }
};
#else
template <>
struct Storage<Float16> : Packed<SmallFloat<5, 10, true>, FloatLanes::U16> {};
#endif

// Lanes from p; and the first n of them, 0 <= n <= lanes, with zeros for the others.
template <class S>
VECTILE_INLINE Vec<float> load_float(const S* p) {
  typename Storage<S>::Bits bits;
  std::memcpy(&bits, p, sizeof(bits));
  return Storage<S>::unpack(bits);
}
template <class S>
VECTILE_INLINE Vec<float> load_float(const S* p, int n) {
  S lanes[Vec<float>::lanes] = {};
  for (int i = 0; i < n; ++i) lanes[i] = p[i];
  return load_float<S>(lanes);
}
template <class S>
VECTILE_INLINE void store_float(Vec<float> v, S* p) {
  const typename Storage<S>::Bits bits = Storage<S>::pack(v);
  std::memcpy(p, &bits, sizeof(bits));
}
template <class S>
VECTILE_INLINE void store_float(Vec<float> v, S* p, int n) {
  S lanes[Vec<float>::lanes];
  store_float<S>(v, lanes);
  for (int i = 0; i < n; ++i) p[i] = lanes[i];
}

// A lane of finite numbers in 8-bit floating point, times finite_scale<S>: where binary16 has an
// instruction, the byte becomes the upper part of one, which E4M3 leaves 2^-8 times as large.
template <class S>
constexpr float finite_scale = 1;
#if defined(VECTILE_TIER_avx2)
template <>
inline constexpr float finite_scale<Float8E4M3> = 0x1p-8f;
#endif
template <class S>
VECTILE_INLINE Vec<float> load_finite(const S* p) {
#if defined(VECTILE_TIER_avx512)
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  __m256i halves = _mm256_slli_epi16(_mm256_cvtepu8_epi16(bytes), 8);
  if constexpr (finite_scale<S> != 1)
    halves = _mm256_and_si256(_mm256_srai_epi16(halves, 1), _mm256_set1_epi16(~0x4000));
  return Storage<Float16>::unpack(halves);
#elif defined(VECTILE_TIER_avx2)
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  __m128i halves = _mm_unpacklo_epi8(_mm_setzero_si128(), bytes);
  if constexpr (finite_scale<S> != 1)
    halves = _mm_and_si128(_mm_srai_epi16(halves, 1), _mm_set1_epi16(~0x4000));
  return Storage<Float16>::unpack(halves);
#else
  return load_float(p);
#endif
}

}  // namespace vectile::VECTILE_TIER
