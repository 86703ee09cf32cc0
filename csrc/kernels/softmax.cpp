// softmax: y = exp(x - max x) / sum exp(x - max x), row by row.
// 1. maximum of the row (NaN propagates); 2. exponentials and their sum; 3. scaling.
// A row that is -inf throughout (fully masked) gives zeros, and its gradient is zeros.
#include "kernels/rows.h"
#include "simd/math.h"

namespace vectile::VECTILE_TIER {

template <class T>
static void fill(T* y, i64 n, T value) {
  row_map(y, n, [&](i64, auto...) VECTILE_LAMBDA { return Vec<T>(value); });
}

template <class T>
static void softmax(const T* x, T* y, i64 rows, i64 n) {
  using V = Vec<T>;
  for (i64 r = 0; r < rows; ++r, x += n, y += n) {
    const T top = row_max(x, n);
    if (top == -__builtin_inff()) {
      fill(y, n, T(0));
      continue;
    }
    const V shift(top);
    const double sum = row_map_sum(y, n, [&](i64 j, auto... k) VECTILE_LAMBDA {
      return exp_nonpositive(V::load(x + j, k...) - shift);
    });
    const V scale(static_cast<T>(1 / sum));
    row_map(y, n, [&](i64 j, auto... k) VECTILE_LAMBDA { return V::load(y + j, k...) * scale; });
  }
}

template <class T>
static void log_softmax(const T* x, T* y, i64 rows, i64 n) {
  using V = Vec<T>;
  for (i64 r = 0; r < rows; ++r, x += n, y += n) {
    const T top = row_max(x, n);
    if (top == -__builtin_inff()) {
      fill(y, n, top);
      continue;
    }
    const V shift(top);
    const auto sum = row_sums<T>(n, [&](auto& s, i64 j, auto... k) VECTILE_LAMBDA {
      s.a += exp_nonpositive(V::load(x + j, k...) - shift);
    });
    const V log_sum = log(V(static_cast<T>(sum.a)));
    row_map(y, n, [&](i64 j, auto... k) VECTILE_LAMBDA {
      return V::load(x + j, k...) - shift - log_sum;
    });
  }
}

// dx = y (grad - sum grad·y)
template <class T>
static void softmax_backward(const T* grad, const T* y, T* dx, i64 rows, i64 n) {
  using V = Vec<T>;
  for (i64 r = 0; r < rows; ++r, grad += n, y += n, dx += n) {
    const auto sum = row_sums<T>(n, [&](auto& s, i64 j, auto... k) VECTILE_LAMBDA {
      s.a = fma(V::load(grad + j, k...), V::load(y + j, k...), s.a);
    });
    const V dot(static_cast<T>(sum.a));
    row_map(dx, n, [&](i64 j, auto... k) VECTILE_LAMBDA {
      return V::load(y + j, k...) * (V::load(grad + j, k...) - dot);
    });
  }
}

// dx = grad - exp(y) sum grad; a fully masked row (y = -inf) has no gradient
template <class T>
static void log_softmax_backward(const T* grad, const T* y, T* dx, i64 rows, i64 n) {
  using V = Vec<T>;
  for (i64 r = 0; r < rows; ++r, grad += n, y += n, dx += n) {
    if (row_max(y, n) == -__builtin_inff()) {
      fill(dx, n, T(0));
      continue;
    }
    const auto sum = row_sums<T>(
        n, [&](auto& s, i64 j, auto... k) VECTILE_LAMBDA { s.a += V::load(grad + j, k...); });
    const V total(static_cast<T>(sum.a));
    row_map(dx, n, [&](i64 j, auto... k) VECTILE_LAMBDA {
      return fnma(exp_nonpositive(V::load(y + j, k...)), total, V::load(grad + j, k...));
    });
  }
}

}  // namespace vectile::VECTILE_TIER

#include "kernels/register.h"
