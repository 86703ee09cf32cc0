// pool family: maxima and weighted sums over windows of the last one or two axes; float32 or
// float64.
#pragma once

#include <tuple>
#include <vector>

#include "ops/common.h"

namespace vectile::ops {

using Sizes = std::vector<i64>;  // one number per pooled axis: one or two

// Windows of `kernel` elements, `dilation` apart, every `stride` elements of an axis that is
// `padding` longer at either end; `ceil_mode` keeps a last window that reaches over the end.
struct Pooling {
  Sizes kernel, stride, padding, dilation;
  bool ceil_mode;
};

struct Pooled {
  Array y, index;  // index: int32, the element's place in its plane; empty unless asked for
  auto results() { return std::tie(y); }
};

Pooled max_pool(const TensorView& x, const Pooling& pooling, bool indices);
Pooled adaptive_max_pool(const TensorView& x, const Sizes& size, bool indices);
// The gradient of both with respect to x, whose pooled axes have `size`.
Array max_pool_backward(const TensorView& grad, const TensorView& index, const Sizes& size);

// What follows is linear in x: a weighted sum along each axis. An adjoint maps a gradient back to
// the shape whose pooled axes have `size`.

// `divisor` 0: divide by the window's elements, those in the padding among them if `include_pad`.
struct Averaging {
  Pooling pooling;
  bool include_pad;
  i64 divisor;
};
Array avg_pool(const TensorView& x, const Averaging& averaging);
Array avg_pool_adjoint(const TensorView& grad, const Sizes& size, const Averaging& averaging);

Array adaptive_avg_pool(const TensorView& x, const Sizes& size);
Array adaptive_avg_pool_adjoint(const TensorView& grad, const Sizes& size);

enum class Interpolation { nearest, nearest_exact, linear, cubic };
// `scale`: output per input length, 0 for the quotient of the sizes.
struct Interpolating {
  Interpolation mode;
  bool align_corners;
  std::vector<double> scale;
};
Array interpolate(const TensorView& x, const Sizes& size, const Interpolating& how);
Array interpolate_adjoint(const TensorView& grad, const Sizes& size, const Interpolating& how);

}  // namespace vectile::ops
