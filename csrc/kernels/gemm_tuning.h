// Depth and rows of a GEMM block for each tier, a row as build/bench/cpp/tune_gemm prints it. It
// measures products alone; convolutions and packed weights are cut by kc as well.
#pragma once

#include "base/types.h"

#define VECTILE_TEXT_(x) #x
#define VECTILE_TEXT(x) VECTILE_TEXT_(x)

namespace vectile {

struct GemmBlocks {
  const char* tier;
  i64 kc, mc;  // of GemmTiles
};

// A tier has the last row that its name begins with.
constexpr GemmBlocks kGemmBlocks[] = {
    {"", 256, 448},      // where nothing was measured
    {"avx2", 384, 360},  // AMD EPYC (Zen 3)
};

consteval GemmBlocks gemm_blocks(const char* tier) {
  GemmBlocks found = kGemmBlocks[0];
  for (const GemmBlocks& row : kGemmBlocks) {
    int i = 0;
    while (row.tier[i] != 0 && row.tier[i] == tier[i]) ++i;
    if (row.tier[i] == 0) found = row;
  }
  return found;
}

}  // namespace vectile
