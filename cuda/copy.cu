// Copies of strided arrays.
#include "device.h"
#include "runtime.h"

namespace vectile::cuda {
namespace {

constexpr int kThreads = 256;

// Axes of both sides, those merged that lie together in both; the last first.
struct Layout {
  int axes;
  i64 size[kMaxDims], x[kMaxDims], y[kMaxDims];
};

template <class U>
__global__ void copy_kernel(const U* x, U* y, Layout l, i64 n) {
  for (i64 i = i64{blockIdx.x} * kThreads + threadIdx.x; i < n; i += i64{gridDim.x} * kThreads) {
    i64 rest = i, from = 0, to = 0;
    for (int a = 0; a < l.axes; ++a) {
      const i64 at = rest % l.size[a];
      rest /= l.size[a];
      from += at * l.x[a];
      to += at * l.y[a];
    }
    y[to] = x[from];
  }
}

Launch spread(i64 n) { return {blocks_for(n, kThreads), kThreads}; }

}  // namespace

void copy_strided(const TensorView& x, const TensorView& y) {
  const i64 n = x.elements();
  if (n == 0) return;
  Layout l{};
  for (int i = x.ndim() - 1; i >= 0; --i) {
    if (x.shape[i] == 1) continue;
    const int k = l.axes - 1;
    if (k >= 0 && x.strides[i] == l.x[k] * l.size[k] && y.strides[i] == l.y[k] * l.size[k]) {
      l.size[k] *= x.shape[i];
      continue;
    }
    l.size[l.axes] = x.shape[i];
    l.x[l.axes] = x.strides[i];
    l.y[l.axes++] = y.strides[i];
  }
  const auto run = [&](auto bits) {
    using U = decltype(bits);
    launch(copy_kernel<U>, spread(n), x.as<U>(), y.as<U>(), l, n);
  };
  switch (item_size(x.dtype)) {
    case 1:
      return run(std::uint8_t{});
    case 2:
      return run(std::uint16_t{});
    case 4:
      return run(std::uint32_t{});
    default:
      return run(std::uint64_t{});
  }
}

}  // namespace vectile::cuda
