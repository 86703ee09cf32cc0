// Depth and rows of a GEMM block for each tier, a row as build/bench/cpp/tune_gemm prints it. It
// measures products alone; convolutions and packed weights are cut by kc as well.
#pragma once

#include "kernels/gemm_types.h"

#define VECTILE_TEXT_(x) #x
#define VECTILE_TEXT(x) VECTILE_TEXT_(x)

namespace vectile {

struct TunedTier {
  const char* tier;
  GemmTuning sizes;
};

// A tier has the last row that its name begins with.
constexpr TunedTier kTunedTiers[] = {
    {"", {256, 448, 448, 256, 6, 5, 1}},          // where nothing was measured
    {"avx2", {384, 360, 360, 384, 6, 5, 1}},      // AMD EPYC (Zen 3)
    {"avx512", {512, 224, 448, 48, 64, 64, 64}},  // Intel Xeon (Emerald Rapids)
};

consteval GemmTuning tuned(const char* tier) {
  TunedTier found = kTunedTiers[0];
  for (const TunedTier& row : kTunedTiers) {
    int i = 0;
    while (row.tier[i] != 0 && row.tier[i] == tier[i]) ++i;
    if (row.tier[i] == 0) found = row;
  }
  return found.sizes;
}

}  // namespace vectile
