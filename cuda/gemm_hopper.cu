// Matrix products for sm_90a. Of three warpgroups of a block one, the producer, has the copy engine
// fill a ring of stages with boxes of the operands; the others multiply them, 64 rows of C each
// (CUTLASS, media/docs/efficient_gemm: warp-specialised, persistent). Two blocks of a cluster, one
// above the other, share a tile of B: each brings half of it to both. Clusters go from tile to
// tile, and copies for the next one run while the last one is stored.
//
// float32 is first laid out anew: as three planes of bfloat16 (Split), or rounded to TF32.
#include <algorithm>
#include <climits>

#include "gemm_problem.h"
#include "hopper.h"

namespace vectile::cuda {
namespace {

constexpr int kBlocks = 2, kConsumers = 2;  // blocks of a cluster, warpgroups that multiply
constexpr int kRows = kConsumers * kBoxRows, kThreads = (1 + kConsumers) * kWarpgroup;
constexpr int kWarpRows = 16, kScratchColumns = 64;  // of C, on their way from registers
constexpr int kScratch = kConsumers * kWarpgroup / kWarp * kWarpRows * kScratchColumns;

// How an arithmetic of gemm_tile.h works here: planes of Elements, columns of a tile.
template <class S, class O, int PLANES, int COLUMNS, int STAGES>
struct FormOf {
  using Element = S;
  using Operand = O;
  static constexpr int planes = PLANES, columns = COLUMNS, stages = STAGES;
  static constexpr int depth = kBoxRowBytes / sizeof(S);  // of k in a stage
  static constexpr int boxes_a = PLANES * kRows / kBoxRows, boxes_b = PLANES * COLUMNS / kBoxRows;
  static constexpr int stage_bytes = (boxes_a + boxes_b) * kBoxBytes;
  static constexpr std::size_t bytes =
      STAGES * (stage_bytes + 2 * sizeof(Barrier)) + kScratch * sizeof(float);
  struct Pair {
    S at[2];
  };
};
template <class Math>
struct Form;
template <class S>
struct Form<Halves<S>> : FormOf<S, S, 1, 256, 4> {
  using typename FormOf<S, S, 1, 256, 4>::Pair;
  static constexpr int terms = 1;
  __device__ static constexpr Term term(int) { return {0, 0, 0}; }
  __device__ static void convert(S x, S y, Pair (&to)[1]) { to[0] = {{x, y}}; }
};
template <>
struct Form<Rounded> : FormOf<float, Tf32, 1, 256, 4> {
  static constexpr int terms = 1;
  __device__ static constexpr Term term(int) { return {0, 0, 0}; }
  __device__ static void convert(float x, float y, Pair (&to)[1]) {
    to[0] = {{to_tf32(x), to_tf32(y)}};
  }
};
template <>
struct Form<Split> : FormOf<BFloat16, BFloat16, 3, 128, 2> {
  static constexpr int terms = Split::terms;
  __device__ static constexpr Term term(int i) { return Split::term(i); }
  __device__ static void convert(float x, float y, Pair (&to)[3]) {
    unsigned pair[3];
    Split::cut_up(x, y, pair);
#pragma unroll
    for (int p = 0; p < 3; ++p)
      to[p] = {
          {{static_cast<std::uint16_t>(pair[p])}, {static_cast<std::uint16_t>(pair[p] >> 16)}}};
  }
};

// Both operands as tensors of (k, lines, plane, batch, batch), the first two the other way round
// where they lie across k.
template <class S>
struct Task {
  TensorMap a, b;
  Epilogue<S> c;
  BatchAxes batch;  // at most two
  int k;
  unsigned rows, columns, tiles;  // of clusters; in all
};

// A tile of the work of a cluster.
struct Work {
  i64 product;
  int row, column;  // elements
  int a[2], b[2];   // places in the operands' batches

