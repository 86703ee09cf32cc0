// Tiles of attention in shared memory and their products, by blocks of four warps.
//
// A block holds (kRows, D) tiles against (COLUMNS, D) tiles that it streams. Two engines share the
// interface: tensor cores for the two-byte types, plain multiply-adds for float32 and float64 (one
// TF32 product is too coarse for a float32). A warp owns kWarpRows rows of every product, so that
// rows never cross warps.
#pragma once

#include "rows.h"

namespace vectile::cuda::attention {

constexpr int kThreads = 128;

__device__ __forceinline__ int warp_index() { return static_cast<int>(threadIdx.x) / kWarp; }
__device__ __forceinline__ int lane_index() { return static_cast<int>(threadIdx.x) % kWarp; }

// Rows of D elements. Chunk c, of 16 bytes, of row r lies at place c ^ (r % 8): eight rows of one
// chunk, and eight chunks of one row, are in different banks.
template <class S, int D>
struct Tile {
  static constexpr int kChunk = kVectorBytes / sizeof(S), kChunks = D / kChunk;
  static_assert(kChunks % 8 == 0);
  S* data;
  __device__ S* chunk(int row, int c) const {
    return data + row * D + ((c & ~7) | ((c ^ row) & 7)) * kChunk;
  }
  __device__ const Vector<S>& vector(int row, int c) const {
    return *reinterpret_cast<const Vector<S>*>(chunk(row, c));
  }
};

// The rows of one head; `aligned`: all are whole chunks at multiples of 16 bytes.
template <class S>
struct Rows {
  const S* data;
  i64 stride;
  int width;
  bool aligned;
};

// (batch, heads, rows, width); the last axis contiguous.
template <class S>
struct Heads {
  const S* data;
  i64 batch, head, row;
  int width;
  bool aligned;
  __device__ Rows<S> of(i64 b, i64 h) const {
    return {data + b * batch + h * head, row, width, aligned};
  }
};

// Begins to copy rows `first` to `first + ROWS` into a tile: zeros for those outside [begin, end)
// and for columns past the width.
template <int ROWS, class S, int D>
__device__ __forceinline__ void load_rows(Tile<S, D> tile, const Rows<S>& x, int first, int begin,
                                          int end) {
  using Place = Tile<S, D>;
  constexpr int step = kThreads / Place::kChunks;  // rows at a time; a thread keeps to its column
  static_assert(step > 0 && ROWS % step == 0);
  const int thread = static_cast<int>(threadIdx.x), c = thread % Place::kChunks;
  const int column = c * Place::kChunk;
  int r = thread / Place::kChunks;
  const S* from = x.data + (first + r) * x.stride + column;
  if (x.aligned) {
#pragma unroll 4
    for (int i = 0; i < ROWS / step; ++i, r += step, from += step * x.stride) {
      const bool inside = first + r >= begin && first + r < end && column < x.width;
      copy_async(tile.chunk(r, c), inside ? from : x.data, inside);
    }
    return;
  }
#pragma unroll 1
  for (; r < ROWS; r += step, from += step * x.stride) {
    const bool inside = first + r >= begin && first + r < end;
    for (int e = 0; e < Place::kChunk; ++e)
      tile.chunk(r, c)[e] = inside && column + e < x.width ? from[e] : S{};
  }
}

// 16 PER rows a warp by mma m16n8k16; a thread has rows g and g + 8 of each 16, and columns 2t and
// 2t + 1 of each 8 (g = lane / 4, t = lane % 4). Scores become the left operand of the next product
// in the registers where they are.
template <class S_, int D_, int PER, int COLUMNS>
struct TensorCores {
  using S = S_;
  static constexpr int D = D_, kColumns = COLUMNS;
  static constexpr int kWarpRows = 16 * PER, kRows = kThreads / kWarp * kWarpRows;
  static constexpr int kThreadRows = 2 * PER, kLanes = 4;  // lanes that share a row
  static constexpr int kStages = 2, kScratch = 0;

