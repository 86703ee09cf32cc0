// softmax: y = exp(x - max x) / sum exp(x - max x), row by row.
// 1. maximum of the row; 2. exponentials and their sum; 3. scaling. NaN propagates from step 2.
// A row that is -inf throughout (fully masked) gives zeros, and its gradient is zeros.
#include "kernels/exp_sum.h"

namespace vectile::VECTILE_TIER {

template <class T>
static void fill(Out<T> y, i64 n, T value) {
  row_map(y, n, [&](i64, auto...) VECTILE_LAMBDA { return Vec<T>(value); });
}

// Exponentials are kept between steps 2 and 3 in y, or on the stack where y is written around the
// caches and they find room there; rows longer than that pays for are read twice instead. Which sum
// a row has depends on its length alone.
constexpr i64 kKeptInPlace = 1 << 16, kKeptApart = 1 << 13;

template <class T>
static void softmax(const T* x, Out<T> y, i64 rows, i64 n) {
  using V = Vec<T>;
  alignas(64) T apart[kKeptApart];
  const bool keep = n <= kKeptInPlace;
  if (keep && n > kKeptApart) y.stream = false;
  for (i64 r = 0; r < rows; ++r, x += n, y = y.at(n)) {
    if (!keep) {
      const ExpSum<T> s = exp_sum(x, n);
      if (s.masked) {
        fill(y, n, T(0));
        continue;
      }
      const V shift(s.top), scale(static_cast<T>(1 / s.sum));
      row_map(y, n, [&](i64 j, auto... k) VECTILE_LAMBDA {
        return exp_nonpositive(V::load(x + j, k...) - shift) * scale;
      });
      continue;
    }
    const T top = row_max_number(x, n);
    if (masked_row(x, n, top)) {
      fill(y, n, T(0));
      continue;
    }
    const V shift(top);
    T* e = y.stream ? apart : y.data;
    const double sum = row_map_sum(e, n, [&](i64 j, auto... k) VECTILE_LAMBDA {
      prefetch(x + n + j);
      return exp_nonpositive(V::load(x + j, k...) - shift);
    });
    const V scale(static_cast<T>(1 / sum));
    row_map(y, n, [&](i64 j, auto... k) VECTILE_LAMBDA { return V::load(e + j, k...) * scale; });
  }
  finish(y);
}

template <class T>
static void log_softmax(const T* x, Out<T> y, i64 rows, i64 n) {
  using V = Vec<T>;
  for (i64 r = 0; r < rows; ++r, x += n, y = y.at(n)) {
    const ExpSum<T> s = exp_sum(x, n);
    if (s.masked) {
      fill(y, n, s.top);
      continue;
    }
    const V shift(s.top), log_sum = log(V(static_cast<T>(s.sum)));
    row_map(y, n, [&](i64 j, auto... k) VECTILE_LAMBDA {
      return V::load(x + j, k...) - shift - log_sum;
    });
  }
  finish(y);
}

// dx = y (grad - sum grad·y)
template <class T>
static void softmax_backward(const T* grad, const T* y, Out<T> dx, i64 rows, i64 n) {
  using V = Vec<T>;
  for (i64 r = 0; r < rows; ++r, grad += n, y += n, dx = dx.at(n)) {
    const auto sum = row_sums<T>(n, [&](auto& s, i64 j, auto... k) VECTILE_LAMBDA {
      s.a = fma(V::load(grad + j, k...), V::load(y + j, k...), s.a);
    });
    const V dot(static_cast<T>(sum.a));
    row_map(dx, n, [&](i64 j, auto... k) VECTILE_LAMBDA {
      return V::load(y + j, k...) * (V::load(grad + j, k...) - dot);
    });
  }
  finish(dx);
}

// dx = grad - exp(y) sum grad; a fully masked row (y = -inf) has no gradient
template <class T>
static void log_softmax_backward(const T* grad, const T* y, Out<T> dx, i64 rows, i64 n) {
  using V = Vec<T>;
  for (i64 r = 0; r < rows; ++r, grad += n, y += n, dx = dx.at(n)) {
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
  finish(dx);
}

}  // namespace vectile::VECTILE_TIER

#include "kernels/register.h"