  template <class S>
  __device__ Work(const Task<S>& p, unsigned tile, int columns)
      : product(tile / (p.rows * p.columns)) {
    const BlockPlace place(tile % (p.rows * p.columns), p.rows, p.columns);
    row = static_cast<int>(place.row) * kBlocks * kRows + block_in_cluster() * kRows;
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
template <class Math, int COLUMNS>
struct WarpSums {
  float at[Math::sums][COLUMNS / 2];

  __device__ void clear() {
#pragma unroll
    for (int s = 0; s < Math::sums; ++s)
#pragma unroll
      for (int i = 0; i < COLUMNS / 2; ++i) at[s][i] = 0;
  }
  __device__ void done() {
#pragma unroll
    for (int s = 0; s < Math::sums; ++s) products_done(at[s]);
  }
  __device__ float total(int i) const {
    const float y = at[0][i];
    if constexpr (Math::sums == 1) return y;
    return abs(y) < INFINITY ? y + at[Math::sums - 1][i] : y;
  }

  // Of an element in shared memory: the eight rows that are written together use all banks.
  __device__ static int place(int row, int column) {
    return row * kScratchColumns + (column ^ row % 8 * 8);
  }
  template <class S>
  __device__ void finish(const Epilogue<S>& c, float* shared, i64 row, i64 column) const {
    constexpr int size = Vector<S>::size, in_row = kScratchColumns / size;
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
    for (int part = 0; part < COLUMNS; part += kScratchColumns) {
      __syncwarp();
#pragma unroll
      for (int j = 0; j < kScratchColumns / 8; ++j)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int i = 4 * (part / 8 + j) + 2 * half;
          *reinterpret_cast<float2*>(shared + place(8 * half + lane / 4, 8 * j + 2 * (lane % 4))) =
              float2{total(i), total(i + 1)};
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

template <class Math, bool a_across, bool b_across>
__global__ void __launch_bounds__(kThreads, 1)
    hopper_kernel(const __grid_constant__ Task<typename Math::Stored> p) {
#if defined(VECTILE_HOPPER)
  using F = Form<Math>;
  char* const memory = dynamic_memory();
  auto* const scratch = reinterpret_cast<float*>(memory + F::stages * F::stage_bytes);
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
        const Work work(p, tile, F::columns);
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
    const int consumer = warp - kWarpgroup / kWarp;
    const int row = consumer / (kWarpgroup / kWarp) * kBoxRows;
    WarpSums<Math, F::columns> sums;
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
        products_begin();
#pragma unroll
        for (int step = 0; step < kBoxRowBytes / 32; ++step)
#pragma unroll
          for (int t = 0; t < F::terms; ++t) {
            constexpr int plane_a = kRows / kBoxRows * kBoxBytes;
            constexpr int plane_b = F::columns / kBoxRows * kBoxBytes;
            const Term term = F::term(t);
            warpgroup_multiply_add<typename F::Operand, F::columns, a_across, b_across>(
                sums.at[term.sum],
                operand<a_across>(a + static_cast<unsigned>(term.a * plane_a), row, step),
                operand<b_across>(b + static_cast<unsigned>(term.b * plane_b), 0, step));
          }
        products_commit();
        products_wait<1>();
        if (before >= 0) release(before);
        before = ring.stage;
      }
      products_wait<0>();
      sums.done();
      release(before);
      const Work work(p, tile, F::columns);
      sums.finish(p.c.moved(p.batch.at(work.product).c),
                  scratch + consumer * kWarpRows * kScratchColumns,
                  i64{work.row} + row + warp % 4 * kWarpRows, work.column);
    }
  }
  cluster_barrier();  // the other block's copies and arrivals are over
#endif
}

// ---- laying operands out ------------------------------------------------------------------------

constexpr int kPackLines = 32, kPackDepth = 64, kPackThreads = 256;

// Lines of k elements as planes of lines along k, `pitch` elements apart; two axes of batches.
template <class Math, class Stored = typename Math::Stored,
          class Element = typename Form<Math>::Element>
__global__ void __launch_bounds__(kPackThreads)
    pack_kernel(Lines<Stored> x, i64 size0, i64 size1, i64 stride0, i64 stride1, Element* to,
                i64 pitch) {
  using F = Form<Math>;
  using Pair = typename F::Pair;
  __shared__ Stored tile[kPackLines][kPackDepth + 1];
  const i64 across = ceil_div(x.count, kPackLines);
  const i64 line = blockIdx.x % across * kPackLines, k = blockIdx.x / across * kPackDepth;
  const int thread = static_cast<int>(threadIdx.x);
  for (i64 z = blockIdx.z; z < size0 * size1; z += gridDim.z) {
    const Stored* from = x.at + z % size0 * stride0 + z / size0 * stride1;
    for (int i = thread; i < kPackLines * kPackDepth; i += kPackThreads) {
      const int l = x.depth == 1 ? i / kPackDepth : i % kPackLines;
      const int d = x.depth == 1 ? i % kPackDepth : i / kPackLines;
      const bool inside = line + l < x.count && k + d < x.k;
      tile[l][d] = inside ? from[(line + l) * x.line + (k + d) * x.depth] : Stored{};
    }
    __syncthreads();
    for (int i = thread; i < kPackLines * kPackDepth / 2; i += kPackThreads) {
      const int l = i / (kPackDepth / 2), d = i % (kPackDepth / 2) * 2;
      if (line + l >= x.count || k + d >= pitch) continue;
      Pair pairs[F::planes];
      F::convert(tile[l][d], tile[l][d + 1], pairs);
#pragma unroll
      for (int p = 0; p < F::planes; ++p)
        *reinterpret_cast<Pair*>(to + ((z * F::planes + p) * x.count + line + l) * pitch + k + d) =
            pairs[p];
    }
    __syncthreads();
  }
}

// An operand as the copy engine reads it, with the memory that holds it where it was laid out anew.
struct Operand {
  Array packed;
  TensorMap map;
  bool across = false;
};

template <class Math>
Operand prepare(const Lines<typename Math::Stored>& x, const BatchAxes& batch, i64 Strides::* by) {
  using S = typename Math::Stored;
  using Element = typename Form<Math>::Element;
  constexpr int planes = Form<Math>::planes, item = sizeof(Element);
  i64 size[2], stride[2];
  for (int d = 0; d < 2; ++d) {
    stride[d] = d < batch.axes ? batch.stride[d].*by : 0;
    size[d] = stride[d] ? batch.size[d] : 1;
  }
  Operand o;
  if constexpr (std::is_same_v<S, Element> && sizeof(S) == 2) {
    // Of an axis of one element any stride will do.
    const auto view = [&](i64 along, i64 lines, i64 pitch) {
      const i64 next = pitch * item;
      return Tensor{x.at,
                    item,
                    {along, lines, 1, size[0], size[1]},
                    {next, next, size[0] > 1 ? stride[0] * item : next,
                     size[1] > 1 ? stride[1] * item : next}};
    };
    const Tensor along = view(x.k, x.count, x.line), across = view(x.count, x.k, x.depth);
    o.across = !(x.depth == 1 && can_map(along)) && x.line == 1 && can_map(across);
    if (o.across || (x.depth == 1 && can_map(along))) {
      o.map = make_map(o.across ? across : along);
      return o;
    }
  }
  const i64 pitch = ceil_div(x.k, 16 / item) * (16 / item), count = size[0] * size[1];
  o.packed = Array::empty(DType::u8, Shape(count, planes * x.count, pitch * item));
  const i64 blocks = ceil_div(x.count, kPackLines) * ceil_div(x.k, kPackDepth);
  launch(
      pack_kernel<Math>,
      {dim3(static_cast<unsigned>(blocks), 1, static_cast<unsigned>(std::min(count, kMostBatches))),
       kPackThreads},
      x, size[0], size[1], stride[0], stride[1], o.packed.template as<Element>(), pitch);
  const i64 plane = x.count * pitch * item;
  o.map = make_map({o.packed.data,
                    item,
                    {x.k, x.count, planes, size[0], size[1]},
                    {pitch * item, plane, planes * plane, size[0] * planes * plane}});
  return o;
}

template <class Math, bool a_across, bool b_across>
void run(const Task<typename Math::Stored>& task) {
  const unsigned clusters = std::max(1, multiprocessors() / kBlocks);
  launch(hopper_kernel<Math, a_across, b_across>,
         {std::min(clusters, task.tiles) * kBlocks, kThreads, Form<Math>::bytes, kBlocks}, task);
}

}  // namespace

template <class Math>
bool multiply_on_hopper(const Product<typename Math::Stored>& p) {
#if defined(VECTILE_CUDA_HOPPER)
  using F = Form<Math>;
  if (architecture() != 90 || p.batch.axes > 2 || p.a.k == 0) return false;
  const i64 rows = ceil_div(p.c.m, kBlocks * kRows), columns = ceil_div(p.c.n, F::columns);
  const i64 tiles = rows * columns * p.batch.count;
  // A smaller grid leaves more multiprocessors idle than the smaller blocks of mma.sync do.
  const bool enough = p.c.m >= kRows && p.c.n >= F::columns / 2 &&
                      tiles * kBlocks * 5 >= i64{multiprocessors()} * 3;
  constexpr i64 most = INT_MAX - 1024;
  if (!enough || std::max({p.c.m, p.c.n, p.a.k, tiles}) > most) return false;
  const Operand a = prepare<Math>(p.a, p.batch, &Strides::a);
  const Operand b = prepare<Math>(p.b, p.batch, &Strides::b);
  const Task<typename Math::Stored> task{a.map,
                                         b.map,
                                         p.c,
                                         p.batch,
                                         static_cast<int>(p.a.k),
                                         static_cast<unsigned>(rows),
                                         static_cast<unsigned>(columns),
                                         static_cast<unsigned>(tiles)};
  if constexpr (std::is_same_v<typename Math::Stored, typename F::Element> &&
                sizeof(typename F::Element) == 2) {
    if (a.across && b.across) return run<Math, true, true>(task), true;
    if (a.across) return run<Math, true, false>(task), true;
    if (b.across) return run<Math, false, true>(task), true;
  }
  run<Math, false, false>(task);
  return true;
#else
  static_cast<void>(p);
  return false;
#endif
}

template bool multiply_on_hopper<Halves<BFloat16>>(const Product<BFloat16>&);
template bool multiply_on_hopper<Halves<Float16>>(const Product<Float16>&);
template bool multiply_on_hopper<Rounded>(const Product<float>&);
template bool multiply_on_hopper<Split>(const Product<float>&);

}  // namespace vectile::cuda
