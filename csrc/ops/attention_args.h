// The arguments of attention, checked the same way for every device.
#pragma once

#include <optional>

#include "ops/check.h"

namespace vectile::ops {

// Which pairs of query and key count, as work that is left out where they do not. Query i stands
// at key i + lk - lq: the last one at the last key.
struct AttentionSparsity {
  bool is_causal = false;                  // no key after the query's place
  std::optional<i64> left, right;          // at most so many keys before and after it
  const TensorView* block_mask = nullptr;  // (..., heads, block rows, block columns), broadcast
  std::optional<i64> block_rows, block_columns;  // of such sizes; the fewest that fit by default
  const TensorView* key_lengths = nullptr;       // (...): keys from there on do not count
  // (n + 1,): where each of n sequences begins among the queries and the keys, and the end; places
  // are those within a sequence. The keys' are the queries' by default.
  const TensorView *cu_seqlens_q = nullptr, *cu_seqlens_k = nullptr;
  const TensorView* document_ids = nullptr;  // (..., lk); queries have the ids of the last lq keys
};

struct AttentionOptions : AttentionSparsity {
  std::optional<double> scale;  // 1 / sqrt(d)
  std::optional<double> softcap;
  const TensorView* alibi_slopes = nullptr;             // (..., heads), broadcast
  const TensorView* sinks = nullptr;                    // (heads,)
  const TensorView *cosine = nullptr, *sine = nullptr;  // (..., lk, pairs), broadcast to the batch
  bool interleaved = false;
  double dropout_p = 0;
  std::uint64_t seed = 0;
  // What the forward pass also returns.
  bool return_lse = false, return_weights = false, return_column_sums = false;
  i64 return_top_k = 0;
};

// Sizes that query, key and value agree on.
struct AttentionSizes {
  Shape batch;  // (...)
  Shape heads;  // (..., heads), or () for a matrix
  i64 query_heads, kv_heads, lq, lk, d, dv;
  i64 group() const { return kv_heads ? query_heads / kv_heads : 0; }
};
AttentionSizes attention_args(const char* op, const TensorView& query, const TensorView& key,
                              const TensorView& value);

// What the backward pass takes besides: out and grad (..., heads, lq, dv), lse (..., heads, lq).
void attention_backward_args(const char* op, const TensorView& grad, const TensorView& query,
                             const TensorView& out, const TensorView& lse, i64 dv);

// What the options ask of their arrays, beside the values of integers: the mask, bool or of the
// dtype of the others; score terms and dropout; ids of documents; tables of rotary embedding, but
// for the places of queries in them.
void attention_mask_args(const char* op, const TensorView& mask, DType dtype, const Shape& scores);
void attention_term_args(const char* op, const AttentionOptions& o, const AttentionSizes& s);
void document_args(const char* op, const TensorView& ids, const Shape& batch, i64 lq, i64 lk);
void rotary_table_args(const char* op, const AttentionOptions& o, const TensorView& query,
                       const AttentionSizes& s);

// Queries and keys of a block of the mask, which broadcasts to (heads..., blocks, blocks).
struct BlockSize {
  i64 rows, columns;
};
BlockSize block_mask_args(const char* op, const AttentionSparsity& o, const Shape& heads, i64 lq,
                          i64 lk);
// `shape` and two axes more.
Shape with_axes(Shape shape, i64 rows, i64 columns);

// Offset of plane b among the axes before the last `skip`, in row-major order.
i64 plane_offset(const TensorView& x, int skip, i64 b);

// `x` seen as `shape`, whose trailing axes it broadcasts to.
TensorView broadcast_to(const TensorView& x, const Shape& shape);

// ValueError unless `x` broadcasts to `shape`.
void check_broadcast(const char* op, const char* argument, const TensorView& x, const Shape& shape);

// Integers; the starts of sequences and their end, (n + 1,).
void check_integers(const char* op, const char* argument, const TensorView& x);
void check_starts(const char* op, const char* argument, const TensorView& x);

// Checked options that attention and decoding share: a side of the window, at most `most`; the
// scale, by default of head size d; the softcap, 0 for none.
i64 checked_reach(const char* op, std::optional<i64> reach, i64 most);
double checked_scale(const char* op, std::optional<double> scale, i64 d);
double checked_softcap(const char* op, std::optional<double> softcap);

}  // namespace vectile::ops
