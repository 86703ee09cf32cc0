// Attention on a device: the CPU's arguments but for those that the ops reject by name (attn_mask,
// block_mask, document_ids, alibi_slopes, sinks, rotary, dropout_p, and returned weights and sums);
// d and dv at most 256.
//
// Integers on the device are not checked, as that would wait for it: cu_seqlens and key_lengths out
// of their ranges read nothing out of bounds and leave the result unspecified. A NaN in a value
// that some row of a block sees and another does not may reach both.
#pragma once

#include "ops/attention_args.h"
#include "runtime.h"

namespace vectile::cuda {

struct AttentionResult {
  Array out, lse, weights, column_sums, top_weights, top_keys;
};
AttentionResult scaled_dot_product_attention(const TensorView& query, const TensorView& key,
                                             const TensorView& value, const TensorView* mask,
                                             const ops::AttentionOptions& options);

struct AttentionGradients {
  Array dq, dk, dv, dsinks;  // dsinks: only if there are sinks
};
AttentionGradients scaled_dot_product_attention_backward(
    const TensorView& grad, const TensorView& query, const TensorView& key, const TensorView& value,
    const TensorView& out, const TensorView& lse, const TensorView* mask,
    const ops::AttentionOptions& options);

}  // namespace vectile::cuda
