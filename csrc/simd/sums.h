// Sums across the lanes of several registers at once: cheaper than one after another.
#pragma once

#include "simd/vec.h"

namespace vectile::VECTILE_TIER {

// Lane i is the sum of the lanes of x[i], for as many registers as a register has lanes; V is
// Vec<T> or VecDot.
#if defined(VECTILE_TIER_avx2)

#if defined(VECTILE_TIER_avx512)
#define VECTILE_WIDE(name) _mm512_##name
using WideFloat = __m512;
using WideDouble = __m512d;
#else
#define VECTILE_WIDE(name) _mm256_##name
using WideFloat = __m256;
using WideDouble = __m256d;
#endif

// In each 128 bits, lane i is the sum of these four lanes of x[i].
template <class V>
VECTILE_INLINE V four_sums(const V* x) {
  using Register = decltype(V::v);
  const auto halves = [](V a, V b) VECTILE_LAMBDA {
    const auto p = bit_cast<WideFloat>(a.v), q = bit_cast<WideFloat>(b.v);
    return bit_cast<WideDouble>((V(bit_cast<Register>(VECTILE_WIDE(unpacklo_ps)(p, q))) +
                                 V(bit_cast<Register>(VECTILE_WIDE(unpackhi_ps)(p, q))))
                                    .v);
  };
  const WideDouble a = halves(x[0], x[1]), b = halves(x[2], x[3]);
  return V(bit_cast<Register>(VECTILE_WIDE(unpacklo_pd)(a, b))) +
         V(bit_cast<Register>(VECTILE_WIDE(unpackhi_pd)(a, b)));
}

template <class V>
VECTILE_INLINE V lane_sums(const V* x) {
  if constexpr (V::lanes == 1) {
    return x[0];
  } else {
    using Register = decltype(V::v);
#if defined(VECTILE_TIER_avx512)
    const auto add = [](V a, V b) VECTILE_LAMBDA {
      const auto p = bit_cast<WideFloat>(a.v), q = bit_cast<WideFloat>(b.v);
      return V(bit_cast<Register>(_mm512_shuffle_f32x4(p, q, 0x88))) +
             V(bit_cast<Register>(_mm512_shuffle_f32x4(p, q, 0xdd)));
    };
    return add(add(four_sums(x), four_sums(x + 4)), add(four_sums(x + 8), four_sums(x + 12)));
#else
    const auto a = bit_cast<WideFloat>(four_sums(x).v), b = bit_cast<WideFloat>(four_sums(x + 4).v);
    return V(bit_cast<Register>(_mm256_permute2f128_ps(a, b, 0x20))) +
           V(bit_cast<Register>(_mm256_permute2f128_ps(a, b, 0x31)));
#endif
  }
}
#undef VECTILE_WIDE

#else

template <class V>
VECTILE_INLINE V lane_sums(const V* x) {
#if defined(VECTILE_TIER_neon)
  if constexpr (V::lanes == 4)
    return vpaddq_f32(vpaddq_f32(x[0].v, x[1].v), vpaddq_f32(x[2].v, x[3].v));
#endif
  return x[0];
}

#endif

// The value stays in its register: several uses of a load would else become several loads.
template <class T>
VECTILE_INLINE void keep(Vec<T>& x) {
#if defined(VECTILE_TIER_avx2) && !defined(VECTILE_EMULATED)
  if constexpr (Vec<T>::lanes > 1) asm("" : "+v"(x.v));
#else
  (void)x;
#endif
}

}  // namespace vectile::VECTILE_TIER
