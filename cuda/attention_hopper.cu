// The forward pass of attention for sm_90a, of half types (FlashAttention-3, arXiv 2407.08608): a
// producer has the copy engine bring tiles of queries, keys and values; two warpgroups have 64
// queries each. A tile's scores are multiplied while the weights of the one before meet their
// values. Blocks go from task to task, the last queries of a head first: under a causal mask they
// see the most keys.
#include <algorithm>

#include "attention_hopper.h"

namespace vectile::cuda {
namespace attention {
namespace {

constexpr int kQueries = kHeldRows, kKeys = 128, kStages = 2;

// Tiles in shared memory. Boxes of queries and keys lie by 64 columns, then by 64 rows; those of
// values, whose rows are k of a product, by rows, then by columns.
template <int D>
struct Memory {
  static constexpr int chunks = D / 64;
  static constexpr int query_bytes = kQueries / kBoxRows * chunks * kBoxBytes;
  static constexpr int tile_bytes = kKeys / kBoxRows * chunks * kBoxBytes;
  struct Barriers {
    Barrier query_full, query_empty, cleared;
    Barrier turns[kConsumers];
    Barrier key_full[kStages], key_empty[kStages], value_full[kStages], value_empty[kStages];
  };
  static constexpr std::size_t bytes = query_bytes + 2 * kStages * tile_bytes + sizeof(Barriers);

  char* at;
  __device__ char* query() const { return at; }
  __device__ char* key(int stage) const { return at + query_bytes + stage * tile_bytes; }
  __device__ char* value(int stage) const { return key(kStages + stage); }
  __device__ Barriers& barriers() const { return *reinterpret_cast<Barriers*>(key(2 * kStages)); }
};

struct Maps {
  TensorMap query, key, value;
};

#if defined(VECTILE_HOPPER)

// A block's queries, and the keys that some of them see.
struct Task {
  int first, begin, end;
  i64 b, head, kv_head, plane;

  template <class S>
  __device__ Task(const Problem<S>& p, i64 task) {
    const int tiles = (p.lq + kQueries - 1) / kQueries;
    first = (tiles - 1 - static_cast<int>(task % tiles)) * kQueries;
    plane = task / tiles;
    b = plane / p.heads;
    head = plane % p.heads;
    kv_head = head / p.group();
    const int last = first + kQueries < p.lq ? first + kQueries : p.lq;
    begin = p.range(b, first).begin;
    end = p.range(b, last - 1).end;
  }
  __device__ int tiles() const { return begin < end ? (end - begin + kKeys - 1) / kKeys : 0; }
};

// The block's task in a round of the grid. Every other round goes the other way: tasks of a head
// become shorter under a causal mask, and no block should have the longest of each round.
__device__ __forceinline__ i64 task_of(int round) {
  return i64{round} * gridDim.x + (round % 2 ? gridDim.x - 1 - blockIdx.x : blockIdx.x);
}

template <int D, class S>
__device__ __forceinline__ void produce(const Maps& maps, const Problem<S>& p, Memory<D> m,
                                        i64 tasks) {
  using M = Memory<D>;
  auto& barriers = m.barriers();
  Ring<kStages> ring;
  int parity = 0;
  for (int round = 0; task_of(round) < tasks; ++round) {
    const Task task(p, task_of(round));
    const auto b = static_cast<int>(task.b), head = static_cast<int>(task.head);
    const auto kv_head = static_cast<int>(task.kv_head);
    barrier_wait(&barriers.query_empty, parity ^ 1);
    parity ^= 1;
    barrier_expect(&barriers.query_full, M::query_bytes);
    char* to = m.query();
    for (int c = 0; c < M::chunks; ++c)
      for (int r = 0; r < kQueries; r += kBoxRows, to += kBoxBytes)
        copy_box(to, maps.query, {{64 * c, task.first + r, head, b, 0}}, &barriers.query_full);
    for (int i = 0; i < task.tiles(); ++i, ring.advance()) {
      const int from = task.begin + i * kKeys, s = ring.stage;
      barrier_wait(barriers.key_empty + s, ring.parity ^ 1);
      barrier_expect(barriers.key_full + s, M::tile_bytes);
      to = m.key(s);
      for (int c = 0; c < M::chunks; ++c)
        for (int r = 0; r < kKeys; r += kBoxRows, to += kBoxBytes)
          copy_box(to, maps.key, {{64 * c, from + r, kv_head, b, 0}}, barriers.key_full + s);
      barrier_wait(barriers.value_empty + s, ring.parity ^ 1);
      barrier_expect(barriers.value_full + s, M::tile_bytes);
      to = m.value(s);
      for (int r = 0; r < kKeys; r += kBoxRows)
        for (int c = 0; c < M::chunks; ++c, to += kBoxBytes)
          copy_box(to, maps.value, {{64 * c, from + r, kv_head, b, 0}}, barriers.value_full + s);
    }
  }
}

// What a warp makes of 16 queries; a thread has rows g and g + 8 of them, and of 8 columns 2t and
// 2t + 1 (g = lane / 4, t = lane % 4).
template <class S, int D>
struct Rows {
  float scores[kKeys / 2], sums[D / 2];
  unsigned weights[kKeys / 16][4];  // as the left operand of a product
  float top[2], total[2];           // of scores by log2(e), and of their powers of two
  Range keys[2], first, last;       // of the thread's queries; of the warp's first and last

