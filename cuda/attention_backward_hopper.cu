// The gradients of attention for sm_90a, of half types (FlashAttention-3, arXiv 2407.08608). A
// block has 128 keys and their values, 64 a warpgroup, and goes over the queries that see some of
// them, the last tile first: scores and P = exp(scores - lse), dP = V dO^T, dS = P (dP - delta), dV
// += P dO, dK += dS Q in registers, and dQ += dS^T K in global memory.
//
// Blocks add to a tile's dQ in the order of their keys, each after the one before has passed, so
// that results are the same in every run. A block takes the next task when it begins: those that
// it waits for have begun before it.
#include <algorithm>

#include "attention_hopper.h"

namespace vectile::cuda {
namespace attention {
namespace {

constexpr int kKeys = kHeldRows, kStages = 2;

struct Maps {
  TensorMap key, value, query, grad;
};

// Of heads padded to D columns; a tile's dQ is two products of 64 x 64, one a warpgroup.
template <int D>
struct Tile {
  static constexpr int rows = kConsumers * kBoxRows * kBoxRows / D;
  static constexpr int row_boxes = rows / kBoxRows, chunks = D / 64;
  static constexpr int bytes = row_boxes * chunks * kBoxBytes;
  static constexpr int sums = rows * D;  // floats

  __device__ __host__ static int count(int lq) { return (lq + rows - 1) / rows; }

  // Where a warpgroup's product is.
  __device__ static int row(int warpgroup) { return warpgroup % row_boxes * kBoxRows; }
  __device__ static int chunk(int warpgroup) { return warpgroup / row_boxes; }
};

template <class S>
struct Work {
  Problem<S> forward;
  const Statistics<float>* rows;  // (batch, heads, lq)
  S *dk, *dv;
  float* sums;      // of dQ: (batch, heads, tiles, Tile::sums), as registers hold them
  unsigned* turns;  // (batch, heads, tiles): blocks that have added theirs
  unsigned* taken;  // tasks
};

template <int D>
struct Memory {
  static constexpr int held_bytes = kKeys / kBoxRows * D / 64 * kBoxBytes;
  static constexpr int slope_bytes = kKeys / kBoxRows * Tile<D>::row_boxes * kBoxBytes;
  struct Rest {
    Statistics<float> queries[kStages][Tile<D>::rows];
    Barrier held, cleared, full[kStages], empty[kStages];
    Barrier slopes, sums_full, sums_empty;
    unsigned task;
    int begin, end;
  };
  static constexpr std::size_t bytes = 2 * held_bytes + 2 * kStages * Tile<D>::bytes +
                                       2 * slope_bytes + Tile<D>::sums * sizeof(float) +
                                       sizeof(Rest);

  char* at;
  __device__ char* key() const { return at; }
  __device__ char* value() const { return at + held_bytes; }
  __device__ char* query(int stage) const {
    return at + 2 * held_bytes + 2 * stage * Tile<D>::bytes;
  }
  __device__ char* grad(int stage) const { return query(stage) + Tile<D>::bytes; }
  // (keys, queries), two of them: one is written while the other warpgroup still reads the last.
  __device__ char* slopes(int i) const { return query(kStages) + i * slope_bytes; }
  __device__ float* sums() const { return reinterpret_cast<float*>(slopes(2)); }
  __device__ Rest& rest() const { return *reinterpret_cast<Rest*>(sums() + Tile<D>::sums); }
};

// A block's keys, and the queries [begin, end) that see some of them: tiles of them for each head
// of a group.
template <int D>
struct Task {
  int first, last, begin = 0, end = 0, first_tile = 0, tiles = 0, steps = 0;
  i64 b, kv_head, plane, group;

