// machine: independent chains of this tier's multiply-add, enough to hide its latency (4 or 5
// cycles on 2 ports) and few enough for 16 registers; and a read of memory at full width.
#include "base/types.h"
#include "simd/vec.h"

namespace vectile::VECTILE_TIER {

static constexpr int kChains = 12;

static void fma_chains(i64 steps, float* result, double* operations) {
  using V = Vec<float>;
  V acc[kChains];
  for (int c = 0; c < kChains; ++c) acc[c] = V(float(c));
  const V x(0.999f), y(0.5f);  // converges to 500: no subnormals, no infinity
  for (i64 i = 0; i < steps; ++i)
    for (int c = 0; c < kChains; ++c) acc[c] = fma(acc[c], x, y);
  V sum(0.f);
  for (int c = 0; c < kChains; ++c) sum += acc[c];
  *result = reduce_add(sum);
  *operations = 2. * kChains * V::lanes * double(steps);
}

// acc += sum of int8 products: VPDPBUSD where there is one; else the exact pair-wise VPMADDWD on
// values already widened to 16 bits, the best a kernel could do; else plain code.
#if defined(VECTILE_TIER_avx512_vnni)
struct Dot {
  static constexpr int products = 64;
  __m512i v = _mm512_setzero_si512();
  void add(__m512i a, __m512i b) { v = _mm512_dpbusd_epi32(v, a, b); }
  static __m512i ones() { return _mm512_set1_epi8(1); }
  std::int32_t first() const { return _mm_cvtsi128_si32(_mm512_castsi512_si128(v)); }
};
#elif defined(VECTILE_TIER_avx512)
struct Dot {
  static constexpr int products = 32;
  __m512i v = _mm512_setzero_si512();
  void add(__m512i a, __m512i b) { v = _mm512_add_epi32(v, _mm512_madd_epi16(a, b)); }
  static __m512i ones() { return _mm512_set1_epi16(1); }
  std::int32_t first() const { return _mm_cvtsi128_si32(_mm512_castsi512_si128(v)); }
};
#elif defined(VECTILE_TIER_avx2)
struct Dot {
  static constexpr int products = 16;
  __m256i v = _mm256_setzero_si256();
  void add(__m256i a, __m256i b) { v = _mm256_add_epi32(v, _mm256_madd_epi16(a, b)); }
  static __m256i ones() { return _mm256_set1_epi16(1); }
  std::int32_t first() const { return _mm_cvtsi128_si32(_mm256_castsi256_si128(v)); }
};
#else
struct Dot {
  static constexpr int products = 1;
  std::int32_t v = 0;
  void add(std::int32_t a, std::int32_t b) { v += a * b; }
  static std::int32_t ones() { return 1; }
  std::int32_t first() const { return v; }
};
#endif

// The compiler may not see through the operands, or it would multiply once and add.
template <class R>
static VECTILE_INLINE void opaque(R& r) {
#if defined(VECTILE_EMULATED)
  asm volatile("" : "+m"(r));
  return;
#elif defined(__x86_64__)
  if constexpr (sizeof(R) > 4) {
    asm volatile("" : "+v"(r));
    return;
  }
#endif
  asm volatile("" : "+r"(r));
}

static void dot_s8_chains(i64 steps, std::int32_t* result, double* operations) {
  Dot acc[kChains];
  auto a = Dot::ones(), b = Dot::ones();
  for (i64 i = 0; i < steps; ++i) {
    opaque(a);
    for (int c = 0; c < kChains; ++c) {
      opaque(b);
      acc[c].add(a, b);
    }
  }
  std::int32_t sum = 0;
  for (int c = 0; c < kChains; ++c) sum += acc[c].first();
  *result = sum;
  *operations = 2. * kChains * Dot::products * double(steps);
}

static void read_all(const float* x, i64 n, float* result) {
  using V = Vec<float>;
  constexpr i64 w = V::lanes;
  V a(0.f), b = a, c = a, d = a, e = a, f = a, g = a, h = a;
  i64 j = 0;
  for (; j + 8 * w <= n; j += 8 * w) {
    a += V::load(x + j);
    b += V::load(x + j + w);
    c += V::load(x + j + 2 * w);
    d += V::load(x + j + 3 * w);
    e += V::load(x + j + 4 * w);
    f += V::load(x + j + 5 * w);
    g += V::load(x + j + 6 * w);
    h += V::load(x + j + 7 * w);
  }
  for (; j < n; j += w) a += V::load(x + j, int(n - j < w ? n - j : w));
  *result = reduce_add(((a + b) + (c + d)) + ((e + f) + (g + h)));
}

}  // namespace vectile::VECTILE_TIER

#include "kernels/register.h"
