// What the kernels of attention's two passes know of a call. A block does one task: where it looped
// over several, addresses that they share would take the registers of the sums.
#pragma once

#include <climits>
#include <cmath>

#include "attention.h"
#include "attention_extras.h"
#include "attention_rotary.h"
#include "attention_tiles.h"

namespace vectile::cuda::attention {

// The keys [begin, end) that a query sees. Neither falls from one query to the next.
struct Range {
  int begin, end;
  __device__ bool has(int key) const { return key >= begin && key < end; }
};

// A row of the backward pass: its log-sum-exp in base 2, the inner product of its gradient and its
// result, and its keys.
template <class T>
struct alignas(16) Statistics {
  T lse, delta;
  Range keys;
};

template <class S>
struct Problem {
  using T = Computed<S>;
  Heads<S> query, key, value;
  const Range* ranges;  // (batch or 1, lq)
  i64 range_batch;
  i64 batch;
  int heads, kv_heads, lq, lk;
  T scale, inner, outer;  // see to_scores; outer is 0 without a softcap

  __device__ int group() const { return heads / kv_heads; }
  // Past the last query, one that sees nothing.
  __device__ Range range(i64 b, int row) const {
    return row < lq ? ranges[b * range_batch + row] : Range{INT_MAX, INT_MAX};
  }
};

// The first query of which is(keys) holds, as it does of all after it. Of a whole warp, whose lanes
// look at 32 of them at a time.
template <class S, class F>
__device__ __forceinline__ int first_query(const Problem<S>& p, i64 b, F&& is) {
  int first = 0, more = p.lq;  // it is one of so many, or the one after them
  while (more > 0) {
    const int apart = (more + kWarp - 1) / kWarp, end = first + more;
    const int at = first + (lane_index() + 1) * apart - 1;
    const unsigned found = __ballot_sync(kAll, at >= end || is(p.range(b, at)));
    first += (found ? __popc((found & -found) - 1) : kWarp) * apart;
    more = found ? (apart - 1 < end - first ? apart - 1 : end - first) : 0;
  }
  return first;
}

__device__ __forceinline__ double hyperbolic_tangent(double x) { return tanh(x); }
// Off by a few 2**-24 absolutely, which is what counts in an exponent.
__device__ __forceinline__ float hyperbolic_tangent(float x) {
  return 1 - __fdividef(2, 1 + exp2(x * (2 * static_cast<float>(M_LOG2E))));
}

// Inner products to scores times log2(e).
template <class E, class P>
__device__ __forceinline__ void to_scores(typename E::Scores& s, const P& p) {
  const auto each = [&](auto f) {
#pragma unroll
    for (int i = 0; i < E::kThreadRows; ++i)
#pragma unroll
      for (int j = 0; j < E::Scores::kCount; ++j) s.at(i, j) = f(s.at(i, j));
  };
  using T = typename P::T;
  if (p.outer > 0)
    each([&](T x) { return p.outer * hyperbolic_tangent(x * p.inner); });
  else
    each([&](T x) { return x * p.inner; });
}

// The checked arguments of a call: the arrays, and the keys of each query.
struct Arguments {
  ops::AttentionSizes sizes;
  DType dtype;
  Array query, key, value;
  Array ranges;  // (batch or 1, lq, 2) of int32
  i64 range_batch = 0;
  double scale, softcap;
  Extras extras;
  Rotary rotary;  // has turned the query and the key

  Arguments(const char* op, const TensorView& q, const TensorView& k, const TensorView& v,
            const TensorView* mask, const ops::AttentionOptions& options);

  template <class S>
  Problem<S> problem() const;

 private:
  void find_ranges(const char* op, const ops::AttentionOptions& options);
};

// `x`, or a copy of it where batches or elements of a row do not lie evenly apart.
Array even_rows(const TensorView& x);

template <class S>
Heads<S> heads_of(const TensorView& x) {
  constexpr i64 chunk = kVectorBytes / sizeof(S);
  Heads<S> h{x.as<S>(),    x.ndim() > 3 ? x.stride(-4) : 0, x.ndim() > 2 ? x.stride(-3) : 0,
             x.stride(-2), static_cast<int>(x.shape[-1]),   false};
  h.aligned = reinterpret_cast<std::uintptr_t>(h.data) % kVectorBytes == 0 &&
              h.batch % chunk == 0 && h.head % chunk == 0 && h.row % chunk == 0 &&
              h.width % chunk == 0;
  return h;
}

template <class S>
Problem<S> Arguments::problem() const {
  using T = Computed<S>;
  const bool capped = softcap > 0;
  return {heads_of<S>(query),
          heads_of<S>(key),
          heads_of<S>(value),
          static_cast<const Range*>(ranges.data),
          range_batch,
          sizes.batch.elements(),
          static_cast<int>(sizes.query_heads),
          static_cast<int>(sizes.kv_heads),
          static_cast<int>(sizes.lq),
          static_cast<int>(sizes.lk),
          static_cast<T>(scale),
          static_cast<T>(capped ? scale / softcap : scale * M_LOG2E),
          static_cast<T>(capped ? softcap * M_LOG2E : 0)};
}

inline dim3 grid_of(i64 tasks) {
  return {blocks_for(tasks, 1), static_cast<unsigned>(ceil_div(tasks, kMostBlocks))};
}
__device__ __forceinline__ i64 task_of_block() { return i64{blockIdx.y} * gridDim.x + blockIdx.x; }

// f(Width<D>{}) for the narrowest tile that rows of d and dv elements fit.
template <int D>
struct Width {
  static constexpr int value = D;
};
template <class F>
void with_width(const ops::AttentionSizes& s, F&& f) {
  const i64 n = s.d > s.dv ? s.d : s.dv;
  if (n <= 64) return f(Width<64>{});
  if (n <= 128) return f(Width<128>{});
  f(Width<256>{});
}

// Starts a pass by the kernels for sm_90a, of half types, where the device has them and the arrays
// suit them; else false.
template <class S>
bool attend_on_hopper(const Problem<S>& p, S* out, float* lse);
template <class S>
bool differentiate_on_hopper(const Problem<S>& p, const Heads<S>& grad,
                             const Statistics<float>* rows, S* dq, S* dk, S* dv);

}  // namespace vectile::cuda::attention