  template <int N>
  struct Fragment {
    static constexpr int kCount = N / 4;
    float v[PER][N / 8][4] = {};
    __device__ float& at(int i, int j) { return v[i / 2][j / 2][i % 2 * 2 + j % 2]; }
  };
  using Scores = Fragment<COLUMNS>;
  using Sums = Fragment<D>;

  __device__ static int row(int i) {
    return warp_index() * kWarpRows + i / 2 * 16 + i % 2 * 8 + lane_index() / 4;
  }
  __device__ static int column(int j) { return j / 2 * 8 + lane_index() % 4 * 2 + j % 2; }
  __device__ static int sum_column(int j) { return column(j); }

  // s += x u^T over the first `width` columns.
  __device__ static void product(Scores& s, Tile<S, D> x, Tile<S, D> u, int width) {
    const int lane = lane_index();
#pragma unroll
    for (int k = 0; k < D / 16; ++k) {
      if (k * 16 >= width) break;
      unsigned a[PER][4];
#pragma unroll
      for (int m = 0; m < PER; ++m)
        load_matrices(a[m],
                      x.chunk(warp_index() * kWarpRows + m * 16 + lane % 16, 2 * k + lane / 16));
#pragma unroll
      for (int n = 0; n < COLUMNS / 16; ++n) {
        unsigned b[4];
        load_matrices(b, u.chunk(n * 16 + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2));
        multiply_pairs(s, a, b, n);
      }
    }
  }

  // sums += p w for the first `width` columns of w.
  __device__ static void add_product(Sums& sums, Scores& p, Tile<S, D> w, int width, float*) {
    const int lane = lane_index();
#pragma unroll
    for (int k = 0; k < COLUMNS / 16; ++k) {
      unsigned a[PER][4];
#pragma unroll
      for (int m = 0; m < PER; ++m)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float* pair = p.v[m][2 * k + i / 2] + i % 2 * 2;
          a[m][i] = pack<S>(pair[0], pair[1]);
        }
#pragma unroll
      for (int n = 0; n < D / 16; ++n) {
        if (n * 16 >= width) break;
        unsigned b[4];
        load_matrices_transposed(b, w.chunk(k * 16 + lane % 16, 2 * n + lane / 16));
        multiply_pairs(sums, a, b, n);
      }
    }
  }

 private:
  template <int N>
  __device__ static void multiply_pairs(Fragment<N>& f, const unsigned (&a)[PER][4],
                                        const unsigned (&b)[4], int n) {
    const unsigned left[2] = {b[0], b[1]}, right[2] = {b[2], b[3]};
#pragma unroll
    for (int m = 0; m < PER; ++m) {
      multiply_add(f.v[m][2 * n], a[m], left, S{});
      multiply_add(f.v[m][2 * n + 1], a[m], right, S{});
    }
  }
};

// 4 PER rows a warp: eight lanes share PER rows, lane x of them has columns x, x + 8, ... of the
// scores and chunks x, x + 8, ... of the sums. Scores go through the warp's scratch memory to the
// lanes that need them.
template <class S_, int D_, int PER, int COLUMNS>
struct Lanes {
  using S = S_;
  static constexpr int D = D_, kColumns = COLUMNS;
  static constexpr int kWarpRows = 4 * PER, kRows = kThreads / kWarp * kWarpRows;
  static constexpr int kThreadRows = PER, kLanes = 8;
  static constexpr int kStages = 1, kScratch = COLUMNS * kRows;
  static constexpr int kChunk = Tile<S, D>::kChunk;

  template <int N>
  struct Fragment {
    static constexpr int kCount = N / 8;
    S v[PER][N / 8] = {};
    __device__ S& at(int i, int j) { return v[i][j]; }
  };
  using Scores = Fragment<COLUMNS>;
  using Sums = Fragment<D>;

  __device__ static int row(int i) { return warp_index() * kWarpRows + lane_index() / 8 * PER + i; }
  __device__ static int column(int j) { return lane_index() % 8 + 8 * j; }
  __device__ static int sum_column(int j) {
    return (lane_index() % 8 + j / kChunk * 8) * kChunk + j % kChunk;
  }