  __device__ __forceinline__ void start(const Problem<S>& p, const Task& task, int row) {
    const int lane = lane_index();
#pragma unroll
    for (int i = 0; i < D / 2; ++i) sums[i] = 0;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      keys[i] = p.range(task.b, row + lane / 4 + 8 * i);
      top[i] = -INFINITY;
      total[i] = 0;
    }
    const int end = row + 15 < p.lq ? row + 15 : p.lq - 1;
    first = p.range(task.b, row);
    last = p.range(task.b, end);
  }

  // Scores of the keys from `from` on to powers of two below their maximum; what the sums of the
  // tiles before are to be multiplied by.
  __device__ __forceinline__ void to_powers(const Problem<S>& p, int from, float (&shrink)[2]) {
    float factor = p.inner;
    if (p.outer > 0 || !(factor > 0)) {
#pragma unroll
      for (float& s : scores)
        s = p.outer > 0 ? p.outer * hyperbolic_tangent(s * factor) : s * factor;
      factor = 1;
    }
    if (last.begin > from || from + kKeys > first.end) {
#pragma unroll
      for (int i = 0; i < kKeys / 2; ++i) {
        const int key = from + i / 4 * 8 + lane_index() % 4 * 2 + i % 2;
        if (!keys[i / 2 % 2].has(key)) scores[i] = -INFINITY;
      }
    }
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      float highest = -INFINITY;
#pragma unroll
      for (int i = 2 * row; i < kKeys / 2; i += 4)
#pragma unroll
        for (int c = 0; c < 2; ++c) highest = scores[i + c] > highest ? scores[i + c] : highest;
      for (int mask = 1; mask < 4; mask *= 2) {
        const float other = __shfl_xor_sync(kAll, highest, mask);
        highest = other > highest ? other : highest;
      }
      highest = factor * highest > top[row] ? factor * highest : top[row];
      const float shift = highest == -INFINITY ? 0 : highest;
      shrink[row] = exp2_flushed(top[row] - shift);
      top[row] = highest;
      total[row] *= shrink[row];
#pragma unroll
      for (int i = 2 * row; i < kKeys / 2; i += 4)
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          scores[i + c] = exp2_flushed(fma(scores[i + c], factor, -shift));
          total[row] += scores[i + c];
        }
    }
  }

  __device__ __forceinline__ void scale_sums(const float (&factor)[2]) {
#pragma unroll
    for (int i = 0; i < D / 2; ++i) sums[i] *= factor[i / 2 % 2];
  }

  // Ends the rows from `row` on, `width` columns of `out` wide.
  __device__ __forceinline__ void store(const Problem<S>& p, const Task& task, int row, S* out,
                                        float* lse) {
    const int lane = lane_index(), width = p.value.width;
    float inverse[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float sum = total[i];
      for (int mask = 1; mask < 4; mask *= 2) sum += __shfl_xor_sync(kAll, sum, mask);
      inverse[i] = sum == 0 ? 0 : 1 / sum;
      const int at = row + lane / 4 + 8 * i;
      if (lse && lane % 4 == 0 && at < p.lq)
        lse[task.plane * p.lq + at] = (top[i] + log2(sum)) * static_cast<float>(M_LN2);
    }
    scale_sums(inverse);
    store_rows<D>(sums, row, p.lq, out + task.plane * p.lq * width, width);
  }
};

