// Averages and interpolation: along each axis an output is a weighted sum of adjacent inputs
// (taps). The adjoint is the same thing with the matrix of weights transposed, so it gathers, too.
#include <algorithm>
#include <cmath>

#include "ops/pool.h"
#include "ops/pool_windows.h"
#include "ops/staging.h"

namespace vectile::ops {
namespace {

// The taps of one axis: output o = sum over k < count[o] of weight[first[o] + k] input[start[o] +
// k].
struct AxisTaps {
  i64 inputs = 1;
  std::vector<std::int32_t> start, count;
  std::vector<std::size_t> first;
  std::vector<double> weight;

  i64 outputs() const { return static_cast<i64>(start.size()); }

  // Appends an output; zeros at the end are dropped, so that what they would multiply does not
  // count.
  void add(i64 at, const double* w, i64 n) {
    while (n > 0 && w[n - 1] == 0) --n;
    // An output without inputs begins where the one before it does: starts never fall.
    if (n == 0) at = start.empty() ? 0 : start.back();
    start.push_back(static_cast<std::int32_t>(at));
    count.push_back(static_cast<std::int32_t>(n));
    first.push_back(weight.size());
    weight.insert(weight.end(), w, w + n);
  }
};

AxisTaps identity(i64 n) {
  AxisTaps t;
  t.inputs = n;
  const double one = 1;
  for (i64 o = 0; o < n; ++o) t.add(o, &one, 1);
  return t;
}

AxisTaps transposed(const AxisTaps& t) {
  const auto n = static_cast<std::size_t>(t.inputs);
  std::vector<i64> low(n, t.outputs()), high(n, -1);  // the outputs that look at an input
  for (i64 o = 0; o < t.outputs(); ++o)
    for (i64 k = 0; k < t.count[o]; ++k) {
      const auto i = static_cast<std::size_t>(t.start[o] + k);
      low[i] = std::min(low[i], o);
      high[i] = o;
    }
  AxisTaps r;
  r.inputs = t.outputs();
  std::vector<double> weight;
  for (std::size_t i = 0; i < n; ++i) {
    weight.clear();
    for (i64 o = low[i]; o <= high[i]; ++o) {
      const i64 k = static_cast<i64>(i) - t.start[o];
      const bool hit = k >= 0 && k < t.count[o];
      weight.push_back(hit ? t.weight[t.first[o] + static_cast<std::size_t>(k)] : 0);
    }
    r.add(low[i], weight.data(), static_cast<i64>(weight.size()));
  }
  return r;
}

// The taps as a kernel reads them.
template <class T>
class Packed {
 public:
  explicit Packed(const AxisTaps& t) : start_(t.start), count_(t.count) {
    const i64 n = t.outputs(), padded = round_up(n, kAxisPadding);
    const i64 pitch = n == 1 ? 1 : padded;
    start_.resize(static_cast<std::size_t>(padded), start_.empty() ? 0 : start_.back());
    const i64 most = n ? *std::max_element(count_.begin(), count_.end()) : 0;
    weight_.assign(static_cast<std::size_t>(most * pitch), T(0));
    bool full = true, same = n == t.inputs;
    for (i64 o = 0; o < n; ++o) {
      full = full && count_[o] == most;
      same = same && start_[o] == o && count_[o] == 1 && t.weight[t.first[o]] == 1;
      for (i64 k = 0; k < count_[o]; ++k) {
        const double w = t.weight[t.first[o] + static_cast<std::size_t>(k)];
        weight_[k * pitch + o] = static_cast<T>(w);
        full = full && w != 0;
      }
    }
    view = {start_.data(), count_.data(), weight_.data(), t.inputs, n, pitch, most, full, same};
  }
  Taps<T> view;

