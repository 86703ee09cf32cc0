// attention family: query (..., heads, lq, d), key (..., kv_heads, lk, d), value (..., kv_heads,
// lk, dv) of one floating-point type; kv_heads divides heads. Two-dimensional arrays are one head.
#pragma once

#include "ops/attention_args.h"
#include "ops/common.h"

namespace vectile::ops {

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
