// batch_norm and group_norm. x is (batch, channels, n): runs of n adjacent elements, whose moments
// are taken centred and in parallel, and merged in double precision for the runs that share a mean
// (Chan, Golub, LeVeque: Algorithms for computing the sample variance, 1983).
#include "norm.h"
#include "ops/norm_args.h"
#include "parameter.h"

namespace vectile::cuda {
namespace {

constexpr int kThreads = 256;
constexpr i64 kWarpRun = 1024;  // longest run that a warp works on alone

// Which runs share statistics: run k of group g is first * g + step * k.
struct Groups {
  i64 channels, n, groups, count, first, step;  // `count` runs a group

  Groups(const ops::Channels& c)  // of every channel
      : channels(c.channels),
        n(c.n),
        groups(c.channels),
        count(c.batch),
        first(1),
        step(c.channels) {}
  Groups(const ops::Channels& c, i64 per_sample)
      : channels(c.channels),
        n(c.n),
        groups(c.batch * per_sample),
        count(c.channels / per_sample),
        first(count),
        step(1) {}
  __device__ i64 of_run(i64 r) const { return step == 1 ? r / count : r % channels; }
  i64 runs() const { return groups * count; }
};

// f(run, lane) for runs that LANES threads, a warp or the block, do together.
template <int LANES, class F>
__device__ __forceinline__ void over_runs(i64 runs, F&& f) {
  constexpr int together = kThreads / LANES;
  const int lane = static_cast<int>(threadIdx.x) % LANES;
  for (i64 r = i64{blockIdx.x} * together + threadIdx.x / LANES; r < runs;
       r += i64{gridDim.x} * together)
    f(r, lane);
}

template <int LANES, int N, class T>
__device__ __forceinline__ void sum_lanes(T (&x)[N], T* scratch) {
  if constexpr (LANES == kWarp)
    for (int i = 0; i < N; ++i) x[i] = warp_reduce(x[i], Sum{});
  else
    block_sums<LANES>(x, scratch);
}

// Mean of each run, and sum of squares about it.
template <class S, int LANES>
__global__ void __launch_bounds__(kThreads)
    moments_kernel(const S* x, double* mean, double* squares, i64 runs, i64 n) {
  using T = Computed<S>;
  constexpr int N = Vector<S>::size;
  __shared__ T scratch[2 * kThreads / kWarp];
  over_runs<LANES>(runs, [&](i64 r, int lane) {
    const S* from = x + r * n;
    T sum[1] = {T(0)}, sums[2] = {T(0), T(0)}, v[N];
#pragma unroll 2
    for (i64 i = lane * N; i < n; i += LANES * N) {
      load_elements<N>(from, i, n, T(0), v);
#pragma unroll
      for (int j = 0; j < N; ++j) sum[0] += v[j];
    }
    sum_lanes<LANES>(sum, scratch);
    const T m = sum[0] / T(n);
#pragma unroll 2
    for (i64 i = lane * N; i < n; i += LANES * N) {
      load_elements<N>(from, i, n, m, v);
#pragma unroll
      for (int j = 0; j < N; ++j) {
        const T d = v[j] - m;
        sums[0] += d;
        sums[1] += d * d;
      }
    }
    sum_lanes<LANES>(sums, scratch);
    if (lane) return;
    const double lost = static_cast<double>(sums[0]) / static_cast<double>(n);
    mean[r] = m + lost;
    squares[r] = sums[1] - lost * sums[0];
  });
}

// By group: mean and rstd as they are returned, and what rounding took from the mean.
template <class T>
struct Statistics {
  T *mean, *rstd, *lost;
};

template <class S>
struct Running {
  Parameter<S> from;
  Target to;
  i64 stride;
  explicit Running(const TensorView* r)
      : from(r ? Parameter<S>(*r) : Parameter<S>()),
        to{r ? r->data : nullptr, r ? r->dtype : DType::other},
        stride(r ? r->stride(0) : 0) {}
  __device__ void update(i64 i, double found, double momentum) const {
    using T = Computed<S>;
    if (!to.data) return;
    const double before = from.at(i * stride, T(0));
    to.store(i * stride, static_cast<T>((1 - momentum) * before + momentum * found));
  }
};

template <class S>
__global__ void __launch_bounds__(kThreads)
    merge_kernel(const double* mean, const double* squares, Groups g, double eps,
                 Statistics<Computed<S>> to, Running<S> running_mean, Running<S> running_var,
                 double momentum) {
  using T = Computed<S>;
  __shared__ double scratch[kThreads / kWarp];
  for (i64 i = blockIdx.x; i < g.groups; i += gridDim.x) {
    double sum[1] = {0}, square[1] = {0};
    for (i64 k = threadIdx.x; k < g.count; k += kThreads) sum[0] += mean[i * g.first + k * g.step];
    block_sums<kThreads>(sum, scratch);
    const double m = sum[0] / static_cast<double>(g.count);
    for (i64 k = threadIdx.x; k < g.count; k += kThreads) {
      const i64 r = i * g.first + k * g.step;
      const double d = mean[r] - m;
      square[0] += squares[r] + static_cast<double>(g.n) * d * d;
    }
    block_sums<kThreads>(square, scratch);
    if (threadIdx.x) continue;
    const double count = static_cast<double>(g.count) * static_cast<double>(g.n);
    const double variance = square[0] < 0 ? 0 : square[0] / count;
    to.mean[i] = static_cast<T>(m);
    to.rstd[i] = static_cast<T>(1 / sqrt(variance + eps));
    to.lost[i] = static_cast<T>(m - static_cast<double>(to.mean[i]));
    running_mean.update(i, m, momentum);
    running_var.update(i, variance * (count / (count - 1)), momentum);
  }
}

// The statistics of batch_norm outside training.
template <class S>
__global__ void __launch_bounds__(kThreads)
    given_kernel(Running<S> mean, Running<S> variance, i64 channels, double eps,
                 Statistics<Computed<S>> to) {
  using T = Computed<S>;
  for (i64 i = i64{blockIdx.x} * kThreads + threadIdx.x; i < channels;
       i += i64{gridDim.x} * kThreads) {
    to.mean[i] = mean.from.at(i * mean.stride, T(0));
    const double v = variance.from.at(i * variance.stride, T(0));
    to.rstd[i] = static_cast<T>(1 / sqrt(v + eps));
    to.lost[i] = T(0);
  }
}

template <class S, int LANES>
__global__ void __launch_bounds__(kThreads)
    normalise_kernel(const S* x, S* y, Groups g, Statistics<Computed<S>> by, Parameter<S> weight,
                     Parameter<S> bias) {
  using T = Computed<S>;
  constexpr int N = Vector<S>::size;
  over_runs<LANES>(g.groups * g.count, [&](i64 r, int lane) {
    const i64 at = g.of_run(r), c = r % g.channels;
    const T mean = by.mean[at], lost = by.lost[at];
    const T scale = by.rstd[at] * weight.at(c, T(1)), offset = bias.at(c, T(0));
#pragma unroll 2
    for (i64 i = lane * N; i < g.n; i += LANES * N) {
      T v[N];
      load_elements<N>(x + r * g.n, i, g.n, T(0), v);
#pragma unroll
      for (int j = 0; j < N; ++j) v[j] = (v[j] - mean - lost) * scale + offset;
      store_elements<N>(y + r * g.n, i, g.n, v);
    }
  });
}

// By run: sums of grad d, of grad and of d = x - mean.
struct RunSums {
  double *gd, *g, *d;
};

template <class S, int LANES>
__global__ void __launch_bounds__(kThreads)
    sums_kernel(const S* grad, const S* x, const Computed<S>* mean, Groups g, RunSums to) {
  using T = Computed<S>;
  constexpr int N = Vector<S>::size;
  __shared__ T scratch[3 * kThreads / kWarp];
  over_runs<LANES>(g.groups * g.count, [&](i64 r, int lane) {
    const T m = mean[g.of_run(r)];
    T sums[3] = {T(0), T(0), T(0)};
#pragma unroll 2
    for (i64 i = lane * N; i < g.n; i += LANES * N) {
      T v[N], u[N];
      load_elements<N>(grad + r * g.n, i, g.n, T(0), u);
      load_elements<N>(x + r * g.n, i, g.n, m, v);
#pragma unroll
      for (int j = 0; j < N; ++j) {
        const T d = v[j] - m;
        sums[0] += u[j] * d;
        sums[1] += u[j];
        sums[2] += d;
      }
    }
    sum_lanes<LANES>(sums, scratch);
    if (lane) return;
    to.gd[r] = sums[0];
    to.g[r] = sums[1];
    to.d[r] = sums[2];
  });
}

// With u = (d - lost) rstd and h = grad weight: dx = rstd (h - mean(h) - u mean(h u)) = grad (rstd
// weight) + d slope + offset; slope, offset and lost are zeros where the statistics are constants.
template <class T>
struct Gradient {
  T *slope, *offset, *lost;
};

template <class S>
__global__ void __launch_bounds__(kThreads)
    coefficients_kernel(RunSums sums, Groups g, const Computed<S>* rstd, Parameter<S> weight,
                        bool constant, Gradient<Computed<S>> to) {
  using T = Computed<S>;
  __shared__ double scratch[3 * kThreads / kWarp];
  for (i64 i = blockIdx.x; i < g.groups; i += gridDim.x) {
    double all[3] = {0, 0, 0};  // of h d, h and d
    for (i64 k = threadIdx.x; k < g.count; k += kThreads) {
      const i64 r = i * g.first + k * g.step;
      const double w = weight.at(r % g.channels, T(1));
      all[0] += w * sums.gd[r];
      all[1] += w * sums.g[r];
      all[2] += sums.d[r];
    }
    block_sums<kThreads>(all, scratch);
    if (threadIdx.x) continue;
    const double count = static_cast<double>(g.count) * static_cast<double>(g.n), s = rstd[i];
    const double lost = constant ? 0 : all[2] / count, h = constant ? 0 : all[1] / count;
    const double hu = constant ? 0 : (all[0] / count - lost * h) * s;
    to.slope[i] = static_cast<T>(-hu * s * s);
    to.offset[i] = static_cast<T>((lost * s * hu - h) * s);
    to.lost[i] = static_cast<T>(lost);
  }
}

template <class S, int LANES>
__global__ void __launch_bounds__(kThreads)
    gradient_kernel(const S* grad, const S* x, S* dx, const Computed<S>* mean,
                    const Computed<S>* rstd, Groups g, Parameter<S> weight,
                    Gradient<Computed<S>> by) {
  using T = Computed<S>;
  constexpr int N = Vector<S>::size;
  over_runs<LANES>(g.groups * g.count, [&](i64 r, int lane) {
    const i64 at = g.of_run(r);
    const T m = mean[at], slope = by.slope[at], offset = by.offset[at];
    const T scale = rstd[at] * weight.at(r % g.channels, T(1));
#pragma unroll 2
    for (i64 i = lane * N; i < g.n; i += LANES * N) {
      T v[N], u[N];
      load_elements<N>(grad + r * g.n, i, g.n, T(0), u);
      load_elements<N>(x + r * g.n, i, g.n, m, v);
#pragma unroll
      for (int j = 0; j < N; ++j) v[j] = u[j] * scale + ((v[j] - m) * slope + offset);
      store_elements<N>(dx + r * g.n, i, g.n, v);
    }
  });
}

// dweight = sum of grad u and dbias = sum of grad over the runs of a channel.
template <class S>
__global__ void __launch_bounds__(kThreads)
    parameters_kernel(RunSums sums, Groups g, const Computed<S>* rstd, const Computed<S>* lost,
                      Target dweight, Target dbias) {
  using T = Computed<S>;
  __shared__ double scratch[2 * kThreads / kWarp];
  const i64 runs = g.groups * g.count;
  for (i64 c = blockIdx.x; c < g.channels; c += gridDim.x) {
    double all[2] = {0, 0};
    for (i64 r = c + threadIdx.x * g.channels; r < runs; r += kThreads * g.channels) {
      const i64 at = g.of_run(r);
      all[0] += (sums.gd[r] - lost[at] * sums.g[r]) * rstd[at];
      all[1] += sums.g[r];
    }
    block_sums<kThreads>(all, scratch);
    if (threadIdx.x) continue;
    dweight.store(c, static_cast<T>(all[0]));
    dbias.store(c, static_cast<T>(all[1]));
  }
}

// f(Threads<LANES>{}, launch) for kernels that go over runs.
template <class F>
void with_lanes(const Groups& g, F&& f) {
  if (g.n <= kWarpRun)
    return f(Threads<kWarp>{}, Launch{blocks_for(g.runs(), kThreads / kWarp), kThreads});
  f(Threads<kThreads>{}, Launch{blocks_for(g.runs(), 1), kThreads});
}
Launch by_group(i64 groups) { return {blocks_for(groups, 1), kThreads}; }

Array computed(const TensorView& p) { return converted(p, compute_dtype(p.dtype)); }

Normalised forward(const TensorView& x, const Groups& g, const Shape& statistics,
                   const TensorView* running_mean, const TensorView* running_var,
                   const TensorView* weight, const TensorView* bias, bool training, double momentum,
                   double eps) {
  const DType compute = compute_dtype(x.dtype);
  const Array in = contiguous(x), w = given(weight), b = given(bias);
  Normalised result{Array::empty(x.dtype, x.shape),
                    {},
                    Array::zeros(compute, statistics),
                    Array::zeros(compute, statistics)};
  const i64 runs = x.elements() ? g.runs() : 0;
  if (g.groups == 0 || (training && runs == 0)) return result;
  const Array lost = Array::empty(compute, Shape(g.groups));
  dispatch_floating(x.dtype, [&](auto s) {
    using S = decltype(s);
    using T = Computed<S>;
    const Statistics<T> by{result.mean.as<T>(), result.rstd.as<T>(), lost.as<T>()};
    const Running<S> mean(running_mean), variance(running_var);
    if (training) {
      const Array moments = Array::empty(DType::f64, Shape(2, runs));
      double *means = moments.as<double>(), *squares = means + runs;
      with_lanes(g, [&](auto lanes, const Launch& l) {
        launch(moments_kernel<S, lanes.value>, l, in.as<S>(), means, squares, runs, g.n);
      });
      launch(merge_kernel<S>, by_group(g.groups), means, squares, g, eps, by, mean, variance,
             momentum);
    } else {
      launch(given_kernel<S>, {blocks_for(g.groups, kThreads), kThreads}, mean, variance, g.groups,
             eps, by);
    }
    if (runs == 0) return;
    with_lanes(g, [&](auto lanes, const Launch& l) {
      launch(normalise_kernel<S, lanes.value>, l, in.as<S>(), result.y.as<S>(), g, by,
             Parameter<S>(w), Parameter<S>(b));
    });
  });
  return result;
}

NormGradient backward(const TensorView& grad, const TensorView& x, const Groups& g,
                      const TensorView* weight, const TensorView& mean, const TensorView& rstd,
                      bool constant) {
  const Array gradient = contiguous(grad), in = contiguous(x), w = given(weight);
  const Array m = computed(mean), scale = computed(rstd);
  NormGradient result;
  result.dx = Array::empty(x.dtype, x.shape);
  if (weight) result.dweight = Array::zeros(weight->dtype, weight->shape);
  if (weight) result.dbias = Array::zeros(weight->dtype, weight->shape);
  if (x.elements() == 0) return result;
  const i64 runs = g.runs();
  const Array sums = Array::empty(DType::f64, Shape(3, runs));
  const Array by_groups = Array::empty(compute_dtype(x.dtype), Shape(3, g.groups));
  const RunSums to{sums.as<double>(), sums.as<double>() + runs, sums.as<double>() + 2 * runs};
  dispatch_floating(x.dtype, [&](auto s) {
    using S = decltype(s);
    using T = Computed<S>;
    T* first = by_groups.as<T>();
    const Gradient<T> by{first, first + g.groups, first + 2 * g.groups};
    with_lanes(g, [&](auto lanes, const Launch& l) {
      launch(sums_kernel<S, lanes.value>, l, gradient.as<S>(), in.as<S>(), m.as<T>(), g, to);
    });
    launch(coefficients_kernel<S>, by_group(g.groups), to, g, scale.as<T>(), Parameter<S>(w),
           constant, by);
    with_lanes(g, [&](auto lanes, const Launch& l) {
      launch(gradient_kernel<S, lanes.value>, l, gradient.as<S>(), in.as<S>(), result.dx.as<S>(),
             m.as<T>(), scale.as<T>(), g, Parameter<S>(w), by);
    });
    if (weight)
      launch(parameters_kernel<S>, by_group(g.channels), to, g, scale.as<T>(), by.lost,
             Target{result.dweight.data, weight->dtype}, Target{result.dbias.data, weight->dtype});
  });
  return result;
}

}  // namespace

Normalised batch_norm(const TensorView& x, const TensorView* running_mean,
                      const TensorView* running_var, const TensorView* weight,
                      const TensorView* bias, bool training, double momentum, double eps) {
  constexpr const char* op = "batch_norm";
  const ops::Channels c(op, x);
  ops::check_eps(op, eps);
  ops::channel_args(op, "weight", weight, x);
  ops::channel_args(op, "bias", bias, x);
  ops::check_running(op, "running_mean", running_mean, x, training);
  ops::check_running(op, "running_var", running_var, x, training);
  if (training) ops::check_training_count(op, c);
  return forward(x, Groups(c), Shape(c.channels), running_mean, running_var, weight, bias, training,
                 momentum, eps);
}

NormGradient batch_norm_backward(const TensorView& grad, const TensorView& x,
                                 const TensorView* weight, const TensorView& mean,
                                 const TensorView& rstd, bool training) {
  constexpr const char* op = "batch_norm_backward";
  const ops::Channels c(op, x);
  check_same_dtype(op, "grad", grad, x);
  check_shape(op, "grad", grad, x.shape);
  ops::channel_args(op, "weight", weight, x);
  ops::channel_args(op, "mean", &mean, x);
  ops::channel_args(op, "rstd", &rstd, x);
  return backward(grad, x, Groups(c), weight, mean, rstd, !training);
}

Normalised group_norm(const TensorView& x, i64 groups, const TensorView* weight,
                      const TensorView* bias, double eps) {
  constexpr const char* op = "group_norm";
  const ops::Channels c(op, x);
  ops::check_groups(op, c, groups);
  ops::check_eps(op, eps);
  ops::channel_args(op, "weight", weight, x);
  ops::channel_args(op, "bias", bias, x);
  return forward(x, Groups(c, groups), Shape(c.batch, groups), nullptr, nullptr, weight, bias, true,
                 0, eps);
}

NormGradient group_norm_backward(const TensorView& grad, const TensorView& x, i64 groups,
                                 const TensorView* weight, const TensorView& mean,
                                 const TensorView& rstd) {
  constexpr const char* op = "group_norm_backward";
  const ops::Channels c(op, x);
  ops::check_groups(op, c, groups);
  check_same_dtype(op, "grad", grad, x);
  check_shape(op, "grad", grad, x.shape);
  ops::channel_args(op, "weight", weight, x);
  ops::group_statistic_args(op, "mean", mean, x, groups);
  ops::group_statistic_args(op, "rstd", rstd, x, groups);
  return backward(grad, x, Groups(c, groups), weight, mean, rstd, false);
}

}  // namespace vectile::cuda
