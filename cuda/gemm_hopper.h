// The kernel of matrix products for sm_90a. Of three warpgroups of a block one, the producer, has
// the copy engine fill a ring of stages with boxes of the operands; the others multiply them, 64
// rows of C each (CUTLASS, media/docs/efficient_gemm: warp-specialised, persistent). Two blocks of
// a cluster, one above the other, share a tile of B: each brings half of it to both. Clusters go
// from tile to tile, and copies for the next one run while the last one is stored.
#pragma once

#include <algorithm>
#include <climits>

#include "gemm_problem.h"
#include "hopper.h"

namespace vectile::cuda::hopper {

constexpr int kBlocks = 2, kConsumers = 2;  // blocks of a cluster, warpgroups that multiply
constexpr int kRows = kConsumers * kBoxRows, kThreads = (1 + kConsumers) * kWarpgroup;
constexpr int kWarpRows = 16, kScratchColumns = 64;  // of C, on their way from registers
constexpr int kScratch = kConsumers * kWarpgroup / kWarp * kWarpRows * kScratchColumns;

// What a form of products begins with: planes of Elements, columns of a tile, the numbers that are
// summed. Besides it has
//   terms, sums, term(i): a product is a sum of products of planes, as gemm_tile.h has it;
//   multiply<a_across, b_across, add>(sum, a, b): a warpgroup's product of two operands, plus what
//   was there if `add`.
template <class S, class SUM, int PLANES, int COLUMNS, int STAGES>
struct FormOf {
  using Element = S;
  using Sum = SUM;
  static constexpr int planes = PLANES, columns = COLUMNS, stages = STAGES;
  static constexpr int depth = kBoxRowBytes / sizeof(S);  // of k in a stage
  static constexpr int boxes_a = PLANES * kRows / kBoxRows, boxes_b = PLANES * COLUMNS / kBoxRows;
  static constexpr int stage_bytes = (boxes_a + boxes_b) * kBoxBytes;
  static constexpr std::size_t bytes =
      STAGES * (stage_bytes + 2 * sizeof(Barrier)) + kScratch * sizeof(SUM);
};

// Both operands as tensors of (k, lines, plane, batch, batch), the first two the other way round
// where they lie across k. C is an epilogue: moved(by) in the batch, finish(sums, row, column) for
// C::size adjacent ones.
template <class C>
struct Task {
  TensorMap a, b;
  C c;
  BatchAxes batch;  // at most two
  int k;
  unsigned rows, columns, tiles;  // of clusters; in all
};

// A tile of the work of a cluster.
struct Work {
  i64 product;
  int row, column;  // elements
  int a[2], b[2];   // places in the operands' batches

  template <class C>
  __device__ Work(const Task<C>& p, unsigned tile, int block, int columns)
      : product(tile / (p.rows * p.columns)) {
    const BlockPlace place(tile % (p.rows * p.columns), p.rows, p.columns);
    row = static_cast<int>(place.row) * kBlocks * kRows + block * kRows;
    column = static_cast<int>(place.column) * columns;
    i64 rest = product;
    for (int d = 0; d < 2; ++d) {
      const i64 size = d < p.batch.axes ? p.batch.size[d] : 1;
      const auto i = static_cast<int>(rest % size);
      rest /= size;
      a[d] = p.batch.stride[d].a ? i : 0;
      b[d] = p.batch.stride[d].b ? i : 0;
    }
  }
};

template <bool across>
__device__ Coordinates coordinates(int line, int k, int plane, const int (&batch)[2]) {
  return {{across ? line : k, across ? k : line, plane, batch[0], batch[1]}};
}

#if defined(VECTILE_HOPPER)

// What a warp has of C: 16 rows of a tile.
template <class F>
struct WarpSums {
  using Sum = typename F::Sum;
  static constexpr int apart = F::sums - 1;  // terms, the first, that are summed by steps
  Sum at[F::sums][F::columns / 2];
  Sum part[apart ? F::columns / 2 : 1];  // of the present step

