// What happens to a finished block of C while it is still in cache: bias, activation, residual.
#pragma once

#include "kernels/gemm_types.h"
#include "simd/activations.h"
#include "simd/stored.h"

namespace vectile::VECTILE_TIER {

template <class T, class S, class F>
static void map_block(const T* from, i64 from_row, S* to, i64 to_row, i64 m, i64 n, const T* bias,
                      const S* residual, F f) {
  using V = Vec<T>;
  constexpr i64 w = V::lanes;
  for (i64 i = 0; i < m; ++i, from += from_row, to += to_row) {
    const auto finish = [&](i64 j, auto... count) VECTILE_LAMBDA {
      V v = V::load(from + j, count...);
      if (bias) v = v + V::load(bias + j, count...);
      v = f(v);
      if (residual) v = v + load_as<V>(residual + i * to_row + j, count...);
      store_as(v, to + j, count...);
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

// to[i, j] = activation(from[i, j] + bias[j]) + residual[i, j] on m rows of n; the residual's rows
// are as far apart as those of `to`. Bias and residual may be null, `to` may be `from`.
template <class T, class S>
static void finish_block(const T* from, i64 from_row, S* to, i64 to_row, i64 m, i64 n,
                         const T* bias, Activation activation, const S* residual) {
  if (static_cast<const void*>(from) == to && activation == Activation::none && !bias && !residual)
    return;
  with_activation<T>(activation, [&](auto f) VECTILE_LAMBDA {
    map_block(from, from_row, to, to_row, m, n, bias, residual, f);
  });
}

template <class T>
static void finish_block(T* c, i64 c_row, i64 m, i64 n, const T* bias, Activation activation,
                         const T* residual = nullptr) {
  finish_block<T, T>(c, c_row, c, c_row, m, n, bias, activation, residual);
}

}  // namespace vectile::VECTILE_TIER
