// Loops over one row of n elements, for the families that work row by row. A body is written once
// as
//   [&](i64 j, auto... m) { ... V::load(x + j, m...) ... }
// and called as f(j) for the lanes from j on, and as f(j, m) for the last m elements of the row.
#pragma once

#include "base/out.h"
#include "simd/stream.h"

namespace vectile::VECTILE_TIER {

// Asks for the line at p, which need not be mapped. A pass that computes asks for the next row,
// which keeps memory busy meanwhile.
template <class T>
VECTILE_INLINE void prefetch(const T* p) {
  __builtin_prefetch(p);
}

template <class T, class F>
VECTILE_INLINE void row_each(i64 n, F f) {
  constexpr i64 w = Vec<T>::lanes;
  i64 j = 0;
  for (; j + w <= n; j += w) f(j);
  if (j < n) f(j, static_cast<int>(n - j));
}

// y[j] = f(j), written around the caches; a fence comes after the last row.
template <class T, class F>
VECTILE_INLINE void row_stream(T* y, i64 n, F f) {
  using V = Vec<T>;
  constexpr i64 w = V::lanes;
  i64 j = -static_cast<i64>(reinterpret_cast<uintptr_t>(y) / sizeof(T)) & (w - 1);
  if (j > n) j = n;
  if (j) {
    const int head = static_cast<int>(j);
    f(0, head).store(y, head);
  }
  for (; j + 4 * w <= n; j += 4 * w) {
    const V v0 = f(j), v1 = f(j + w), v2 = f(j + 2 * w), v3 = f(j + 3 * w);
    stream(v0, y + j);
    stream(v1, y + j + w);
    stream(v2, y + j + 2 * w);
    stream(v3, y + j + 3 * w);
  }
  for (; j + w <= n; j += w) stream(f(j), y + j);
  if (j < n) {
    const int m = static_cast<int>(n - j);
    f(j, m).store(y + j, m);
  }
}

// y[j] = f(j). Values are computed before they are stored, four vectors at a time: a load that
// follows a store to the same place of another page would wait for it (4 KiB aliasing).
template <class T, class F>
VECTILE_INLINE void row_map(T* y, i64 n, F f) {
  using V = Vec<T>;
  constexpr i64 w = V::lanes;
  i64 j = 0;
  for (; j + 4 * w <= n; j += 4 * w) {
    const V v0 = f(j), v1 = f(j + w), v2 = f(j + 2 * w), v3 = f(j + 3 * w);
    v0.store(y + j);
    v1.store(y + j + w);
    v2.store(y + j + 2 * w);
    v3.store(y + j + 3 * w);
  }
  for (; j + w <= n; j += w) f(j).store(y + j);
  if (j < n) {
    const int m = static_cast<int>(n - j);
    f(j, m).store(y + j, m);
  }
}

// Short rows go through the caches all the same: most of their lines are written in parts.
template <class T>
VECTILE_INLINE bool streamed(Out<T> y, i64 n) {
  return y.stream && n >= 16 * Vec<T>::lanes;
}
template <class T, class F>
VECTILE_INLINE void row_map(Out<T> y, i64 n, F f) {
  if (streamed(y, n))
    row_stream(y.data, n, f);
  else
    row_map(y.data, n, f);
}

// Makes what was streamed to y visible to other threads.
template <class T>
VECTILE_INLINE void finish(Out<T> y) {
  if (y.stream) stream_fence();
}

// Up to three sums over a row at once. Named members, not an array: they stay in registers.
template <class V>
struct Sums {
  V a, b, c;
};

template <class V>
VECTILE_INLINE void add(Sums<V>& s, const Sums<V>& t) {
  s.a += t.a;
  s.b += t.b;
  s.c += t.c;
}

// f(s, j, m...) adds its elements to the accumulators s; what it adds beyond the m-th lane is
// dropped. Blocks of kRowBlock elements are summed in 4 lanes partial sums of type T and added up
// in double, so an addend meets at most kRowBlock / (4 lanes) + log2(4 lanes) + 2 roundings of T,
// however long the row is.
constexpr i64 kRowBlock = 4096;

template <class T, class F>
VECTILE_INLINE Sums<double> row_sums(i64 n, F f) {
  using V = Vec<T>;
  constexpr i64 w = V::lanes;
  Sums<double> total{0, 0, 0};
  for (i64 begin = 0; begin < n; begin += kRowBlock) {
    const i64 end = begin + kRowBlock < n ? begin + kRowBlock : n;
    Sums<V> s0, s1, s2, s3;
    i64 j = begin;
    for (; j + 4 * w <= end; j += 4 * w) {
      f(s0, j);
      f(s1, j + w);
      f(s2, j + 2 * w);
      f(s3, j + 3 * w);
    }
    for (; j + w <= end; j += w) f(s0, j);
    if (j < end) {
      const int m = static_cast<int>(end - j);
      const auto live = first_mask<T>(m);
      Sums<V> last;
      f(last, j, m);
      add(s1, {select(live, last.a, V()), select(live, last.b, V()), select(live, last.c, V())});
    }
    add(s0, s2);
    add(s1, s3);
    add(s0, s1);
    add(total, {reduce_add(s0.a), reduce_add(s0.b), reduce_add(s0.c)});
  }
  return total;
}

// row_map that returns the sum of y, with the bound of row_sums.
template <class T, class F>
VECTILE_INLINE double row_map_sum(T* y, i64 n, F f) {
  using V = Vec<T>;
  constexpr i64 w = V::lanes;
  double total = 0;
  for (i64 begin = 0; begin < n; begin += kRowBlock) {
    const i64 end = begin + kRowBlock < n ? begin + kRowBlock : n;
    V s0, s1, s2, s3;
    i64 j = begin;
    for (; j + 4 * w <= end; j += 4 * w) {
      const V v0 = f(j), v1 = f(j + w), v2 = f(j + 2 * w), v3 = f(j + 3 * w);
      v0.store(y + j);
      v1.store(y + j + w);
      v2.store(y + j + 2 * w);
      v3.store(y + j + 3 * w);
      s0 += v0;
      s1 += v1;
      s2 += v2;
      s3 += v3;
    }
    for (; j + w <= end; j += w) {
      const V v = f(j);
      v.store(y + j);
      s0 += v;
    }
    if (j < end) {
      const int m = static_cast<int>(end - j);
      const V v = f(j, m);
      v.store(y + j, m);
      s1 += select(first_mask<T>(m), v, V());
    }
    total += reduce_add((s0 + s2) + (s1 + s3));
  }
  return total;
}

// Largest element by `larger`; -inf for an empty row.
template <class T, class F>
VECTILE_INLINE T row_largest(const T* x, i64 n, F larger) {
  using V = Vec<T>;
  constexpr i64 w = V::lanes;
  const V lowest(T(-__builtin_inff()));
  V a = lowest, b = a, c = a, d = a;
  i64 j = 0;
  for (; j + 4 * w <= n; j += 4 * w) {
    a = larger(a, V::load(x + j));
    b = larger(b, V::load(x + j + w));
    c = larger(c, V::load(x + j + 2 * w));
    d = larger(d, V::load(x + j + 3 * w));
  }
  for (; j + w <= n; j += w) a = larger(a, V::load(x + j));
  if (j < n) {
    const int m = static_cast<int>(n - j);
    b = larger(b, select(first_mask<T>(m), V::load(x + j, m), lowest));
  }
  return reduce_max(larger(larger(a, b), larger(c, d)));
}
// NaN propagates.
template <class T>
VECTILE_INLINE T row_max(const T* x, i64 n) {
  return row_largest(x, n, [](auto a, auto b) VECTILE_LAMBDA { return max(a, b); });
}
// NaN may be passed over: a sum of exponentials that follows finds it.
template <class T>
VECTILE_INLINE T row_max_number(const T* x, i64 n) {
  return row_largest(x, n, [](auto a, auto b) VECTILE_LAMBDA { return max_number(a, b); });
}

// Whether all elements are -inf, given the result of row_max_number.
template <class T>
VECTILE_INLINE bool masked_row(const T* x, i64 n, T top) {
  return top == -__builtin_inff() && row_max(x, n) == -__builtin_inff();
}

}  // namespace vectile::VECTILE_TIER
