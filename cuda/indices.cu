#include "indices.h"

#include "device.h"
#include "ops/indices_args.h"

namespace vectile::cuda {
namespace {

constexpr int kThreads = 256;

template <class I>
__global__ void widen_kernel(const I* x, i64* y, i64 n) {
  for (i64 i = i64{blockIdx.x} * kThreads + threadIdx.x; i < n; i += i64{gridDim.x} * kThreads) {
    const auto wide = static_cast<i64>(x[i]);
    y[i] = I(-1) > I(0) && wide < 0 ? INT64_MIN : wide;
  }
}

}  // namespace

Array integers(const char* op, const char* argument, const TensorView& values) {
  const i64 n = values.elements();
  Array y;
  dispatch_integer(op, argument, values.dtype, [&](auto i) {
    using I = decltype(i);
    Array x = contiguous(values);
    if constexpr (std::is_same_v<I, i64>) {
      y = std::move(x);
    } else {
      y = Array::empty(DType::i64, values.shape);
      if (n)
        launch(widen_kernel<I>, {blocks_for(n, kThreads), kThreads}, x.as<I>(), y.as<i64>(), n);
    }
  });
  return y;
}

}  // namespace vectile::cuda
