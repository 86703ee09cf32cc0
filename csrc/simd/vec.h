// Vec<T>: a register of T and the operations on it, for the tier this file is compiled for.
//
// A kernel file is compiled once per tier with VECTILE_TIER=<tier> and VECTILE_TIER_<tier>=1.
// Everything here lives in vectile::<tier>, so that no two tiers ever share a symbol. Vec<float>
// has 1, 4, 8 or 16 lanes; Vec<double> always has one, and a body templated on T serves both.
// Operations are found by argument-dependent lookup: write fma(a, b, c), not Vec::fma.
#pragma once

#if defined(VECTILE_TIER_avx512) || defined(VECTILE_TIER_avx512_vnni)
#include "simd/avx512.h"
#elif defined(VECTILE_TIER_avx2)
#include "simd/avx2.h"
#elif defined(VECTILE_TIER_neon)
#include "simd/neon.h"
#else
#include "simd/scalar.h"
#endif

namespace vectile::VECTILE_TIER {

// Vector registers of the instruction set, for the sizes of tiles held in them.
#if defined(VECTILE_TIER_avx512) || defined(VECTILE_TIER_avx512_vnni) || defined(VECTILE_TIER_neon)
constexpr int kRegisters = 32;
#else
constexpr int kRegisters = 16;
#endif

// Mask of the first n lanes, 0 <= n <= lanes.
template <class T>
VECTILE_INLINE typename Vec<T>::Mask first_mask(int n) {
  return Vec<T>::first(n);
}

}  // namespace vectile::VECTILE_TIER
