// Small arrays beside the large ones, whose type is known when the kernel runs.
#pragma once

#include "numbers.h"
#include "rows.h"

namespace vectile::cuda {

// A parameter of n elements of S or of what S computes in; `absent` in its place where it is null.
template <class S>
struct Parameter {
  const void* data = nullptr;
  bool wide = false;

  Parameter() = default;
  explicit Parameter(const TensorView& p) : data(p.data), wide(!is_half(p.dtype)) {}
  template <int N>
  __device__ void load(i64 first, i64 n, Computed<S> absent, Computed<S>* at) const {
    using T = Computed<S>;
    if (!data) {
#pragma unroll
      for (int i = 0; i < N; ++i) at[i] = absent;
    } else if (wide) {
      load_elements<N>(static_cast<const T*>(data), first, n, absent, at);
    } else {
      load_elements<N>(static_cast<const S*>(data), first, n, absent, at);
    }
  }
  // One of them.
  __device__ Computed<S> at(i64 i, Computed<S> absent) const {
    Computed<S> value[1];
    load<1>(i, i + 1, absent, value);
    return value[0];
  }
};

// An array of any floating-point type to write to.
struct Target {
  void* data;
  DType dtype;
  template <class T>
  __device__ void store(i64 i, T x) const {
    store_real(data, dtype, i, x);
  }
};

}  // namespace vectile::cuda
