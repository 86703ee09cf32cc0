// The AVX-512 types and intrinsics that the tiers use, in AVX2, bit for bit: to test a tier on a
// CPU without it. Unqualified names in vectile::<tier> find these before the compiler's; one that
// is missing here does not compile. A masked access touches the lanes of its mask and nothing else.
#pragma once

#include "simd/scalar.h"

// What a compiler may define as macros.
#undef _mm512_cmp_ps_mask
#undef _mm512_cvtph_ps
#undef _mm512_cvtps_ph
#undef _mm512_extractf32x4_ps
#undef _mm512_getmant_ps
#undef _mm512_roundscale_ps
#undef _mm512_setr_epi32
#undef _mm512_setr_epi64
#undef _mm512_shuffle_f32x4
#undef _mm512_slli_epi32
#undef _mm512_srli_epi16
#undef _mm512_srli_epi32
#undef _mm512_srli_epi64

namespace vectile::VECTILE_TIER {

struct alignas(64) __m512 {
  __m256 low, high;
};
struct alignas(64) __m512i {
  __m256i low, high;
};
struct alignas(64) __m512d {
  __m256d low, high;
};
struct alignas(64) __m512h {  // binary16
  __m256i low, high;
};
struct alignas(64) __m512bh {  // bfloat16
  __m256i low, high;
};
struct alignas(32) __m256bh {
  __m256i bits;
};

namespace emulated {

template <class V, class T>
constexpr int count = sizeof(V) / sizeof(T);

template <class T, class V>
struct Lanes {
  T at[count<V, T>];
};
template <class T, class V>
VECTILE_INLINE Lanes<T, V> lanes(V v) {
  return __builtin_bit_cast(Lanes<T, V>, v);
}
// Lane i is f(i).
template <class V, class T, class F>
VECTILE_INLINE V each(F f) {
  Lanes<T, V> r;
  for (int i = 0; i < count<V, T>; ++i) r.at[i] = T(f(i));
  return __builtin_bit_cast(V, r);
}

VECTILE_INLINE __m512 join(__m256 low, __m256 high) { return {low, high}; }
VECTILE_INLINE __m512i join(__m256i low, __m256i high) { return {low, high}; }
VECTILE_INLINE __m512d join(__m256d low, __m256d high) { return {low, high}; }

// f of the low halves and of the high halves.
template <class F, class... V>
VECTILE_INLINE auto halves(F f, V... v) {
  return join(f(v.low...), f(v.high...));
}

template <class V>
VECTILE_INLINE V load(const void* p) {
  V v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <class V>
VECTILE_INLINE void store(void* p, V v) {
  __builtin_memcpy(p, &v, sizeof v);
}

// The lanes of `mask` from p, the others of `rest`; and the lanes of `mask` to p.
template <class T, class V>
[[gnu::noinline]] V load(const void* p, std::uint64_t mask, V rest) {
  auto r = lanes<T>(rest);
  for (int i = 0; i < count<V, T>; ++i)
    if (mask >> i & 1)
      __builtin_memcpy(&r.at[i], static_cast<const char*>(p) + i * sizeof(T), sizeof(T));
  return __builtin_bit_cast(V, r);
}
template <class T, class V>
[[gnu::noinline]] void store(void* p, std::uint64_t mask, V v) {
  const auto x = lanes<T>(v);
  for (int i = 0; i < count<V, T>; ++i)
    if (mask >> i & 1) __builtin_memcpy(static_cast<char*>(p) + i * sizeof(T), &x.at[i], sizeof(T));
}

// a where the mask is set, else b.
VECTILE_INLINE __m512 blend(unsigned mask, __m512 a, __m512 b) {
  const __m256i bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  const auto half = [&](__m256 x, __m256 y, unsigned m) VECTILE_LAMBDA {
    const __m256i set = _mm256_and_si256(_mm256_set1_epi32(int(m)), bits);
    return _mm256_blendv_ps(y, x, _mm256_castsi256_ps(_mm256_cmpeq_epi32(set, bits)));
  };
  return {half(a.low, b.low, mask), half(a.high, b.high, mask >> 8)};
}

template <int kPredicate>
VECTILE_INLINE __mmask16 compare(__m512 a, __m512 b) {
  return __mmask16(_mm256_movemask_ps(_mm256_cmp_ps(a.low, b.low, kPredicate)) |
                   _mm256_movemask_ps(_mm256_cmp_ps(a.high, b.high, kPredicate)) << 8);
}

// a * 2^floor(b), rounded once: exact as a double for |b| <= 600, beyond which every result is an
// infinity or a zero. A quiet NaN in a gives way to an infinite b.
VECTILE_INLINE float scale(float a, float b) {
  const bool quiet = __builtin_bit_cast(std::uint32_t, a) & 0x400000;
  if (__builtin_isnan(a)) return quiet && __builtin_isinf(b) ? (b > 0 ? b : 0.f) : a + a;
  if (__builtin_isnan(b)) return b + b;
  if (__builtin_isinf(b) && (b > 0 ? a == 0 : __builtin_isinf(a))) return __builtin_nanf("");
  const float n = __builtin_floorf(b < -600 ? -600.f : b > 600 ? 600.f : b);
  return float(double(a) * __builtin_bit_cast(double, std::uint64_t(1023 + int(n)) << 52));
}

// a = 2^e * m with 1 <= |m| < 2, for finite a other than 0.
VECTILE_INLINE int exponent(float a) {
  return int(__builtin_bit_cast(std::uint64_t, double(a)) >> 52 & 0x7ff) - 1023;
}

VECTILE_INLINE float getexp(float a) {
  if (__builtin_isnan(a)) return a + a;
  if (__builtin_isinf(a)) return __builtin_inff();
  return a == 0 ? -__builtin_inff() : float(exponent(a));
}

// The mantissa in [0.75, 1.5) under the sign of a.
VECTILE_INLINE float getmant(float a) {
  if (__builtin_isnan(a)) return a + a;
  if (a == 0 || __builtin_isinf(a)) return __builtin_copysignf(1.f, a);
  const float m = scale(a, float(-exponent(a)));
  return __builtin_fabsf(m) < 1.5f ? m : m * 0.5f;
}

// a b + c in binary16, rounded once. The product is exact in double. The sum is rounded to odd
// there (2Sum of Knuth, then the last bit is set where something was lost), after which another
// rounding, to far fewer bits, is the only one (Boldo and Melquiond, "Emulation of FMA and
// correctly rounded sums", 2008).
VECTILE_INLINE std::uint16_t half_fma(std::uint16_t a, std::uint16_t b, std::uint16_t c) {
  const auto wide = [](std::uint16_t x) VECTILE_LAMBDA {
    return double(_mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(x))));
  };
  const double product = wide(a) * wide(b), z = wide(c), sum = product + z;
  if (!(__builtin_fabs(sum) <= 0x1p40)) {  // an infinity or NaN
    const __m128i r = _mm_cvtps_ph(_mm_set_ss(float(sum)), _MM_FROUND_TO_NEAREST_INT);
    return std::uint16_t(_mm_cvtsi128_si32(r));
  }
  const auto odd = [](double x, double rest)
                       VECTILE_LAMBDA {  // x + rest, |rest| below its last bit
                         auto bits = __builtin_bit_cast(std::int64_t, x);
                         if (rest != 0 && (bits & 1) == 0) bits += (rest > 0) == (x > 0) ? 1 : -1;
                         return __builtin_bit_cast(double, bits);
                       };
  const double back = sum - product;
  const double x = odd(sum, (product - (sum - back)) + (z - back));
  // To float32 by rounding to odd as well: its 24 bits are more than two beyond binary16's 11.
  float single = float(x);
  const double lost = x - double(single);
  auto bits = __builtin_bit_cast(std::int32_t, single);
  if (lost != 0 && (bits & 1) == 0) bits += (lost > 0) == (single > 0) ? 1 : -1;
  single = __builtin_bit_cast(float, bits);
  const __m128i r = _mm_cvtps_ph(_mm_set_ss(single), _MM_FROUND_TO_NEAREST_INT);
  return std::uint16_t(_mm_cvtsi128_si32(r));
}

// A number of bfloat16 and one of float32 as AVX512-BF16 takes them: a subnormal is a zero.
VECTILE_INLINE float flushed(float x) {
  return __builtin_fabsf(x) < 0x1p-126f ? __builtin_copysignf(0.f, x) : x;
}
// a b + c; zero where it is below the normal numbers when rounded as if there were more below them.
VECTILE_INLINE float flushed_fma(float a, float b, float c) {
  const float r = __builtin_fmaf(a, b, c);
  if (__builtin_fabsf(r) != 0x1p-126f) return flushed(r);
  const double rest = __builtin_fma(double(a), double(b), double(c) - double(r));
  return (r > 0 ? -rest : rest) > 0x1p-151 ? __builtin_copysignf(0.f, r) : r;
}
VECTILE_INLINE float upper(std::uint32_t bits) {
  return flushed(__builtin_bit_cast(float, bits << 16));
}

// Half to even.
VECTILE_INLINE std::uint16_t to_bf16(float x) {
  const auto bits = __builtin_bit_cast(std::uint32_t, flushed(x));
  if (__builtin_isnan(x)) return std::uint16_t(bits >> 16 | 0x40);
  return std::uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

}  // namespace emulated

#define VECTILE_HALVES(intrinsic, ...) \
  emulated::halves([](auto... h) VECTILE_LAMBDA { return intrinsic(h...); }, __VA_ARGS__)

// Masks
VECTILE_INLINE __mmask16 _kand_mask16(__mmask16 a, __mmask16 b) { return a & b; }
VECTILE_INLINE __mmask16 _kor_mask16(__mmask16 a, __mmask16 b) { return a | b; }
VECTILE_INLINE __mmask16 _knot_mask16(__mmask16 a) { return __mmask16(~a); }
VECTILE_INLINE __mmask16 _mm512_cmp_ps_mask(__m512 a, __m512 b, int predicate) {
  switch (predicate) {
    case _CMP_EQ_OQ:
      return emulated::compare<_CMP_EQ_OQ>(a, b);
    case _CMP_NEQ_UQ:
      return emulated::compare<_CMP_NEQ_UQ>(a, b);
    case _CMP_LT_OQ:
      return emulated::compare<_CMP_LT_OQ>(a, b);
    case _CMP_LE_OQ:
      return emulated::compare<_CMP_LE_OQ>(a, b);
    case _CMP_GT_OQ:
      return emulated::compare<_CMP_GT_OQ>(a, b);
    case _CMP_GE_OQ:
      return emulated::compare<_CMP_GE_OQ>(a, b);
    case _CMP_ORD_Q:
      return emulated::compare<_CMP_ORD_Q>(a, b);
    case _CMP_UNORD_Q:
      return emulated::compare<_CMP_UNORD_Q>(a, b);
    default:
      __builtin_trap();
  }
}
VECTILE_INLINE __m512 _mm512_mask_blend_ps(__mmask16 k, __m512 a, __m512 b) {
  return emulated::blend(k, b, a);
}

// Memory
VECTILE_INLINE __m512 _mm512_load_ps(const void* p) {
  if (reinterpret_cast<std::uintptr_t>(p) % 64) __builtin_trap();
  return emulated::load<__m512>(p);
}
VECTILE_INLINE __m512 _mm512_loadu_ps(const void* p) { return emulated::load<__m512>(p); }
VECTILE_INLINE __m512i _mm512_loadu_si512(const void* p) { return emulated::load<__m512i>(p); }
VECTILE_INLINE __m512 _mm512_mask_loadu_ps(__m512 a, __mmask16 k, const void* p) {
  return emulated::load<float>(p, k, a);
}
VECTILE_INLINE __m512 _mm512_maskz_loadu_ps(__mmask16 k, const void* p) {
  return emulated::load<float>(p, k, __m512{});
}
VECTILE_INLINE __m512i _mm512_maskz_loadu_epi32(__mmask16 k, const void* p) {
  return emulated::load<std::int32_t>(p, k, __m512i{});
}
VECTILE_INLINE __m128i _mm_maskz_loadu_epi8(__mmask16 k, const void* p) {
  return emulated::load<std::int8_t>(p, k, __m128i{});
}
VECTILE_INLINE void _mm512_storeu_ps(void* p, __m512 a) { emulated::store(p, a); }
VECTILE_INLINE void _mm512_stream_ps(float* p, __m512 a) {
  _mm256_stream_ps(p, a.low);
  _mm256_stream_ps(p + 8, a.high);
}
VECTILE_INLINE void _mm512_storeu_si512(void* p, __m512i a) { emulated::store(p, a); }
VECTILE_INLINE void _mm512_mask_storeu_ps(void* p, __mmask16 k, __m512 a) {
  emulated::store<float>(p, k, a);
}
VECTILE_INLINE void _mm512_mask_storeu_epi32(void* p, __mmask16 k, __m512i a) {
  emulated::store<std::int32_t>(p, k, a);
}
VECTILE_INLINE void _mm_mask_storeu_epi8(void* p, __mmask16 k, __m128i a) {
  emulated::store<std::int8_t>(p, k, a);
}

// Constants
VECTILE_INLINE __m512 _mm512_setzero_ps() { return __m512{}; }
VECTILE_INLINE __m512i _mm512_setzero_si512() { return __m512i{}; }
VECTILE_INLINE __m512 _mm512_set1_ps(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
VECTILE_INLINE __m512i _mm512_set1_epi8(char x) {
  return {_mm256_set1_epi8(x), _mm256_set1_epi8(x)};
}
VECTILE_INLINE __m512i _mm512_set1_epi16(short x) {
  return {_mm256_set1_epi16(x), _mm256_set1_epi16(x)};
}
VECTILE_INLINE __m512i _mm512_set1_epi32(int x) {
  return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)};
}
VECTILE_INLINE __m512i _mm512_set1_epi64(long long x) {
  return {_mm256_set1_epi64x(x), _mm256_set1_epi64x(x)};
}
template <class... I>
VECTILE_INLINE __m512i _mm512_setr_epi32(I... x) {
  return __builtin_bit_cast(__m512i, (emulated::Lanes<std::int32_t, __m512i>{{x...}}));
}
template <class... I>
VECTILE_INLINE __m512i _mm512_setr_epi64(I... x) {
  return __builtin_bit_cast(__m512i, (emulated::Lanes<std::int64_t, __m512i>{{x...}}));
}

