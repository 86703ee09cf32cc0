// What the attention kernels and the op above them agree on.
#pragma once

#include "base/types.h"

namespace vectile {

struct KeyRange {
  i64 begin, end;
};

// Which keys the queries of one head see, as work: whatever lies outside is never computed.
// Query i sees the intersection of keys[i] with the runs of its block row, i / block_rows: runs
// [run_start[b], run_start[b + 1]), ascending and apart. block_rows is 0 where all queries of all
// heads share one block row.
struct AttentionMap {
  const KeyRange* keys;  // (lq), empty ranges are {0, 0}
  const i64* position;   // (lq): the key at the query's own place, where distances are 0
  i64 block_rows;
  const KeyRange* runs;
  const i64* run_start;
  i64 run_head;  // elements of run_start from one head to the next
};

// One key/value head of a batch and the `group` query heads that share it. Strides count elements;
// the last axis of every array is contiguous. Memory holds `dtype`: T, or a half type if T is
// float.
template <class T>
struct AttentionHead {
  DType dtype;
  const void *query, *key, *value;  // (group, lq, d), (lk, d), (lk, dv)
  i64 query_head, query_row, key_row, value_row;
  i64 group, lq, lk, d, dv;
  T scale;
  AttentionMap map;
  // What happens to a score s beside that, in this order; null or 0 where nothing does.
  T softcap;         // softcap tanh(s / softcap)
  const T* slopes;   // (group): - slope |key - position|
  const void* mask;  // (group, lq, lk): bool, true = seen, or `dtype`, added
  DType mask_dtype;
  i64 mask_head, mask_row;
  const T* documents;  // (lk), (lq): a query sees the keys of its own number
  const T* query_documents;
  const T* sinks;  // (group): the score of one more key, whose value is zero
  // (lk, pairs), or null: key j turns by the angles of row j, a query by those of its position.
  const T *cosine, *sine;
  i64 pairs;
  bool interleaved;
  // Dropout of weights: the kept ones times keep_scale. Weight (g, i, j) draws number
  // first_weight + (g lq + i) lk + j of Philox; below the threshold it is dropped.
  bool dropout;
  std::uint32_t threshold;
  std::uint64_t seed, first_weight;
  T keep_scale;
};

// What the forward pass writes beside out, each null or for rows [begin, end) of (group * lq, ...).
template <class T>
struct AttentionExtras {
  T* lse;          // (rows)
  void* weights;   // (rows, lk) of the head's dtype
  T* column_sums;  // (group, lk): sums of these rows' weights
  T* top_weights;  // (rows, top): the largest weights, falling; 0 and key -1 where fewer are not 0
  i64* top_keys;
  i64 top;
};

// What the backward pass knows beside the forward's inputs.
template <class T>
struct AttentionGrad {
  const void *grad, *out;  // (group, lq, dv) of the head's dtype
  i64 grad_head, grad_row, out_head, out_row;
  const T *lse, *delta;  // (group, lq), contiguous; delta = rowsum(grad * out)
};

}  // namespace vectile
