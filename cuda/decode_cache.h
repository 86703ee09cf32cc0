// A cache of keys and values in blocks, as the kernels of the decode family see it.
#pragma once

#include <climits>

#include "decode.h"
#include "device.h"
#include "numbers.h"

namespace vectile::cuda {

constexpr int kThreads = 128, kWarps = kThreads / kWarp;

__device__ __forceinline__ float number(std::int8_t x) { return x; }
template <class C>
__device__ __forceinline__ Computed<C> number(C x) {
  return to_float(x);
}
template <class C>
using Number = decltype(number(C{}));

// Where the tokens of a cache lie.
struct Places {
  Integers table, lengths;
  i64 blocks, most;
  int kv_heads, block_size;

  // One past the table's last token if the length is more than that, so that the token is missed.
  __device__ int length(i64 b) const {
    const i64 n = lengths.at(b), capacity = most * block_size;
    return static_cast<int>(n < 0 ? 0 : n > capacity ? capacity + 1 : n);
  }
  // The row of token t among all blocks', or -1.
  __device__ i64 row(i64 b, i64 kv, int t) const {
    const int x = block_size ? t / block_size : 0;
    if (block_size == 0 || x >= most) return -1;
    const i64 block = table.at(b * most + x);
    return block < 0 || block >= blocks ? -1
                                        : (block * kv_heads + kv) * block_size + t % block_size;
  }
};

// f(C{}) for the type of a cache.
template <class F>
void dispatch_cache(DType dtype, F&& f) {
  dtype == DType::i8 ? f(std::int8_t{}) : dispatch_floating(dtype, f);
}

// A checked cache; keeps what it had to pack.
struct Cache {
  ops::CacheSizes sizes;
  Array table, lengths;
  Places places;

  Cache(const char* op, const ops::BlockCache& c)
      : sizes(ops::cache_args(op, c)),
        table(contiguous(*c.block_tables)),
        lengths(contiguous(*c.lengths)) {
    check(sizes.d <= 256, op, "key_cache", "dim", "at most 256 on a device", sizes.d);
    check(sizes.dv <= 256, op, "value_cache", "dim", "at most 256 on a device", sizes.dv);
    constexpr i64 most = INT_MAX / 2;
    check(sizes.block_size == 0 || sizes.most <= most / sizes.block_size, op, "block_tables",
          "tokens", text("at most ", most), text(sizes.most, " blocks of ", sizes.block_size));
    places = {{table.data, table.dtype},
              {lengths.data, lengths.dtype},
              sizes.blocks,
              sizes.most,
              static_cast<int>(sizes.kv_heads),
              static_cast<int>(sizes.block_size)};
  }
};

inline float* scales_of(const TensorView* x) { return x ? x->as<float>() : nullptr; }

}  // namespace vectile::cuda
