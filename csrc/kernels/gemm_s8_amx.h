// 8-bit products of many rows in AMX tiles: 32 x 32 sums in four of them, two of A, two of B.
#pragma once

#include "kernels/gemm_s8_tile.h"
#include "simd/amx.h"

namespace vectile::VECTILE_TIER {

constexpr int kBlock = 2 * kTileRows;  // rows and columns
static_assert(kNr == kBlock);

// c (`rows` rounded up to whole blocks, kNr apart) = or += A B over `depth` groups, a multiple
// of 16. As many rows of A are read. `next`, as much as this B, is asked for on the way.
static void multiply_blocks_amx(i64 depth, const int32_t* a, i64 a_row, const int32_t* b,
                                int32_t* c, i64 rows, bool add, const int32_t* next) {
  const i64 blocks = (rows + kBlock - 1) / kBlock, share = (kNr + blocks - 1) / blocks * 16;
  constexpr i64 b_bytes = kNr * 4, c_bytes = kNr * 4;
  const i64 a_bytes = a_row * 4, half = kTileRows * kNr;
  for (i64 i = 0; i < rows; i += kBlock, a += kBlock * a_row, c += kBlock * kNr) {
    if (add) {
      tile_load<0>(c, c_bytes), tile_load<1>(c + 16, c_bytes);
      tile_load<2>(c + half, c_bytes), tile_load<3>(c + half + 16, c_bytes);
    } else {
      tile_zero<0>(), tile_zero<1>(), tile_zero<2>(), tile_zero<3>();
    }
    for (i64 s = 0; s < depth; s += 16) {
      for (const int32_t* end = next + share; next < end; next += 16)
        __builtin_prefetch(next, 0, 2);
      tile_load<6>(b + s * kNr, b_bytes), tile_load<7>(b + s * kNr + 16, b_bytes);
      tile_load<4>(a + s, a_bytes);
      tile_multiply<0, 4, 6>(), tile_multiply<1, 4, 7>();
      tile_load<5>(a + kTileRows * a_row + s, a_bytes);
      tile_multiply<2, 5, 6>(), tile_multiply<3, 5, 7>();
    }
    tile_store<0>(c, c_bytes), tile_store<1>(c + 16, c_bytes);
    tile_store<2>(c + half, c_bytes), tile_store<3>(c + half + 16, c_bytes);
  }
}

}  // namespace vectile::VECTILE_TIER
