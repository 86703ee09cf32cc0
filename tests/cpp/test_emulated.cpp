// simd/emulated.h against the instructions it stands for, bit for bit.
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "simd/intrinsics.h"

namespace vectile::VECTILE_TIER {
namespace {

// One row of operands: random bits, or floats that conversions and special cases get wrong first.
struct Row {
  alignas(64) std::uint32_t a[16], b[16], c[16];
  __mmask16 mask;

  ::__m512 f(const std::uint32_t* x) const { return ::_mm512_load_ps(x); }
  ::__m512i i(const std::uint32_t* x) const { return ::_mm512_load_si512(x); }
  ::__m512d d(const std::uint32_t* x) const { return ::_mm512_castps_pd(f(x)); }
  __m128i q(const std::uint32_t* x) const { return ::_mm_load_si128((const __m128i*)x); }
};

template <class F>
void for_rows(F f) {
  std::mt19937 random(1);
  const std::uint32_t special[] = {
      0,          1,          0x7fffff,   0x800000,   0x3e800000, 0x3f000000, 0x3f400000,
      0x3f7fffff, 0x3f800000, 0x3fc00000, 0x40200000, 0x42fd0000, 0x437f8000, 0x43800000,
      0x4effffff, 0x4f000000, 0x7f7fffff, 0x7f800000, 0x7f800001, 0x7fc00000, 0x42b00000};
  for (int n = 0; n < 20000; ++n) {
    Row r;
    for (auto* x : {r.a, r.b, r.c})
      for (int i = 0; i < 16; ++i) {
        const std::uint32_t pick = random(), bits = random();
        const std::uint32_t small =
            __builtin_bit_cast(std::uint32_t, float(int(bits % 80000) - 40000) / 128);
        x[i] = pick % 3 == 0   ? bits
               : pick % 3 == 1 ? small
                               : special[bits % std::size(special)] | (bits & 0x80000000);
      }
    r.mask = __mmask16(random());
    f(r);
    if (testing::Test::HasFailure()) return;
  }
}

// Every NaN is one: which of two operands' NaN comes back depends on how a compiler orders them.
template <class T, class U>
bool same_floats(const T& x, const U& y) {
  static_assert(sizeof x == sizeof y);
  for (std::size_t i = 0; i < sizeof x / 4; ++i) {
    float a, b;
    std::memcpy(&a, (const char*)&x + 4 * i, 4);
    std::memcpy(&b, (const char*)&y + 4 * i, 4);
    if (std::memcmp(&a, &b, 4) != 0 && !(__builtin_isnan(a) && __builtin_isnan(b))) return false;
  }
  return true;
}
template <class T, class U>
bool same_bits(const T& x, const U& y) {
  static_assert(sizeof x == sizeof y);
  return std::memcmp(&x, &y, sizeof x) == 0;
}

// The operand as the emulation's type.
template <class T>
T ours(T x) {
  return x;
}
__m512 ours(::__m512 x) { return __builtin_bit_cast(__m512, x); }
__m512i ours(::__m512i x) { return __builtin_bit_cast(__m512i, x); }
__m512d ours(::__m512d x) { return __builtin_bit_cast(__m512d, x); }
__m512h ours(::__m512h x) { return __builtin_bit_cast(__m512h, x); }
__m512bh ours(::__m512bh x) { return __builtin_bit_cast(__m512bh, x); }

#define VECTILE_EMULATED_CALL(name, ...) [](auto... x) { return name(ours(x)...); }(__VA_ARGS__)
#define EXPECT_FLOATS(name, ...) \
  EXPECT_TRUE(same_floats(VECTILE_EMULATED_CALL(name, __VA_ARGS__), ::name(__VA_ARGS__))) << #name
#define EXPECT_BITS(name, ...) \
  EXPECT_TRUE(same_bits(VECTILE_EMULATED_CALL(name, __VA_ARGS__), ::name(__VA_ARGS__))) << #name

TEST(Emulated, FloatArithmetic) {
  for_rows([](const Row& r) {
    const ::__m512 a = r.f(r.a), b = r.f(r.b), c = r.f(r.c);
    EXPECT_FLOATS(_mm512_add_ps, a, b);
    EXPECT_FLOATS(_mm512_sub_ps, a, b);
    EXPECT_FLOATS(_mm512_mul_ps, a, b);
    EXPECT_FLOATS(_mm512_div_ps, a, b);
    EXPECT_FLOATS(_mm512_fmadd_ps, a, b, c);
    EXPECT_FLOATS(_mm512_fnmadd_ps, a, b, c);
    EXPECT_FLOATS(_mm512_sqrt_ps, a);
    EXPECT_FLOATS(_mm512_min_ps, a, b);
    EXPECT_FLOATS(_mm512_max_ps, a, b);
    EXPECT_FLOATS(_mm512_mask_add_ps, c, r.mask, a, b);
    EXPECT_FLOATS(_mm512_mask_min_ps, c, r.mask, a, b);
    EXPECT_FLOATS(_mm512_mask_max_ps, c, r.mask, a, b);
    EXPECT_BITS(_mm512_and_ps, a, b);
    EXPECT_BITS(_mm512_andnot_ps, a, b);
    EXPECT_BITS(_mm512_or_ps, a, b);
    EXPECT_BITS(_mm512_xor_ps, a, b);
    EXPECT_FLOATS(_mm512_scalef_ps, a, b);
    EXPECT_FLOATS(_mm512_getexp_ps, a);
    EXPECT_FLOATS(_mm512_roundscale_ps, a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    EXPECT_FLOATS(_mm512_roundscale_ps, a, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    EXPECT_FLOATS(_mm512_getmant_ps, a, _MM_MANT_NORM_p75_1p5, _MM_MANT_SIGN_src);
  });
}

TEST(Emulated, Masks) {
  for_rows([](const Row& r) {
    const ::__m512 a = r.f(r.a), b = r.f(r.b);
    EXPECT_BITS(_mm512_cmp_ps_mask, a, b, _CMP_EQ_OQ);
    EXPECT_BITS(_mm512_cmp_ps_mask, a, b, _CMP_NEQ_UQ);
    EXPECT_BITS(_mm512_cmp_ps_mask, a, b, _CMP_LT_OQ);
    EXPECT_BITS(_mm512_cmp_ps_mask, a, b, _CMP_LE_OQ);
    EXPECT_BITS(_mm512_cmp_ps_mask, a, b, _CMP_GT_OQ);
    EXPECT_BITS(_mm512_cmp_ps_mask, a, b, _CMP_GE_OQ);
    EXPECT_BITS(_mm512_cmp_ps_mask, a, b, _CMP_ORD_Q);
    EXPECT_BITS(_mm512_cmp_ps_mask, a, b, _CMP_UNORD_Q);
    EXPECT_BITS(_mm512_mask_blend_ps, r.mask, a, b);
    EXPECT_BITS(_kand_mask16, r.mask, __mmask16(r.a[0]));
    EXPECT_BITS(_kor_mask16, r.mask, __mmask16(r.a[0]));
    EXPECT_BITS(_knot_mask16, r.mask);
  });
}

TEST(Emulated, Memory) {
  for_rows([](const Row& r) {
    const ::__m512 a = r.f(r.a);
    EXPECT_BITS(_mm512_load_ps, r.b);
    EXPECT_BITS(_mm512_loadu_ps, r.b);
    EXPECT_BITS(_mm512_loadu_si512, r.b);
    EXPECT_BITS(_mm512_mask_loadu_ps, a, r.mask, r.b);
    EXPECT_BITS(_mm512_maskz_loadu_ps, r.mask, r.b);
    EXPECT_BITS(_mm512_maskz_loadu_epi32, r.mask, r.b);
    EXPECT_BITS(_mm_maskz_loadu_epi8, r.mask, r.b);
    Row mine = r, theirs = r;
    _mm512_mask_storeu_ps(mine.b, r.mask, ours(a));
    ::_mm512_mask_storeu_ps(theirs.b, r.mask, a);
    _mm_mask_storeu_epi8(mine.c, r.mask, r.q(r.a));
    ::_mm_mask_storeu_epi8(theirs.c, r.mask, r.q(r.a));
    EXPECT_TRUE(same_bits(mine.b, theirs.b) && same_bits(mine.c, theirs.c));
    _mm512_mask_storeu_epi32(mine.c, r.mask, ours(r.i(r.b)));
    ::_mm512_mask_storeu_epi32(theirs.c, r.mask, r.i(r.b));
    _mm512_storeu_ps(mine.b, ours(a));
    ::_mm512_storeu_ps(theirs.b, a);
    _mm512_storeu_si512(mine.a, ours(r.i(r.c)));
    ::_mm512_storeu_si512(theirs.a, r.i(r.c));
    EXPECT_TRUE(same_bits(mine.a, theirs.a) && same_bits(mine.b, theirs.b) &&
                same_bits(mine.c, theirs.c));
  });
}

TEST(Emulated, Integers) {
  for_rows([](const Row& r) {
    const ::__m512i a = r.i(r.a), b = r.i(r.b), c = r.i(r.c);
    EXPECT_BITS(_mm512_add_epi32, a, b);
    EXPECT_BITS(_mm512_sub_epi32, a, b);
    EXPECT_BITS(_mm512_mullo_epi32, a, b);
    EXPECT_BITS(_mm512_madd_epi16, a, b);
    EXPECT_BITS(_mm512_dpbusd_epi32, c, a, b);
    EXPECT_BITS(_mm512_add_epi64, a, b);
    EXPECT_BITS(_mm512_mul_epu32, a, b);
    EXPECT_BITS(_mm512_srli_epi64, a, 0);
    EXPECT_BITS(_mm512_srli_epi64, a, 32);
    EXPECT_BITS(_mm512_srli_epi64, a, 64);
    EXPECT_BITS(_mm512_slli_epi32, a, 16);
    EXPECT_BITS(_mm512_srli_epi32, a, 16);
    EXPECT_BITS(_mm512_srli_epi16, a, 4);
    EXPECT_BITS(_mm512_add_epi16, a, b);
    EXPECT_BITS(_mm512_maddubs_epi16, a, b);
    EXPECT_BITS(_mm512_and_si512, a, b);
    EXPECT_BITS(_mm512_xor_si512, a, b);
    EXPECT_BITS(_mm512_set1_epi8, char(r.a[0]));
    EXPECT_BITS(_mm512_set1_epi16, short(r.a[0]));
    EXPECT_BITS(_mm512_set1_epi32, int(r.a[0]));
    EXPECT_BITS(_mm512_set1_epi64, (long long)r.a[0] << 20);
    EXPECT_BITS(_mm512_set1_ps, float(r.a[0]));
  });
}

TEST(Emulated, ConversionsAndPermutations) {
  for_rows([](const Row& r) {
    const ::__m512 a = r.f(r.a), b = r.f(r.b);
    EXPECT_BITS(_mm512_cvtepi32_ps, r.i(r.a));
    EXPECT_BITS(_mm512_cvtps_epi32, a);
    EXPECT_FLOATS(_mm512_cvtph_ps, ::_mm512_castsi512_si256(r.i(r.a)));
    EXPECT_BITS(_mm512_cvtps_ph, a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    EXPECT_BITS(_mm512_cvtepu8_epi16, ::_mm512_castsi512_si256(r.i(r.a)));
    EXPECT_BITS(_mm512_cvtepi8_epi16, ::_mm512_castsi512_si256(r.i(r.a)));
    EXPECT_BITS(_mm512_castsi512_ps, r.i(r.a));
    EXPECT_BITS(_mm512_cvtepi8_epi32, r.q(r.a));
    EXPECT_BITS(_mm512_cvtepu8_epi32, r.q(r.a));
    const ::__m512i near = ::_mm512_srai_epi32(r.i(r.a), 22);  // on both sides of every bound
    EXPECT_BITS(_mm512_cvtsepi32_epi8, near);
    EXPECT_BITS(_mm512_cvtusepi32_epi8, near);
    EXPECT_BITS(_mm512_cvtepi64_epi32, r.i(r.a));
    EXPECT_BITS(_mm512_permutex2var_ps, a, r.i(r.c), b);
    EXPECT_BITS(_mm512_shuffle_f32x4, a, b, 0x88);
    EXPECT_BITS(_mm512_shuffle_f32x4, a, b, 0xdd);
    EXPECT_BITS(_mm512_unpacklo_ps, a, b);
    EXPECT_BITS(_mm512_unpackhi_ps, a, b);
    EXPECT_BITS(_mm512_unpacklo_pd, r.d(r.a), r.d(r.b));
    EXPECT_BITS(_mm512_unpackhi_pd, r.d(r.a), r.d(r.b));
    EXPECT_BITS(_mm512_extractf32x4_ps, a, 1);
    EXPECT_BITS(_mm512_extractf32x4_ps, a, 3);
    EXPECT_BITS(_mm512_castps512_ps128, a);
    EXPECT_BITS(_mm512_castsi512_si128, r.i(r.a));
    EXPECT_FLOATS(_mm512_cvtss_f32, a);
  });
}

// As same_floats, of binary16.
bool same_halves(__m512h x, ::__m512h y) {
  std::uint16_t a[32], b[32];
  std::memcpy(a, &x, sizeof a), std::memcpy(b, &y, sizeof b);
  for (int i = 0; i < 32; ++i)
    if (a[i] != b[i] && !((a[i] & 0x7fff) > 0x7c00 && (b[i] & 0x7fff) > 0x7c00)) return false;
  return true;
}

TEST(Emulated, SixteenBitFloats) {
  for_rows([](const Row& r) {
    const ::__m512i a = r.i(r.a), b = r.i(r.b), c = r.i(r.c);
    const auto halves = [](::__m512i x) { return ::_mm512_castsi512_ph(x); };
    const auto fused = [&](::__m512h x, ::__m512h y, ::__m512h z) {
      EXPECT_TRUE(
          same_halves(_mm512_fmadd_ph(ours(x), ours(y), ours(z)), ::_mm512_fmadd_ph(x, y, z)))
          << "_mm512_fmadd_ph";
    };
    fused(halves(a), halves(b), halves(c));
    // The sum a little beside the negative of the product, and far from it.
    const ::__m512h product = ::_mm512_mul_ph(halves(a), halves(b));
    const ::__m512i near = ::_mm512_xor_si512(
        ::_mm512_castph_si512(product), ::_mm512_and_si512(c, ::_mm512_set1_epi16(short(0x8003))));
    fused(halves(a), halves(b), halves(near));
    fused(halves(a), halves(b), halves(::_mm512_and_si512(c, ::_mm512_set1_epi16(short(0x83ff)))));
    const auto pairs = [](::__m512i x) { return __builtin_bit_cast(::__m512bh, x); };
    EXPECT_FLOATS(_mm512_dpbf16_ps, r.f(r.c), pairs(a), pairs(b));
    // Products that are subnormal, and sums.
    const ::__m512i small = ::_mm512_and_si512(a, ::_mm512_set1_epi16(short(0x9fff)));
    EXPECT_FLOATS(_mm512_dpbf16_ps, ::_mm512_setzero_ps(), pairs(small), pairs(b));
    EXPECT_FLOATS(_mm512_dpbf16_ps, ::_mm512_castsi512_ps(::_mm512_srli_epi32(c, 8)), pairs(small),
                  pairs(b));
    EXPECT_BITS(_mm512_cvtne2ps_pbh, r.f(r.a), r.f(r.b));
    EXPECT_BITS(_mm512_cvtneps_pbh, r.f(r.a));
    EXPECT_BITS(_mm512_permutexvar_epi16, a, b);
    EXPECT_BITS(_mm512_permutex2var_epi16, a, b, c);
  });
}

}  // namespace
}  // namespace vectile::VECTILE_TIER
