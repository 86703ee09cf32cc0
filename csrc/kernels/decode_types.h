// What the decode kernels and the ops above them agree on.
#pragma once

#include "kernels/attention_types.h"

namespace vectile {

// The blocks of one sequence for one key head: token t is row t % block_size of block
// table[t / block_size]. Memory holds `dtype`: T, or float16, bfloat16 or int8 if T is float.
struct DecodeCache {
  DType dtype;
  const void *key, *value;                  // of block 0: (block_size, d), (block_size, dv)
  const float *key_scales, *value_scales;   // (block_size): a token is scale times its bytes
  i64 key_block, value_block, scale_block;  // elements from one block to the next
  const i64* table;
  i64 block_size;
};

constexpr i64 kDecodeRows = 16;   // rows of a head that meet a key at once, at most
constexpr i64 kDecodeKeys = 256;  // keys whose scores are taken together

// What a piece of the keys gives to `rows` rows: the maximum and the sum of exponentials of each,
// then sums of values (rows, dv), each padded to whole vectors.
constexpr i64 decode_padded(i64 n) { return (n + 31) / 32 * 32; }
constexpr i64 decode_partial(i64 rows, i64 dv) {
  return 2 * kDecodeRows + rows * decode_padded(dv);
}

}  // namespace vectile
