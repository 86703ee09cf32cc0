// Rows of a table by index: moved as bits, in the widest pieces that all rows begin and end with.
// The gradient is gathered: positions are put in the order of their ids, stably, by counting for
// each id those that are smaller; then a warp sums the positions of one id, or of a piece of them
// where there are many.
#include "embedding.h"

#include "indices.h"
#include "ops/embedding_args.h"
#include "rows.h"

namespace vectile::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPiece = 64;   // positions that a warp sums at a time
constexpr int kRows = 1024;  // of the table for a block that orders positions, a thread each

template <class U>
__device__ U all_ones() {  // NaN of every type
  return static_cast<U>(~U(0));
}
using Wide = Vector<unsigned>;
template <>
__device__ Wide all_ones<Wide>() {
  return {{~0u, ~0u, ~0u, ~0u}};
}

// Rows of n units, `stride` apart in weight. A block is (threads of a row, rows).
template <class U>
__global__ void __launch_bounds__(kThreads)
    gather_kernel(const i64* ids, const U* __restrict__ weight, i64 stride, U* __restrict__ y,
                  i64 count, i64 rows, i64 n) {
  for (i64 i = i64{blockIdx.x} * blockDim.y + threadIdx.y; i < count;
       i += i64{gridDim.x} * blockDim.y) {
    const i64 id = ids[i];
    const bool inside = id >= 0 && id < rows;
    const U* from = weight + (inside ? id : 0) * stride;
    U* to = y + i * n;
#pragma unroll 4
    for (i64 j = threadIdx.x; j < n; j += blockDim.x) to[j] = inside ? from[j] : all_ones<U>();
  }
}

// offsets[v]: the ids in range that are smaller than v, for v up to `rows`; order[offsets[v] ..
// offsets[v + 1]): the positions of v, upwards.
__global__ void __launch_bounds__(kRows)
    order_kernel(const i64* ids, i64 count, i64 rows, i64* offsets, i64* order) {
  constexpr int warps = kRows / kWarp;
  __shared__ int votes[warps], local[kRows];  // of the ids that are the block's, their row in it
  __shared__ i64 position[kRows], scratch[warps];
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarp, warp = thread / kWarp;
  const i64 first = i64{blockIdx.x} * kRows;
  // f(row in the block, position) for the ids of the block's rows, in order; every thread.
  i64 below = 0;
  const auto each = [&](auto f) {
    for (i64 begin = 0; begin < count; begin += kRows) {
      const i64 at = begin + thread, id = at < count ? ids[at] : -1;
      const bool mine = id >= first && id < first + kRows && id < rows;
      below += id >= 0 && id < first;
      const unsigned vote = __ballot_sync(kAll, mine);
      if (lane == 0) votes[warp] = __popc(vote);
      __syncthreads();
      int kept = __popc(vote & ((1u << lane) - 1)), total = 0;
      for (int w = 0; w < warps; ++w) {
        if (w < warp) kept += votes[w];
        total += votes[w];
      }
      if (mine) {
        local[kept] = static_cast<int>(id - first);
        position[kept] = at;
      }
      __syncthreads();
      for (int e = 0; e < total; ++e) f(local[e], position[e]);
    }
  };
  i64 smaller = 0;
  each([&](int row, i64) { smaller += row < thread; });
  i64 next = smaller + block_reduce<kRows>(below, Sum{}, scratch);
  if (first + thread <= rows) offsets[first + thread] = next;
  each([&](int row, i64 at) {
    if (row == thread) order[next++] = at;
  });
}

// sum = grad of the positions order[begin .. end), W columns from `at` on.
template <class S, int W>
__device__ __forceinline__ void sum_rows(Computed<S> (&sum)[W], const S* __restrict__ grad,
                                         const i64* __restrict__ order, i64 begin, i64 end, i64 n,
                                         i64 at) {
#pragma unroll
  for (int j = 0; j < W; ++j) sum[j] = 0;
#pragma unroll 2
  for (i64 e = begin; e < end; ++e) {
    Computed<S> x[W];
    load_adjacent(x, grad + order[e] * n + at, n - at);
#pragma unroll
    for (int j = 0; j < W; ++j) sum[j] += x[j];
  }
}

// f(row, first column) for `rows` of n columns: a warp for 16 bytes of S a lane of a row.
template <class S, class F>
__device__ __forceinline__ void each_slice(i64 rows, i64 n, F&& f) {
  constexpr int W = Vector<S>::size, warps = kThreads / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const i64 slices = ceil_div(n, kWarp * W);
  for (i64 task = i64{blockIdx.x} * warps + threadIdx.x / kWarp; task < rows * slices;
       task += i64{gridDim.x} * warps) {
    const i64 at = (task % slices * kWarp + lane) * W;
    if (at < n) f(task / slices, at);
  }
}
template <class S>
Launch launch_slices(i64 rows, i64 n) {
  return {blocks_for(rows * ceil_div(n, kWarp * Vector<S>::size), kThreads / kWarp), kThreads};
}

