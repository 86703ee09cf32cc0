// sum, mean, max and min over axes: rows by warps or blocks, columns by blocks that step down them
// side by side; what is too long for one block is cut, and the parts are reduced in the same way.
#include "reduce.h"

#include "columns.h"
#include "parameter.h"

namespace vectile::cuda {
namespace {

constexpr int kThreads = kColumnThreads;
constexpr i64 kWarpRow = 1024;  // longest row that a warp reduces alone
constexpr i64 kChunk = 8192;    // elements of a row per block

struct Total : Sum {
  static constexpr float none = 0;
};
struct Largest : Max {
  static constexpr float none = -INFINITY;
};
struct Smallest : Min {
  static constexpr float none = INFINITY;
};

// Each item is a chunk of a row, which LANES threads reduce together: a warp or the block.
template <class S, class F, int LANES>
__global__ void __launch_bounds__(kThreads)
    rows_kernel(const S* x, Target y, i64 rows, i64 n, Computed<S> divisor) {
  using T = Computed<S>;
  constexpr int N = Vector<S>::size, groups = kThreads / LANES;
  __shared__ T scratch[kThreads / kWarp];
  const int lane = static_cast<int>(threadIdx.x) % LANES;
  const i64 chunks = ceil_div(n, kChunk);
  for (i64 item = i64{blockIdx.x} * groups + threadIdx.x / LANES; item < rows * chunks;
       item += i64{gridDim.x} * groups) {
    const i64 first = item % chunks * kChunk;
    const S* from = x + item / chunks * n + first;
    const i64 length = n - first < kChunk ? n - first : kChunk;
    T sum[N];
#pragma unroll
    for (int j = 0; j < N; ++j) sum[j] = F::none;
#pragma unroll 4
    for (i64 i = lane * N; i < length; i += LANES * N) {
      T v[N];
      load_elements<N>(from, i, length, T(F::none), v);
#pragma unroll
      for (int j = 0; j < N; ++j) sum[j] = F{}(sum[j], v[j]);
    }
#pragma unroll
    for (int j = 1; j < N; ++j) sum[0] = F{}(sum[0], sum[j]);
    const T all =
        LANES == kWarp ? warp_reduce(sum[0], F{}) : block_reduce<kThreads>(sum[0], F{}, scratch);
    if (lane == 0) y.store(item, all / divisor);
  }
}

// Each item is a tile of columns in a chunk of rows.
template <class S, class F, int N>
__global__ void __launch_bounds__(kThreads)
    columns_kernel(const S* x, Target y, i64 outer, Columns c, Computed<S> divisor) {
  using T = Computed<S>;
  __shared__ T shared[N][kColumnThreads];
  for (i64 item = blockIdx.x; item < outer * c.chunks * c.tiles; item += gridDim.x) {
    const i64 part = item / c.tiles;
    const InColumns<N> at(c, item % c.tiles, part % c.chunks);
    T sum[N];
#pragma unroll
    for (int j = 0; j < N; ++j) sum[j] = F::none;
    if (at.active) {
      const S* from = x + part / c.chunks * c.n * c.inner;
#pragma unroll 4
      for (i64 k = at.first + at.line; k < at.end; k += c.lines) {
        T v[N];
        load_elements<N>(from + k * c.inner, at.column, c.inner, T(F::none), v);
#pragma unroll
        for (int j = 0; j < N; ++j) sum[j] = F{}(sum[j], v[j]);
      }
    }
    fold_lines(c, sum, F{}, shared);
    if (at.line == 0 && at.active)
#pragma unroll
      for (int j = 0; j < N; ++j) y.store(part * c.inner + at.column + j, sum[j] / divisor);
  }
}

// Reduces every chunk; the results of the chunks of a line are then reduced themselves.
template <class F>
void reduce_middle(const TensorView& x, i64 outer, i64 n, i64 inner, double divisor,
                   const TensorView& y) {
  dispatch_floating(x.dtype, [&](auto s) {
    using S = decltype(s);
    using T = Computed<S>;
    constexpr int size = Vector<S>::size;
    const bool rows = inner == 1, whole = inner % size == 0;
    const Columns columns(n, inner, whole ? size : 1);
    const i64 chunks = rows ? ceil_div(n, kChunk) : columns.chunks;
    const Array parts = chunks > 1
                            ? Array::empty(compute_dtype(x.dtype),
                                           Shape(checked_elements(Shape(outer, chunks, inner))))
                            : Array();
    const Target to = chunks > 1 ? Target{parts.data, parts.dtype} : Target{y.data, y.dtype};
    const T by = static_cast<T>(chunks > 1 ? 1 : divisor);
    if (rows && n <= kWarpRow)
      launch(rows_kernel<S, F, kWarp>, {blocks_for(outer, kThreads / kWarp), kThreads}, x.as<S>(),
             to, outer, n, by);
    else if (rows)
      launch(rows_kernel<S, F, kThreads>, {blocks_for(outer * chunks, 1), kThreads}, x.as<S>(), to,
             outer, n, by);
    else
      launch(whole ? columns_kernel<S, F, size> : columns_kernel<S, F, 1>,
             {blocks_for(outer * chunks * columns.tiles, 1), kThreads}, x.as<S>(), to, outer,
             columns, by);
    if (chunks > 1) reduce_middle<F>(parts, outer, chunks, inner, divisor, y);
  });
}

template <class S>
__global__ void __launch_bounds__(kThreads) squares_kernel(const S* x, double* y, i64 n) {
  __shared__ double scratch[kThreads / kWarp];
  for (i64 first = blockIdx.x * kChunk; first < n; first += gridDim.x * kChunk) {
    const i64 end = first + kChunk < n ? first + kChunk : n;
    double sum = 0;
    for (i64 i = first + threadIdx.x; i < end; i += kThreads) {
      const double v = to_float(x[i]);
      sum += v * v;
    }
    sum = block_reduce<kThreads>(sum, Sum{}, scratch);
    if (threadIdx.x == 0) y[first / kChunk] = sum;
  }
}

__global__ void root_kernel(double* x) { *x = sqrt(*x); }

}  // namespace

const Reduction kReductions[4] = {
    {"sum", &reduce_middle<Total>, false, ops::Empty::zero},
    {"mean", &reduce_middle<Total>, true, ops::Empty::nan},
    {"max", &reduce_middle<Largest>, false, ops::Empty::error},
    {"min", &reduce_middle<Smallest>, false, ops::Empty::error},
};

Array reduce(const Reduction& op, const TensorView& x, unsigned axes, bool keepdims,
             const TensorView* out) {
  const ops::Reduced r = ops::reduce_args(op.name, x, axes, keepdims, op.empty);
  Output y(op.name, x.dtype, r.shape, out, {&x});
  if (x.elements() == 0) {
    fill_device(y.data(), op.empty == ops::Empty::nan ? 0xff : 0,  // all ones: a NaN of every type
                static_cast<std::size_t>(y.view().elements()) * item_size(x.dtype));
    return y.finish();
  }
  // Runs of adjacent axes of more than one element that are all reduced or all kept.
  i64 size[kMaxDims];
  bool drop[kMaxDims];
  int runs = 0, passes = 0;
  for (int i = 0; i < x.ndim(); ++i) {
    if (x.shape[i] == 1) continue;
    if (runs && drop[runs - 1] == r.axis[i]) {
      size[runs - 1] *= x.shape[i];
      continue;
    }
    drop[runs] = r.axis[i];
    passes += drop[runs];
    size[runs++] = x.shape[i];
  }
  Array from = contiguous(x);
  if (passes == 0) {
    from.shape = r.shape;
    from.set_contiguous_strides();
    copy_strided(from, y.view());
  }
  for (int i = runs - 1; i >= 0; --i) {  // the innermost first
    if (!drop[i]) continue;
    i64 outer = 1, inner = 1;
    for (int j = 0; j < i; ++j) outer *= size[j];
    for (int j = i + 1; j < runs; ++j) inner *= size[j];
    const i64 n = std::exchange(size[i], 1);
    const bool last = --passes == 0;
    Array next =
        last ? Array(y.view()) : Array::empty(compute_dtype(x.dtype), Shape(outer * inner));
    op.run(from, outer, n, inner, last && op.mean ? static_cast<double>(r.count) : 1, next);
    from = std::move(next);
  }
  return y.finish();
}

Array sum_to(const TensorView& x, const Shape& shape) {
  Array y = reduce(kReductions[0], x, ops::sum_to_args(x, shape), false, nullptr);
  y.shape = shape;
  y.set_contiguous_strides();
  return y;
}

void sum_columns(const TensorView& x, i64 n, const TensorView& y) {
  reduce_middle<Total>(x, 1, n, y.elements(), 1, y);
}

Array global_norm(const std::vector<TensorView>& arrays) {
  i64 pieces = 0;
  for (const TensorView& x : arrays) {
    check_floating("global_norm", "arrays", x);
    pieces += ceil_div(x.elements(), kChunk);
  }
  Array norm = Array::zeros(DType::f64, Shape());
  if (pieces == 0) return norm;
  const Array squares = Array::empty(DType::f64, Shape(pieces));
  double* to = squares.as<double>();
  for (const TensorView& x : arrays) {
    const i64 n = x.elements();
    if (n == 0) continue;
    const Array in = contiguous(x);
    dispatch_floating(x.dtype, [&](auto s) {
      using S = decltype(s);
      launch(squares_kernel<S>, {blocks_for(n, kChunk), kThreads}, in.as<S>(), to, n);
    });
    to += ceil_div(n, kChunk);
  }
  reduce_middle<Total>(squares, 1, pieces, 1, 1, norm);
  launch(root_kernel, {1, 1}, norm.as<double>());
  return norm;
}

}  // namespace vectile::cuda
