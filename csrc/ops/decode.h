// decode family: attention of the newest tokens to a cache of keys and values in blocks.
#pragma once

#include "ops/common.h"
#include "ops/decode_args.h"

namespace vectile::ops {

struct DecodeResult {
  Array out;  // (batch, heads, lq, dv) of the query's dtype
  Array lse;  // (batch, heads, lq), float64 beside a float64 cache, else float32
};

// query (batch, heads, lq, d) of any floating-point dtype: query i stands at key
// lengths[b] - lq + i and sees no key after it.
DecodeResult decode_attention(const TensorView& query, const BlockCache& cache,
                              const DecodeOptions& options);

// Writes token i of key (batch, kv_heads, n, d) and value (batch, kv_heads, n, dv) to place
// lengths[b] + i, for i < counts[b] (n where not given).
void append_to_cache(const TensorView& key, const TensorView& value, const BlockCache& cache,
                     const TensorView* counts);

}  // namespace vectile::ops
