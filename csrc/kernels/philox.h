// Random numbers by counter, for dropout.
#pragma once

#include "simd/u64.h"

namespace vectile::VECTILE_TIER {

// Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3, SC'11).
// Block k holds the numbers of elements 64 k .. 64 k + 63: word w of counter 16 k + l goes to
// element 64 k + 16 w + l. The key is the seed. Every 32-bit word sits in the low half of a 64-bit
// lane, where products need it; what the high halves hold is never read.
constexpr int kCounters = 16;
constexpr i64 kPhiloxBlock = 4 * kCounters;
static void philox_block(uint64_t block, uint64_t seed, uint32_t (&words)[4][kCounters]) {
  using U = VecU64;
  for (int l = 0; l < kCounters; l += U::lanes) {
    const U counter = U(block * kCounters + static_cast<uint64_t>(l)) + U::iota();
    U c0 = counter, c1 = counter.high(), c2(uint64_t{0}), c3(uint64_t{0});
    uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
    for (int round = 0; round < 10; ++round, key0 += 0x9E3779B9u, key1 += 0xBB67AE85u) {
      const U p0 = multiply_low(c0, U(uint64_t{0xD2511F53}));
      const U p1 = multiply_low(c2, U(uint64_t{0xCD9E8D57}));
      c0 = p1.high() ^ c1 ^ U(uint64_t{key0});
      c1 = p1;
      c2 = p0.high() ^ c3 ^ U(uint64_t{key1});
      c3 = p0;
    }
    c0.store_low(words[0] + l);
    c1.store_low(words[1] + l);
    c2.store_low(words[2] + l);
    c3.store_low(words[3] + l);
  }
}

}  // namespace vectile::VECTILE_TIER
