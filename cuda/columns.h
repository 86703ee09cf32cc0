// Columns that a block sums side by side: `width` threads have one vector of N columns each, and as
// many such lines of threads as fit step down the rows together.
#pragma once

#include "rows.h"

namespace vectile::cuda {

constexpr int kColumnThreads = 256;
constexpr int kColumnDeep = 16;  // elements of a column per thread

// How (n, inner) is cut: into `chunks` of rows and `tiles` of columns. N divides `inner`.
struct Columns {
  i64 n, inner, chunks, tiles;
  int width, lines;

  Columns(i64 rows, i64 columns, int N) : n(rows), inner(columns) {
    const i64 vectors = columns / N;
    width = static_cast<int>(vectors < kWarp ? vectors : kWarp);
    lines = kColumnThreads / width;
    chunks = ceil_div(rows, i64{lines} * kColumnDeep);
    tiles = ceil_div(vectors, i64{width});
  }
};

// The place of a thread in a tile.
template <int N>
struct InColumns {
  int line;
  i64 column, first, end;  // its first column, and the rows of its block
  bool active;

  __device__ InColumns(const Columns& c, i64 tile, i64 chunk) {
    const int thread = static_cast<int>(threadIdx.x);
    const i64 deep = i64{c.lines} * kColumnDeep;
    line = thread / c.width;
    column = (tile * c.width + thread % c.width) * N;
    first = chunk * deep;
    end = first + deep < c.n ? first + deep : c.n;
    active = line < c.lines && column < c.inner;
  }
};

// sum[j] of line 0 becomes f over all lines, folded in halves. Ends with a barrier.
template <int N, class T, class F>
__device__ __forceinline__ void fold_lines(const Columns& c, T (&sum)[N], F f,
                                           T (&shared)[N][kColumnThreads]) {
  const int thread = static_cast<int>(threadIdx.x), line = thread / c.width;
#pragma unroll
  for (int j = 0; j < N; ++j) shared[j][thread] = sum[j];
  for (int live = c.lines; live > 1;) {
    const int half = (live + 1) / 2;
    __syncthreads();
    if (line + half < live)
#pragma unroll
      for (int j = 0; j < N; ++j)
        shared[j][thread] = f(shared[j][thread], shared[j][thread + half * c.width]);
    live = half;
  }
#pragma unroll
  for (int j = 0; j < N; ++j) sum[j] = shared[j][thread];
  __syncthreads();
}

}  // namespace vectile::cuda
