// The arguments of decoding, checked the same way for every device.
//
// key_cache (blocks, kv_heads, block_size, d) and value_cache (blocks, kv_heads, block_size, dv),
// row-major, of one dtype: floating-point or int8, the latter with a float32 scale for each token
// and head, (blocks, kv_heads, block_size). Token t of sequence b lies in block
// block_tables[b, t / block_size], row t % block_size.
#pragma once

#include <optional>

#include "ops/attention_args.h"

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

// Sizes that the arrays of a cache agree on; kernels compute in `compute`.
struct CacheSizes {
  DType dtype, compute;
  i64 blocks, kv_heads, block_size, d, dv, batch, most;  // most: entries of a table
};
CacheSizes cache_args(const char* op, const BlockCache& cache);

void decode_args(const char* op, const TensorView& query, const CacheSizes& sizes,
                 const DecodeOptions& options);

void append_args(const char* op, const TensorView& key, const TensorView& value,
                 const BlockCache& cache, const CacheSizes& sizes, const TensorView* counts);

}  // namespace vectile::ops