  __device__ void clear() {
#pragma unroll
    for (int s = 0; s < F::sums; ++s)
#pragma unroll
      for (int i = 0; i < F::columns / 2; ++i) at[s][i] = 0;
  }
  // Adds the products of a term and one of the steps of 32 bytes.
  template <bool a_across, bool b_across>
  __device__ __forceinline__ void multiply(int t, int step, std::uint64_t a, std::uint64_t b) {
    if constexpr (apart)
      if (t < apart) {
        if (step == 0)
          F::template multiply<a_across, b_across, false>(part, a, b);
        else
          F::template multiply<a_across, b_across, true>(part, a, b);
        return;
      }
    F::template multiply<a_across, b_across, true>(at[F::term(t).sum], a, b);
  }
  __device__ void add_part() {
    products_done(part);
#pragma unroll
    for (int i = 0; i < F::columns / 2; ++i) at[0][i] += part[i];
  }
  __device__ void done() {
#pragma unroll
    for (int s = apart; s < F::sums; ++s) products_done(at[s]);
  }
  __device__ Sum total(int i) const {
    const Sum y = at[0][i];
    if constexpr (F::sums == 1)
      return y;
    else
      return abs(y) < INFINITY ? y + at[1][i] : y;
  }

  // Of an element in shared memory: the eight rows that are written together use all banks.
  __device__ static int place(int row, int column) {
    return row * kScratchColumns + (column ^ row % 8 * 8);
  }
  template <class C>
  __device__ void finish(const C& c, Sum* shared, i64 row, i64 column) const {
    struct alignas(2 * sizeof(Sum)) Pair {
      Sum at[2];
    };
    constexpr int size = C::size, in_row = kScratchColumns / size;
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
    for (int part = 0; part < F::columns; part += kScratchColumns) {
      __syncwarp();
#pragma unroll
      for (int j = 0; j < kScratchColumns / 8; ++j)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int i = 4 * (part / 8 + j) + 2 * half;
          *reinterpret_cast<Pair*>(shared + place(8 * half + lane / 4, 8 * j + 2 * (lane % 4))) =
              Pair{{total(i), total(i + 1)}};
        }
      __syncwarp();
#pragma unroll 1
      for (int v = lane; v < kWarpRows * in_row; v += kWarp) {
        const int r = v / in_row, at = v % in_row * size;
        c.finish(shared + place(r, at), row + r, column + part + at);
      }
    }
  }
};

#endif

