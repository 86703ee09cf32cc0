// layer_norm and rms_norm of rows, one read and one write where a row fits a block's registers.
// Centred two-pass: d = x - m with m the rounded mean, and `lost` = sum d / n is what rounding took
// (Chan, Golub, LeVeque: Algorithms for computing the sample variance, 1983).
#include "norm.h"

#include "columns.h"
#include "ops/norm_args.h"
#include "parameter.h"
#include "reduce.h"

namespace vectile::cuda {
namespace {

template <class S>
struct Forward {
  const S *x, *residual;  // the latter null where nothing is added
  S *sum, *y;
  Computed<S>*mean, *rstd;  // null where they are not wanted
  Parameter<S> weight, bias;
  i64 rows, n;
  Computed<S> eps;
};

template <class S, int THREADS, bool centred>
__global__ void __launch_bounds__(THREADS, kRowThreads / THREADS) forward_kernel(Forward<S> p) {
  using T = Computed<S>;
  using P = Piece<S, THREADS, kRowVectors<S>>;
  __shared__ T scratch[2 * THREADS / kWarp];
  for (i64 r = blockIdx.x; r < p.rows; r += gridDim.x) {
    P piece;
    const auto load = [&](i64 first, int count) {
      piece.load(p.x + r * p.n + first, count, T(0));
      if (!p.residual) return;
      P more;
      more.load(p.residual + r * p.n + first, count, T(0));
#pragma unroll
      for (int i = 0; i < P::count; ++i) piece.at[i] += more.at[i];
    };
    T total[1] = {T(0)};  // of x, or of its squares
    over_pieces<P>(p.n, [&](i64 first, int count) {
      load(first, count);
      if (p.residual) piece.store(p.sum + r * p.n + first, count);
#pragma unroll
      for (int i = 0; i < P::count; ++i)
        total[0] += centred ? piece.at[i] : piece.at[i] * piece.at[i];
    });
    block_sums<THREADS>(total, scratch);
    T mean(0), lost(0), square = total[0] / T(p.n);
    if constexpr (centred) {
      mean = square;
      T sums[2] = {T(0), T(0)};  // of d and its squares
      over_pieces<P>(p.n, [&](i64 first, int count) {
        if (p.n > P::capacity) load(first, count);
#pragma unroll
        for (int i = 0; i < P::count; ++i) {
          const T d = P::index(i) < count ? piece.at[i] - mean : T(0);
          sums[0] += d;
          sums[1] += d * d;
        }
      });
      block_sums<THREADS>(sums, scratch);
      lost = sums[0] / T(p.n);
      square = sums[1] / T(p.n) - lost * lost;
      square = square < T(0) ? T(0) : square;
    }
    const T rstd = T(1) / sqrt(square + p.eps);
    over_pieces<P>(p.n, [&](i64 first, int count) {
      if (p.n > P::capacity) load(first, count);
#pragma unroll
      for (int i = 0; i < P::count; i += P::size) {
        T w[P::size], b[P::size];
        const int at = P::index(i);
        p.weight.template load<P::size>(first + at, p.n, T(1), w);
        if constexpr (centred) p.bias.template load<P::size>(first + at, p.n, T(0), b);
#pragma unroll
        for (int j = 0; j < P::size; ++j) {
          T& v = piece.at[i + j];
          v = centred ? (v - mean - lost) * rstd * w[j] + b[j] : v * rstd * w[j];
        }
      }
      piece.store(p.y + r * p.n + first, count);
    });
    if (threadIdx.x == 0) {
      if (centred && p.mean) p.mean[r] = mean + lost;
      if (p.rstd) p.rstd[r] = rstd;
    }
  }
}

template <class S>
struct Backward {
  const S *grad, *x;
  const Computed<S>*mean, *rstd;
  S* dx;
  Computed<S>* lost;  // by row, for the parameters' gradients
  Parameter<S> weight;
  i64 rows, n;
};

// With u = (d - lost) rstd and h = grad weight: dx = rstd (h - mean(h) - u mean(h u)); without a
// mean likewise, but for the term mean(h).
template <class S, int THREADS, bool centred>
__global__ void __launch_bounds__(THREADS) backward_kernel(Backward<S> p) {
  using T = Computed<S>;
  using P = Piece<S, THREADS, kRowVectors<S>>;
  __shared__ T scratch[3 * THREADS / kWarp];
  for (i64 r = blockIdx.x; r < p.rows; r += gridDim.x) {
    const T mean = centred ? p.mean[r] : T(0), rstd = p.rstd[r], n(p.n);
    P h, d;
    const auto load = [&](i64 first, int count) {
      h.load(p.grad + r * p.n + first, count, T(0));
      d.load(p.x + r * p.n + first, count, mean);
#pragma unroll
      for (int i = 0; i < P::count; i += P::size) {
        T w[P::size];
        p.weight.template load<P::size>(first + P::index(i), p.n, T(1), w);
#pragma unroll
        for (int j = 0; j < P::size; ++j) {
          h.at[i + j] *= w[j];
          d.at[i + j] -= mean;
        }
      }
    };
    T sums[centred ? 3 : 1] = {};  // of h d, h and d
    over_pieces<P>(p.n, [&](i64 first, int count) {
      load(first, count);
#pragma unroll
      for (int i = 0; i < P::count; ++i) {
        sums[0] += h.at[i] * d.at[i];
        if constexpr (centred) {
          sums[1] += h.at[i];
          sums[2] += d.at[i];
        }
      }
    });
    block_sums<THREADS>(sums, scratch);
    T h_mean(0), lost(0);
    if constexpr (centred) {
      h_mean = sums[1] / n;
      lost = sums[2] / n;
    }
    const T hu = (sums[0] / n - lost * h_mean) * rstd, slope = -hu * rstd * rstd;
    const T offset = (lost * rstd * hu - h_mean) * rstd;
    over_pieces<P>(p.n, [&](i64 first, int count) {
      if (p.n > P::capacity) load(first, count);
#pragma unroll
      for (int i = 0; i < P::count; ++i) h.at[i] = h.at[i] * rstd + (d.at[i] * slope + offset);
      h.store(p.dx + r * p.n + first, count);
    });
    if (centred && p.lost && threadIdx.x == 0) p.lost[r] = lost;
  }
}

// Sums of grad u and of grad over the chunks of rows: dw and db are (chunks, n).
template <class S, int N, bool centred>
__global__ void __launch_bounds__(kColumnThreads, 4)
    parameters_kernel(Backward<S> p, Columns c, Computed<S>* dw, Computed<S>* db) {
  using T = Computed<S>;
  __shared__ T shared[N][kColumnThreads];
  for (i64 item = blockIdx.x; item < c.chunks * c.tiles; item += gridDim.x) {
    const i64 chunk = item / c.tiles;
    const InColumns<N> at(c, item % c.tiles, chunk);
    T w[N], b[N];
#pragma unroll
    for (int j = 0; j < N; ++j) w[j] = b[j] = T(0);
    if (at.active)
#pragma unroll 2
      for (i64 r = at.first + at.line; r < at.end; r += c.lines) {
        T g[N], x[N];
        load_elements<N>(p.grad + r * c.inner, at.column, c.inner, T(0), g);
        load_elements<N>(p.x + r * c.inner, at.column, c.inner, T(0), x);
        const T mean = centred ? p.mean[r] : T(0), lost = centred ? p.lost[r] : T(0);
        const T rstd = p.rstd[r];
#pragma unroll
        for (int j = 0; j < N; ++j) {
          w[j] += g[j] * ((x[j] - mean - lost) * rstd);
          b[j] += g[j];
        }
      }
    fold_lines(c, w, Sum{}, shared);
    if constexpr (centred) fold_lines(c, b, Sum{}, shared);
    if (at.line || !at.active) continue;
    store_elements<N>(dw + chunk * c.inner, at.column, c.inner, w);
    if constexpr (centred) store_elements<N>(db + chunk * c.inner, at.column, c.inner, b);
  }
}

Array computed(const TensorView* p) { return p ? converted(*p, compute_dtype(p->dtype)) : Array(); }

template <bool centred>
Normalised forward(const TensorView& x, const TensorView* residual, const TensorView* weight,
                   const TensorView* bias, double eps, bool stats) {
  const Array in = contiguous(x), more = given(residual), w = given(weight), b = given(bias);
  const auto per_row = [&](bool wanted) {
    return wanted ? Array::empty(compute_dtype(x.dtype), without_last(x.shape)) : Array();
  };
  Normalised result{Array::empty(x.dtype, x.shape),
                    residual ? Array::empty(x.dtype, x.shape) : Array(), per_row(centred && stats),
                    per_row(stats)};
  const i64 n = x.shape.back(), rows = without_last(x.shape).elements();
  if (rows == 0) return result;
  dispatch_floating(x.dtype, [&](auto s) {
    using S = decltype(s);
    using T = Computed<S>;
    const Forward<S> p{in.as<S>(),
                       more.as<S>(),
                       result.sum.as<S>(),
                       result.y.as<S>(),
                       result.mean.as<T>(),
                       result.rstd.as<T>(),
                       Parameter<S>(w),
                       Parameter<S>(b),
                       rows,
                       n,
                       static_cast<T>(eps)};
    with_threads<S, kRowVectors<S>>(n, [&](auto threads) {
      launch(forward_kernel<S, threads.value, centred>, {blocks_for(rows, 1), threads.value}, p);
    });
  });
  return result;
}

template <bool centred>
NormGradient backward(const char* op, const TensorView& grad, const TensorView& x,
                      const TensorView* weight, const TensorView* mean, const TensorView& rstd) {
  ops::norm_backward_args(op, grad, x, weight, mean, rstd);
  const Array g = contiguous(grad), in = contiguous(x), w = given(weight);
  const Array m = computed(mean), scale = computed(&rstd);
  NormGradient result;
  result.dx = Array::empty(x.dtype, x.shape);
  if (weight) result.dweight = Array::zeros(weight->dtype, weight->shape);
  if (weight && centred) result.dbias = Array::zeros(weight->dtype, weight->shape);
  if (x.elements() == 0) return result;
  const i64 n = x.shape.back(), rows = x.elements() / n;
  const DType compute = compute_dtype(x.dtype);
  dispatch_floating(x.dtype, [&](auto s) {
    using S = decltype(s);
    using T = Computed<S>;
    const Array lost = weight && centred ? Array::empty(compute, Shape(rows)) : Array();
    const Backward<S> p{
        g.as<S>(),       in.as<S>(), m.as<T>(), scale.as<T>(), result.dx.as<S>(), lost.as<T>(),
        Parameter<S>(w), rows,       n};
    with_threads<S, kRowVectors<S>, 512>(n, [&](auto threads) {
      launch(backward_kernel<S, threads.value, centred>, {blocks_for(rows, 1), threads.value}, p);
    });
    if (!weight) return;
    constexpr int size = Vector<S>::size;
    const bool whole = n % size == 0;
    const Columns c(rows, n, whole ? size : 1);
    const Array dw = Array::empty(compute, Shape(c.chunks, n));
    const Array db = centred ? Array::empty(compute, Shape(c.chunks, n)) : Array();
    launch(whole ? parameters_kernel<S, size, centred> : parameters_kernel<S, 1, centred>,
           {blocks_for(c.chunks * c.tiles, 1), kColumnThreads}, p, c, dw.as<T>(), db.as<T>());
    sum_columns(dw, c.chunks, result.dweight);
    if (centred) sum_columns(db, c.chunks, result.dbias);
  });
  return result;
}

void check_forward(const char* op, const TensorView& x, const TensorView* weight,
                   const TensorView* bias, double eps) {
  ops::norm_args(op, x, eps);
  ops::norm_parameter_args(op, "weight", weight, x);
  ops::norm_parameter_args(op, "bias", bias, x);
}

}  // namespace

Normalised layer_norm(const TensorView& x, const TensorView* weight, const TensorView* bias,
                      double eps, bool stats) {
  check_forward("layer_norm", x, weight, bias, eps);
  return forward<true>(x, nullptr, weight, bias, eps, stats);
}
Normalised rms_norm(const TensorView& x, const TensorView* weight, double eps, bool stats) {
  check_forward("rms_norm", x, weight, nullptr, eps);
  return forward<false>(x, nullptr, weight, nullptr, eps, stats);
}
Normalised add_layer_norm(const TensorView& x, const TensorView& residual, const TensorView* weight,
                          const TensorView* bias, double eps, bool stats) {
  check_forward("add_layer_norm", x, weight, bias, eps);
  ops::norm_residual_args("add_layer_norm", residual, x);
  return forward<true>(x, &residual, weight, bias, eps, stats);
}
Normalised add_rms_norm(const TensorView& x, const TensorView& residual, const TensorView* weight,
                        double eps, bool stats) {
  check_forward("add_rms_norm", x, weight, nullptr, eps);
  ops::norm_residual_args("add_rms_norm", residual, x);
  return forward<false>(x, &residual, weight, nullptr, eps, stats);
}
NormGradient layer_norm_backward(const TensorView& grad, const TensorView& x,
                                 const TensorView* weight, const TensorView& mean,
                                 const TensorView& rstd) {
  return backward<true>("layer_norm_backward", grad, x, weight, &mean, rstd);
}
NormGradient rms_norm_backward(const TensorView& grad, const TensorView& x,
                               const TensorView* weight, const TensorView& rstd) {
  return backward<false>("rms_norm_backward", grad, x, weight, nullptr, rstd);
}

}  // namespace vectile::cuda