  template <class S>
  __device__ Task(const Problem<S>& p, unsigned task) : group(p.group()) {
    const auto blocks = static_cast<unsigned>((p.lk + kKeys - 1) / kKeys);
    first = static_cast<int>(task % blocks) * kKeys;
    last = first + kKeys < p.lk ? first + kKeys : p.lk;
    plane = task / blocks;
    b = plane / p.kv_heads;
    kv_head = plane % p.kv_heads;
  }
  // A tile is gone over if it has a query at or after `begin` and one before `end`. So the blocks
  // of a tile follow each other, from that of the first key of its first query on.
  __device__ void see(int begin_, int end_, int lq) {
    begin = begin_;
    end = end_;
    first_tile = begin / Tile<D>::rows;
    const int end_tile = Tile<D>::count(end);
    tiles = begin < lq && end_tile > first_tile ? end_tile - first_tile : 0;
    steps = tiles * static_cast<int>(group);
  }
  __device__ i64 head(int step) const { return kv_head * group + step / tiles; }
  __device__ int tile(int step) const { return first_tile + tiles - 1 - step % tiles; }
};

#if defined(VECTILE_HOPPER)

template <int D, class S>
__device__ __forceinline__ void copy_in(const Maps& maps, const Work<S>& p, Memory<D> m,
                                        const Task<D>& task) {
  auto& rest = m.rest();
  const int lane = lane_index(), b = static_cast<int>(task.b);
  const auto copy = [&](char* to, const TensorMap& map, int rows, int first, i64 head,
                        Barrier* full) {
    for (int c = 0; c < D / 64; ++c)
      for (int r = 0; r < rows; r += kBoxRows, to += kBoxBytes)
        copy_box(to, map, {{64 * c, first + r, static_cast<int>(head), b, 0}}, full);
  };
  if (lane == 0) {
    barrier_expect(&rest.held, 2 * Memory<D>::held_bytes);
    copy(m.key(), maps.key, kKeys, task.first, task.kv_head, &rest.held);
    copy(m.value(), maps.value, kKeys, task.first, task.kv_head, &rest.held);
  }
  Ring<kStages> ring;
  for (int step = 0; step < task.steps; ++step, ring.advance()) {
    const int s = ring.stage, from = task.tile(step) * Tile<D>::rows;
    const i64 head = task.head(step), plane = task.b * p.forward.heads + head;
    barrier_wait(rest.empty + s, ring.parity ^ 1);
    if (lane == 0) {
      barrier_expect(rest.full + s, 2 * Tile<D>::bytes);
      copy(m.query(s), maps.query, Tile<D>::rows, from, head, rest.full + s);
      copy(m.grad(s), maps.grad, Tile<D>::rows, from, head, rest.full + s);
    }
    for (int i = lane; i < Tile<D>::rows; i += kWarp) {
      // Past the last query, one that sees nothing.
      Statistics<float> row{0, 0, {INT_MAX, INT_MAX}};
      if (from + i < p.forward.lq) row = p.rows[plane * p.forward.lq + from + i];
      rest.queries[s][i] = row;
    }
    barrier_arrive(rest.full + s);
  }
}

// Adds each step's dQ to that of the blocks before.
template <int D, class S>
__device__ __forceinline__ void add_up(const Work<S>& p, Memory<D> m, const Task<D>& task) {
  auto& rest = m.rest();
  const int tiles = Tile<D>::count(p.forward.lq);
  for (int step = 0; step < task.steps; ++step) {
    const int tile = task.tile(step);
    const i64 place = (task.b * p.forward.heads + task.head(step)) * tiles + tile;
    const int before =
        task.first / kKeys - p.forward.range(task.b, tile * Tile<D>::rows).begin / kKeys;
    float* const to = p.sums + place * Tile<D>::sums;
    constexpr int bytes = Tile<D>::sums * static_cast<int>(sizeof(float));
    barrier_wait(&rest.sums_full, step & 1);
    turn_wait(p.turns + place, static_cast<unsigned>(before));
    if (before)
      bulk_add(to, m.sums(), bytes);
    else
      bulk_store(to, m.sums(), bytes);
    bulk_wait_read();
    barrier_arrive(&rest.sums_empty);
    bulk_wait();
    turn_pass(p.turns + place);
  }
}

template <bool capped, int D, class S>
__device__ __forceinline__ void multiply(const Work<S>& p, Memory<D> m, const Task<D>& task) {
  using T = Tile<D>;
  const Problem<S>& f = p.forward;
  auto& rest = m.rest();
  const int warpgroup = consumer_index(), lane = lane_index();
  const int thread = static_cast<int>(threadIdx.x) % kWarpgroup;
  const int row_in_box = warp_index() % 4 * 16 + lane / 4;
  const int upper = task.first + warpgroup * kBoxRows, lower = upper + kBoxRows - 1;
  const int key = upper + row_in_box;
  const auto release = [&](Barrier* b) {
    __syncwarp();
    if (lane == 0) barrier_arrive(b);
  };
  float dk[D / 2], dv[D / 2];
#pragma unroll
  for (int i = 0; i < D / 2; ++i) dk[i] = dv[i] = 0;
  int cleared_parity = 0;
  const auto cleared = [&] {
    all_cleared(&rest.cleared, cleared_parity);
    cleared_parity ^= 1;
  };
  barrier_wait(&rest.held, 0);
  if (task.steps) {
    // Keys that no query sees have no part in dQ.
    const Range most = f.range(task.b, task.end - 1), least = f.range(task.b, task.begin);
    const auto in_block = [&](int x) {
      return x < task.first ? 0 : x > task.first + kKeys ? kKeys : x - task.first;
    };
    const int begin = in_block(least.begin), end = in_block(most.end);
    if (begin > 0 || end < kKeys) {
      clear_rows<D>(m.key(), 0, begin, 1, kKeys / kBoxRows);
      clear_rows<D>(m.key(), end, kKeys, 1, kKeys / kBoxRows);
      cleared();
    }
  }
  Ring<kStages> ring;
  int from = 0;
#pragma unroll 1
  for (int step = 0; step < task.steps; ++step, ring.advance()) {
    const int s = ring.stage;
    from = (from > task.first_tile * T::rows ? from : (task.first_tile + task.tiles) * T::rows) -
           T::rows;
    const Statistics<float>* const queries = rest.queries[s];
    barrier_wait(rest.full + s, ring.parity);
    if (from < task.begin || from + T::rows > task.end) {
      const int before = task.begin > from ? task.begin - from : 0;
      const int valid = task.end - from < T::rows ? task.end - from : T::rows;
      clear_rows<D>(m.query(s), 0, before);
      clear_rows<D>(m.query(s), valid, T::rows);
      clear_rows<D>(m.grad(s), 0, before);
      clear_rows<D>(m.grad(s), valid, T::rows);
      cleared();
    }
    float scores[T::rows / 2], slopes[T::rows / 2];
    unsigned weights[T::rows / 16][4], bends[T::rows / 16][4];
    products_begin();
    multiply_rows<S, D, T::rows>(scores, shared_address(m.key()), warpgroup,
                                 shared_address(m.query(s)));
    products_commit();
    multiply_rows<S, D, T::rows>(slopes, shared_address(m.value()), warpgroup,
                                 shared_address(m.grad(s)));
    products_commit();
    products_wait<1>();
    products_done(scores);

    const bool whole = queries[T::rows - 1].keys.begin <= upper && queries[0].keys.end > lower;
    const auto sees = [&](const Statistics<float>& query, int half) {
      return whole || query.keys.has(key + 8 * half);
    };
    // Scores to P.
#pragma unroll
    for (int i = 0; i < T::rows / 2; ++i) {
      const Statistics<float> query = queries[i / 4 * 8 + lane % 4 * 2 + i % 2];
      float x = scores[i] * f.inner;
      if (capped) x = f.outer * hyperbolic_tangent(x);
      scores[i] = sees(query, i / 2 % 2) ? exp2_flushed(x - query.lse) : 0;
    }
    products_wait<0>();
    products_done(slopes);
    // dP to dS; the slope of the cap by what the score was.
#pragma unroll
    for (int i = 0; i < T::rows / 2; ++i) {
      const Statistics<float> query = queries[i / 4 * 8 + lane % 4 * 2 + i % 2];
      float slope = scores[i] * (slopes[i] - query.delta);
      if (capped) {
        const float x = __fdividef(log2(scores[i]) + query.lse, f.outer);
        slope *= scores[i] > 0 ? 1 - x * x : 1;
      }
      slopes[i] = sees(query, i / 2 % 2) ? slope : 0;
    }
    pack_weights<S>(scores, weights);
    pack_weights<S>(slopes, bends);

    // The warpgroup's (64 keys, queries) of dS for both warpgroups' dQ.
    char* const shared_slopes = m.slopes(step & 1);
    const auto place = swizzled(static_cast<unsigned>(row_in_box * kBoxRowBytes + lane % 4 * 4));
#pragma unroll
    for (int j = 0; j < T::rows / 8; ++j)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        char* const to = shared_slopes + (warpgroup * T::row_boxes + j / 8) * kBoxBytes +
                         half * 8 * kBoxRowBytes + (place ^ static_cast<unsigned>(j % 8 * 16));
        *reinterpret_cast<unsigned*>(to) = bends[j / 2][j % 2 * 2 + half];
      }
    stores_end();
    release(&rest.slopes);

    products_begin();
    add_rows<S, D, T::rows>(dv, weights, shared_address(m.grad(s)));
    products_commit();
    barrier_wait(&rest.slopes, step & 1);
    float sums[kBoxRows / 2];
    products_begin();
#pragma unroll
    for (int k = 0; k < kKeys / 16; ++k) {
      const int keys = k / 4 * kBoxRows;
      const auto a = operand<true>(shared_address(shared_slopes),
                                   keys * T::row_boxes + T::row(warpgroup), k % 4);
      const auto b =
          operand<true>(shared_address(m.key()), T::chunk(warpgroup) * kKeys + keys, k % 4);
      if (k == 0)
        warpgroup_multiply_add<S, 64, true, true, false>(sums, a, b);
      else
        warpgroup_multiply_add<S, 64, true, true>(sums, a, b);
    }
    products_commit();
    add_rows<S, D, T::rows>(dk, bends, shared_address(m.query(s)));
    products_commit();
    products_wait<1>();
    products_done(sums);
    barrier_wait(&rest.sums_empty, (step & 1) ^ 1);
    auto* const to = reinterpret_cast<float4*>(m.sums()) + warpgroup * 8 * kWarpgroup + thread;
#pragma unroll
    for (int j = 0; j < 8; ++j)
      to[j * kWarpgroup] =
          make_float4(sums[4 * j], sums[4 * j + 1], sums[4 * j + 2], sums[4 * j + 3]);
    stores_end();
    release(&rest.sums_full);
    products_wait<0>();
    products_done(dk);
    products_done(dv);
    release(rest.empty + s);
  }
#pragma unroll
  for (float& x : dk) x *= f.scale;
  const int warp_row = key - lane / 4;
  const i64 out = task.plane * f.lk;
  store_rows<D>(dk, warp_row, f.lk, p.dk + out * f.key.width, f.key.width);
  store_rows<D>(dv, warp_row, f.lk, p.dv + out * f.value.width, f.value.width);
}

#endif

template <bool capped, int D, class S>
__global__ void __launch_bounds__(kBlockThreads, 1)
    hopper_kernel(const __grid_constant__ Maps maps, Work<S> p) {
#if defined(VECTILE_HOPPER)
  const Memory<D> m{dynamic_memory()};
  auto& rest = m.rest();
  if (threadIdx.x == 0) {
    rest.task = atomicAdd(p.taken, 1u);
    barrier_init(&rest.held, 1);
    barrier_init(&rest.cleared, kConsumerWarps);
    for (int s = 0; s < kStages; ++s) {
      barrier_init(rest.full + s, 1 + kWarp);
      barrier_init(rest.empty + s, kConsumerWarps);
    }
    barrier_init(&rest.slopes, kConsumerWarps);
    barrier_init(&rest.sums_full, kConsumerWarps);
    barrier_init(&rest.sums_empty, 1);
    barrier_init_end();
  }
  __syncthreads();
  Task<D> task(p.forward, rest.task);
  if (warp_index() < 2) {
    const bool ends = warp_index() == 1;
    const int query = first_query(p.forward, task.b, [&](Range keys) {
      return ends ? keys.begin >= task.last : keys.end > task.first;
    });
    if (lane_index() == 0) (ends ? rest.end : rest.begin) = query;
  }
  __syncthreads();
  task.see(rest.begin, rest.end, p.forward.lq);
  if (warp_index() < kWarpgroup / kWarp) {
    give_registers<24>();
    if (warp_index() == 0) copy_in(maps, p, m, task);
    if (threadIdx.x == kWarp) add_up(p, m, task);
  } else {
    take_registers<240>();
    multiply<capped>(p, m, task);
  }
#endif
}

// dQ of half types from its sums.
template <int D, class S>
__global__ void __launch_bounds__(kThreads) round_kernel(Work<S> p, S* dq, i64 vectors) {
  using T = Tile<D>;
  const Problem<S>& f = p.forward;
  const int tiles = T::count(f.lq), width = f.query.width;
  for (i64 i = i64{blockIdx.x} * kThreads + threadIdx.x; i < vectors;
       i += i64{gridDim.x} * kThreads) {
    constexpr int in_tile = T::sums / 4, in_product = in_tile / kConsumers;
    const i64 place = i / in_tile;
    const int v = static_cast<int>(i % in_tile), warpgroup = v / in_product;
    const int j = v % in_product / kWarpgroup, thread = v % kWarpgroup, lane = thread % kWarp;
    const int row = static_cast<int>(place % tiles) * T::rows + T::row(warpgroup) +
                    thread / kWarp * 16 + lane / 4;
    const int column = T::chunk(warpgroup) * 64 + 8 * j + lane % 4 * 2;
    float4 sum = make_float4(0, 0, 0, 0);  // of queries that see nothing
    if (p.turns[place]) sum = reinterpret_cast<const float4*>(p.sums)[i];
    const float at[2][2] = {{sum.x, sum.y}, {sum.z, sum.w}};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (row + 8 * half >= f.lq) continue;
      S* const to = dq + (place / tiles * f.lq + row + 8 * half) * width;
      store_pair(to, column, width, at[half][0] * f.scale, at[half][1] * f.scale);
    }
  }
}

template <int D, class S>
void start(const Maps& maps, Work<S> p, S* dq) {
  const Problem<S>& f = p.forward;
  const i64 places = f.batch * f.heads * Tile<D>::count(f.lq);
  const Array sums = Array::empty(DType::f32, Shape(places, Tile<D>::sums));
  const Array counts = Array::zeros(DType::i32, Shape(places + 1));
  p.sums = sums.as<float>();
  p.turns = static_cast<unsigned*>(counts.data);
  p.taken = p.turns + places;
  launch(f.outer > 0 ? hopper_kernel<true, D, S> : hopper_kernel<false, D, S>,
         {grid_of(ceil_div(f.lk, kKeys) * f.batch * f.kv_heads), kBlockThreads, Memory<D>::bytes},
         maps, p);
  const i64 vectors = places * (Tile<D>::sums / 4);
  launch(round_kernel<D, S>, {blocks_for(vectors, kThreads), kThreads}, p, dq, vectors);
}

}  // namespace