 private:
  std::vector<std::int32_t> start_, count_;
  std::vector<T> weight_;
};

// y = h x wᵀ on every plane of x, whose pooled axes are as long as the taps' inputs.
void resample(const TensorView& x, i64 planes, const AxisTaps& h, const AxisTaps& w,
              const Array& y) {
  const Array in = contiguous(x);
  dispatch_float(x.dtype, [&](auto t) {
    using T = decltype(t);
    const Packed<T> rows(h), columns(w);
    const auto kernel = kernels_of<T>().resample;
    const i64 work = std::max(w.inputs * rows.view.most, w.outputs());
    parallel_ranges(planes * h.outputs(), rows_grain(work), [&](i64 begin, i64 end) {
      const Buffer<T> line(w.inputs);
      kernel(in.as<T>(), rows.view, columns.view, y.as<T>(), line.get(), begin, end - begin);
    });
  });
}

// axis_taps(axis, inputs, outputs) gives those of a forward; x is its argument, or with `adjoint` a
// gradient of its result, and `size` the pooled axes of what is returned.
template <class AxisTapsOf>
Array linear_map(const char* op, const TensorView& x, const Sizes& size, bool adjoint,
                 AxisTapsOf axis_taps) {
  const std::size_t axes = size.size();
  const Planes p = planes_of(op, adjoint ? "grad" : "x", x, axes);
  if (is_half(x.dtype))
    return narrowed(linear_map(op, widened(x), size, adjoint, axis_taps), x.dtype);
  Array y = Array::empty(x.dtype, with_sizes(x, size));  // before taps for as many outputs
  if (p.count == 0) return y;
  const auto taps = [&](std::size_t axis, i64 from, i64 to) {
    return adjoint ? transposed(axis_taps(axis, to, from)) : axis_taps(axis, from, to);
  };
  const AxisTaps w = taps(axes - 1, p.width, size.back());
  const AxisTaps h = axes == 2 ? taps(0, p.height, size.front()) : identity(1);
  resample(x, p.count, h, w, y);
  return y;
}

// ---- averages ----------------------------------------------------------------------------------

AxisTaps window_means(const AxisWindows& w) {
  AxisTaps t;
  t.inputs = w.inputs;
  for (i64 o = 0; o < w.outputs; ++o) {
    const i64 n = w.count[o];
    t.add(w.start[o], std::vector<double>(static_cast<std::size_t>(n), 1.0 / n).data(), n);
  }
  return t;
}

AxisTaps average_taps(const char* op, const Averaging& a, std::size_t axis, i64 inputs) {
  const AxisWindows w = pooling_windows(op, a.pooling, axis, inputs);
  const i64 padding = a.pooling.padding[axis], stride = a.pooling.stride[axis];
  AxisTaps t;
  t.inputs = inputs;
  for (i64 o = 0; o < w.outputs; ++o) {
    const i64 n = w.count[o], begin = o * stride - padding;
    double divisor = static_cast<double>(n);
    if (a.divisor)  // one axis carries it
      divisor = axis == 0 ? static_cast<double>(a.divisor) : 1;
    else if (a.include_pad)
      divisor =
          static_cast<double>(std::min(begin + a.pooling.kernel[axis], inputs + padding) - begin);
    t.add(w.start[o], std::vector<double>(static_cast<std::size_t>(n), 1 / divisor).data(), n);
  }
  return t;
}

Sizes pooled_sizes(const char* op, const Pooling& p, const Sizes& inputs) {
  Sizes size;
  for (std::size_t a = 0; a < inputs.size(); ++a)
    size.push_back(pooled_length(op, p, a, inputs[a]));
  return size;
}

Sizes last_sizes(const TensorView& x, std::size_t axes) {
  Sizes size;
  const int n = static_cast<int>(axes);
  for (int i = -n; i < 0; ++i) size.push_back(x.shape[i]);
  return size;
}

// ---- interpolation -----------------------------------------------------------------------------

// Cubic convolution with a = -0.75 (Keys, "Cubic convolution interpolation", 1981): the weights of
// the inputs at distances 1 + t, t, 1 - t, 2 - t.
void cubic_weights(double t, double (&w)[4]) {
  const double a = -0.75;
  const auto near = [&](double d) { return ((a + 2) * d - (a + 3)) * d * d + 1; };
  const auto far = [&](double d) { return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a; };
  w[0] = far(1 + t);
  w[1] = near(t);
  w[2] = near(1 - t);
  w[3] = far(2 - t);
}

// floor(position) in float, whatever the data's type, as PyTorch: it decides where the position
// lies within rounding of an input.
i64 nearest(i64 o, i64 inputs, double scale, float half) {
  const float at = (static_cast<float>(o) + half) * static_cast<float>(scale);
  return std::min(static_cast<i64>(at), inputs - 1);
}

AxisTaps interpolation_taps(const Interpolating& how, std::size_t axis, i64 inputs, i64 outputs) {
  const auto in = static_cast<double>(inputs), out = static_cast<double>(outputs);
  double scale = how.scale[axis] > 0 ? 1 / how.scale[axis] : in / out;
  if (how.align_corners) scale = outputs > 1 ? (in - 1) / (out - 1) : 0;
  AxisTaps t;
  t.inputs = inputs;
  const double one = 1;
  for (i64 o = 0; o < outputs; ++o) {
    if (how.mode == Interpolation::nearest || how.mode == Interpolation::nearest_exact) {
      t.add(nearest(o, inputs, scale, how.mode == Interpolation::nearest ? 0.0f : 0.5f), &one, 1);
      continue;
    }
    double at = how.align_corners ? scale * static_cast<double>(o)
                                  : scale * (static_cast<double>(o) + 0.5) - 0.5;
    if (how.mode == Interpolation::linear) at = std::clamp(at, 0.0, in - 1);
    at = std::clamp(at, -2.0, in + 1);
    const double low = std::floor(at), share = at - low;
    const i64 i = static_cast<i64>(low);
    if (how.mode == Interpolation::linear) {
      const double w[] = {1 - share, share};
      t.add(i, w, i + 1 < inputs ? 2 : 1);
      continue;
    }
    double w[4], clamped[4] = {0, 0, 0, 0};  // inputs beyond an end repeat the last one
    cubic_weights(share, w);
    const i64 from = std::clamp<i64>(i - 1, 0, inputs - 1);
    for (i64 k = 0; k < 4; ++k) clamped[std::clamp<i64>(i - 1 + k, 0, inputs - 1) - from] += w[k];
    t.add(from, clamped, 4);
  }
  return t;
}

void check_interpolating(const char* op, const Interpolating& how, std::size_t axes) {
  check(how.scale.size() == axes, op, "scale", "length", axes, how.scale.size());
  for (const double s : how.scale)
    check(s >= 0 && s <= 1e9 && (s == 0 || s >= 1e-9), op, "scale", "value", "1e-9 to 1e9, or 0",
          s);
}

}  // namespace

Array avg_pool(const TensorView& x, const Averaging& a) {
  constexpr const char* op = "avg_pool";
  const std::size_t axes = a.pooling.kernel.size();
  planes_of(op, "x", x, axes);
  check_pooling(op, a.pooling);
  const Sizes size = pooled_sizes(op, a.pooling, last_sizes(x, axes));
  return linear_map(op, x, size, false, [&](std::size_t axis, i64 inputs, i64) {
    return average_taps(op, a, axis, inputs);
  });
}

Array avg_pool_adjoint(const TensorView& grad, const Sizes& size, const Averaging& a) {
  constexpr const char* op = "avg_pool_backward";
  const std::size_t axes = a.pooling.kernel.size();
  planes_of(op, "grad", grad, axes);
  check_pooling(op, a.pooling);
  check_sizes(op, "input_size", size, axes, 1);
  check_shape(op, "grad", grad, with_sizes(grad, pooled_sizes(op, a.pooling, size)));
  return linear_map(op, grad, size, true, [&](std::size_t axis, i64 inputs, i64) {
    return average_taps(op, a, axis, inputs);
  });
}

Array adaptive_avg_pool(const TensorView& x, const Sizes& size) {
  constexpr const char* op = "adaptive_avg_pool";
  check_sizes(op, "output_size", size, size.size(), 1);
  return linear_map(op, x, size, false, [](std::size_t, i64 inputs, i64 outputs) {
    return window_means(adaptive_windows(inputs, outputs));
  });
}

Array adaptive_avg_pool_adjoint(const TensorView& grad, const Sizes& size) {
  constexpr const char* op = "adaptive_avg_pool_backward";
  check_sizes(op, "input_size", size, size.size(), 1);
  return linear_map(op, grad, size, true, [](std::size_t, i64 inputs, i64 outputs) {
    return window_means(adaptive_windows(inputs, outputs));
  });
}

Array interpolate(const TensorView& x, const Sizes& size, const Interpolating& how) {
  constexpr const char* op = "interpolate";
  check_sizes(op, "size", size, size.size(), 1);
  check_interpolating(op, how, size.size());
  return linear_map(op, x, size, false, [&](std::size_t axis, i64 inputs, i64 outputs) {
    return interpolation_taps(how, axis, inputs, outputs);
  });
}

Array interpolate_adjoint(const TensorView& grad, const Sizes& size, const Interpolating& how) {
  constexpr const char* op = "interpolate_backward";
  check_sizes(op, "input_size", size, size.size(), 1);
  check_interpolating(op, how, size.size());
  return linear_map(op, grad, size, true, [&](std::size_t axis, i64 inputs, i64 outputs) {
    return interpolation_taps(how, axis, inputs, outputs);
  });
}

}  // namespace vectile::ops
