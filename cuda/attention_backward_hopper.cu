// The gradients of attention for sm_90a, of half types, by the sums of attention_backward.cu: a
// block holds tiles X and Y of 128 rows, of which its two warpgroups have 64 each, and streams
// tiles U and W of 64: scores X U^T, dP = Y W^T. Blocks of queries make dQ, blocks of keys dK and
// dV, which are added up in a fixed order.
#include <algorithm>

#include "attention_hopper.h"

namespace vectile::cuda {
namespace attention {
namespace {

constexpr int kColumns = kBoxRows, kStages = 3;

struct Maps {
  TensorMap x, y, u, w;
};

// Where a call's gradients of the held rows go: of X, and of Y where those are values.
template <class S>
struct Held {
  Problem<S> forward;
  const Statistics<float>* rows;  // (batch, heads, lq)
  S *x, *y;

  // Past the last query, one that sees nothing.
  __device__ Statistics<float> row(i64 b, i64 head, int i) const {
    if (i < forward.lq) return rows[(b * forward.heads + head) * forward.lq + i];
    return {0, 0, {INT_MAX, INT_MAX}};
  }
};

template <int D>
struct Memory {
  static constexpr int held_bytes = kHeldRows / kBoxRows * D / 64 * kBoxBytes;
  static constexpr int tile_bytes = D / 64 * kBoxBytes;
  struct Rest {
    Statistics<float> queries[kStages][kColumns];  // that are streamed
    Barrier held_full, held_empty, cleared, full[kStages], empty[kStages];
  };
  static constexpr std::size_t bytes = 2 * held_bytes + 2 * kStages * tile_bytes + sizeof(Rest);

  char* at;
  __device__ char* x() const { return at; }
  __device__ char* y() const { return at + held_bytes; }
  __device__ char* u(int stage) const { return at + 2 * held_bytes + 2 * stage * tile_bytes; }
  __device__ char* w(int stage) const { return u(stage) + tile_bytes; }
  __device__ Rest& rest() const { return *reinterpret_cast<Rest*>(u(kStages)); }
};

// A block's rows, and the rows that are streamed past them: once, or once for each head of a group.
template <bool of_queries>
struct Task {
  int first, length, begin, end, per_head, steps;
  i64 b, head, plane, group;

