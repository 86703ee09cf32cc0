// Products in AMX tiles: 32 x 32 sums in four of them, two of A, two of B. A group is four bytes
// along k: four integers, or two of bfloat16.
#pragma once

#include "simd/amx.h"

namespace vectile::VECTILE_TIER {

constexpr int kAmxBlock = 2 * kTileRows;  // rows and columns
constexpr int kAmxDepth = 16;             // groups that tiles multiply at a time

// c (`rows` rounded up to whole blocks, a block's columns apart) = or += A B over `depth` groups, a
// multiple of kAmxDepth. As many rows of A are read, and those after them asked for: each is met
// once and its cache lines lie a row apart; so is `next`, unless null, as much as this B, in equal
// shares: more at once than the CPU has line buffers would make the tiles wait. `product` names the
// instruction.
template <TileProduct product, class Sum, class Group>
static void multiply_blocks_amx(i64 depth, const Group* a, i64 a_row, const Group* b, Sum* c,
                                i64 rows, bool add, const Group* next) {
  constexpr i64 unit = 4 / sizeof(Group), b_bytes = kAmxBlock * 4, c_bytes = kAmxBlock * 4;
  const i64 blocks = (rows + kAmxBlock - 1) / kAmxBlock, line = 16 * unit;
  const i64 share = next ? (kAmxBlock + blocks - 1) / blocks * line : 0;
  const i64 a_bytes = a_row * i64(sizeof(Group)), half = kTileRows * kAmxBlock;
  for (i64 i = 0; i < rows; i += kAmxBlock, a += kAmxBlock * a_row, c += kAmxBlock * kAmxBlock) {
    if (add) {
      tile_load<0>(c, c_bytes), tile_load<1>(c + 16, c_bytes);
      tile_load<2>(c + half, c_bytes), tile_load<3>(c + half + 16, c_bytes);
    } else {
      tile_zero<0>(), tile_zero<1>(), tile_zero<2>(), tile_zero<3>();
    }
#pragma GCC unroll 1
    for (i64 s = 0; s < depth * unit; s += kAmxDepth * unit) {
      const Group* right = b + s * kAmxBlock;
      for (const Group* end = next + share; next < end; next += line)
        __builtin_prefetch(next, 0, 2);
      tile_load<6>(right, b_bytes), tile_load<7>(right + 16 * unit, b_bytes);
      tile_load<4>(a + s, a_bytes);
      tile_multiply<product, 0, 4, 6>(), tile_multiply<product, 1, 4, 7>();
      tile_load<5>(a + kTileRows * a_row + s, a_bytes);
      const Group* const coming = a + kAmxBlock * a_row + s;
#pragma GCC unroll 32
      for (int r = 0; r < kAmxBlock; ++r) __builtin_prefetch(coming + r * a_row);
      tile_multiply<product, 2, 5, 6>(), tile_multiply<product, 3, 5, 7>();
    }
    tile_store<0>(c, c_bytes), tile_store<1>(c + 16, c_bytes);
    tile_store<2>(c + half, c_bytes), tile_store<3>(c + half + 16, c_bytes);
  }
}

}  // namespace vectile::VECTILE_TIER