// Casts
VECTILE_INLINE __m512d _mm512_castps_pd(__m512 a) { return __builtin_bit_cast(__m512d, a); }
VECTILE_INLINE __m512 _mm512_castpd_ps(__m512d a) { return __builtin_bit_cast(__m512, a); }
VECTILE_INLINE __m512i _mm512_castps_si512(__m512 a) { return __builtin_bit_cast(__m512i, a); }
VECTILE_INLINE __m512 _mm512_castsi512_ps(__m512i a) { return __builtin_bit_cast(__m512, a); }
VECTILE_INLINE __m128 _mm512_castps512_ps128(__m512 a) { return _mm256_castps256_ps128(a.low); }
VECTILE_INLINE __m128i _mm512_castsi512_si128(__m512i a) { return _mm256_castsi256_si128(a.low); }
VECTILE_INLINE float _mm512_cvtss_f32(__m512 a) { return _mm256_cvtss_f32(a.low); }

// float arithmetic
VECTILE_INLINE __m512 _mm512_add_ps(__m512 a, __m512 b) {
  return VECTILE_HALVES(_mm256_add_ps, a, b);
}
VECTILE_INLINE __m512 _mm512_sub_ps(__m512 a, __m512 b) {
  return VECTILE_HALVES(_mm256_sub_ps, a, b);
}
VECTILE_INLINE __m512 _mm512_mul_ps(__m512 a, __m512 b) {
  return VECTILE_HALVES(_mm256_mul_ps, a, b);
}
VECTILE_INLINE __m512 _mm512_div_ps(__m512 a, __m512 b) {
  return VECTILE_HALVES(_mm256_div_ps, a, b);
}
VECTILE_INLINE __m512 _mm512_fmadd_ps(__m512 a, __m512 b, __m512 c) {
  return VECTILE_HALVES(_mm256_fmadd_ps, a, b, c);
}
VECTILE_INLINE __m512 _mm512_fnmadd_ps(__m512 a, __m512 b, __m512 c) {
  return VECTILE_HALVES(_mm256_fnmadd_ps, a, b, c);
}
VECTILE_INLINE __m512 _mm512_sqrt_ps(__m512 a) { return VECTILE_HALVES(_mm256_sqrt_ps, a); }
VECTILE_INLINE __m512 _mm512_min_ps(__m512 a, __m512 b) {
  return VECTILE_HALVES(_mm256_min_ps, a, b);
}
VECTILE_INLINE __m512 _mm512_max_ps(__m512 a, __m512 b) {
  return VECTILE_HALVES(_mm256_max_ps, a, b);
}
VECTILE_INLINE __m512 _mm512_mask_add_ps(__m512 rest, __mmask16 k, __m512 a, __m512 b) {
  return emulated::blend(k, _mm512_add_ps(a, b), rest);
}
VECTILE_INLINE __m512 _mm512_mask_min_ps(__m512 rest, __mmask16 k, __m512 a, __m512 b) {
  return emulated::blend(k, _mm512_min_ps(a, b), rest);
}
VECTILE_INLINE __m512 _mm512_mask_max_ps(__m512 rest, __mmask16 k, __m512 a, __m512 b) {
  return emulated::blend(k, _mm512_max_ps(a, b), rest);
}
VECTILE_INLINE __m512 _mm512_and_ps(__m512 a, __m512 b) {
  return VECTILE_HALVES(_mm256_and_ps, a, b);
}
VECTILE_INLINE __m512 _mm512_andnot_ps(__m512 a, __m512 b) {
  return VECTILE_HALVES(_mm256_andnot_ps, a, b);
}
VECTILE_INLINE __m512 _mm512_or_ps(__m512 a, __m512 b) {
  return VECTILE_HALVES(_mm256_or_ps, a, b);
}
VECTILE_INLINE __m512 _mm512_xor_ps(__m512 a, __m512 b) {
  return VECTILE_HALVES(_mm256_xor_ps, a, b);
}
[[gnu::noinline]] inline __m512 _mm512_scalef_ps(__m512 a, __m512 b) {
  const auto x = emulated::lanes<float>(a), n = emulated::lanes<float>(b);
  return emulated::each<__m512, float>([&](int i) { return emulated::scale(x.at[i], n.at[i]); });
}
[[gnu::noinline]] inline __m512 _mm512_getexp_ps(__m512 a) {
  const auto x = emulated::lanes<float>(a);
  return emulated::each<__m512, float>([&](int i) { return emulated::getexp(x.at[i]); });
}
[[gnu::noinline]] inline __m512 _mm512_getmant_ps(__m512 a, int interval, int sign) {
  if (interval != _MM_MANT_NORM_p75_1p5 || sign != _MM_MANT_SIGN_src) __builtin_trap();
  const auto x = emulated::lanes<float>(a);
  return emulated::each<__m512, float>([&](int i) { return emulated::getmant(x.at[i]); });
}
VECTILE_INLINE __m512 _mm512_roundscale_ps(__m512 a, int how) {
  switch (how) {
    case _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC:
      return {_mm256_round_ps(a.low, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
              _mm256_round_ps(a.high, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
    case _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC:
      return {_mm256_round_ps(a.low, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC),
              _mm256_round_ps(a.high, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)};
    default:
      __builtin_trap();
  }
}

// Integer arithmetic
VECTILE_INLINE __m512i _mm512_add_epi32(__m512i a, __m512i b) {
  return VECTILE_HALVES(_mm256_add_epi32, a, b);
}
VECTILE_INLINE __m512i _mm512_sub_epi32(__m512i a, __m512i b) {
  return VECTILE_HALVES(_mm256_sub_epi32, a, b);
}
VECTILE_INLINE __m512i _mm512_mullo_epi32(__m512i a, __m512i b) {
  return VECTILE_HALVES(_mm256_mullo_epi32, a, b);
}
VECTILE_INLINE __m512i _mm512_madd_epi16(__m512i a, __m512i b) {
  return VECTILE_HALVES(_mm256_madd_epi16, a, b);
}
// By way of int16, as sums of two u8 x s8 products do not fit it.
VECTILE_INLINE __m512i _mm512_dpbusd_epi32(__m512i c, __m512i a, __m512i b) {
  return emulated::halves(
      [](__m256i sum, __m256i u, __m256i s) VECTILE_LAMBDA {
        const __m256i even = _mm256_madd_epi16(_mm256_and_si256(u, _mm256_set1_epi16(0xff)),
                                               _mm256_srai_epi16(_mm256_slli_epi16(s, 8), 8));
        const __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(u, 8), _mm256_srai_epi16(s, 8));
        return _mm256_add_epi32(sum, _mm256_add_epi32(even, odd));
      },
      c, a, b);
}
VECTILE_INLINE __m512i _mm512_add_epi64(__m512i a, __m512i b) {
  return VECTILE_HALVES(_mm256_add_epi64, a, b);
}
VECTILE_INLINE __m512i _mm512_mul_epu32(__m512i a, __m512i b) {
  return VECTILE_HALVES(_mm256_mul_epu32, a, b);
}
VECTILE_INLINE __m512i _mm512_srli_epi64(__m512i a, unsigned n) {
  const __m128i shift = _mm_cvtsi32_si128(int(n));
  return {_mm256_srl_epi64(a.low, shift), _mm256_srl_epi64(a.high, shift)};
}
VECTILE_INLINE __m512i _mm512_slli_epi32(__m512i a, unsigned n) {
  const __m128i shift = _mm_cvtsi32_si128(int(n));
  return {_mm256_sll_epi32(a.low, shift), _mm256_sll_epi32(a.high, shift)};
}
VECTILE_INLINE __m512i _mm512_srli_epi32(__m512i a, unsigned n) {
  const __m128i shift = _mm_cvtsi32_si128(int(n));
  return {_mm256_srl_epi32(a.low, shift), _mm256_srl_epi32(a.high, shift)};
}
VECTILE_INLINE __m512i _mm512_srli_epi16(__m512i a, unsigned n) {
  const __m128i shift = _mm_cvtsi32_si128(int(n));
  return {_mm256_srl_epi16(a.low, shift), _mm256_srl_epi16(a.high, shift)};
}
VECTILE_INLINE __m512i _mm512_add_epi16(__m512i a, __m512i b) {
  return VECTILE_HALVES(_mm256_add_epi16, a, b);
}
VECTILE_INLINE __m512i _mm512_maddubs_epi16(__m512i a, __m512i b) {
  return VECTILE_HALVES(_mm256_maddubs_epi16, a, b);
}
VECTILE_INLINE __m512i _mm512_and_si512(__m512i a, __m512i b) {
  return VECTILE_HALVES(_mm256_and_si256, a, b);
}
VECTILE_INLINE __m512i _mm512_xor_si512(__m512i a, __m512i b) {
  return VECTILE_HALVES(_mm256_xor_si256, a, b);
}

// Conversions
VECTILE_INLINE __m512 _mm512_cvtepi32_ps(__m512i a) {
  return VECTILE_HALVES(_mm256_cvtepi32_ps, a);
}
VECTILE_INLINE __m512i _mm512_cvtps_epi32(__m512 a) {
  return VECTILE_HALVES(_mm256_cvtps_epi32, a);
}
VECTILE_INLINE __m512 _mm512_cvtph_ps(__m256i a) {
  return {_mm256_cvtph_ps(_mm256_castsi256_si128(a)),
          _mm256_cvtph_ps(_mm256_extracti128_si256(a, 1))};
}
VECTILE_INLINE __m256i _mm512_cvtps_ph(__m512 a, int how) {
  if ((how & 7) != _MM_FROUND_TO_NEAREST_INT) __builtin_trap();
  return _mm256_set_m128i(_mm256_cvtps_ph(a.high, _MM_FROUND_TO_NEAREST_INT),
                          _mm256_cvtps_ph(a.low, _MM_FROUND_TO_NEAREST_INT));
}
VECTILE_INLINE __m512i _mm512_cvtepu8_epi16(__m256i a) {
  return {_mm256_cvtepu8_epi16(_mm256_castsi256_si128(a)),
          _mm256_cvtepu8_epi16(_mm256_extracti128_si256(a, 1))};
}
VECTILE_INLINE __m512i _mm512_cvtepi8_epi16(__m256i a) {
  return {_mm256_cvtepi8_epi16(_mm256_castsi256_si128(a)),
          _mm256_cvtepi8_epi16(_mm256_extracti128_si256(a, 1))};
}
VECTILE_INLINE __m512i _mm512_cvtepi8_epi32(__m128i a) {
  return {_mm256_cvtepi8_epi32(a), _mm256_cvtepi8_epi32(_mm_srli_si128(a, 8))};
}
VECTILE_INLINE __m512i _mm512_cvtepu16_epi32(__m256i a) {
  return {_mm256_cvtepu16_epi32(_mm256_castsi256_si128(a)),
          _mm256_cvtepu16_epi32(_mm256_extracti128_si256(a, 1))};
}
VECTILE_INLINE __m512i _mm512_cvtepu8_epi32(__m128i a) {
  return {_mm256_cvtepu8_epi32(a), _mm256_cvtepu8_epi32(_mm_srli_si128(a, 8))};
}
[[gnu::noinline]] inline __m128i _mm512_cvtsepi32_epi8(__m512i a) {
  const auto x = emulated::lanes<std::int32_t>(a);
  return emulated::each<__m128i, std::int8_t>([&](int i) {
    return x.at[i] < -128 ? -128 : x.at[i] > 127 ? 127 : x.at[i];
  });
}
[[gnu::noinline]] inline __m128i _mm512_cvtusepi32_epi8(__m512i a) {
  const auto x = emulated::lanes<std::uint32_t>(a);
  return emulated::each<__m128i, std::uint8_t>(
      [&](int i) { return x.at[i] > 255 ? 255 : x.at[i]; });
}
VECTILE_INLINE __m256i _mm512_cvtepi64_epi32(__m512i a) {
  const auto x = emulated::lanes<std::int32_t>(a);
  return emulated::each<__m256i, std::int32_t>([&](int i) { return x.at[2 * i]; });
}

// 16-bit floats
VECTILE_INLINE __m512h _mm512_setzero_ph() { return __m512h{}; }
VECTILE_INLINE __m512h _mm512_castsi512_ph(__m512i a) { return __builtin_bit_cast(__m512h, a); }
VECTILE_INLINE __m512h _mm512_loadu_ph(const void* p) { return emulated::load<__m512h>(p); }
VECTILE_INLINE void _mm512_storeu_ph(void* p, __m512h a) { emulated::store(p, a); }
[[gnu::noinline]] inline __m512h _mm512_fmadd_ph(__m512h a, __m512h b, __m512h c) {
  const auto x = emulated::lanes<std::uint16_t>(a), y = emulated::lanes<std::uint16_t>(b),
             z = emulated::lanes<std::uint16_t>(c);
  return emulated::each<__m512h, std::uint16_t>(
      [&](int i) { return emulated::half_fma(x.at[i], y.at[i], z.at[i]); });
}
[[gnu::noinline]] inline __m512 _mm512_dpbf16_ps(__m512 sums, __m512bh a, __m512bh b) {
  const auto s = emulated::lanes<float>(sums);
  const auto x = emulated::lanes<std::uint16_t>(a), y = emulated::lanes<std::uint16_t>(b);
  return emulated::each<__m512, float>([&](int i) {
    float sum = emulated::flushed(s.at[i]);
    for (int t = 2 * i + 1; t >= 2 * i; --t)
      sum = emulated::flushed_fma(emulated::upper(x.at[t]), emulated::upper(y.at[t]), sum);
    return sum;
  });
}
[[gnu::noinline]] inline __m512bh _mm512_cvtne2ps_pbh(__m512 high, __m512 low) {
  const auto x = emulated::lanes<float>(low), y = emulated::lanes<float>(high);
  return emulated::each<__m512bh, std::uint16_t>(
      [&](int i) { return emulated::to_bf16(i < 16 ? x.at[i] : y.at[i - 16]); });
}
[[gnu::noinline]] inline __m256bh _mm512_cvtneps_pbh(__m512 a) {
  const auto x = emulated::lanes<float>(a);
  return emulated::each<__m256bh, std::uint16_t>([&](int i) { return emulated::to_bf16(x.at[i]); });
}

// Permutations
[[gnu::noinline]] inline __m512i _mm512_permutexvar_epi16(__m512i index, __m512i a) {
  const auto x = emulated::lanes<std::uint16_t>(a), from = emulated::lanes<std::uint16_t>(index);
  return emulated::each<__m512i, std::uint16_t>([&](int i) { return x.at[from.at[i] & 31]; });
}
[[gnu::noinline]] inline __m512i _mm512_permutex2var_epi16(__m512i a, __m512i index, __m512i b) {
  const auto x = emulated::lanes<std::uint16_t>(a), y = emulated::lanes<std::uint16_t>(b);
  const auto from = emulated::lanes<std::uint16_t>(index);
  return emulated::each<__m512i, std::uint16_t>(
      [&](int i) { return (from.at[i] & 32 ? y : x).at[from.at[i] & 31]; });
}
[[gnu::noinline]] inline __m512 _mm512_permutex2var_ps(__m512 a, __m512i index, __m512 b) {
  const auto x = emulated::lanes<float>(a), y = emulated::lanes<float>(b);
  const auto from = emulated::lanes<std::uint32_t>(index);
  return emulated::each<__m512, float>(
      [&](int i) { return from.at[i] & 16 ? y.at[from.at[i] & 15] : x.at[from.at[i] & 15]; });
}
VECTILE_INLINE __m128 _mm512_extractf32x4_ps(__m512 a, int part) {
  const __m256 half = part < 2 ? a.low : a.high;
  return part % 2 ? _mm256_extractf128_ps(half, 1) : _mm256_castps256_ps128(half);
}
VECTILE_INLINE __m512 _mm512_shuffle_f32x4(__m512 a, __m512 b, int control) {
  const auto pair = [](__m512 v, int low, int high) VECTILE_LAMBDA {
    return _mm256_set_m128(_mm512_extractf32x4_ps(v, high & 3), _mm512_extractf32x4_ps(v, low & 3));
  };
  return {pair(a, control, control >> 2), pair(b, control >> 4, control >> 6)};
}
VECTILE_INLINE __m512 _mm512_unpacklo_ps(__m512 a, __m512 b) {
  return VECTILE_HALVES(_mm256_unpacklo_ps, a, b);
}
VECTILE_INLINE __m512 _mm512_unpackhi_ps(__m512 a, __m512 b) {
  return VECTILE_HALVES(_mm256_unpackhi_ps, a, b);
}
VECTILE_INLINE __m512d _mm512_unpacklo_pd(__m512d a, __m512d b) {
  return VECTILE_HALVES(_mm256_unpacklo_pd, a, b);
}
VECTILE_INLINE __m512d _mm512_unpackhi_pd(__m512d a, __m512d b) {
  return VECTILE_HALVES(_mm256_unpackhi_pd, a, b);
}

#undef VECTILE_HALVES

}  // namespace vectile::VECTILE_TIER
