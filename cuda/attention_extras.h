// What options of attention do to single pairs of a query and a key, beside the ranges of keys that
// queries see: masks, score terms, dropout, and the sinks. Kernels have an instance for calls with
// any of these and one without.
#pragma once

#include "ops/attention_args.h"
#include "runtime.h"

namespace vectile::cuda::attention {

template <class S>
struct Terms;

// An array seen as (batch, heads, ...), or a copy of it where batches do not lie evenly apart.
struct Spread {
  Array given;
  TensorView view;  // broadcast
  i64 batch = 0, head = 0;

  Spread() = default;
  // `full` is (batch..., heads), or () for a matrix, with `last` axes more.
  Spread(Array x, const Shape& full, int last);
  i64 stride(int i) const { return view.data ? view.stride(i) : 0; }
};

struct Extras {
  Spread mask;      // bool, or the dtype of the call
  Spread slopes;    // of the type it computes in
  Array places;     // (lq) of int32, beside slopes: the key at each query's own place
  Array documents;  // (batch or 1, lk) of int32: the first key of each key's document
  Spread blocks;    // bool
  Array sinks;      // (heads) of the type it computes in
  ops::BlockSize block{1, 1};
  double dropout_p = 0;
  std::uint64_t seed = 0;

  bool any() const {
    return mask.view.data || slopes.view.data || documents.data || blocks.view.data || sinks.data ||
           dropout_p > 0;
  }
  Extras() = default;
  // All but the places and documents.
  Extras(const char* op, const TensorView* mask, const ops::AttentionOptions& options,
         const ops::AttentionSizes& sizes, DType dtype);
  template <class S>
  Terms<S> terms(const ops::AttentionSizes& sizes) const;
};

}  // namespace vectile::cuda::attention
