// Attention on a device: the CPU's arguments; d and dv at most 256.
//
// Integers on the device are not checked, as that would wait for it: cu_seqlens and key_lengths out
// of their ranges read nothing out of bounds and leave the result unspecified; where a packed query
// has no place among the keys, rotary makes NaNs of it. Rotary rounds turned queries and keys to
// their type, for they are in memory; and so the gradients before they turn back.
//
// A hidden pair never leaks where some option of attention_extras.h is given. Else a NaN in a value
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