  __device__ static void product(Scores& s, Tile<S, D> x, Tile<S, D> u, int width) {
#pragma unroll 2
    for (int c = 0; c * kChunk < width; ++c) {
      Vector<S> a[PER];
#pragma unroll
      for (int i = 0; i < PER; ++i) a[i] = x.vector(row(i), c);
#pragma unroll
      for (int j = 0; j < COLUMNS / 8; ++j) {
        const Vector<S> b = u.vector(column(j), c);
#pragma unroll
        for (int i = 0; i < PER; ++i)
#pragma unroll
          for (int e = 0; e < kChunk; ++e) s.v[i][j] = fma(a[i].at[e], b.at[e], s.v[i][j]);
      }
    }
  }

  __device__ static void add_product(Sums& sums, Scores& p, Tile<S, D> w, int width, S* scratch) {
    S* mine = scratch + warp_index() * COLUMNS * kWarpRows + lane_index() / 8 * PER;
    __syncwarp();
#pragma unroll
    for (int j = 0; j < COLUMNS / 8; ++j)
#pragma unroll
      for (int i = 0; i < PER; ++i) mine[column(j) * kWarpRows + i] = p.v[i][j];
    __syncwarp();
#pragma unroll 2
    for (int k = 0; k < COLUMNS; ++k) {
      S a[PER];
#pragma unroll
      for (int i = 0; i < PER; ++i) a[i] = mine[k * kWarpRows + i];
#pragma unroll
      for (int c = 0; c < Tile<S, D>::kChunks / 8; ++c) {
        if (c * 8 * kChunk >= width) break;
        const Vector<S> b = w.vector(k, lane_index() % 8 + 8 * c);
#pragma unroll
        for (int i = 0; i < PER; ++i)
#pragma unroll
          for (int e = 0; e < kChunk; ++e) {
            S& sum = sums.v[i][c * kChunk + e];
            sum = fma(a[i], b.at[e], sum);
          }
      }
    }
  }
};

// f over the lanes that share a row.
template <class E, class T, class F>
__device__ __forceinline__ T row_reduce(T x, F f) {
#pragma unroll
  for (int mask = E::kLanes / 2; mask; mask /= 2) x = f(x, __shfl_xor_sync(kAll, x, mask));
  return x;
}

// Writes a warp's rows of factor * sums to rows of `width` elements, row 0 of the tile at `to`, of
// which there are `rows`; through the warp's own rows of `tile`, which only it reads.
template <class E, class T>
__device__ __forceinline__ void store_rows(Tile<typename E::S, E::D> tile, typename E::Sums& sums,
                                           const T (&factor)[E::kThreadRows], typename E::S* to,
                                           int rows, int width) {
  using S = typename E::S;
  using Place = Tile<S, E::D>;
  __syncwarp();
#pragma unroll
  for (int i = 0; i < E::kThreadRows; ++i)
#pragma unroll
    for (int j = 0; j < E::Sums::kCount; ++j) {
      const int column = E::sum_column(j);
      tile.chunk(E::row(i), column / Place::kChunk)[column % Place::kChunk] =
          from_float<S>(sums.at(i, j) * factor[i]);
    }
  __syncwarp();
  const bool aligned = width % Place::kChunk == 0 && is_aligned(to);
  for (int x = lane_index(); x < E::kWarpRows * Place::kChunks; x += kWarp) {
    const int r = warp_index() * E::kWarpRows + x / Place::kChunks;
    const int c = x % Place::kChunks, column = c * Place::kChunk;
    if (r >= rows || column >= width) continue;
    S* place = to + i64{r} * width + column;
    if (aligned) {
      *reinterpret_cast<Vector<S>*>(place) = tile.vector(r, c);
    } else {
      for (int e = 0; e < Place::kChunk && column + e < width; ++e) place[e] = tile.chunk(r, c)[e];
    }
  }
}

}  // namespace vectile::cuda::attention
