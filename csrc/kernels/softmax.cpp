// softmax: y = exp(x - max x) / sum exp(x - max x), row by row.
// 1. maximum of the row (NaN propagates); 2. exponentials and their sum; 3. scaling.
// A row that is -inf throughout (fully masked) gives zeros, and its gradient is zeros.
#include "kernels/types.h"
#include "simd/math.h"
#include "simd/vec.h"

namespace vectile::VECTILE_TIER {

template <class T>
static T row_max(const T* x, i64 n) {
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

// sum of f(x[j]); f's values are also stored to y when y is given.
template <class T, class F>
static T row_map_sum(const T* x, T* y, i64 n, F f) {
  using V = Vec<T>;
  constexpr i64 w = V::lanes;
  V a(T(0)), b = a;
  i64 j = 0;
  for (; j + 2 * w <= n; j += 2 * w) {
    const V u = f(V::load(x + j)), v = f(V::load(x + j + w));
    if (y) {
      u.store(y + j);
      v.store(y + j + w);
    }
    a = a + u;
    b = b + v;
  }
  a = a + b;
  for (; j < n; j += w) {
    const int m = static_cast<int>(n - j < w ? n - j : w);
    const V u = f(V::load(x + j, m));
    if (y) u.store(y + j, m);
    a = a + select(first_mask<T>(m), u, V(T(0)));
  }
  return reduce_add(a);
}

template <class T, class F>
static void row_map(const T* x, T* y, i64 n, F f) {
  using V = Vec<T>;
  constexpr i64 w = V::lanes;
  i64 j = 0;
  for (; j + w <= n; j += w) f(V::load(x + j), j, static_cast<int>(w)).store(y + j);
  if (j < n) {
    const int m = static_cast<int>(n - j);
    f(V::load(x + j, m), j, m).store(y + j, m);
  }
}

template <class T>
static void softmax(const T* x, T* y, i64 rows, i64 n) {
  using V = Vec<T>;
  for (i64 r = 0; r < rows; ++r, x += n, y += n) {
    const T top = row_max(x, n);
    if (top == -__builtin_inff()) {
      row_map(x, y, n, [](V, i64, int) { return V(T(0)); });
      continue;
    }
    const V shift(top);
    const T sum = row_map_sum(x, y, n, [=](V v) { return exp(v - shift); });
    const V scale(T(1) / sum);
    row_map(y, y, n, [=](V v, i64, int) { return v * scale; });
  }
}

template <class T>
static void log_softmax(const T* x, T* y, i64 rows, i64 n) {
  using V = Vec<T>;
  for (i64 r = 0; r < rows; ++r, x += n, y += n) {
    const T top = row_max(x, n);
    if (top == -__builtin_inff()) {
      row_map(x, y, n, [](V, i64, int) { return V(-__builtin_inff()); });
      continue;
    }
    const V shift(top);
    const T sum = row_map_sum(x, static_cast<T*>(nullptr), n, [=](V v) { return exp(v - shift); });
    const V log_sum = log(V(sum));
    row_map(x, y, n, [=](V v, i64, int) { return v - shift - log_sum; });
  }
}

// dx = y (grad - sum grad·y)
template <class T>
static void softmax_backward(const T* grad, const T* y, T* dx, i64 rows, i64 n) {
  using V = Vec<T>;
  constexpr i64 w = V::lanes;
  for (i64 r = 0; r < rows; ++r, grad += n, y += n, dx += n) {
    V a(T(0));
    for (i64 j = 0; j < n; j += w) {
      const int m = static_cast<int>(n - j < w ? n - j : w);
      a = fma(V::load(grad + j, m), V::load(y + j, m), a);
    }
    const V dot(reduce_add(a));
    row_map(grad, dx, n, [=](V g, i64 j, int m) { return V::load(y + j, m) * (g - dot); });
  }
}

// dx = grad - exp(y) sum grad; a fully masked row (y = -inf) has no gradient
template <class T>
static void log_softmax_backward(const T* grad, const T* y, T* dx, i64 rows, i64 n) {
  using V = Vec<T>;
  for (i64 r = 0; r < rows; ++r, grad += n, y += n, dx += n) {
    const T live = row_max(y, n);
    if (live == -__builtin_inff()) {
      row_map(grad, dx, n, [](V, i64, int) { return V(T(0)); });
      continue;
    }
    const V total(row_map_sum(grad, static_cast<T*>(nullptr), n, [](V g) { return g; }));
    row_map(grad, dx, n, [=](V g, i64 j, int m) { return fnma(exp(V::load(y + j, m)), total, g); });
  }
}

}  // namespace vectile::VECTILE_TIER

#include "kernels/register.h"