template <class S>
bool differentiate_on_hopper(const Problem<S>& p, const Heads<S>& grad,
                             const Statistics<float>* rows, S* dq, S* dk, S* dv) {
#if defined(VECTILE_CUDA_HOPPER)
  const int width = std::max(p.query.width, p.value.width);
  if (architecture() != 90 || width > 128 || p.lq < kKeys / 2 || p.lk < kKeys / 2 ||
      ceil_div(p.lk, kKeys) * p.batch * p.kv_heads > INT_MAX)
    return false;
  const Tensor tensors[] = {
      tensor(p.key, p.lk, p.kv_heads, p.batch), tensor(p.value, p.lk, p.kv_heads, p.batch),
      tensor(p.query, p.lq, p.heads, p.batch), tensor(grad, p.lq, p.heads, p.batch)};
  if (!std::all_of(tensors, tensors + 4, can_map)) return false;
  const Maps maps{make_map(tensors[0]), make_map(tensors[1]), make_map(tensors[2]),
                  make_map(tensors[3])};
  const Work<S> work{p, rows, dk, dv, nullptr, nullptr, nullptr};
  width <= 64 ? start<64>(maps, work, dq) : start<128>(maps, work, dq);
  return true;
#else
  static_cast<void>(p), static_cast<void>(grad), static_cast<void>(rows);
  static_cast<void>(dq), static_cast<void>(dk), static_cast<void>(dv);
  return false;
#endif
}

template bool differentiate_on_hopper(const Problem<BFloat16>&, const Heads<BFloat16>&,
                                      const Statistics<float>*, BFloat16*, BFloat16*, BFloat16*);
template bool differentiate_on_hopper(const Problem<Float16>&, const Heads<Float16>&,
                                      const Statistics<float>*, Float16*, Float16*, Float16*);

}  // namespace attention
}  // namespace vectile::cuda
