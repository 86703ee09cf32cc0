// AMX tiles: eight registers of 16 rows x 64 bytes, and c += a b for a of 16 x 64 bytes and b of 16
// x 16 groups of four: unsigned bytes times signed ones, four neighbours along k together, or pairs
// of bfloat16. Where the build has no AMX (VECTILE_AMX_MODEL, for tests) the same operations are
// plain code on arrays.
#pragma once

#include <cstdint>

#include "base/types.h"
#include "simd/vec.h"

namespace vectile::VECTILE_TIER {

constexpr int kTileRows = 16, kTileBytes = 64;

// How tiles multiply: into int32; and into float32, where what is subnormal counts as zero.
enum class TileProduct { bytes, bf16 };

#if defined(VECTILE_AMX_MODEL)

// Of one thread, from tiles_begin to tiles_end.
struct TileModel {
  uint8_t bytes[kTileRows][kTileBytes];
};
static thread_local TileModel tile_model[8];

static void tiles_begin() {}
static void tiles_end() {}
template <int kTile>
static void tile_zero() {
  for (auto& row : tile_model[kTile].bytes)
    for (auto& byte : row) byte = 0;
}
template <int kTile>
static void tile_load(const void* p, i64 stride) {
  for (int r = 0; r < kTileRows; ++r)
    for (int b = 0; b < kTileBytes; ++b)
      tile_model[kTile].bytes[r][b] = static_cast<const uint8_t*>(p)[r * stride + b];
}
template <int kTile>
static void tile_store(void* p, i64 stride) {
  for (int r = 0; r < kTileRows; ++r)
    for (int b = 0; b < kTileBytes; ++b)
      static_cast<uint8_t*>(p)[r * stride + b] = tile_model[kTile].bytes[r][b];
}
// A number of bfloat16, and one of float32 as the unit leaves it.
static float tile_number(const uint8_t* p) {
  uint32_t bits = uint32_t(p[0]) << 16 | uint32_t(p[1]) << 24;
  if ((bits & 0x7f800000) == 0) bits &= 0x80000000;
  return __builtin_bit_cast(float, bits);
}
static float flushed(float x) { return __builtin_fabsf(x) < 0x1p-126f ? x * 0.f : x; }
template <TileProduct product, int kSum, int kA, int kB>
static void tile_multiply() {
  const auto &a = tile_model[kA].bytes, &b = tile_model[kB].bytes;
  if constexpr (product == TileProduct::bytes) {
    auto* sums = reinterpret_cast<uint32_t (*)[16]>(tile_model[kSum].bytes);
    for (int m = 0; m < 16; ++m)
      for (int k = 0; k < 16; ++k)
        for (int n = 0; n < 16; ++n)
          for (int t = 0; t < 4; ++t)
            sums[m][n] += static_cast<uint32_t>(
                a[m][4 * k + t] * static_cast<int>(static_cast<int8_t>(b[k][4 * n + t])));
  } else {  // the even places of the pairs, and the odd ones, are summed apart
    auto* sums = reinterpret_cast<float (*)[16]>(tile_model[kSum].bytes);
    for (int m = 0; m < 16; ++m)
      for (int n = 0; n < 16; ++n) {
        float parts[2] = {};
        for (int k = 0; k < 16; ++k)
          for (int t = 0; t < 2; ++t)
            parts[t] = flushed(__builtin_fmaf(tile_number(&a[m][4 * k + 2 * t]),
                                              tile_number(&b[k][4 * n + 2 * t]), parts[t]));
        sums[m][n] = flushed(flushed(sums[m][n]) + flushed(parts[0] + parts[1]));
      }
  }
}

#else

// GCC 12's intrinsics name too little of the memory they read.
static VECTILE_INLINE void memory_is_read() { asm volatile("" ::: "memory"); }

// Every tile whole; the rest of the 64 bytes is reserved.
static void tiles_begin() {
  struct alignas(64) {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  } config;
  static_assert(sizeof config == 64);
  asm volatile("" : : "r"(&config) : "memory");
  _tile_loadconfig(&config);
}
static void tiles_end() { _tile_release(); }
// The intrinsics want literals: GCC 12's are macros that paste the number into the instruction.
template <int kTile>
VECTILE_INLINE void tile_zero() {
  if constexpr (kTile == 0) _tile_zero(0);
  if constexpr (kTile == 1) _tile_zero(1);
  if constexpr (kTile == 2) _tile_zero(2);
  if constexpr (kTile == 3) _tile_zero(3);
}
template <int kTile>
VECTILE_INLINE void tile_load(const void* p, i64 stride) {
  memory_is_read();
  if constexpr (kTile == 0) _tile_loadd(0, p, stride);
  if constexpr (kTile == 1) _tile_loadd(1, p, stride);
  if constexpr (kTile == 2) _tile_loadd(2, p, stride);
  if constexpr (kTile == 3) _tile_loadd(3, p, stride);
  if constexpr (kTile == 4) _tile_loadd(4, p, stride);
  if constexpr (kTile == 5) _tile_loadd(5, p, stride);
  if constexpr (kTile == 6) _tile_loadd(6, p, stride);
  if constexpr (kTile == 7) _tile_loadd(7, p, stride);
}
template <int kTile>
VECTILE_INLINE void tile_store(void* p, i64 stride) {
  if constexpr (kTile == 0) _tile_stored(0, p, stride);
  if constexpr (kTile == 1) _tile_stored(1, p, stride);
  if constexpr (kTile == 2) _tile_stored(2, p, stride);
  if constexpr (kTile == 3) _tile_stored(3, p, stride);
}
template <TileProduct product, int kSum, int kA, int kB>
VECTILE_INLINE void tile_multiply() {
  if constexpr (product == TileProduct::bytes) {
    if constexpr (kSum == 0) _tile_dpbusd(0, 4, 6);
    if constexpr (kSum == 1) _tile_dpbusd(1, 4, 7);
    if constexpr (kSum == 2) _tile_dpbusd(2, 5, 6);
    if constexpr (kSum == 3) _tile_dpbusd(3, 5, 7);
  } else {
    if constexpr (kSum == 0) _tile_dpbf16ps(0, 4, 6);
    if constexpr (kSum == 1) _tile_dpbf16ps(1, 4, 7);
    if constexpr (kSum == 2) _tile_dpbf16ps(2, 5, 6);
    if constexpr (kSum == 3) _tile_dpbf16ps(3, 5, 7);
  }
  static_assert(kSum < 4 && kA == 4 + kSum / 2 && kB == 6 + kSum % 2);
}

#endif

}  // namespace vectile::VECTILE_TIER
