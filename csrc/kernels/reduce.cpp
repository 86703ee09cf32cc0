// reduce: sums, maxima and minima along rows (contiguous) and columns (strided).
// Rounding: a row's sum is split in halves down to blocks of kDepth additions per lane, so its
// error is at most (kDepth + log2 n) eps sum |x|; a column's is at most (n / 8 + 3) eps sum |x|.
#include "base/types.h"
#include "simd/vec.h"

namespace vectile::VECTILE_TIER {

constexpr int kAccumulators = 8;
constexpr i64 kDepth = 32;

template <class T>
struct Sum {
  using V = Vec<T>;
  static VECTILE_INLINE V identity() { return V(); }
  static VECTILE_INLINE V combine(V a, V b) { return a + b; }
  static VECTILE_INLINE T fold(V a) { return reduce_add(a); }
};
template <class T>
struct Max {
  using V = Vec<T>;
  static VECTILE_INLINE V identity() { return V(T(-__builtin_inff())); }
  static VECTILE_INLINE V combine(V a, V b) { return max(a, b); }
  static VECTILE_INLINE T fold(V a) { return reduce_max(a); }
};
template <class T>
struct Min {
  using V = Vec<T>;
  static VECTILE_INLINE V identity() { return V(T(__builtin_inff())); }
  static VECTILE_INLINE V combine(V a, V b) { return min(a, b); }
  static VECTILE_INLINE T fold(V a) { return reduce_min(a); }
};

// Reduces f(x[k]), k < n <= kDepth * kAccumulators * lanes (more is right, but rounds more).
template <class Op, class T, class F>
static T reduce_block(const T* x, i64 n, F f) {
  using V = Vec<T>;
  constexpr i64 w = V::lanes;
  V all = Op::identity();
  i64 k = 0;
  if (n >= kAccumulators * w) {
    V a[kAccumulators];
    for (int i = 0; i < kAccumulators; ++i) a[i] = f(V::load(x + i * w));
    for (k = kAccumulators * w; k + kAccumulators * w <= n; k += kAccumulators * w)
      for (int i = 0; i < kAccumulators; ++i) a[i] = Op::combine(a[i], f(V::load(x + k + i * w)));
    for (int step = kAccumulators / 2; step; step /= 2)
      for (int i = 0; i < step; ++i) a[i] = Op::combine(a[i], a[i + step]);
    all = a[0];
  }
  for (; k + w <= n; k += w) all = Op::combine(all, f(V::load(x + k)));
  if (k < n) {
    const int tail = static_cast<int>(n - k);
    const V last = select(first_mask<T>(tail), f(V::load(x + k, tail)), Op::identity());
    all = Op::combine(all, last);
  }
  return Op::fold(all);
}

template <class Op, class T, class F>
static T reduce_line(const T* x, i64 n, F f) {
  constexpr i64 block = kDepth * kAccumulators * Vec<T>::lanes;
  if (n <= block) return reduce_block<Op>(x, n, f);
  const i64 half = (n / 2 + block - 1) / block * block;
  const T a = reduce_line<Op>(x, half, f), b = reduce_line<Op>(x + half, n - half, f);
  return Op::combine(a, b).first_lane();
}

template <template <class> class Op, class T>
static void reduce_rows(const T* x, T* y, i64 rows, i64 n) {
  for (i64 r = 0; r < rows; ++r, x += n)
    y[r] = reduce_line<Op<T>>(x, n, [](Vec<T> v) { return v; });
}

// y[j] = op(y[j], x[k][j] for k < 8), as a tree.
template <class Op, bool first, class T>
static void fold_eight(const T* x, i64 stride, T* y, i64 columns) {
  using V = Vec<T>;
  const auto tree = [=](auto load) {
    V v[8];
    for (int k = 0; k < 8; ++k) v[k] = load(x + k * stride);
    for (int step = 4; step; step /= 2)
      for (int k = 0; k < step; ++k) v[k] = Op::combine(v[k], v[k + step]);
    return v[0];
  };
  i64 j = 0;
  for (; j + V::lanes <= columns; j += V::lanes) {
    const V t = tree([=](const T* p) { return V::load(p + j); });
    (first ? t : Op::combine(V::load(y + j), t)).store(y + j);
  }
  if (j < columns) {
    const int m = static_cast<int>(columns - j);
    const V t = tree([=](const T* p) { return V::load(p + j, m); });
    (first ? t : Op::combine(V::load(y + j, m), t)).store(y + j, m);
  }
}

template <class Op, class T>
static void fold_one(const T* x, T* y, i64 columns) {
  using V = Vec<T>;
  for (i64 j = 0; j < columns; j += V::lanes) {
    const int m = static_cast<int>(columns - j < V::lanes ? columns - j : V::lanes);
    if (m == V::lanes)
      Op::combine(V::load(y + j), V::load(x + j)).store(y + j);
    else
      Op::combine(V::load(y + j, m), V::load(x + j, m)).store(y + j, m);
  }
}

template <template <class> class Op, class T>
static void reduce_columns(const T* x, i64 stride, T* y, i64 n, i64 columns) {
  i64 k = 0;
  if (n >= 8) {
    fold_eight<Op<T>, true>(x, stride, y, columns);
    for (k = 8; k + 8 <= n; k += 8) fold_eight<Op<T>, false>(x + k * stride, stride, y, columns);
  } else {
    for (i64 j = 0; j < columns; ++j) y[j] = Op<T>::identity().first_lane();
  }
  for (; k < n; ++k) fold_one<Op<T>>(x + k * stride, y, columns);
}

template <class T>
static void row_sum(const T* x, T* y, i64 rows, i64 n) {
  reduce_rows<Sum>(x, y, rows, n);
}
template <class T>
static void row_max(const T* x, T* y, i64 rows, i64 n) {
  reduce_rows<Max>(x, y, rows, n);
}
template <class T>
static void row_min(const T* x, T* y, i64 rows, i64 n) {
  reduce_rows<Min>(x, y, rows, n);
}
template <class T>
static void column_sum(const T* x, i64 stride, T* y, i64 n, i64 columns) {
  reduce_columns<Sum>(x, stride, y, n, columns);
}
template <class T>
static void column_max(const T* x, i64 stride, T* y, i64 n, i64 columns) {
  reduce_columns<Max>(x, stride, y, n, columns);
}
template <class T>
static void column_min(const T* x, i64 stride, T* y, i64 n, i64 columns) {
  reduce_columns<Min>(x, stride, y, n, columns);
}

template <class T>
static void sum_squares(const T* x, double* y, i64 n) {
  const T fast = reduce_line<Sum<T>>(x, n, [](Vec<T> v) { return v * v; });
  *y = fast;
  // Squares of floats overflow beyond 2^64 and lose digits below 2^-52: those go through double.
  if (sizeof(T) == 4 && !(fast > 0x1p-80f && fast < __builtin_inff())) {
    double sum = 0;
    for (i64 k = 0; k < n; ++k) sum += static_cast<double>(x[k]) * static_cast<double>(x[k]);
    *y = sum;
  }
}

}  // namespace vectile::VECTILE_TIER

#include "kernels/register.h"