template <int D, class S>
__device__ __forceinline__ void consume(const Problem<S>& p, Memory<D> m, i64 tasks, S* out,
                                        float* lse) {
  auto& barriers = m.barriers();
  const int warpgroup = consumer_index(), row_in_block = (warp_index() - 4) * 16;
  const auto release = [](Barrier* b) {
    if (lane_index() == 0) barrier_arrive(b);
  };
  Ring<kStages> keys, values;
  int query_parity = 0, cleared_parity = 0;
  // Warpgroups start products in turn, so that one multiplies while the other has its exponentials.
  int turn_parity = warpgroup == 0;
  const auto take_turn = [&] {
    barrier_wait(barriers.turns + warpgroup, turn_parity);
    turn_parity ^= 1;
  };
  const auto give_turn = [&] { release(barriers.turns + (1 - warpgroup)); };
  Rows<S, D> rows;
  for (int round = 0; task_of(round) < tasks; ++round) {
    const Task task(p, task_of(round));
    const int row = task.first + row_in_block, tiles = task.tiles();
    rows.start(p, task, row);
    barrier_wait(&barriers.query_full, query_parity);
    query_parity ^= 1;
    float shrink[2];
    const auto multiply_keys = [&] {
      barrier_wait(barriers.key_full + keys.stage, keys.parity);
      products_begin();
      multiply_rows<S, D, kKeys>(rows.scores, shared_address(m.query()), warpgroup,
                                 shared_address(m.key(keys.stage)));
      products_commit();
    };
    const auto keys_done = [&] {
      products_done(rows.scores);
      release(barriers.key_empty + keys.stage);
      keys.advance();
    };
    const auto multiply_values = [&] {
      barrier_wait(barriers.value_full + values.stage, values.parity);
      products_begin();
      add_rows<S, D, kKeys>(rows.sums, rows.weights, shared_address(m.value(values.stage)));
      products_commit();
    };
    const auto values_done = [&] {
      products_wait<0>();
      products_done(rows.sums);
      release(barriers.value_empty + values.stage);
      values.advance();
    };
    if (tiles > 0) {
      take_turn();
      multiply_keys();
      give_turn();
      products_wait<0>();
      keys_done();
      rows.to_powers(p, task.begin, shrink);
      pack_weights<S>(rows.scores, rows.weights);
    }
#pragma unroll 1
    for (int i = 1; i < tiles; ++i) {
      take_turn();
      multiply_keys();
      multiply_values();
      give_turn();
      products_wait<1>();
      keys_done();
      rows.to_powers(p, task.begin + i * kKeys, shrink);
      values_done();
      rows.scale_sums(shrink);
      pack_weights<S>(rows.scores, rows.weights);
    }
    release(&barriers.query_empty);
    if (tiles > 0) {
      const int valid = task.end - (task.begin + (tiles - 1) * kKeys);
      if (valid < kKeys) {
        barrier_wait(barriers.value_full + values.stage, values.parity);
        clear_rows<D>(m.value(values.stage), valid, kKeys);
        all_cleared(&barriers.cleared, cleared_parity);
        cleared_parity ^= 1;
      }
      multiply_values();
      values_done();
    }
    rows.store(p, task, row, out, lse);
  }
}

#endif

template <int D, class S>
__global__ void __launch_bounds__(kBlockThreads, 1)
    hopper_kernel(const __grid_constant__ Maps maps, Problem<S> p, i64 tasks, S* out, float* lse) {
#if defined(VECTILE_HOPPER)
  const Memory<D> m{dynamic_memory()};
  if (threadIdx.x == 0) {
    auto& b = m.barriers();
    constexpr int warps = kConsumers * kWarpgroup / kWarp;
    barrier_init(&b.query_full, 1);
    barrier_init(&b.query_empty, warps);
    barrier_init(&b.cleared, warps);
    for (Barrier& turn : b.turns) barrier_init(&turn, kWarpgroup / kWarp);
    for (int s = 0; s < kStages; ++s) {
      barrier_init(b.key_full + s, 1);
      barrier_init(b.key_empty + s, warps);
      barrier_init(b.value_full + s, 1);
      barrier_init(b.value_empty + s, warps);
    }
    barrier_init_end();
  }
  __syncthreads();
  if (warp_index() < kWarpgroup / kWarp) {
    give_registers<24>();
    if (threadIdx.x == 0) produce<D>(maps, p, m, tasks);
  } else {
    take_registers<240>();
    consume<D>(p, m, tasks, out, lse);
  }
#endif
}

}  // namespace

template <class S>
bool attend_on_hopper(const Problem<S>& p, S* out, float* lse) {
#if defined(VECTILE_CUDA_HOPPER)
  const i64 planes = p.batch * p.heads;
  const int width = std::max(p.query.width, p.value.width);
  if (architecture() != 90 || width > 128 || p.lq < kQueries / 2 || p.lk < kKeys) return false;
  const Tensor query = tensor(p.query, p.lq, p.heads, p.batch);
  const Tensor key = tensor(p.key, p.lk, p.kv_heads, p.batch);
  const Tensor value = tensor(p.value, p.lk, p.kv_heads, p.batch);
  if (!can_map(query) || !can_map(key) || !can_map(value)) return false;
  const i64 tasks = (p.lq + kQueries - 1) / kQueries * planes;
  const Maps maps{make_map(query), make_map(key), make_map(value)};
  const auto blocks = static_cast<unsigned>(std::min<i64>(multiprocessors(), tasks));
  const auto start = [&](auto kernel, std::size_t bytes) {
    launch(kernel, {blocks, kBlockThreads, bytes}, maps, p, tasks, out, lse);
  };
  if (width <= 64)
    start(hopper_kernel<64, S>, Memory<64>::bytes);
  else
    start(hopper_kernel<128, S>, Memory<128>::bytes);
  return true;
#else
  static_cast<void>(p), static_cast<void>(out), static_cast<void>(lse);
  return false;
#endif
}

template bool attend_on_hopper(const Problem<BFloat16>&, BFloat16*, float*);
template bool attend_on_hopper(const Problem<Float16>&, Float16*, float*);

}  // namespace attention
}  // namespace vectile::cuda
