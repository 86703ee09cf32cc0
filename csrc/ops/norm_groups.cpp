// batch_norm and group_norm: statistics over groups of channel segments.
#include <algorithm>
#include <cmath>

#include "ops/norm.h"
#include "ops/norm_args.h"
#include "ops/staging.h"

namespace vectile::ops {
namespace {

// An optional argument of shape (channels,), row-major; empty when it is not given.
Array per_channel(const char* op, const char* name, const TensorView* p, const TensorView& x) {
  channel_args(op, name, p, x);
  return p ? widened(*p) : Array();
}

Array required(const char* op, const char* name, const TensorView* p, const TensorView& x) {
  check_running(op, name, p, x, false);
  return widened(*p);
}

// `x` with the channels first, which turns single elements per channel (n = 1) into long runs.
TensorView channels_first(const TensorView& x, const Channels& c) {
  TensorView v = x;
  v.shape = Shape(c.batch, c.channels);
  v.set_contiguous_strides();
  return axis_last(v, 0);
}

// Calls f(T{}, group's first element, group's index, NormGroup) for each channel of a row-major
// array, and that of a channels-first copy where n is 1.
NormGroup channel_group(const Channels& c) {
  return c.n == 1 ? NormGroup{1, 0, 1, 0, c.batch}
                  : NormGroup{1, 0, c.batch, c.channels * c.n, c.n};
}
i64 channel_start(const Channels& c, i64 channel) { return channel * (c.n == 1 ? c.batch : c.n); }
i64 group_grain(const NormGroup& g) {
  return rows_grain(std::max<i64>(1, g.parameters * g.segments * g.n));
}

// A row-major array as batch_norm's kernels read it.
Array for_channels(const TensorView& x, const Channels& c) {
  Array in = contiguous(x);
  return c.n == 1 ? contiguous(channels_first(in, c)) : std::move(in);
}
// Memory for a result of x's shape, and that result once it is filled.
Array unfilled(const TensorView& x, const Channels& c) {
  return Array::empty(x.dtype, c.n == 1 ? Shape(c.channels, c.batch) : x.shape);
}
Array filled(Array&& y, const TensorView& x, const Channels& c) {
  if (c.n != 1) return std::move(y);
  Array result = Array::empty(x.dtype, x.shape);
  copy_strided(y, channels_first(result, c));
  return result;
}

// running += momentum (found - running)
template <class T>
void update(const TensorView& running, const T* found, double factor, double momentum) {
  const Array r = widened(running);
  for (i64 c = 0; c < running.shape[0]; ++c)
    r.as<T>()[c] = static_cast<T>((1 - momentum) * r.as<T>()[c] + momentum * factor * found[c]);
  if (r.data != running.data) cast_strided(r, running);
}

Normalised with_batch_statistics(const Channels& c, const TensorView& x,
                                 const TensorView* running_mean, const TensorView* running_var,
                                 const Array& w, const Array& b, double momentum, double eps) {
  constexpr const char* op = "batch_norm";
  check_running(op, "running_mean", running_mean, x, true);
  check_running(op, "running_var", running_var, x, true);
  const i64 count = c.per_channel();
  check_training_count(op, c);
  const Array in = for_channels(x, c);
  Normalised r{unfilled(x, c), Array::zeros(x.dtype, Shape(c.channels)),
               Array::zeros(x.dtype, Shape(c.channels))};
  if (count > 0)
    dispatch_float(x.dtype, [&](auto t) {
      using T = decltype(t);
      const auto kernel = kernels_of<T>().group_norm;
      const NormGroup group = channel_group(c);
      const Buffer<T> variance(c.channels);
      const Out<T> y = fresh<T>(r.y);
      parallel_ranges(c.channels, group_grain(group), [&](i64 begin, i64 end) {
        for (i64 i = begin; i < end; ++i) {
          const i64 at = channel_start(c, i);
          kernel(in.as<T>() + at, w.data ? w.as<T>() + i : nullptr,
                 b.data ? b.as<T>() + i : nullptr, eps, y.at(at), r.mean.as<T>() + i,
                 r.rstd.as<T>() + i, variance.get() + i, group);
        }
      });
      if (running_mean) update(*running_mean, r.mean.as<T>(), 1, momentum);
      const double n = static_cast<double>(count);
      if (running_var) update(*running_var, variance.get(), n / (n - 1), momentum);
    });
  r.y = filled(std::move(r.y), x, c);
  return r;
}

Normalised with_running_statistics(const Channels& c, const TensorView& x, const Array& mean,
                                   const Array& variance, const Array& w, const Array& b,
                                   double eps) {
  const Array in = contiguous(x);
  Normalised r{Array::empty(x.dtype, x.shape), Array::empty(x.dtype, Shape(c.channels)),
               Array::empty(x.dtype, Shape(c.channels))};
  dispatch_float(x.dtype, [&](auto t) {
    using T = decltype(t);
    const Buffer<T> scale(c.channels), offset(c.channels);
    for (i64 i = 0; i < c.channels; ++i) {
      const double rstd = 1 / std::sqrt(static_cast<double>(variance.as<T>()[i]) + eps);
      r.mean.as<T>()[i] = mean.as<T>()[i];
      r.rstd.as<T>()[i] = static_cast<T>(rstd);
      scale[i] = static_cast<T>(w.data ? rstd * w.as<T>()[i] : rstd);
      offset[i] = b.data ? b.as<T>()[i] : T(0);
    }
    if (x.elements() == 0) return;
    const auto& k = kernels_of<T>();
    const Out<T> y = fresh<T>(r.y);
    parallel_ranges(c.batch * c.channels, rows_grain(c.n), [&](i64 begin, i64 end) {
      k.affine_rows(in.as<T>() + begin * c.n, mean.as<T>(), scale.get(), offset.get(),
                    y.at(begin * c.n), end - begin, begin % c.channels, c.channels, c.n);
    });
  });
  return r;
}

// The gradients of float32 parameters stay float32.
NormGradient parameters_narrowed(NormGradient&& r, const TensorView* weight) {
  if (!weight) return std::move(r);
  r.dweight = narrowed(std::move(r.dweight), weight->dtype);
  r.dbias = narrowed(std::move(r.dbias), weight->dtype);
  return std::move(r);
}

}  // namespace

Normalised batch_norm(const TensorView& x, const TensorView* running_mean,
                      const TensorView* running_var, const TensorView* weight,
                      const TensorView* bias, bool training, double momentum, double eps) {
  constexpr const char* op = "batch_norm";
  const Channels c(op, x);
  check_eps(op, eps);
  if (is_half(x.dtype)) {
    // Not through in_float32: running statistics of a half type are written where they are.
    const Array in = widened(x);
    return narrow_results(
        batch_norm(in, running_mean, running_var, weight, bias, training, momentum, eps), x.dtype);
  }
  const Array w = per_channel(op, "weight", weight, x), b = per_channel(op, "bias", bias, x);
  if (training) return with_batch_statistics(c, x, running_mean, running_var, w, b, momentum, eps);
  const Array mean = required(op, "running_mean", running_mean, x);
  const Array variance = required(op, "running_var", running_var, x);
  return with_running_statistics(c, x, mean, variance, w, b, eps);
}

NormGradient batch_norm_backward(const TensorView& grad, const TensorView& x,
                                 const TensorView* weight, const TensorView& mean,
                                 const TensorView& rstd, bool training) {
  constexpr const char* op = "batch_norm_backward";
  const Channels c(op, x);
  if (is_half(x.dtype))
    return parameters_narrowed(
        in_float32(x.dtype, batch_norm_backward, grad, x, weight, mean, rstd, training), weight);
  check_same_dtype(op, "grad", grad, x);
  check_shape(op, "grad", grad, x.shape);
  const Array w = per_channel(op, "weight", weight, x);
  const Array m = per_channel(op, "mean", &mean, x), s = per_channel(op, "rstd", &rstd, x);
  const Array g = for_channels(grad, c), in = for_channels(x, c);
  NormGradient r;
  r.dx = unfilled(x, c);
  if (weight) r.dweight = Array::zeros(x.dtype, w.shape);
  if (weight) r.dbias = Array::zeros(x.dtype, w.shape);
  if (x.elements() > 0)
    dispatch_float(x.dtype, [&](auto t) {
      using T = decltype(t);
      const auto kernel = kernels_of<T>().group_norm_backward;
      const NormGroup group = channel_group(c);
      const Out<T> dx = fresh<T>(r.dx);
      parallel_ranges(c.channels, group_grain(group), [&](i64 begin, i64 end) {
        for (i64 i = begin; i < end; ++i) {
          const i64 at = channel_start(c, i);
          kernel(g.as<T>() + at, in.as<T>() + at, weight ? w.as<T>() + i : nullptr, m.as<T>()[i],
                 s.as<T>()[i], !training, dx.at(at), weight ? r.dweight.as<T>() + i : nullptr,
                 weight ? r.dbias.as<T>() + i : nullptr, group);
        }
      });
    });
  r.dx = filled(std::move(r.dx), x, c);
  return r;
}

namespace {

// Group i holds the channels [i % groups * size, ...) of sample i / groups: adjacent in memory.
NormGroup sample_group(const char* op, const Channels& c, i64 groups) {
  check_groups(op, c, groups);
  return {c.channels / groups, c.n, 1, 0, c.n};
}

}  // namespace

Normalised group_norm(const TensorView& x, i64 groups, const TensorView* weight,
                      const TensorView* bias, double eps) {
  constexpr const char* op = "group_norm";
  const Channels c(op, x);
  const NormGroup group = sample_group(op, c, groups);
  check_eps(op, eps);
  if (is_half(x.dtype)) return in_float32(x.dtype, group_norm, x, groups, weight, bias, eps);
  const Array w = per_channel(op, "weight", weight, x), b = per_channel(op, "bias", bias, x);
  const Array in = contiguous(x);
  Normalised r{Array::empty(x.dtype, x.shape), Array::zeros(x.dtype, Shape(c.batch, groups)),
               Array::zeros(x.dtype, Shape(c.batch, groups))};
  if (x.elements() > 0)
    dispatch_float(x.dtype, [&](auto t) {
      using T = decltype(t);
      const auto kernel = kernels_of<T>().group_norm;
      const Out<T> y = fresh<T>(r.y);
      const i64 size = group.parameters;
      parallel_ranges(c.batch * groups, group_grain(group), [&](i64 begin, i64 end) {
        for (i64 i = begin; i < end; ++i) {
          const i64 at = i * size * c.n, p = i % groups * size;
          kernel(in.as<T>() + at, w.data ? w.as<T>() + p : nullptr,
                 b.data ? b.as<T>() + p : nullptr, eps, y.at(at), r.mean.as<T>() + i,
                 r.rstd.as<T>() + i, nullptr, group);
        }
      });
    });
  return r;
}

NormGradient group_norm_backward(const TensorView& grad, const TensorView& x, i64 groups,
                                 const TensorView* weight, const TensorView& mean,
                                 const TensorView& rstd) {
  constexpr const char* op = "group_norm_backward";
  const Channels c(op, x);
  const NormGroup group = sample_group(op, c, groups);
  if (is_half(x.dtype))
    return parameters_narrowed(
        in_float32(x.dtype, group_norm_backward, grad, x, groups, weight, mean, rstd), weight);
  check_same_dtype(op, "grad", grad, x);
  check_shape(op, "grad", grad, x.shape);
  const Array w = per_channel(op, "weight", weight, x);
  group_statistic_args(op, "mean", mean, x, groups);
  group_statistic_args(op, "rstd", rstd, x, groups);
  const Array m = contiguous(mean), s = contiguous(rstd);
  const Array g = contiguous(grad), in = contiguous(x);
  NormGradient r;
  r.dx = Array::empty(x.dtype, x.shape);
  if (weight) r.dweight = Array::zeros(x.dtype, w.shape);
  if (weight) r.dbias = Array::zeros(x.dtype, w.shape);
  if (x.elements() > 0)
    dispatch_float(x.dtype, [&](auto t) {
      using T = decltype(t);
      const auto& k = kernels_of<T>();
      const i64 size = group.parameters, samples = weight ? c.batch * c.channels : 0;
      const Out<T> dx = fresh<T>(r.dx);
      const Buffer<T> dw(samples), db(samples);  // one sum per sample and channel
      parallel_ranges(c.batch * groups, group_grain(group), [&](i64 begin, i64 end) {
        for (i64 i = begin; i < end; ++i) {
          const i64 at = i * size * c.n, p = i * size;
          k.group_norm_backward(g.as<T>() + at, in.as<T>() + at,
                                weight ? w.as<T>() + i % groups * size : nullptr, m.as<T>()[i],
                                s.as<T>()[i], false, dx.at(at), weight ? dw.get() + p : nullptr,
                                weight ? db.get() + p : nullptr, group);
        }
      });
      if (!weight) return;
      k.column_sum(dw.get(), c.channels, r.dweight.as<T>(), c.batch, c.channels);
      k.column_sum(db.get(), c.channels, r.dbias.as<T>(), c.batch, c.channels);
    });
  return r;
}

}  // namespace vectile::ops
