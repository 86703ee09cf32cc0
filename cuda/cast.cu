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

template <class X, class Y>
__global__ void cast_kernel(const X* x, Y* y, i64 n) {
  for (i64 i = i64{blockIdx.x} * kThreads + threadIdx.x; i < n; i += i64{gridDim.x} * kThreads)
    y[i] = narrowed<Y>(widened(x[i]));
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
      launch(cast_kernel<X, Y>, {blocks_for(n, kThreads), kThreads}, x.as<X>(), y.as<Y>(), n);
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
