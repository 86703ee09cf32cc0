// Appending to a cache of keys and values: a warp for each token of a head.
#include "decode_cache.h"

namespace vectile::cuda {
namespace {

struct Append {
  Places places;
  Reals key, value;  // (batch, kv_heads, n, width), row-major
  Integers counts;
  void *key_cache, *value_cache;
  float *key_scales, *value_scales;
  i64 batch, n;
  int d, dv;
};

// Rounded to the cache's type by the lanes of a warp.
template <class C>
__device__ void append_row(const Reals& x, i64 from, int width, C* to, float*) {
  for (int c = static_cast<int>(threadIdx.x) % kWarp; c < width; c += kWarp)
    to[c] = from_float<C>(x.at<Number<C>>(from + c));
}
// The largest magnitude becomes 127; see append_to_cache of vectile.ops.
__device__ void append_row(const Reals& x, i64 from, int width, std::int8_t* to, float* scale) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  float top = 0, bad = 0;
  for (int c = lane; c < width; c += kWarp) {
    const float v = x.at<float>(from + c);
    top = abs(v) > top ? abs(v) : top;
    bad = fma(v, 0.f, bad);
  }
  top = warp_reduce(top, Max{});
  bad = warp_reduce(bad, Sum{});
  const float step = bad == 0 ? top / 127 : 0;
  if (lane == 0) *scale = bad == 0 ? step : NAN;
  for (int c = lane; c < width; c += kWarp) {
    const float v = step == 0 ? 0 : rint(x.at<float>(from + c) / step);
    to[c] = static_cast<std::int8_t>(v > 127 ? 127 : v < -127 ? -127 : v);
  }
}

// A warp a token of a head.
template <class C>
__global__ void __launch_bounds__(kThreads) append_kernel(Append p) {
  for (i64 x = i64{blockIdx.x} * kWarps + static_cast<int>(threadIdx.x) / kWarp;
       x < p.batch * p.places.kv_heads * p.n; x += i64{gridDim.x} * kWarps) {
    const i64 i = x % p.n, kv = x / p.n % p.places.kv_heads, b = x / p.n / p.places.kv_heads;
    const i64 at = p.places.length(b) + i;
    if ((p.counts.data && i >= p.counts.at(b)) || at >= p.places.most * p.places.block_size)
      continue;
    const i64 row = p.places.row(b, kv, static_cast<int>(at));
    if (row < 0) continue;
    const auto scale = [&](float* scales) { return scales ? scales + row : nullptr; };
    append_row(p.key, x * p.d, p.d, static_cast<C*>(p.key_cache) + row * p.d, scale(p.key_scales));
    append_row(p.value, x * p.dv, p.dv, static_cast<C*>(p.value_cache) + row * p.dv,
               scale(p.value_scales));
  }
}

}  // namespace

void append_to_cache(const TensorView& key, const TensorView& value, const ops::BlockCache& cache,
                     const TensorView* counts) {
  constexpr auto op = "append_to_cache";
  const Cache c(op, cache);
  const ops::CacheSizes& s = c.sizes;
  ops::append_args(op, key, value, cache, s, counts);
  // Packed where the cache itself is what is appended.
  const auto packed = [](const TensorView& x, const TensorView& into) {
    if (!overlaps(x, into)) return contiguous(x);
    Array copy = Array::empty(x.dtype, x.shape);
    copy_strided(x, copy);
    return copy;
  };
  const Array keys = packed(key, cache.key), values = packed(value, cache.value);
  const Array count = given(counts);
  const Append p{c.places,
                 {keys.data, keys.dtype},
                 {values.data, values.dtype},
                 {count.data, count.dtype},
                 cache.key.data,
                 cache.value.data,
                 scales_of(cache.key_scales),
                 scales_of(cache.value_scales),
                 s.batch,
                 key.shape[2],
                 static_cast<int>(s.d),
                 static_cast<int>(s.dv)};
  const i64 rows = s.batch * s.kv_heads * key.shape[2];
  if (rows == 0) return;
  dispatch_cache(s.dtype, [&](auto type) {
    launch(append_kernel<decltype(type)>, {blocks_for(rows, kWarps), kThreads}, p);
  });
}

}  // namespace vectile::cuda
