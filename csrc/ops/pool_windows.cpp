#include "ops/pool_windows.h"

#include <algorithm>
#include <limits>

namespace vectile::ops {
namespace {

constexpr i64 kLongest = std::numeric_limits<std::int32_t>::max();

i64 floor_div(i64 a, i64 b) { return a / b - (a % b < 0); }

// Elements from a window's first to its last.
i64 extent(const Pooling& p, std::size_t axis) {
  return p.dilation[axis] * (p.kernel[axis] - 1) + 1;
}

void pad(std::vector<std::int32_t>& v) {
  v.resize((v.size() + kAxisPadding - 1) / kAxisPadding * kAxisPadding, v.empty() ? 0 : v.back());
}

}  // namespace

Planes planes_of(const char* op, const char* name, const TensorView& x, std::size_t axes) {
  check_floating(op, name, x);
  check(axes == 1 || axes == 2, op, name, "pooled axes", "1 or 2", axes);
  const int n = static_cast<int>(axes);
  check(x.ndim() > n, op, name, "ndim", text("at least ", n + 1), x.ndim());
  Planes p{1, n == 2 ? x.shape[-2] : 1, x.shape[-1]};
  for (int i = 0; i < x.ndim() - n; ++i) p.count *= x.shape[i];
  for (const i64 length : {p.height, p.width})
    check(length >= 1 && length <= kLongest, op, name, "pooled axis", "1 to 2**31 - 1 elements",
          length);
  return p;
}

Shape with_sizes(const TensorView& x, const Sizes& sizes) {
  Shape s = x.shape;
  const int n = static_cast<int>(sizes.size());
  for (int i = 0; i < n; ++i) s[i - n] = sizes[static_cast<std::size_t>(i)];
  return s;
}

void check_sizes(const char* op, const char* name, const Sizes& sizes, std::size_t axes,
                 i64 least) {
  check(sizes.size() == axes, op, name, "length", axes, sizes.size());
  for (const i64 s : sizes)
    check(s >= least && s <= kLongest, op, name, "value", text(least, " to 2**31 - 1"), s);
}

void check_pooling(const char* op, const Pooling& p) {
  const std::size_t axes = p.kernel.size();
  check_sizes(op, "kernel_size", p.kernel, axes, 1);
  check_sizes(op, "stride", p.stride, axes, 1);
  check_sizes(op, "padding", p.padding, axes, 0);
  check_sizes(op, "dilation", p.dilation, axes, 1);
  for (std::size_t a = 0; a < axes; ++a)
    check(2 * p.padding[a] <= extent(p, a), op, "padding", "value",
          text("at most half of the window's ", extent(p, a), " elements"), p.padding[a]);
}

i64 pooled_length(const char* op, const Pooling& p, std::size_t axis, i64 inputs) {
  const i64 stride = p.stride[axis], padding = p.padding[axis];
  const i64 room = inputs + 2 * padding - extent(p, axis);
  i64 n = floor_div(p.ceil_mode ? room + stride - 1 : room, stride) + 1;
  // A last window must begin in the input or the padding before it.
  if (p.ceil_mode && (n - 1) * stride >= inputs + padding) --n;
  check(n >= 1, op, "kernel_size", "window",
        text("at most the ", inputs + 2 * padding, " elements of the padded axis"),
        extent(p, axis));
  return n;
}

AxisWindows pooling_windows(const char* op, const Pooling& p, std::size_t axis, i64 inputs) {
  const i64 step = p.dilation[axis];
  AxisWindows w;
  w.inputs = inputs;
  w.outputs = pooled_length(op, p, axis, inputs);
  w.step = step;
  for (i64 o = 0; o < w.outputs; ++o) {
    const i64 begin = o * p.stride[axis] - p.padding[axis];
    const i64 skipped = begin < 0 ? (-begin + step - 1) / step : 0;
    const i64 first = begin + skipped * step;
    const i64 fit = first < inputs ? (inputs - 1 - first) / step + 1 : 0;
    const i64 count = std::min(fit, p.kernel[axis] - skipped);
    check(count >= 1, op, "padding", "value", "one that leaves every window an element",
          p.padding[axis]);
    w.start.push_back(static_cast<std::int32_t>(first));
    w.count.push_back(static_cast<std::int32_t>(count));
  }
  pad(w.start);
  pad(w.count);
  return w;
}

AxisWindows adaptive_windows(i64 inputs, i64 outputs) {
  AxisWindows w;
  w.inputs = inputs;
  w.outputs = outputs;
  for (i64 o = 0; o < outputs; ++o) {
    const i64 begin = o * inputs / outputs, end = ((o + 1) * inputs + outputs - 1) / outputs;
    w.start.push_back(static_cast<std::int32_t>(begin));
    w.count.push_back(static_cast<std::int32_t>(end - begin));
  }
  pad(w.start);
  pad(w.count);
  return w;
}

}  // namespace vectile::ops
