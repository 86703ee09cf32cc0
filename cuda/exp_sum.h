// max x and sum exp(x - max x) over a row in one pass over memory: the sum so far is rescaled when
// a later piece raises the maximum (Milakov and Gimelshein, arXiv 1805.02867, a piece at a time).
#pragma once

#include "rows.h"

namespace vectile::cuda {

template <class T>
struct ExpSum {
  T top, sum;
  // What exponents are taken about: 0 where all is -inf, so that the sum of none is 0.
  __device__ T shift() const { return top == -INFINITY ? T(0) : top; }
};

// exp(x); for results rounded to a two-byte S off by |x| 2^-23 of itself, and zero below 2^-126.
template <class S>
__device__ __forceinline__ Computed<S> exp_for(Computed<S> x) {
  if constexpr (widens<S>)
    return exp2_flushed(x * 1.44269504f);
  else
    return exp(x);
}

template <class T>
__device__ ExpSum<T> merged(ExpSum<T> a, ExpSum<T> b) {
  const ExpSum<T> all{Max{}(a.top, b.top), T(0)};
  return {all.top, a.sum * exp(a.top - all.shift()) + b.sum * exp(b.top - all.shift())};
}

// Of a row of n elements, for every thread of the block. A row that fits `piece` is left in it, as
// it is or, where that is asked for, as exp(x - max x); of others `piece` holds nothing. `scratch`
// as for block_reduce.
template <int THREADS, bool exponentials = false, class S, int KEEP>
__device__ ExpSum<Computed<S>> exp_sum(const S* row, i64 n, Piece<S, THREADS, KEEP>& piece,
                                       Computed<S>* scratch) {
  using T = Computed<S>;
  using P = Piece<S, THREADS, KEEP>;
  const auto top = [&] {
    T most = piece.at[0];
#pragma unroll
    for (int i = 1; i < P::count; ++i) most = largest(most, piece.at[i]);
    return most;
  };
  const auto sum = [&](T shift) {
    T all(0);
#pragma unroll
    for (int i = 0; i < P::count; ++i) {
      const T e = exp_for<S>(piece.at[i] - shift);
      if constexpr (exponentials) piece.at[i] = e;
      all += e;
    }
    return all;
  };
  if (n <= P::capacity) {
    piece.load(row, static_cast<int>(n), T(-INFINITY));
    ExpSum<T> all{block_reduce<THREADS>(top(), Max{}, scratch), T(0)};
    all.sum = block_reduce<THREADS>(sum(all.shift()), Sum{}, scratch);
    return all;
  }
  ExpSum<T> mine{T(-INFINITY), T(0)};
  over_pieces<P>(n, P::head(row), [&](i64 first, int count) {
    piece.load(row + first, count, T(-INFINITY));
    ExpSum<T> more{top(), T(0)};
    more.sum = sum(more.shift());
    mine = merged(mine, more);
  });
  ExpSum<T> all{block_reduce<THREADS>(mine.top, Max{}, scratch), T(0)};
  all.sum = block_reduce<THREADS>(mine.sum * exp(mine.top - all.shift()), Sum{}, scratch);
  return all;
}

}  // namespace vectile::cuda
