// What both passes of attention share on sm_90a: a producer and two warpgroups that multiply, each
// with 64 rows of a block's tile; products of boxes in shared memory, tiles lying by 64 rows, then
// by 64 columns, or in a different order where it is said.
#pragma once

#include "attention_problem.h"
#include "hopper.h"

namespace vectile::cuda::attention {

constexpr int kConsumers = 2, kHeldRows = kConsumers * kBoxRows;
constexpr int kConsumerWarps = kConsumers * kWarpgroup / kWarp;
constexpr int kBlockThreads = (1 + kConsumers) * kWarpgroup;

// Of this thread, in a form that tells the compiler that it is the warp's.
__device__ __forceinline__ int consumer_index() {
  return __shfl_sync(kAll, warp_index(), 0) / (kWarpgroup / kWarp) - 1;
}

// (columns, rows, heads, batch) of an operand.
template <class S>
Tensor tensor(const Heads<S>& x, i64 rows, i64 heads, i64 batch) {
  constexpr int item = sizeof(S);
  const i64 row = x.row * item;  // of an axis of one element any stride will do
  return {x.data,
          item,
          {x.width, rows, heads, batch, 1},
          {row, heads > 1 ? x.head * item : row, batch > 1 ? x.batch * item : row, row}};
}

// Elements `column`, even, and the next of a row, as far as it has them.
template <class S>
__device__ __forceinline__ void store_pair(S* row, int column, int width, float x, float y) {
  if (width % 2 == 0) {
    if (column < width) *reinterpret_cast<unsigned*>(row + column) = pack<S>(x, y);
    return;
  }
  if (column < width) row[column] = from_float<S>(x);
  if (column + 1 < width) row[column + 1] = from_float<S>(y);
}

#if defined(VECTILE_HOPPER)

// d = x u^T: the warpgroup's 64 rows of x by N of u, both tiles by 64 columns, then by 64 rows.
template <class S, int D, int N>
__device__ __forceinline__ void multiply_rows(float (&d)[N / 2], unsigned x, int warpgroup,
                                              unsigned u) {
#pragma unroll
  for (int c = 0; c < D / 64; ++c)
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      const auto a = operand<false>(x, c * kHeldRows + warpgroup * kBoxRows, step);
      const auto b = operand<false>(u, c * N, step);
      if (c + step == 0)
        warpgroup_multiply_add<S, N, false, false, false>(d, a, b);
      else
        warpgroup_multiply_add<S, N, false, false>(d, a, b);
    }
}

// sums += weights w, w of K rows.
template <class S, int D, int K>
__device__ __forceinline__ void add_rows(float (&sums)[D / 2], const unsigned (&weights)[K / 16][4],
                                         unsigned w) {
#pragma unroll
  for (int k = 0; k < K / 16; ++k)
    warpgroup_multiply_add<S, D, true>(sums, weights[k], operand<true>(w, k / 4 * D, k % 4));
}

// Sums of a product as the left operand of the next.
template <class S, int N>
__device__ __forceinline__ void pack_weights(const float (&sums)[N],
                                             unsigned (&weights)[N / 8][4]) {
#pragma unroll
  for (int i = 0; i < N; i += 2) weights[i / 8][i / 2 % 4] = pack<S>(sums[i], sums[i + 1]);
}

// A thread's two of the 16 rows of a warp from `row` on, as far as there are `rows` of `width`.
template <int D, class S>
__device__ __forceinline__ void store_rows(const float (&sums)[D / 2], int row, int rows, S* to,
                                           int width) {
  const int lane = lane_index();
#pragma unroll
  for (int i = 0; i < D / 2; i += 2) {
    const int at = row + lane / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + lane % 4 * 2;
    if (at < rows) store_pair(to + i64{at} * width, column, width, sums[i], sums[i + 1]);
  }
}

// Zeros in rows of a tile, by all consumers: what no row of the block sees may be anything. Boxes
// of the next 64 rows, and of the next 64 columns, are so many boxes on.
template <int D>
__device__ __forceinline__ void clear_rows(char* tile, int begin, int end, int next_rows = D / 64,
                                           int next_columns = 1) {
  constexpr int chunks = D / 64, vectors = kBoxRowBytes / 16;
  const int thread = static_cast<int>(threadIdx.x) - kWarpgroup;
#pragma unroll 1
  for (int x = thread; x < (end - begin) * chunks * vectors; x += kConsumers * kWarpgroup) {
    const int row = begin + x / (chunks * vectors), chunk = x / vectors % chunks;
    char* const box = tile + (row / kBoxRows * next_rows + chunk * next_columns) * kBoxBytes;
    *reinterpret_cast<uint4*>(box + row % kBoxRows * kBoxRowBytes + x % vectors * 16) =
        make_uint4(0, 0, 0, 0);
  }
}
__device__ __forceinline__ void all_cleared(Barrier* cleared, int parity) {
  stores_end();
  __syncwarp();
  if (lane_index() == 0) barrier_arrive(cleared);
  barrier_wait(cleared, parity);
}

#endif

}  // namespace vectile::cuda::attention
