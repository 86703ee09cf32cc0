// cross_entropy fused with log-softmax: one read of the logits where a row fits a block's registers
// or labels are not smoothed. The loss is taken from x - max, so it does not lose digits to a large
// lse. Sums over rows are one block's, in float64.
#include "loss.h"

#include "exp_sum.h"
#include "indices.h"

namespace vectile::cuda {
namespace {

constexpr int kTotal = 1024;  // threads of the block that sums over rows

// loss = keep (lse - x[target]) + smoothing (lse - mean x), 0 for an ignored row.
template <class S, int THREADS>
__global__ void __launch_bounds__(THREADS)
    forward_kernel(const S* x, const i64* targets, i64 ignored, Computed<S> keep,
                   Computed<S> smoothing, Computed<S>* loss, Computed<S>* lse, i64 rows, i64 n) {
  using T = Computed<S>;
  using P = Piece<S, THREADS, kRowVectors<S>>;
  __shared__ T scratch[THREADS / kWarp];
  for (i64 r = blockIdx.x; r < rows; r += gridDim.x) {
    const S* row = x + r * n;
    const i64 target = targets[r];
    P piece;
    const ExpSum<T> all = exp_sum<THREADS>(row, n, piece, scratch);
    T centred(0);  // the sum of x - max
    if (smoothing != T(0)) {
      over_pieces<P>(n, P::head(row), [&](i64 first, int count) {
        if (n > P::capacity) piece.load(row + first, count, T(0));
#pragma unroll
        for (int i = 0; i < P::count; ++i)
          centred += P::index(i) < count ? piece.at[i] - all.top : T(0);
      });
      centred = block_reduce<THREADS>(centred, Sum{}, scratch);
    }
    if (threadIdx.x != 0) continue;
    const T log_sum = all.top == -INFINITY ? T(NAN) : log(all.sum);
    lse[r] = all.top + log_sum;
    if (target == ignored) {
      loss[r] = T(0);
      continue;
    }
    const bool inside = target >= 0 && target < n;
    T value = keep * (log_sum - (inside ? to_float(row[target]) - all.top : T(NAN)));
    if (smoothing != T(0)) value += smoothing * (log_sum - centred / static_cast<T>(n));
    loss[r] = value;
  }
}

// The sum over all rows of a double of each, for every thread of the one block.
template <class F>
__device__ double total(i64 rows, double* scratch, F of) {
  double sum = 0;
#pragma unroll 4
  for (i64 r = threadIdx.x; r < rows; r += kTotal) sum += of(r);
  return block_reduce<kTotal>(sum, Sum{}, scratch);
}

// The sum of the losses, or their mean over the rows that are not ignored.
template <class S>
__global__ void __launch_bounds__(kTotal) reduce_kernel(const Computed<S>* loss, const i64* targets,
                                                        i64 ignored, bool mean, S* y, i64 rows) {
  __shared__ double scratch[kTotal / kWarp];
  double sum = total(rows, scratch, [=](i64 r) { return static_cast<double>(loss[r]); });
  if (mean) sum /= total(rows, scratch, [=](i64 r) { return targets[r] == ignored ? 0. : 1.; });
  if (threadIdx.x == 0) *y = from_float<S>(static_cast<Computed<S>>(sum));
}

// The share of each row in the gradient of a mean.
template <class T>
__global__ void __launch_bounds__(kTotal)
    share_kernel(const T* grad, const i64* targets, i64 ignored, T* share, i64 rows) {
  __shared__ double scratch[kTotal / kWarp];
  const double kept = total(rows, scratch, [=](i64 r) { return targets[r] == ignored ? 0. : 1.; });
  if (threadIdx.x == 0) *share = *grad / static_cast<T>(kept);
}

// dx = scale (exp(x - lse) - keep [j == target] - share), 0 for an ignored row; scale: one for each
// row, `scale_stride` (0 or 1) apart.
template <class S, int THREADS>
__global__ void __launch_bounds__(THREADS)
    backward_kernel(const S* x, const i64* targets, const Computed<S>* lse,
                    const Computed<S>* scale, int scale_stride, i64 ignored, Computed<S> keep,
                    Computed<S> share, S* dx, i64 rows, i64 n) {
  using T = Computed<S>;
  using P = Piece<S, THREADS, kRowVectors<S>>;
  for (i64 r = blockIdx.x; r < rows; r += gridDim.x) {
    const i64 target = targets[r];
    const bool left_out = target == ignored, inside = target >= 0 && target < n;
    const T shift = lse[r], s = inside ? scale[r * scale_stride] : T(NAN);
    over_pieces<P>(n, P::head(x + r * n), [&](i64 first, int count) {
      P piece;
      const int hit =
          target >= first && target - first < count ? static_cast<int>(target - first) : -1;
      if (!left_out) piece.load(x + r * n + first, count, T(0));
#pragma unroll
      for (int i = 0; i < P::count; ++i) {
        const T p = exp(piece.at[i] - shift) - share - (P::index(i) == hit ? keep : T(0));
        piece.at[i] = left_out ? T(0) : s * p;
      }
      piece.store(dx + r * n + first, count);
    });
  }
}

}  // namespace

CrossEntropy cross_entropy(const TensorView& logits, const TensorView& targets,
                           const ops::CrossEntropyOptions& o) {
  constexpr const char* op = "cross_entropy";
  ops::cross_entropy_args(op, logits, targets, o);
  const Array index = integers(op, "targets", targets), x = contiguous(logits);
  const i64 n = logits.shape.back(), rows = targets.elements();
  const DType compute = compute_dtype(x.dtype);
  CrossEntropy result{Array::empty(compute, targets.shape), Array::empty(compute, targets.shape)};
  dispatch_floating(x.dtype, [&](auto s) {
    using S = decltype(s);
    using T = Computed<S>;
    if (rows)
      with_threads<S, kRowVectors<S>>(n, [&](auto threads) {
        launch(forward_kernel<S, threads.value>, {blocks_for(rows, 1), threads.value}, x.as<S>(),
               index.as<i64>(), o.ignore_index, static_cast<T>(1 - o.label_smoothing),
               static_cast<T>(o.label_smoothing), result.loss.as<T>(), result.lse.as<T>(), rows, n);
      });
    if (o.reduction == ops::LossReduction::none) {
      if (widens<S>) result.loss = converted(result.loss, x.dtype);
      return;
    }
    Array y = Array::empty(x.dtype, Shape());
    launch(reduce_kernel<S>, {1, kTotal}, result.loss.as<T>(), index.as<i64>(), o.ignore_index,
           o.reduction == ops::LossReduction::mean, y.as<S>(), rows);
    result.loss = std::move(y);
  });
  return result;
}

Array cross_entropy_backward(const TensorView& grad, const TensorView& logits,
                             const TensorView& targets, const TensorView& lse,
                             const ops::CrossEntropyOptions& o) {
  constexpr const char* op = "cross_entropy_backward";
  ops::cross_entropy_args(op, logits, targets, o);
  const Array index = integers(op, "targets", targets);
  ops::cross_entropy_backward_args(op, grad, logits, targets, lse, o);
  const DType compute = compute_dtype(logits.dtype);
  const Array x = contiguous(logits), l = converted(lse, compute);
  Array scale = converted(grad, compute);
  const i64 n = logits.shape.back(), rows = targets.elements();
  Array dx = Array::empty(x.dtype, x.shape);
  if (dx.elements() == 0) return dx;
  dispatch_floating(x.dtype, [&](auto s) {
    using S = decltype(s);
    using T = Computed<S>;
    if (o.reduction == ops::LossReduction::mean) {
      Array share = Array::empty(compute, Shape());
      launch(share_kernel<T>, {1, kTotal}, scale.as<T>(), index.as<i64>(), o.ignore_index,
             share.as<T>(), rows);
      scale = std::move(share);
    }
    with_threads<S, kRowVectors<S>>(n, [&](auto threads) {
      launch(backward_kernel<S, threads.value>, {blocks_for(rows, 1), threads.value}, x.as<S>(),
             index.as<i64>(), l.as<T>(), scale.as<T>(), o.reduction == ops::LossReduction::none,
             o.ignore_index, static_cast<T>(1 - o.label_smoothing),
             static_cast<T>(o.label_smoothing / static_cast<double>(n)), dx.as<S>(), rows, n);
    });
  });
  return dx;
}

}  // namespace vectile::cuda