// What an id of more than kPiece positions has in piece p, order[kPiece p .. kPiece (p + 1)): at
// most two have any, that of the piece's first position, part[2 p], and of its last, part[2 p + 1].
template <class S>
__global__ void __launch_bounds__(kThreads)
    piece_kernel(const S* __restrict__ grad, const i64* __restrict__ ids,
                 const i64* __restrict__ offsets, const i64* __restrict__ order,
                 Computed<S>* __restrict__ part, i64 pieces, i64 rows, i64 n) {
  each_slice<S>(pieces, n, [&](i64 p, i64 at) {
    const i64 begin = p * kPiece, count = offsets[rows];
    const i64 end = begin + kPiece < count ? begin + kPiece : count;
    if (begin >= end) return;
    const i64 first = ids[order[begin]], last = ids[order[end - 1]];
    for (int side = 0; side < (first == last ? 1 : 2); ++side) {
      const i64 v = side ? last : first, from = offsets[v], to = offsets[v + 1];
      if (to - from <= kPiece) continue;
      Computed<S> sum[Vector<S>::size];
      sum_rows(sum, grad, order, from > begin ? from : begin, to < end ? to : end, n, at);
      store_adjacent(sum, part + (2 * p + side) * n + at, n - at);
    }
  });
}

// dweight[v] = sum of the grad of its positions, or of its parts.
template <class S>
__global__ void __launch_bounds__(kThreads)
    sum_kernel(const S* __restrict__ grad, const i64* __restrict__ offsets,
               const i64* __restrict__ order, const Computed<S>* __restrict__ part,
               S* __restrict__ dweight, i64 rows, i64 n) {
  using T = Computed<S>;
  constexpr int W = Vector<S>::size;
  each_slice<S>(rows, n, [&](i64 v, i64 at) {
    const i64 begin = offsets[v], end = offsets[v + 1];
    T sum[W] = {};
    if (end - begin <= kPiece) {
      sum_rows(sum, grad, order, begin, end, n, at);
    } else {
      for (i64 p = begin / kPiece; p * kPiece < end; ++p) {
        T x[W];
        load_adjacent(x, part + (2 * p + (p * kPiece < begin)) * n + at, n - at);
#pragma unroll
        for (int j = 0; j < W; ++j) sum[j] += x[j];
      }
    }
    store_adjacent(sum, dweight + v * n + at, n - at);
  });
}

}  // namespace

Array embedding(const TensorView& ids, const TensorView& weight) {
  constexpr const char* op = "embedding";
  ops::embedding_args(op, ids, weight);
  const Array index = integers(op, "ids", ids);
  const i64 n = weight.shape[1], count = ids.elements();
  // A table of contiguous rows is read in place, however far apart the rows are.
  const Array table = n <= 1 || weight.strides[1] == 1 ? Array(weight) : contiguous(weight);
  Shape shape = ids.shape;
  shape.push(n);
  Array y = Array::empty(weight.dtype, shape);
  if (y.elements() == 0) return y;
  const auto item = static_cast<i64>(item_size(weight.dtype)), stride = table.strides[0];
  const auto gather = [&](auto unit) {
    using U = decltype(unit);
    const i64 units = n * item / i64{sizeof(U)};
    unsigned x = 1;
    while (x < kThreads && x < units) x *= 2;
    const dim3 block(x, kThreads / x);
    launch(gather_kernel<U>, {blocks_for(count, block.y), block}, index.as<i64>(), table.as<U>(),
           stride * item / i64{sizeof(U)}, y.as<U>(), count, weight.shape[0], units);
  };
  const auto bits = reinterpret_cast<std::uintptr_t>(table.data) |
                    static_cast<std::uintptr_t>(n * item) |
                    static_cast<std::uintptr_t>(stride * item);
  if (bits % 16 == 0)
    gather(Wide{});
  else if (bits % 8 == 0)
    gather(std::uint64_t{});
  else if (bits % 4 == 0)
    gather(std::uint32_t{});
  else
    gather(std::uint16_t{});
  return y;
}

Array embedding_backward(const TensorView& grad, const TensorView& ids, i64 num_embeddings) {
  constexpr const char* op = "embedding_backward";
  ops::embedding_backward_args(op, grad, ids, num_embeddings);
  const Array index = integers(op, "ids", ids), g = contiguous(grad);
  const i64 n = grad.shape.back(), count = ids.elements();
  Array dweight = Array::empty(grad.dtype, Shape(num_embeddings, n));
  if (dweight.elements() == 0) return dweight;
  const Array offsets = Array::empty(DType::i64, Shape(num_embeddings + 1));
  const Array order = Array::empty(DType::i64, Shape(count));
  launch(order_kernel, {static_cast<unsigned>(ceil_div(num_embeddings + 1, kRows)), kRows},
         index.as<i64>(), count, num_embeddings, offsets.as<i64>(), order.as<i64>());
  const i64 pieces = count <= kPiece ? 0 : ceil_div(count, kPiece);
  const Array part = Array::empty(compute_dtype(grad.dtype), Shape(2 * pieces, n));
  dispatch_floating(grad.dtype, [&](auto s) {
    using S = decltype(s);
    using T = Computed<S>;
    if (pieces)
      launch(piece_kernel<S>, launch_slices<S>(pieces, n), g.as<S>(), index.as<i64>(),
             offsets.as<i64>(), order.as<i64>(), part.as<T>(), pieces, num_embeddings, n);
    launch(sum_kernel<S>, launch_slices<S>(num_embeddings, n), g.as<S>(), offsets.as<i64>(),
           order.as<i64>(), part.as<T>(), dweight.as<S>(), num_embeddings, n);
  });
  return dweight;
}

}  // namespace vectile::cuda
