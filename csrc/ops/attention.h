// attention family: query (..., heads, lq, d), key (..., kv_heads, lk, d), value (..., kv_heads,
// lk, dv) of one floating-point type; kv_heads divides heads. Two-dimensional arrays are one head.
#pragma once

#include <optional>
#include <tuple>

#include "ops/common.h"

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

struct AttentionResult {
  Array out;                    // (..., heads, lq, dv)
  Array lse;                    // (..., heads, lq), float32 beside a half type
  Array weights;                // (..., heads, lq, lk)
  Array column_sums;            // (..., heads, lk), float32 beside a half type
  Array top_weights, top_keys;  // (..., heads, lq, k); the keys int64
};

struct AttentionGradients {
  Array dq, dk, dv, dsinks;  // dsinks: only if there are sinks
};

// mask: bool (true = seen) or the dtype of the others (added), broadcast to (..., heads, lq, lk).
AttentionResult scaled_dot_product_attention(const TensorView& query, const TensorView& key,
                                             const TensorView& value, const TensorView* mask,
                                             const AttentionOptions& options);

// out and lse are the forward's results.
AttentionGradients scaled_dot_product_attention_backward(
    const TensorView& grad, const TensorView& query, const TensorView& key, const TensorView& value,
    const TensorView& out, const TensorView& lse, const TensorView* mask,
    const AttentionOptions& options);

}  // namespace vectile::ops
