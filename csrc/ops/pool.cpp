#include "ops/pool.h"

#include <algorithm>
#include <limits>

#include "ops/pool_windows.h"
#include "ops/staging.h"

namespace vectile::ops {
namespace {

Windows windows_of(const AxisWindows& w) {
  const auto [least, most] = std::minmax_element(w.count.begin(), w.count.end());
  const bool rising = std::is_sorted(w.start.begin(), w.start.end());
  return {w.start.data(), w.count.data(), w.inputs,        w.outputs,
          w.step,         *most,          *least == *most, rising};
}

// Memory for the results, taken before windows of their size are made.
Pooled unfilled(const char* op, const TensorView& x, const Planes& p, const Sizes& size,
                bool indices) {
  const Shape shape = with_sizes(x, size);
  Pooled r{Array::empty(x.dtype, shape), {}};
  if (!indices) return r;
  const i64 most = std::numeric_limits<std::int32_t>::max(), plane = p.height * p.width;
  check(plane <= most, op, "x", "plane", "at most 2**31 - 1 elements", plane);
  r.index = Array::empty(DType::i32, shape);
  return r;
}

void fill(const Pooled& r, const TensorView& x, const Planes& p, const AxisWindows& height,
          const AxisWindows& width) {
  const Array in = contiguous(x);
  const Windows h = windows_of(height), w = windows_of(width);
  dispatch_float(x.dtype, [&](auto t) {
    using T = decltype(t);
    const auto kernel = kernels_of<T>().max_pool;
    parallel_ranges(
        p.count * h.outputs, rows_grain(w.outputs * h.most * w.most), [&](i64 begin, i64 end) {
          kernel(in.as<T>(), h, w, r.y.as<T>(), r.index.as<std::int32_t>(), begin, end - begin);
        });
  });
}

}  // namespace

Pooled max_pool(const TensorView& x, const Pooling& pooling, bool indices) {
  constexpr const char* op = "max_pool";
  const std::size_t axes = pooling.kernel.size();
  const Planes p = planes_of(op, "x", x, axes);
  if (is_half(x.dtype)) return in_float32(x.dtype, max_pool, x, pooling, indices);
  check_pooling(op, pooling);
  const AxisWindows w = pooling_windows(op, pooling, axes - 1, p.width);
  const AxisWindows h =
      axes == 2 ? pooling_windows(op, pooling, 0, p.height) : adaptive_windows(1, 1);
  const Sizes size = axes == 2 ? Sizes{h.outputs, w.outputs} : Sizes{w.outputs};
  Pooled r = unfilled(op, x, p, size, indices);
  fill(r, x, p, h, w);
  return r;
}

Pooled adaptive_max_pool(const TensorView& x, const Sizes& size, bool indices) {
  constexpr const char* op = "adaptive_max_pool";
  const Planes p = planes_of(op, "x", x, size.size());
  if (is_half(x.dtype)) return in_float32(x.dtype, adaptive_max_pool, x, size, indices);
  check_sizes(op, "output_size", size, size.size(), 1);
  Pooled r = unfilled(op, x, p, size, indices);
  const i64 rows = size.size() == 2 ? size.front() : 1;
  if (p.count > 0)
    fill(r, x, p, adaptive_windows(p.height, rows), adaptive_windows(p.width, size.back()));
  return r;
}

Array max_pool_backward(const TensorView& grad, const TensorView& index, const Sizes& size) {
  constexpr const char* op = "max_pool_backward";
  const Planes p = planes_of(op, "grad", grad, size.size());
  if (is_half(grad.dtype)) return in_float32(grad.dtype, max_pool_backward, grad, index, size);
  check<TypeError>(index.dtype == DType::i32, op, "index", "dtype", DType::i32, index.dtype);
  check_shape(op, "index", index, grad.shape);
  check_sizes(op, "input_size", size, size.size(), 1);
  const Array g = contiguous(grad), places = contiguous(index);
  Array dx = Array::empty(grad.dtype, with_sizes(grad, size));
  i64 inputs = 1;
  for (const i64 s : size) inputs *= s;
  const i64 outputs = p.height * p.width;
  dispatch_float(grad.dtype, [&](auto t) {
    using T = decltype(t);
    const auto kernel = kernels_of<T>().max_pool_backward;
    parallel_ranges(p.count, rows_grain(inputs), [&](i64 begin, i64 end) {
      bool valid = true;
      kernel(g.as<T>() + begin * outputs, places.as<std::int32_t>() + begin * outputs,
             dx.as<T>() + begin * inputs, end - begin, outputs, inputs, &valid);
      check<IndexError>(valid, op, "index", "value", text("0 to ", inputs - 1), "another");
    });
  });
  return dx;
}

}  // namespace vectile::ops
