// machine: independent chains of this tier's multiply-add, enough to hide its latency (4 or 5
// cycles on 2 ports) and few enough for 16 registers; and a read of memory at full width.
#include "base/types.h"
#include "simd/dot.h"
#include "simd/stream.h"
#if defined(VECTILE_TIER_amx)
#include "simd/amx.h"
#endif

namespace vectile::VECTILE_TIER {

static constexpr int kChains = 12;

static void fma_chains(i64 steps, float* result, double* operations) {
  using V = Vec<float>;
  V acc[kChains];
  for (int c = 0; c < kChains; ++c) acc[c] = V(float(c));
  const V x(0.999f), y(0.5f);  // converges to 500: no subnormals, no infinity
  for (i64 i = 0; i < steps; ++i)
    for (int c = 0; c < kChains; ++c) acc[c] = fma(acc[c], x, y);
  V sum(0.f);
  for (int c = 0; c < kChains; ++c) sum += acc[c];
  *result = reduce_add(sum);
  *operations = 2. * kChains * V::lanes * double(steps);
}

// The compiler may not see through the operands, or it would multiply once and add.
static VECTILE_INLINE void opaque(VecDot& r) {
#if defined(VECTILE_EMULATED)
  asm volatile("" : "+m"(r));
  return;
#elif defined(__x86_64__)
  if constexpr (VecDot::lanes > 1) {
    asm volatile("" : "+v"(r.v));
    return;
  }
#elif defined(__aarch64__)
  if constexpr (VecDot::lanes > 1) {
    asm volatile("" : "+w"(r.v));
    return;
  }
#endif
  asm volatile("" : "+r"(r.v));
}

// The step of this tier's int8 products, with operands in registers; AMX's on its own tiles.
template <class V>
static void run_dot_chains(i64 steps, std::int32_t* result, double* operations) {
#if defined(VECTILE_TIER_amx)
  tiles_begin();
  tile_zero<0>(), tile_zero<1>(), tile_zero<2>(), tile_zero<3>();
  alignas(64) static constexpr std::uint8_t ones[kTileRows * kTileBytes] = {1};
  tile_load<4>(ones, kTileBytes), tile_load<5>(ones, kTileBytes);
  tile_load<6>(ones, kTileBytes), tile_load<7>(ones, kTileBytes);
  for (i64 i = 0; i < steps; ++i) {
    tile_multiply<TileProduct::bytes, 0, 4, 6>(), tile_multiply<TileProduct::bytes, 1, 4, 7>();
    tile_multiply<TileProduct::bytes, 2, 5, 6>(), tile_multiply<TileProduct::bytes, 3, 5, 7>();
  }
  alignas(64) std::int32_t sums[kTileRows * 16];
  tile_store<0>(sums, kTileBytes);
  tiles_end();
  *result = sums[0];
  *operations = 2. * 4 * 16 * 16 * 64 * double(steps);
#else
  constexpr int chains = V::pairs ? 8 : kChains;  // pairs hide VPADDD's single cycle
  V acc[chains], a(0x01010101), b(0x01010101);
  [[maybe_unused]] V a2 = a;
  for (i64 i = 0; i < steps; ++i) {
    opaque(a);
#pragma GCC unroll 16
    for (int c = 0; c < chains; ++c) {
      opaque(b);
      if constexpr (V::pairs)
        acc[c] = multiply_add(a, a2, b, b, acc[c]);
      else
        acc[c] = multiply_add(a, b, acc[c]);
    }
  }
  V sum;
  for (int c = 0; c < chains; ++c) sum = sum + acc[c];
  std::int32_t lanes[V::lanes];
  sum.store(lanes);
  *result = lanes[0];
  *operations = 2. * 4 * chains * V::lanes * double(steps);
#endif
}

static void dot_s8_chains(i64 steps, std::int32_t* result, double* operations) {
  run_dot_chains<VecDot>(steps, result, operations);
}

static void read_all(const float* x, i64 n, float* result) {
  using V = Vec<float>;
  constexpr i64 w = V::lanes;
  V a(0.f), b = a, c = a, d = a, e = a, f = a, g = a, h = a;
  i64 j = 0;
  for (; j + 8 * w <= n; j += 8 * w) {
    a += V::load(x + j);
    b += V::load(x + j + w);
    c += V::load(x + j + 2 * w);
    d += V::load(x + j + 3 * w);
    e += V::load(x + j + 4 * w);
    f += V::load(x + j + 5 * w);
    g += V::load(x + j + 6 * w);
    h += V::load(x + j + 7 * w);
  }
  for (; j < n; j += w) a += V::load(x + j, int(n - j < w ? n - j : w));
  *result = reduce_add(((a + b) + (c + d)) + ((e + f) + (g + h)));
}

static void copy_all(const float* x, float* y, i64 n, bool around_caches) {
  using V = Vec<float>;
  if (around_caches) {
    for (i64 j = 0; j < n; j += V::lanes) stream(V::load(x + j), y + j);
    stream_fence();
  } else {
    for (i64 j = 0; j < n; j += V::lanes) V::load(x + j).store(y + j);
  }
}

}  // namespace vectile::VECTILE_TIER

#include "kernels/register.h"
