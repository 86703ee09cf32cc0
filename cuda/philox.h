// Random numbers by counter, for dropout: the words of csrc/kernels/philox.h.
#pragma once

#include "device.h"

namespace vectile::cuda {

constexpr int kCounters = 16;
constexpr int kPhiloxBlock = 4 * kCounters;

// Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3, SC'11).
// Element 64 k + 16 w + l takes word w of counter 16 k + l; the key is the seed.
__device__ __forceinline__ uint4 philox(std::uint64_t counter, std::uint64_t seed) {
  auto c0 = static_cast<unsigned>(counter), c1 = static_cast<unsigned>(counter >> 32);
  unsigned c2 = 0, c3 = 0;
  auto key0 = static_cast<unsigned>(seed), key1 = static_cast<unsigned>(seed >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round, key0 += 0x9E3779B9u, key1 += 0xBB67AE85u) {
    const unsigned high0 = __umulhi(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
    const unsigned high1 = __umulhi(0xCD9E8D57u, c2), low1 = 0xCD9E8D57u * c2;
    c0 = high1 ^ c1 ^ key0;
    c1 = low1;
    c2 = high0 ^ c3 ^ key1;
    c3 = low0;
  }
  return make_uint4(c0, c1, c2, c3);
}

}  // namespace vectile::cuda
