// Rows of new keys or values as a cache stores them.
#pragma once

#include "kernels/attention_scores.h"

namespace vectile::VECTILE_TIER {

template <class T, class S, class C>
VECTILE_INLINE void append_row(const S* x, i64 n, C* to, float*) {
  over_rows<T>(
      n, [&](i64 j, int m) VECTILE_LAMBDA { store_as(load_as<Vec<T>>(x + j, m), to + j, m); });
}

// Symmetric: the largest magnitude becomes 127, rounded half to even. Rows that are zero, or whose
// scale would be, have scale 0; a row that is not finite has scale NaN: it reads back as NaN.
template <class T, class S>
VECTILE_INLINE void append_row(const S* x, i64 n, std::int8_t* to, float* scale) {
  using V = Vec<T>;
  V top(T(0)), bad(T(0));
  over_rows<T>(n, [&](i64 j, int m) VECTILE_LAMBDA {
    const V v = load_as<V>(x + j, m);
    top = max_number(abs(v), top);
    bad = fma(v, V(T(0)), bad);
  });
  const bool finite = !is_nan(bad).any();
  const T step = finite ? reduce_max(top) / T(127) : T(0);
  *scale = static_cast<float>(finite ? step : T(__builtin_nanf("")));
  const V limit(T(127));
  over_rows<T>(n, [&](i64 j, int m) VECTILE_LAMBDA {
    const V v = step == T(0) ? V(T(0)) : load_as<V>(x + j, m) / V(step);
    clamp(v, -limit, limit).store(to + j, m);
  });
}

}  // namespace vectile::VECTILE_TIER
