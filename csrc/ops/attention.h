// attention family: query (..., heads, lq, d), key (..., kv_heads, lk, d), value (..., kv_heads,
// lk, dv) of float32 or float64; kv_heads divides heads. Two-dimensional arrays are one head.
#pragma once

#include <optional>
#include <tuple>

#include "ops/common.h"

namespace vectile::ops {

struct AttentionOptions {
  bool is_causal = false;       // query i sees keys j <= i + lk - lq
  std::optional<double> scale;  // 1 / sqrt(d)
  bool return_lse = false, return_weights = false;
};

struct AttentionResult {
  Array out, lse, weights;  // (..., heads, lq, dv), (..., heads, lq), (..., heads, lq, lk)
  auto results() { return std::tie(out, weights); }  // lse: float32 beside a half type
};

struct AttentionGradients {
  Array dq, dk, dv;
  auto results() { return std::tie(dq, dk, dv); }
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
