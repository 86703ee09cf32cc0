// Rotary positions of attention: queries and keys are turned before the kernels and their gradients
// back after them.
#pragma once

#include "ops/attention_args.h"
#include "runtime.h"

namespace vectile::cuda::attention {

class Rotary {
 public:
  Rotary() = default;
  // `places` (lq) of int32 holds the key at each query's place beside packed sequences, where a
  // query without one becomes NaN.
  Rotary(const char* op, const ops::AttentionOptions& options, const TensorView& query,
         const ops::AttentionSizes& sizes, const Array& places);
  bool any() const { return keys_[0].view.data; }
  Array query(const TensorView& x, bool back) const { return turned(x, queries_, back); }
  Array key(const TensorView& x, bool back) const { return turned(x, keys_, back); }

 private:
  struct Table {
    Array kept;
    TensorView view;
  };
  using Tables = Table[2];  // cosine, sine
  Array turned(const TensorView& x, const Tables& tables, bool back) const;

  Tables keys_{}, queries_{};
  bool interleaved_ = false;
};

}  // namespace vectile::cuda::attention
