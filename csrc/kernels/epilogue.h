// What happens to a finished block of C while it is still in cache: bias, then activation.
#pragma once

#include "kernels/gemm_types.h"
#include "simd/activations.h"

namespace vectile::VECTILE_TIER {

template <class T, class F>
static void map_block(T* c, i64 c_row, i64 m, i64 n, const T* bias, F f) {
  using V = Vec<T>;
  constexpr i64 w = V::lanes;
  for (i64 i = 0; i < m; ++i, c += c_row) {
    i64 j = 0;
    for (; j + w <= n; j += w) {
      V v = V::load(c + j);
      if (bias) v = v + V::load(bias + j);
      f(v).store(c + j);
    }
    if (j < n) {
      const int tail = static_cast<int>(n - j);
      V v = V::load(c + j, tail);
      if (bias) v = v + V::load(bias + j, tail);
      f(v).store(c + j, tail);
    }
  }
}

// c[i, j] = activation(c[i, j] + bias[j]) on m rows of n, c_row apart; bias may be null.
template <class T>
static void finish_block(T* c, i64 c_row, i64 m, i64 n, const T* bias, Activation activation) {
  using V = Vec<T>;
  const auto apply = [&](auto f) VECTILE_LAMBDA { map_block(c, c_row, m, n, bias, f); };
  switch (activation) {
    case Activation::none:
      if (bias) apply([](V v) VECTILE_LAMBDA { return v; });
      return;
    case Activation::relu:
      return apply([](V v) VECTILE_LAMBDA { return relu(v); });
    case Activation::gelu:
      return apply([](V v) VECTILE_LAMBDA { return gelu(v); });
    case Activation::gelu_tanh:
      return apply([](V v) VECTILE_LAMBDA { return gelu_tanh(v); });
    case Activation::silu:
      return apply([](V v) VECTILE_LAMBDA { return silu(v); });
    case Activation::tanh:
      return apply([](V v) VECTILE_LAMBDA { return tanh(v); });
    case Activation::sigmoid:
      return apply([](V v) VECTILE_LAMBDA { return sigmoid(v); });
  }
}

}  // namespace vectile::VECTILE_TIER
