// Vectors from and to memory that holds their own type or one that is widened to it.
#pragma once

#include <type_traits>

#include "simd/storage.h"

namespace vectile::VECTILE_TIER {

// load_float(p, n) by pieces of four lanes instead of one by one, where there are as many.
template <class S>
VECTILE_INLINE Vec<float> load_tail(const S* p, int n) {
  constexpr int w = Vec<float>::lanes;
  if constexpr (sizeof(S) == 2 && w >= 4) {
    uint64_t piece[w / 4] = {};
    int i = 0;
    for (; i + 4 <= n; i += 4) std::memcpy(&piece[i / 4], p + i, 8);
    if (n >= 4 && i < n) {
      std::memcpy(&piece[i / 4], p + n - 4, 8);
      piece[i / 4] >>= 16 * (i + 4 - n);
    } else {
      for (int l = 0; i + l < n; ++l)
        piece[i / 4] |= static_cast<uint64_t>(bit_cast<uint16_t>(p[i + l])) << (16 * l);
    }
    typename Storage<S>::Bits bits;
    std::memcpy(&bits, piece, sizeof bits);
    return Storage<S>::unpack(bits);
  } else {
    return load_float(p, n);
  }
}

// All lanes of V, or the first `count`, as V::load.
template <class V, class S, class... N>
VECTILE_INLINE V load_as(const S* p, N... count) {
  if constexpr (std::is_same_v<S, typename V::value_type>)
    return V::load(p, count...);
  else if constexpr (sizeof...(N) == 0)
    return load_float(p);
  else
    return load_tail(p, count...);
}
template <class V, class S, class... N>
VECTILE_INLINE void store_as(V v, S* p, N... count) {
  if constexpr (std::is_same_v<S, typename V::value_type>)
    v.store(p, count...);
  else
    store_float(v, p, count...);
}

}  // namespace vectile::VECTILE_TIER