template <class F, class C, bool a_across, bool b_across>
__global__ void __launch_bounds__(kThreads, 1) kernel(const __grid_constant__ Task<C> p) {
#if defined(VECTILE_HOPPER)
  char* const memory = dynamic_memory();
  auto* const scratch = reinterpret_cast<typename F::Sum*>(memory + F::stages * F::stage_bytes);
  auto* const full = reinterpret_cast<Barrier*>(scratch + kScratch);
  Barrier* const empty = full + F::stages;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarp, lane = thread % kWarp;
  const int block = block_in_cluster();
  if (thread == 0) {
    for (int s = 0; s < F::stages; ++s) {
      barrier_init(full + s, 1);
      barrier_init(empty + s, kBlocks * kConsumers * kWarpgroup / kWarp);
    }
    barrier_init_end();
  }
  cluster_barrier();
  const unsigned first = blockIdx.x / kBlocks, clusters = gridDim.x / kBlocks;
  Ring<F::stages> ring;
  if (warp < kWarpgroup / kWarp) {
    give_registers<40>();
    if (thread == 0)
      for (unsigned tile = first; tile < p.tiles; tile += clusters) {
        const Work work(p, tile, block, F::columns);
        for (int k = 0; k < p.k; k += F::depth, ring.advance()) {
          char* to = memory + ring.stage * F::stage_bytes;
          Barrier* const arrived = full + ring.stage;
          barrier_wait(empty + ring.stage, ring.parity ^ 1);
          barrier_expect(arrived, F::stage_bytes);
          for (int plane = 0; plane < F::planes; ++plane)
            for (int line = 0; line < kRows; line += kBoxRows, to += kBoxBytes)
              copy_box(to, p.a, coordinates<a_across>(work.row + line, k, plane, work.a), arrived);
          constexpr int half = F::columns / kBlocks;
          for (int plane = 0; plane < F::planes; ++plane)
            for (int line = 0; line < F::columns; line += kBoxRows, to += kBoxBytes)
              if (line / half == block)
                copy_box(to, p.b, coordinates<b_across>(work.column + line, k, plane, work.b),
                         arrived, (1u << kBlocks) - 1);
        }
      }
  } else {
    take_registers<232>();
    // Shuffled, which tells the compiler that it is the warp's.
    const int consumer = __shfl_sync(kAll, warp, 0) - kWarpgroup / kWarp;
    const int row = consumer / (kWarpgroup / kWarp) * kBoxRows;
    WarpSums<F> sums;
    const auto release = [&](int stage) {
      if (lane < kBlocks) barrier_arrive(empty + stage, lane);
    };
    for (unsigned tile = first; tile < p.tiles; tile += clusters) {
      sums.clear();
      int before = -1;
      for (int k = 0; k < p.k; k += F::depth, ring.advance()) {
        barrier_wait(full + ring.stage, ring.parity);
        const unsigned a = shared_address(memory + ring.stage * F::stage_bytes);
        const unsigned b = a + F::boxes_a * kBoxBytes;
        const auto multiply = [&](int from, int to) {
#pragma unroll
          for (int step = 0; step < kBoxRowBytes / 32; ++step)
#pragma unroll
            for (int t = from; t < to; ++t)
              sums.template multiply<a_across, b_across>(
                  t, step, operand<a_across>(a, F::term(t).a * kRows + row, step),
                  operand<b_across>(b, F::term(t).b * F::columns, step));
          products_commit();
        };
        products_begin();
        if constexpr (sums.apart) multiply(0, sums.apart);
        multiply(sums.apart, F::terms);
        products_wait<1>();  // all but the last group: the step before is over
        if (before >= 0) release(before);
        if constexpr (sums.apart) sums.add_part();
        before = ring.stage;
      }
      products_wait<0>();
      sums.done();
      release(before);
      const Work work(p, tile, block, F::columns);
      sums.finish(p.c.moved(p.batch.at(work.product).c),
                  scratch + consumer * kWarpRows * kScratchColumns,
                  i64{work.row} + row + warp % 4 * kWarpRows, work.column);
    }
  }
  cluster_barrier();  // the other block's copies and arrivals are over
#endif
}

// Whether there is enough work for these kernels: a smaller grid leaves more multiprocessors idle
// than the smaller blocks of mma.sync do.
template <class F>
bool suits(i64 m, i64 n, i64 k, i64 batches) {
#if defined(VECTILE_CUDA_HOPPER)
  const i64 tiles = ceil_div(m, kBlocks * kRows) * ceil_div(n, F::columns) * batches;
  constexpr i64 most = INT_MAX - 1024;
  return architecture() == 90 && k > 0 && m >= kRows && n >= F::columns / 2 &&
         tiles * kBlocks * 5 >= i64{multiprocessors()} * 3 && std::max({m, n, k, tiles}) <= most;
#else
  static_cast<void>(m), static_cast<void>(n), static_cast<void>(k), static_cast<void>(batches);
  return false;
#endif
}

// Starts the products of suitable operands.
template <class F, bool a_across, bool b_across, class C>
void run(const TensorMap& a, const TensorMap& b, const C& c, const BatchAxes& batch, i64 m, i64 n,
         i64 k) {
  const i64 rows = ceil_div(m, kBlocks * kRows), columns = ceil_div(n, F::columns);
  const Task<C> task{a,
                     b,
                     c,
                     batch,
                     static_cast<int>(k),
                     static_cast<unsigned>(rows),
                     static_cast<unsigned>(columns),
                     static_cast<unsigned>(rows * columns * batch.count)};
  const auto start = kernel<F, C, a_across, b_across>;
  Launch l{kBlocks, kThreads, F::bytes, kBlocks};
  // One that had to wait for the others to end would begin when all is nearly done.
  static const int resident = resident_clusters(reinterpret_cast<const void*>(start), l);
  const int clusters = std::max(1, std::min(resident, multiprocessors() / kBlocks));
  l.grid = std::min(static_cast<unsigned>(clusters), task.tiles) * kBlocks;
  launch(start, l, task);
}

}  // namespace vectile::cuda::hopper
