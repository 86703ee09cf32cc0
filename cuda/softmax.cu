// softmax and log_softmax of rows: one read and one write where a row fits a block's registers. A
// row of -inf alone gives zeros (log_softmax: -inf), its gradient zeros.
#include "softmax.h"

#include "exp_sum.h"
#include "ops/softmax_args.h"

namespace vectile::cuda {
namespace {

template <class S, int THREADS, bool logarithm>
__global__ void __launch_bounds__(THREADS) forward_kernel(const S* x, S* y, i64 rows, i64 n) {
  using T = Computed<S>;
  using P = Piece<S, THREADS, kRowVectors<S>>;
  __shared__ T scratch[THREADS / kWarp];
  for (i64 r = blockIdx.x; r < rows; r += gridDim.x) {
    const S* from = x + r * n;
    P piece;
    const ExpSum<T> all = exp_sum<THREADS, !logarithm>(from, n, piece, scratch);
    const T shift = all.shift();
    const T scale = all.sum == T(0) ? T(0) : T(1) / all.sum, lse = shift + log(all.sum);
    over_pieces<P>(n, P::head(from), [&](i64 first, int count) {
      if (n > P::capacity) {
        piece.load(from + first, count, T(-INFINITY));
        if constexpr (!logarithm)
#pragma unroll
          for (int i = 0; i < P::count; ++i) piece.at[i] = exp_for<S>(piece.at[i] - shift);
      }
#pragma unroll
      for (int i = 0; i < P::count; ++i)
        piece.at[i] = !logarithm             ? piece.at[i] * scale
                      : all.top == -INFINITY ? all.top
                                             : piece.at[i] - lse;
      piece.store(y + r * n + first, count);
    });
  }
}

// dx = y (g - sum y g); of log_softmax g - exp(y) sum g.
template <class S, int THREADS, bool logarithm>
__global__ void __launch_bounds__(THREADS)
    backward_kernel(const S* grad, const S* y, S* dx, i64 rows, i64 n) {
  using T = Computed<S>;
  using P = Piece<S, THREADS, kRowVectors<S>>;
  __shared__ T scratch[THREADS / kWarp];
  for (i64 r = blockIdx.x; r < rows; r += gridDim.x) {
    P g, out;
    T sum(0);
    over_pieces<P>(n, P::head(y + r * n), [&](i64 first, int count) {
      g.load(grad + r * n + first, count, T(0));
      out.load(y + r * n + first, count, T(0));
#pragma unroll
      for (int i = 0; i < P::count; ++i) sum += logarithm ? g.at[i] : g.at[i] * out.at[i];
    });
    sum = block_reduce<THREADS>(sum, Sum{}, scratch);
    over_pieces<P>(n, P::head(y + r * n), [&](i64 first, int count) {
      if (n > P::capacity) {
        g.load(grad + r * n + first, count, T(0));
        out.load(y + r * n + first, count, T(0));
      }
#pragma unroll
      for (int i = 0; i < P::count; ++i)
        g.at[i] = logarithm ? g.at[i] - exp(out.at[i]) * sum : out.at[i] * (g.at[i] - sum);
      g.store(dx + r * n + first, count);
    });
  }
}

template <bool logarithm>
Array forward(const char* op, const TensorView& x, i64 axis, const TensorView* out) {
  const int a = ops::softmax_args(op, x, axis);
  const bool last = a == x.ndim() - 1;
  const Array in = contiguous(axis_last(x, a));
  Output y(op, x.dtype, x.shape, out, {&x});
  const Array rows = last ? Array(y.view()) : Array::empty(x.dtype, in.shape);
  const i64 n = in.shape.back();
  if (in.elements())
    dispatch_floating(x.dtype, [&](auto s) {
      using S = decltype(s);
      with_threads<S, kRowVectors<S>>(n, [&](auto threads) {
        launch(forward_kernel<S, threads.value, logarithm>,
               {blocks_for(in.elements() / n, 1), threads.value}, in.as<S>(), rows.as<S>(),
               in.elements() / n, n);
      });
    });
  if (!last) copy_strided(rows, axis_last(y.view(), a));
  return y.finish();
}

template <bool logarithm>
Array backward(const char* op, const TensorView& grad, const TensorView& y, i64 axis) {
  const int a = ops::softmax_backward_args(op, grad, y, axis);
  const Array g = contiguous(axis_last(grad, a)), v = contiguous(axis_last(y, a));
  Array dx = Array::empty(y.dtype, v.shape);
  const i64 n = v.shape.back();
  if (v.elements())
    dispatch_floating(y.dtype, [&](auto s) {
      using S = decltype(s);
      with_threads<S, kRowVectors<S>>(n, [&](auto threads) {
        launch(backward_kernel<S, threads.value, logarithm>,
               {blocks_for(v.elements() / n, 1), threads.value}, g.as<S>(), v.as<S>(), dx.as<S>(),
               v.elements() / n, n);
      });
    });
  if (a == y.ndim() - 1) return dx;
  Array result = Array::empty(y.dtype, y.shape);
  copy_strided(dx, axis_last(result, a));
  return result;
}

}  // namespace

Array softmax(const TensorView& x, i64 axis, const TensorView* out) {
  return forward<false>("softmax", x, axis, out);
}
Array log_softmax(const TensorView& x, i64 axis, const TensorView* out) {
  return forward<true>("log_softmax", x, axis, out);
}
Array softmax_backward(const TensorView& grad, const TensorView& y, i64 axis) {
  return backward<false>("softmax_backward", grad, y, axis);
}
Array log_softmax_backward(const TensorView& grad, const TensorView& y, i64 axis) {
  return backward<true>("log_softmax_backward", grad, y, axis);
}

}  // namespace vectile::cuda
