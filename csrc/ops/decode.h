// decode family: attention of the newest tokens to a cache of keys and values in blocks.
//
// key_cache (blocks, kv_heads, block_size, d) and value_cache (blocks, kv_heads, block_size, dv),
// row-major, of one dtype: floating-point or int8, the latter with a float32 scale for each token
// and head, (blocks, kv_heads, block_size). Token t of sequence b lies in block
// block_tables[b, t / block_size], row t % block_size.
#pragma once

#include <optional>

#include "ops/common.h"

namespace vectile::ops {

struct BlockCache {
  TensorView key, value;
  const TensorView *key_scales = nullptr, *value_scales = nullptr;
  const TensorView *block_tables, *lengths;  // (batch, max_blocks), (batch,)
};

struct DecodeOptions {
  std::optional<double> scale;     // 1 / sqrt(d)
  std::optional<i64> left, right;  // as in AttentionSparsity
  std::optional<double> softcap;
  const TensorView* alibi_slopes = nullptr;  // (batch, heads), broadcast
  const TensorView* sinks = nullptr;         // (heads,)
  bool return_lse = false;
};

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
