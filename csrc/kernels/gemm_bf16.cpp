// gemm_bf16: products of bfloat16, summed in float32.
#include "kernels/gemm_16.h"
#include "kernels/gemm_bf16_tile.h"

namespace vectile::VECTILE_TIER {

static void gemm_bf16_format(Gemm16Format* format) {
  *format = {BF16::panel, BF16::nr, BF16::together, BF16::k_step};
}

static void gemm_bf16_rows(const void* a, DType dtype, i64 row, i64 col, i64 m, i64 k,
                           uint16_t* dst, i64 dst_row) {
  with_stored(a, dtype, [&](const auto* x) { rows_16<BF16>(x, row, col, m, k, dst, dst_row); });
}

static void gemm_bf16_pack(const void* b, DType dtype, i64 row, i64 col, i64 k, i64 n,
                           uint16_t* strips) {
  with_stored(b, dtype, [&](const auto* x) { pack_16<BF16>(x, row, col, k, n, strips); });
}

static void gemm_bf16_block(const Gemm16& g, const GemmBlock& block) { block_16<BF16>(g, block); }

static void gemm_bf16_chains(i64 steps, float* result, double* operations) {
#if defined(VECTILE_TIER_amx)
  tiles_begin();
  tile_zero<0>(), tile_zero<1>(), tile_zero<2>(), tile_zero<3>();
  alignas(64) static constexpr std::uint8_t zeros[kTileRows * kTileBytes] = {};
  tile_load<4>(zeros, kTileBytes), tile_load<5>(zeros, kTileBytes);
  tile_load<6>(zeros, kTileBytes), tile_load<7>(zeros, kTileBytes);
  for (i64 i = 0; i < steps; ++i) {
    tile_multiply<TileProduct::bf16, 0, 4, 6>(), tile_multiply<TileProduct::bf16, 1, 4, 7>();
    tile_multiply<TileProduct::bf16, 2, 5, 6>(), tile_multiply<TileProduct::bf16, 3, 5, 7>();
  }
  alignas(64) float sums[kTileRows * 16];
  tile_store<0>(sums, kTileBytes);
  tiles_end();
  *result = sums[0];
  *operations = 2. * 4 * 16 * 16 * 32 * double(steps);
#else
  using V = Vec<float>;
  constexpr int chains = 12;
  V acc[chains];
  const V x, y;
  for (i64 i = 0; i < steps; ++i)
#pragma GCC unroll 16
    for (int c = 0; c < chains; ++c) acc[c] = add_pairs(acc[c], x, y);
  V sum;
  for (int c = 0; c < chains; ++c) sum += acc[c];
  *result = reduce_add(sum);
  *operations = 4. * chains * V::lanes * double(steps);
#endif
}

}  // namespace vectile::VECTILE_TIER

#include "kernels/register.h"
