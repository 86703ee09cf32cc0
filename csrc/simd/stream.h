// Stores around the caches; plain ones on a tier without.
#pragma once

#include "simd/vec.h"

namespace vectile::VECTILE_TIER {

// p is aligned to the register. Nobody else reads before stream_fence().
template <class T>
VECTILE_INLINE void stream(Vec<T> v, T* p) {
  v.store(p);
}

#if defined(VECTILE_TIER_avx512)
VECTILE_INLINE void stream(Vec<float> v, float* p) { _mm512_stream_ps(p, v.v); }
VECTILE_INLINE void stream_fence() { _mm_sfence(); }
#elif defined(VECTILE_TIER_avx2)
VECTILE_INLINE void stream(Vec<float> v, float* p) { _mm256_stream_ps(p, v.v); }
VECTILE_INLINE void stream_fence() { _mm_sfence(); }
#else
VECTILE_INLINE void stream_fence() {}
#endif

}  // namespace vectile::VECTILE_TIER
