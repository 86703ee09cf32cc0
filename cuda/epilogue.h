// What happens to sums of products before they are stored: bias, activation, residual.
#pragma once

#include "kernels/gemm_types.h"
#include "rows.h"

namespace vectile::cuda {

// x P(X <= x) = max(x, 0) - |x| P(X > |x|) for a standard normal X. The bound, past which the
// probability is nothing, turns inf * 0 into 0.
template <class T>
__device__ T gelu(T x) {
  const T a = fmin(abs(x), T(40));
  return (x < T(0) ? T(0) : x) - a * (T(0.5) * erfc(a * T(0.70710678118654752440)));
}

// 0.5 x (1 + tanh(u / 2)) = x sigmoid(u), u = 2 sqrt(2 / pi) (x + 0.044715 x^3) (arXiv 1606.08415)
template <class T>
__device__ T gelu_tanh(T x) {
  const T a = fmax(fmin(x, T(20)), T(-20));
  const T u = T(1.5957691216057307118) * a * (T(1) + T(0.044715) * a * a);
  return (x < T(-20) ? T(-20) : x) / (T(1) + exp(-u));
}

// NaN stays NaN, and each is finite wherever its limit is; absolute error a few eps of |x| + 1.
template <class T>
__device__ T activate(Activation activation, T x) {
  switch (activation) {
    case Activation::none:
      return x;
    case Activation::relu:
      return x < T(0) ? T(0) : x;
    case Activation::gelu:
      return gelu(x);
    case Activation::gelu_tanh:
      return gelu_tanh(x);
    case Activation::silu:
      return (x < T(-1000) ? T(-1000) : x) / (T(1) + exp(-x));
    case Activation::tanh:
      return tanh(x);
    case Activation::sigmoid:
      return T(1) / (T(1) + exp(-x));
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
    constexpr int size = Vector<S>::size;
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
