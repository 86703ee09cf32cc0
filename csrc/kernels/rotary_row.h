// One row of rotary position embedding (Su et al., RoFormer, arXiv 2104.09864, eq. 34).
#pragma once

#include "base/types.h"
#include "simd/stored.h"
#include "simd/vec.h"

namespace vectile::VECTILE_TIER {

// y[0, 2 * pairs) is x with pair j turned by the angle of (cosine[j], sign * sine[j]); y may be x.
// Pair j is (x[2 j], x[2 j + 1]) if interleaved, else (x[j], x[pairs + j]).
template <class T, class S>
VECTILE_INLINE void turn_row(const S* x, const T* cosine, const T* sine, T sign, bool interleaved,
                             i64 pairs, S* y) {
  using V = Vec<T>;
  constexpr int w = V::lanes;
  const V way(sign);
  i64 j = 0;
  for (; j + w <= pairs; j += w) {
    const V c = V::load(cosine + j), s = V::load(sine + j) * way;
    if (interleaved) {
      V a, b, first, second;
      deinterleave(load_as<V>(x + 2 * j), load_as<V>(x + 2 * j + w), a, b);
      interleave(fnma(b, s, a * c), fma(a, s, b * c), first, second);
      store_as(first, y + 2 * j);
      store_as(second, y + 2 * j + w);
    } else {
      const V a = load_as<V>(x + j), b = load_as<V>(x + pairs + j);
      store_as(fnma(b, s, a * c), y + j);
      store_as(fma(a, s, b * c), y + pairs + j);
    }
  }
  for (; j < pairs; ++j) {
    const i64 first = interleaved ? 2 * j : j, second = interleaved ? 2 * j + 1 : pairs + j;
    const V a = load_as<V>(x + first, 1), b = load_as<V>(x + second, 1);
    const V c(cosine[j]), s(sine[j] * sign);
    store_as(fnma(b, s, a * c), y + first, 1);
    store_as(fma(a, s, b * c), y + second, 1);
  }
}

}  // namespace vectile::VECTILE_TIER
