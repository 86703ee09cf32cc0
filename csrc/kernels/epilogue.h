// What happens to a finished block of C while it is still in cache: bias, activation, residual.
#pragma once

#include "kernels/gemm_types.h"
#include "simd/activations.h"

namespace vectile::VECTILE_TIER {

template <class T, class F>
static void map_block(T* c, i64 c_row, i64 m, i64 n, const T* bias, const T* residual, F f) {
  using V = Vec<T>;
  constexpr i64 w = V::lanes;
  for (i64 i = 0; i < m; ++i, c += c_row) {
    const auto finish = [&](i64 j, auto... count) VECTILE_LAMBDA {
      V v = V::load(c + j, count...);
      if (bias) v = v + V::load(bias + j, count...);
      v = f(v);
      if (residual) v = v + V::load(residual + i * c_row + j, count...);
      v.store(c + j, count...);
    };
    i64 j = 0;
    for (; j + w <= n; j += w) finish(j);
    if (j < n) finish(j, static_cast<int>(n - j));
  }
}

// f(function of Vec<T>) for the named activation.
template <class T, class F>
VECTILE_INLINE void with_activation(Activation activation, F f) {
  using V = Vec<T>;
  switch (activation) {
    case Activation::none:
      return f([](V v) VECTILE_LAMBDA { return v; });
    case Activation::relu:
      return f([](V v) VECTILE_LAMBDA { return relu(v); });
    case Activation::gelu:
      return f([](V v) VECTILE_LAMBDA { return gelu(v); });
    case Activation::gelu_tanh:
      return f([](V v) VECTILE_LAMBDA { return gelu_tanh(v); });
    case Activation::silu:
      return f([](V v) VECTILE_LAMBDA { return silu(v); });
    case Activation::tanh:
      return f([](V v) VECTILE_LAMBDA { return tanh(v); });
    case Activation::sigmoid:
      return f([](V v) VECTILE_LAMBDA { return sigmoid(v); });
  }
}

// c[i, j] = activation(c[i, j] + bias[j]) + residual[i, j] on m rows of n, of both c_row apart;
// bias and residual may be null.
template <class T>
static void finish_block(T* c, i64 c_row, i64 m, i64 n, const T* bias, Activation activation,
                         const T* residual = nullptr) {
  if (activation == Activation::none && !bias && !residual) return;
  with_activation<T>(activation,
                     [&](auto f) VECTILE_LAMBDA { map_block(c, c_row, m, n, bias, residual, f); });
}

}  // namespace vectile::VECTILE_TIER
