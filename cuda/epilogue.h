// What happens to sums of products before they are stored: bias, activation, residual.
#pragma once

#include "functions.h"
#include "kernels/gemm_types.h"
#include "rows.h"

namespace vectile::cuda {

// NaN stays NaN, and each is finite wherever its limit is; absolute error a few eps of |x| + 1.
template <class T>
__device__ T activate(Activation activation, T x) {
  switch (activation) {
    case Activation::none:
      return x;
    case Activation::relu:
      return Relu{}(x);
    case Activation::gelu:
      return Gelu{}(x);
    case Activation::gelu_tanh:
      return GeluTanh{}(x);
    case Activation::silu:
      return Silu{}(x);
    case Activation::tanh:
      return Tanh{}(x);
    case Activation::sigmoid:
      return Sigmoid{}(x);
  }
  return x;
}

// The first `count` of a vector's elements at p, which may be anywhere; zeros past them.
template <class S>
__device__ __forceinline__ Vector<S> load_vector(const S* p, int count) {
  if (count == Vector<S>::size && is_aligned(p)) return *reinterpret_cast<const Vector<S>*>(p);
  Vector<S> v;
#pragma unroll
  for (int i = 0; i < Vector<S>::size; ++i) v.at[i] = i < count ? p[i] : S{};
  return v;
}
template <class S>
__device__ __forceinline__ void store_vector(S* p, const Vector<S>& v, int count) {
  if (count == Vector<S>::size && is_aligned(p)) {
    *reinterpret_cast<Vector<S>*>(p) = v;
    return;
  }
#pragma unroll
  for (int i = 0; i < Vector<S>::size; ++i)
    if (i < count) p[i] = v.at[i];
}

// c = activation(sums + bias) + residual, rows c_row apart; the residual lies as c does. Bias and
// residual may be null.
template <class S>
struct Epilogue {
  static constexpr int size = Vector<S>::size;  // of what finish() ends
  S* c;
  i64 m, n, c_row;
  const S *bias, *residual;
  Activation activation;

  // The same some elements on.
  __device__ Epilogue moved(i64 by) const {
    Epilogue e = *this;
    e.c += by;
    if (residual) e.residual += by;
    return e;
  }
  // A vector of row `row` from column `col` on, as far as they are inside.
  __device__ void finish(const Computed<S>* sums, i64 row, i64 col) const {
    if (row >= m || col >= n) return;
    const int count = static_cast<int>(n - col < size ? n - col : size);
    const i64 at = row * c_row + col;
    Computed<S> y[size];
#pragma unroll
    for (int i = 0; i < size; ++i) y[i] = sums[i];
    if (bias) {
      const Vector<S> b = load_vector(bias + col, count);
#pragma unroll
      for (int i = 0; i < size; ++i) y[i] += to_float(b.at[i]);
    }
    if (activation != Activation::none) {
#pragma unroll
      for (int i = 0; i < size; ++i) y[i] = activate(activation, y[i]);
    }
    if (residual) {
      const Vector<S> r = load_vector(residual + at, count);
#pragma unroll
      for (int i = 0; i < size; ++i) y[i] += to_float(r.at[i]);
    }
    Vector<S> v;
#pragma unroll
    for (int i = 0; i < size; ++i) v.at[i] = from_float<S>(y[i]);
    store_vector(c + at, v, count);
  }
};

}  // namespace vectile::cuda
