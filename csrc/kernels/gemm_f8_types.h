// What the 8-bit floating-point GEMM kernels and the ops above them agree on.
#pragma once

#include <cstdint>

#include "base/types.h"
#include "kernels/gemm_types.h"

namespace vectile {

constexpr i64 kF8Rows = 96;  // the most rows of a block of C

// y[i, j] = activation(scales[j] (sum of a[i, k] w[k, j]) + bias[j]), summed in T.
template <class T>
struct GemmF8 {
  i64 n, k;
  const T* a;  // (m, k), rows a_row apart
  i64 a_row;
  const std::uint8_t* strips;  // of nr columns: (k, nr) bytes
  DType format;                // f8e4m3 or f8e5m2
  const T *scales, *bias;      // (n); bias may be null
  Activation activation;
  const T* residual;  // as y, or null
  T* y;
  i64 y_row;
};

}  // namespace vectile
