// max x and sum exp(x - max x) over a row in one pass over memory: the sum so far is rescaled when
// a block of the row raises the maximum (Milakov and Gimelshein, arXiv 1805.02867, a block at a
// time).
#pragma once

#include "kernels/rows.h"
#include "simd/math.h"

namespace vectile::VECTILE_TIER {

template <class T>
struct ExpSum {
  T top;
  double sum;   // NaN where the row has one
  bool masked;  // all -inf, and so is top
};

template <class T>
VECTILE_INLINE ExpSum<T> exp_sum(const T* x, i64 n) {
  using V = Vec<T>;
  const i64 ahead = n < kRowBlock ? n : kRowBlock;  // the next block, or row
  const T lowest = -__builtin_inff();
  ExpSum<T> s{lowest, 0, true};
  for (i64 begin = 0; begin < n; begin += kRowBlock) {
    const i64 m = begin + kRowBlock < n ? kRowBlock : n - begin;
    const T* from = x + begin;
    const T found = row_max_number(from, m);
    if (masked_row(from, m, found)) continue;
    s.masked = false;
    if (found > s.top) {
      s.sum *= __builtin_exp(static_cast<double>(s.top) - static_cast<double>(found));
      s.top = found;
    }
    const V shift(s.top);
    s.sum += row_sums<T>(m, [&](auto& t, i64 j, auto... k) VECTILE_LAMBDA {
               prefetch(from + ahead + j);
               t.a += exp_nonpositive(V::load(from + j, k...) - shift);
             }).a;
  }
  return s;
}

}  // namespace vectile::VECTILE_TIER
