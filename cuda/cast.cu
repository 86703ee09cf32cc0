// Copies between floating-point types. What is narrower than float32 is rounded from that, to which
// float64 comes rounded to odd.
#include "cast.h"

#include "device.h"
#include "float8.h"
#include "ops/cast_args.h"

namespace vectile::cuda {
namespace {

constexpr int kThreads = 256;

template <class S>
constexpr bool in_byte = sizeof(S) == 1;

template <class S>
__device__ auto widened(S x) {
  if constexpr (in_byte<S>)
    return Float8<S>::to_float(x);
  else
    return to_float(x);
}

template <class Y, class T>
__device__ Y narrowed(T x) {
  if constexpr (in_byte<Y>)
    return Float8<Y>::from_float(x);
  else if constexpr (sizeof(Y) == 2 && sizeof(T) == 8)
    return from_float<Y>(to_odd(x));
  else
    return from_float<Y>(static_cast<Computed<Y>>(x));
}

// Neighbours that a thread takes together, four of which are under way at a time: 16 bytes of the
// larger type.
constexpr int kAtOnce = 4;
template <class X, class Y>
constexpr int kTogether = 16 / (sizeof(X) > sizeof(Y) ? sizeof(X) : sizeof(Y));
template <class S, int N>
struct alignas(N * sizeof(S)) Run {
  S at[N];
};

// In whole runs where both arrays are aligned to them.
template <class X, class Y>
__global__ void __launch_bounds__(kThreads) cast_kernel(const X* x, Y* y, i64 n) {
  constexpr int N = kTogether<X, Y>, step = kThreads * N;
  using From = Run<X, N>;
  using To = Run<Y, N>;
  const bool aligned = reinterpret_cast<std::uintptr_t>(x) % alignof(From) == 0 &&
                       reinterpret_cast<std::uintptr_t>(y) % alignof(To) == 0;
  for (i64 block = i64{blockIdx.x} * kAtOnce * step; block < n;
       block += i64{gridDim.x} * kAtOnce * step) {
    if (!aligned || block + kAtOnce * step > n) {
      const i64 end = block + kAtOnce * step < n ? block + kAtOnce * step : n;
      for (i64 i = block + threadIdx.x; i < end; i += kThreads) y[i] = narrowed<Y>(widened(x[i]));
      continue;
    }
    const i64 start = block + threadIdx.x * N;
    From from[kAtOnce];
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k)
      from[k] = *reinterpret_cast<const From*>(x + start + k * step);
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      To to;
#pragma unroll
      for (int j = 0; j < N; ++j) to.at[j] = narrowed<Y>(widened(from[k].at[j]));
      *reinterpret_cast<To*>(y + start + k * step) = to;
    }
  }
}

template <class F>
void dispatch(DType dtype, F&& f) {
  if (dtype == DType::f8e4m3) return f(Float8E4M3{});
  if (dtype == DType::f8e5m2) return f(Float8E5M2{});
  dispatch_floating(dtype, f);
}

}  // namespace

void cast(const TensorView& x, const TensorView& y) {
  const i64 n = x.elements();
  if (n == 0) return;
  dispatch(x.dtype, [&](auto from) {
    dispatch(y.dtype, [&](auto to) {
      using X = decltype(from);
      using Y = decltype(to);
      launch(cast_kernel<X, Y>, {blocks_for(n, kThreads * kAtOnce * kTogether<X, Y>), kThreads},
             x.as<X>(), y.as<Y>(), n);
    });
  });
}

Array cast(const TensorView& x, DType dtype) {
  ops::cast_args(x, dtype);
  Array y = Array::empty(dtype, x.shape);
  if (x.dtype == dtype)
    copy_strided(x, y);
  else
    cast(contiguous(x), y);
  return y;
}

}  // namespace vectile::cuda
