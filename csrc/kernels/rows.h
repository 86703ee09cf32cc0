// Loops over one row of n elements, for the families that work row by row. A body is written once
// as
//   [&](i64 j, auto... m) { ... V::load(x + j, m...) ... }
// and called as f(j) for the lanes from j on, and as f(j, m) for the last m elements of the row.
#pragma once

#include "kernels/types.h"
#include "simd/vec.h"

namespace vectile::VECTILE_TIER {

template <class T, class F>
VECTILE_INLINE void row_each(i64 n, F f) {
  constexpr i64 w = Vec<T>::lanes;
  i64 j = 0;
  for (; j + w <= n; j += w) f(j);
  if (j < n) f(j, static_cast<int>(n - j));
}

// S sums over a row at once: f(a, j, m...) adds its elements to the accumulators a[0..S-1]. What it
// adds beyond the m-th lane is dropped. Blocks of kRowBlock elements are summed in U·lanes partial
// sums of type T and added up in double, so each addend meets at most
//   kRowBlock / (U lanes) + log2(U lanes) + 2 roundings of T, however long the row is.
constexpr i64 kRowBlock = 4096;

template <class T, int S, int U = 4, class F>
VECTILE_INLINE void row_sums(i64 n, double (&total)[S], F f) {
  using V = Vec<T>;
  constexpr i64 w = V::lanes;
  for (double& t : total) t = 0;
  for (i64 begin = 0; begin < n; begin += kRowBlock) {
    const i64 end = begin + kRowBlock < n ? begin + kRowBlock : n;
    V a[U][S];
    i64 j = begin;
    for (; j + U * w <= end; j += U * w)
      for (int u = 0; u < U; ++u) f(a[u], j + u * w);
    for (; j + w <= end; j += w) f(a[0], j);
    if (j < end) {
      const int m = static_cast<int>(end - j);
      V last[S];
      f(last, j, m);
      for (int s = 0; s < S; ++s) a[U - 1][s] += select(first_mask<T>(m), last[s], V());
    }
    for (int s = 0; s < S; ++s) {
      for (int half = U / 2; half > 0; half /= 2)
        for (int u = 0; u < half; ++u) a[u][s] += a[u + half][s];
      total[s] += reduce_add(a[0][s]);
    }
  }
}

// Largest element; NaN propagates; -inf for an empty row.
template <class T>
VECTILE_INLINE T row_max(const T* x, i64 n) {
  using V = Vec<T>;
  constexpr i64 w = V::lanes;
  V a(-__builtin_inff()), b = a, c = a, d = a;
  i64 j = 0;
  for (; j + 4 * w <= n; j += 4 * w) {
    a = max(a, V::load(x + j));
    b = max(b, V::load(x + j + w));
    c = max(c, V::load(x + j + 2 * w));
    d = max(d, V::load(x + j + 3 * w));
  }
  a = max(max(a, b), max(c, d));
  for (; j + w <= n; j += w) a = max(a, V::load(x + j));
  if (j < n) {
    const int tail = static_cast<int>(n - j);
    a = max(a, select(first_mask<T>(tail), V::load(x + j, tail), V(-__builtin_inff())));
  }
  return reduce_max(a);
}

}  // namespace vectile::VECTILE_TIER
