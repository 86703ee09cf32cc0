// What the attention kernels and the op above them agree on.
#pragma once

#include "base/types.h"

namespace vectile {

enum class MaskKind : std::uint8_t { none, boolean, additive };

// One key/value head of a batch and the `group` query heads that share it. Strides count elements;
// the last axis of every array is contiguous.
template <class T>
struct AttentionHead {
  const T *query, *key, *value;  // (group, lq, d), (lk, d), (lk, dv)
  i64 query_head, query_row, key_row, value_row;
  i64 group, lq, lk, d, dv;
  T scale;
  bool causal;  // query i sees keys j <= i + lk - lq
  MaskKind mask_kind;
  const void* mask;  // (group, lq, lk): bool, true = seen, or T, added to the scaled scores
  i64 mask_head, mask_row;
};

// What the backward pass knows beside the forward's inputs.
template <class T>
struct AttentionGrad {
  const T *grad, *out;  // (group, lq, dv)
  i64 grad_head, grad_row, out_head, out_row;
  const T* lse;  // (group, lq), contiguous
};

}  // namespace vectile
