// The options of attention that say which keys count, checked and brought to the form that its
// kernels read.
#pragma once

#include "ops/attention.h"

namespace vectile::ops {

class AttentionMaps {
 public:
  AttentionMaps() = default;
  // `heads` is the shape (..., heads), or () for a matrix.
  AttentionMaps(const char* op, const AttentionSparsity& options, const Shape& heads, i64 lq,
                i64 lk);

  // For the query heads from `first_head` on of batch b.
  AttentionMap map(i64 b, i64 first_head) const;

  // Whether intervals of keys are not all: the ids of some batch's documents recur after others.
  bool ids_recur() const { return ids_.data != nullptr; }
  const Array& document_numbers() const { return ids_; }   // (batch, lk) of int64: id by rank
  i64 place(i64 query) const { return position_[query]; }  // the key at the query's own place
  i64 batch_stride() const { return per_batch_ ? lq_ : 0; }

 private:
  void sequences(const char* op, const AttentionSparsity& options);
  void documents(const char* op, const TensorView& ids, const Shape& batch);
  void blocks(const char* op, const AttentionSparsity& options, const Shape& heads);
  void narrow(i64 row, KeyRange keys);  // what query `row`, of all batches, sees

  i64 lq_ = 0, lk_ = 0, batch_ = 1;
  bool per_batch_ = false;
  Buffer<KeyRange> keys_;  // (lq) or (batch, lq)
  Buffer<i64> position_;   // (lq)
  i64 block_rows_ = 0;
  Buffer<KeyRange> runs_;
  Array run_start_;       // (..., heads or 1, block rows + 1)
  TensorView run_heads_;  // that, broadcast to (..., heads, block rows + 1)
  Array ids_;
};

}  // namespace vectile::ops
