// Dropout of the weights of attention, drawn again by the backward pass.
#pragma once

#include "kernels/attention_scores.h"
#include "kernels/philox.h"

namespace vectile::VECTILE_TIER {

// What dropout multiplies the weights of query i by, from key `first` on.
template <class T>
static void dropout_factors(const AttentionHead<T>& h, i64 head, i64 i, i64 first, i64 n,
                            T* factor) {
  uint32_t words[4][kCounters];
  const uint32_t* random = &words[0][0];
  std::uint64_t at = h.first_weight + static_cast<std::uint64_t>((head * h.lq + i) * h.lk + first);
  for (i64 m; n > 0; n -= m, at += static_cast<std::uint64_t>(m), factor += m) {
    const i64 offset = static_cast<i64>(at % kPhiloxBlock);
    m = smaller(kPhiloxBlock - offset, n);
    philox_block(at / kPhiloxBlock, h.seed, words);
    for (i64 j = 0; j < m; ++j) factor[j] = random[offset + j] >= h.threshold ? h.keep_scale : T(0);
  }
}

}  // namespace vectile::VECTILE_TIER