  template <class S>
  __device__ Task(const Problem<S>& p, i64 task) {
    const int heads = of_queries ? p.heads : p.kv_heads;
    length = of_queries ? p.lq : p.lk;
    group = p.group();
    const int tiles = (length + kHeldRows - 1) / kHeldRows, tile = static_cast<int>(task % tiles);
    first = (of_queries ? tiles - 1 - tile : tile) * kHeldRows;
    plane = task / tiles;
    b = plane / heads;
    head = plane % heads;
    const int last = first + kHeldRows < length ? first + kHeldRows : length;
    if constexpr (of_queries) {
      begin = p.range(b, first).begin;
      end = p.range(b, last - 1).end;
    } else {
      begin = first_query(p, b, [&](Range keys) { return keys.end > first; });
      end = first_query(p, b, [&](Range keys) { return keys.begin >= last; });
    }
    per_head = begin < end ? (end - begin + kColumns - 1) / kColumns : 0;
    steps = of_queries ? per_head : per_head * static_cast<int>(group);
  }
  __device__ int from(int step) const { return begin + step % per_head * kColumns; }
  __device__ i64 other_head(int step) const {
    return of_queries ? head / group : head * group + step / per_head;
  }
};

#if defined(VECTILE_HOPPER)

template <bool of_queries, int D, class S>
__device__ __forceinline__ void produce(const Maps& maps, const Held<S>& p, Memory<D> m,
                                        i64 tasks) {
  using M = Memory<D>;
  auto& rest = m.rest();
  const int lane = lane_index();
  Ring<kStages> ring;
  int parity = 0;
  const auto copy = [&](char* to, const TensorMap& map, int rows, int first, i64 head, i64 b,
                        Barrier* full) {
    for (int c = 0; c < D / 64; ++c)
      for (int r = 0; r < rows; r += kBoxRows, to += kBoxBytes)
        copy_box(to, map, {{64 * c, first + r, static_cast<int>(head), static_cast<int>(b), 0}},
                 full);
  };
  for (i64 t = blockIdx.x; t < tasks; t += gridDim.x) {
    const Task<of_queries> task(p.forward, t);
    if (lane == 0) {
      barrier_wait(&rest.held_empty, parity ^ 1);
      barrier_expect(&rest.held_full, 2 * M::held_bytes);
      copy(m.x(), maps.x, kHeldRows, task.first, task.head, task.b, &rest.held_full);
      copy(m.y(), maps.y, kHeldRows, task.first, task.head, task.b, &rest.held_full);
    }
    parity ^= 1;
    for (int i = 0; i < task.steps; ++i, ring.advance()) {
      const int s = ring.stage, from = task.from(i);
      const i64 other = task.other_head(i);
      barrier_wait(rest.empty + s, ring.parity ^ 1);
      if (lane == 0) {
        barrier_expect(rest.full + s, 2 * M::tile_bytes);
        copy(m.u(s), maps.u, kColumns, from, other, task.b, rest.full + s);
        copy(m.w(s), maps.w, kColumns, from, other, task.b, rest.full + s);
      }
      if constexpr (!of_queries) {
        for (int c = lane; c < kColumns; c += kWarp)
          rest.queries[s][c] = p.row(task.b, other, from + c);
        barrier_arrive(rest.full + s);
      }
    }
  }
}

template <bool of_queries, int D, class S>
__device__ __forceinline__ void consume(const Held<S>& p, Memory<D> m, i64 tasks) {
  const Problem<S>& f = p.forward;
  auto& rest = m.rest();
  const int warpgroup = warp_index() / 4 - 1, lane = lane_index();
  const int row_in_block = (warp_index() - 4) * 16 + lane / 4;
  const auto release = [&](Barrier* b) {
    if (lane == 0) barrier_arrive(b);
  };
  Ring<kStages> ring;
  int held_parity = 0, cleared_parity = 0;
  for (i64 t = blockIdx.x; t < tasks; t += gridDim.x) {
    const Task<of_queries> task(f, t);
    const int row = task.first + row_in_block;
    // Of the warpgroup, whose products are all its threads'.
    const int upper = task.first + warpgroup * kBoxRows, lower = upper + kBoxRows - 1;
    Range upper_range{}, lower_range{};
    Statistics<float> own[of_queries ? 2 : 1];
    if constexpr (of_queries) {
      upper_range = f.range(task.b, upper);
      lower_range = f.range(task.b, lower < f.lq ? lower : f.lq - 1);
      for (int i = 0; i < 2; ++i) own[i] = p.row(task.b, task.head, row + 8 * i);
    }
    float sum_x[D / 2], sum_y[of_queries ? 1 : D / 2];
#pragma unroll
    for (float& s : sum_x) s = 0;
#pragma unroll
    for (float& s : sum_y) s = 0;
    barrier_wait(&rest.held_full, held_parity);
    held_parity ^= 1;
#pragma unroll 1
    for (int step = 0; step < task.steps; ++step, ring.advance()) {
      const int from = task.from(step), s = ring.stage;
      const Statistics<float>* streamed = rest.queries[s];
      barrier_wait(rest.full + s, ring.parity);
      if (task.end - from < kColumns) {
        clear_rows<D>(m.u(s), task.end - from, kColumns);
        clear_rows<D>(m.w(s), task.end - from, kColumns);
        all_cleared(&rest.cleared, cleared_parity);
        cleared_parity ^= 1;
      }
      bool any, whole;
      if constexpr (of_queries) {
        any = from + kColumns > upper_range.begin && from < lower_range.end;
        whole = lower_range.begin <= from && from + kColumns <= upper_range.end;
      } else {
        const Range least = streamed[0].keys, most = streamed[kColumns - 1].keys;
        any = most.end > upper && least.begin <= lower;
        whole = most.begin <= upper && least.end > lower;
      }
      if (any) {
        float scores[kColumns / 2], slopes[kColumns / 2];  // then P and dS
        unsigned weights[kColumns / 16][4], bends[kColumns / 16][4];
        products_begin();
        multiply_rows<S, D, kColumns>(scores, shared_address(m.x()), warpgroup,
                                      shared_address(m.u(s)));
        products_commit();
        multiply_rows<S, D, kColumns>(slopes, shared_address(m.y()), warpgroup,
                                      shared_address(m.w(s)));
        products_commit();
        products_wait<0>();
        products_done(scores);
        products_done(slopes);
#pragma unroll
        for (int i = 0; i < kColumns / 2; ++i) {
          const int column = i / 4 * 8 + lane % 4 * 2 + i % 2, half = i / 2 % 2;
          Statistics<float> query;
          int key;
          if constexpr (of_queries) {
            query = own[half];
            key = from + column;
          } else {
            query = streamed[column];
            key = row + 8 * half;
          }
          float x = scores[i] * f.inner, bend = 1;
          if (f.outer > 0) {
            const float capped = hyperbolic_tangent(x);
            bend = 1 - capped * capped;
            x = f.outer * capped;
          }
          const bool seen = whole || query.keys.has(key);
          scores[i] = seen ? exp2_flushed(x - query.lse) : 0;
          slopes[i] = seen ? (slopes[i] - query.delta) * bend * scores[i] : 0;
        }
        pack_weights<S>(slopes, bends);
        if constexpr (!of_queries) pack_weights<S>(scores, weights);
        products_begin();
        add_rows<S, D, kColumns>(sum_x, bends, shared_address(m.u(s)));
        if constexpr (!of_queries) add_rows<S, D, kColumns>(sum_y, weights, shared_address(m.w(s)));
        products_commit();
        products_wait<0>();
        products_done(sum_x);
        products_done(sum_y);
      }
      release(rest.empty + s);
    }
    release(&rest.held_empty);
    const i64 out = task.plane * task.length;
#pragma unroll
    for (float& s : sum_x) s *= f.scale;
    const int warp_row = row - lane / 4;
    store_rows<D>(sum_x, warp_row, task.length, p.x + out * f.query.width, f.query.width);
    if constexpr (!of_queries)
      store_rows<D>(sum_y, warp_row, task.length, p.y + out * f.value.width, f.value.width);
  }
}

#endif

template <bool of_queries, int D, class S>
__global__ void __launch_bounds__(kBlockThreads, 1)
    hopper_kernel(const __grid_constant__ Maps maps, Held<S> p, i64 tasks) {
#if defined(VECTILE_HOPPER)
  const Memory<D> m{dynamic_memory()};
  if (threadIdx.x == 0) {
    auto& rest = m.rest();
    barrier_init(&rest.held_full, 1);
    barrier_init(&rest.held_empty, kConsumerWarps);
    barrier_init(&rest.cleared, kConsumerWarps);
    for (int s = 0; s < kStages; ++s) {
      barrier_init(rest.full + s, of_queries ? 1 : 1 + kWarp);
      barrier_init(rest.empty + s, kConsumerWarps);
    }
    barrier_init_end();
  }
  __syncthreads();
  if (warp_index() < kWarpgroup / kWarp) {
    give_registers<40>();
    if (warp_index() == 0) produce<of_queries, D>(maps, p, m, tasks);
  } else {
    take_registers<232>();
    consume<of_queries, D>(p, m, tasks);
  }
#endif
}

}  // namespace

template <class S>
bool differentiate_on_hopper(const Problem<S>& p, const Heads<S>& grad,
                             const Statistics<float>* rows, S* dq, S* dk, S* dv) {
#if defined(VECTILE_CUDA_HOPPER)
  const int width = std::max(p.query.width, p.value.width);
  if (architecture() != 90 || width > 128 || p.lq < kHeldRows / 2 || p.lk < kHeldRows / 2)
    return false;
  const Tensor tensors[] = {
      tensor(p.query, p.lq, p.heads, p.batch), tensor(grad, p.lq, p.heads, p.batch),
      tensor(p.key, p.lk, p.kv_heads, p.batch), tensor(p.value, p.lk, p.kv_heads, p.batch)};
  if (!std::all_of(tensors, tensors + 4, can_map)) return false;
  TensorMap maps[4];
  std::transform(tensors, tensors + 4, maps, make_map);
  const auto start = [&](auto kernel, std::size_t bytes, const Maps& m, i64 length, i64 heads, S* x,
                         S* y) {
    const i64 tasks = ceil_div(length, kHeldRows) * p.batch * heads;
    const auto blocks = static_cast<unsigned>(std::min<i64>(multiprocessors(), tasks));
    launch(kernel, {blocks, kBlockThreads, bytes}, m, Held<S>{p, rows, x, y}, tasks);
  };
  const Maps queries{maps[0], maps[1], maps[2], maps[3]}, keys{maps[2], maps[3], maps[0], maps[1]};
  const auto both = [&](auto d) {
    constexpr int D = d.value;
    start(hopper_kernel<true, D, S>, Memory<D>::bytes, queries, p.lq, p.heads, dq, nullptr);
    start(hopper_kernel<false, D, S>, Memory<D>::bytes, keys, p.lk, p.kv_heads, dk, dv);
  };
  width <= 64 ? both(std::integral_constant<int, 64>{}) : both(std::integral_constant<int, 128>{});
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
