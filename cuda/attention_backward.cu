// The gradients of attention, from the log-sum-exp of its rows (FlashAttention-2, arXiv 2307.08691,
// section 3.1.2): weights P = exp(S - lse), dV = P^T dO, dS = P (dO V^T - delta), dQ = dS K and
// dK = dS^T Q, with delta = rowsum(dO O).
//
// Blocks of queries that stream keys make dQ; blocks of keys that stream the queries of their group
// make dK and dV. Both are one kernel, which holds tiles X and Y and streams U and W: scores X U^T,
// dP = Y W^T. Sums stay in registers and are added up in a fixed order; nothing is atomic.
#include "attention_rows.h"
#include "attention_terms.h"
#include "parameter.h"

namespace vectile::cuda {
namespace attention {
namespace {

enum class Part { queries, keys_and_values, keys, values };  // whose gradients a kernel makes

template <class S>
struct Backward {
  Problem<S> forward;
  Heads<S> grad;
  const Statistics<Computed<S>>* rows;  // (batch, heads, lq)
  S *query, *key, *value;               // the gradients, row-major

  // Past the last query, one that sees nothing.
  __device__ Statistics<Computed<S>> row(i64 b, i64 head, int i) const {
    if (i < forward.lq) return rows[(b * forward.heads + head) * forward.lq + i];
    return {0, 0, {INT_MAX, INT_MAX}};
  }
};

// A warp a row.
template <class S, class T = Computed<S>>
__global__ void __launch_bounds__(kThreads)
    statistics_kernel(Problem<S> p, Heads<S> grad, Heads<S> out, const T* lse,
                      Statistics<T>* rows) {
  constexpr int warps = kThreads / kWarp;
  for (i64 r = i64{blockIdx.x} * warps + warp_index(); r < p.batch * p.heads * p.lq;
       r += i64{gridDim.x} * warps) {
    const i64 i = r % p.lq, head = r / p.lq % p.heads, b = r / p.lq / p.heads;
    const S* g = grad.of(b, head).data + i * grad.row;
    const S* o = out.of(b, head).data + i * out.row;
    T sum(0);
    for (int c = lane_index(); c < grad.width; c += kWarp) {
      const T y = to_float(o[c]);
      sum += y == T(0) ? T(0) : to_float(g[c]) * y;
    }
    sum = warp_reduce(sum, Sum{});
    if (lane_index() == 0) rows[r] = {lse[r] * T(M_LOG2E), sum, p.range(b, static_cast<int>(i))};
  }
}

template <class E, class X, class S = typename E::S>
constexpr std::size_t backward_memory() {
  return (2 * E::kRows + 2 * E::kStages * E::kColumns) * E::D * sizeof(S) +
         E::kScratch * sizeof(Computed<S>) +
         E::kStages * E::kColumns *
             (sizeof(Statistics<Computed<S>>) + (X::any ? sizeof(std::uint64_t) : 0));
}

template <class E, Part part, class X, class S = typename E::S>
__global__ void __launch_bounds__(kThreads) backward_kernel(Backward<S> p, X x) {
  using T = Computed<S>;
  constexpr int D = E::D, rows = E::kRows, columns = E::kColumns;
  constexpr bool of_queries = part == Part::queries;
  constexpr bool sums_u = part != Part::values;                                   // dS U
  constexpr bool sums_w = part == Part::keys_and_values || part == Part::values;  // P W
  using Place = Tile<S, D>;
  const Problem<S>& f = p.forward;
  auto* memory = reinterpret_cast<S*>(dynamic_memory());
  const Place held{memory}, y{memory + rows * D};
  const auto stream = [&](int stage, int which) {
    return Place{memory + (2 * rows + (2 * stage + which) * columns) * D};
  };
  auto* scratch = reinterpret_cast<T*>(stream(E::kStages, 0).data);
  auto* queries = reinterpret_cast<Statistics<T>*>(scratch + E::kScratch);  // (stage, column)
  [[maybe_unused]] auto* columns_kept =                                     // the same
      reinterpret_cast<std::uint64_t*>(queries + E::kStages * columns);

  const Heads<S>&from_x = of_queries ? f.query : f.key, &from_y = of_queries ? p.grad : f.value;
  const Heads<S>&from_u = of_queries ? f.key : f.query, &from_w = of_queries ? f.value : p.grad;
  const int length = of_queries ? f.lq : f.lk, heads = of_queries ? f.heads : f.kv_heads;
  const int tiles = (length + rows - 1) / rows, d = f.query.width, dv = f.value.width;
  const i64 task = task_of_block();
  if (task >= tiles * f.batch * heads) return;
  // Under a causal mask the last queries see the most keys, the first keys are seen the most.
  const int tile = static_cast<int>(task % tiles);
  const int first = (of_queries ? tiles - 1 - tile : tile) * rows;
  const i64 plane = task / tiles, b = plane / heads, head = plane % heads;
  const int count = length - first < rows ? length - first : rows;
  int begin, end;  // of the rows to stream
  if constexpr (of_queries) {
    begin = f.range(b, first).begin;
    end = f.range(b, first + count - 1).end;
  } else {
    begin = first_query(f, b, [&](Range keys) { return keys.end > first; });
    end = first_query(f, b, [&](Range keys) { return keys.begin >= first + count; });
  }
  const int per_head = begin < end ? (end - begin + columns - 1) / columns : 0;
  const int steps = of_queries ? per_head : per_head * f.group();
  const auto row_of = [&](int step) { return begin + step % per_head * columns; };
  const auto query_head = [&](int step) {
    return of_queries ? head : head * f.group() + step / per_head;
  };
  // The first step from one on that has work.
  const auto next_step = [&](int step) {
    if constexpr (X::any) {
      const auto is_live = [&] {
        const int from = row_of(step), to = end - from < columns ? end : from + columns;
        const typename X::Head terms = x.head(b, query_head(step));
        return of_queries ? x.live(terms, first, first + count, from, to)
                          : x.live(terms, from, to, first, first + count);
      };
      while (step < steps && !is_live()) ++step;
    }
    return step;
  };
  const auto load = [&](int step, int stage) {
    const i64 other = of_queries ? head / f.group() : query_head(step);
    const int from = row_of(step);
    load_rows<columns>(stream(stage, 0), from_u.of(b, other), from, begin, end);
    load_rows<columns>(stream(stage, 1), from_w.of(b, other), from, begin, end);
    copy_commit();
    if constexpr (!of_queries) {
      for (int c = static_cast<int>(threadIdx.x); c < columns; c += kThreads)
        queries[stage * columns + c] = p.row(b, other, from + c);
      if constexpr (X::any)
        if (x.drops)
          keep_columns<E>(x, x.head(b, other), from, first, columns_kept + stage * columns);
    }
  };
  // The warp's rows, and where they are queries what is known of them.
  const int upper = first + warp_index() * E::kWarpRows, lower = upper + E::kWarpRows - 1;
  Range upper_range{}, lower_range{};
  Statistics<T> own[of_queries ? E::kThreadRows : 1];
  if constexpr (of_queries) {
    upper_range = f.range(b, upper);
    lower_range = f.range(b, lower < f.lq ? lower : f.lq - 1);
#pragma unroll
    for (int i = 0; i < E::kThreadRows; ++i) own[i] = p.row(b, head, first + E::row(i));
  }
  typename E::Sums sum_u, sum_w;

  load_rows<rows>(held, from_x.of(b, head), first, 0, length);
  if constexpr (sums_u) load_rows<rows>(y, from_y.of(b, head), first, 0, length);
  int step = next_step(0);
  if (step < steps) load(step, 0);
  copy_commit();
  int stage = 0;
  while (step < steps) {
    copy_wait<0>();
    __syncthreads();  // this tile is there, and nobody reads the other any more
    const int next = (stage + 1) % E::kStages;
    [[maybe_unused]] int found = 0;
    if constexpr (X::any) found = next_step(step + 1);
    const auto after = [&] { return X::any ? found : step + 1; };  // needs no register
    if (E::kStages > 1 && after() < steps) load(after(), next);
    const int from = row_of(step);
    const Statistics<T>* seen_by = queries + stage * columns;
    bool any, whole;
    if constexpr (of_queries) {
      any = from + columns > upper_range.begin && from < lower_range.end;
      whole = lower_range.begin <= from && from + columns <= upper_range.end &&
              (!X::any || lower < f.lq);
    } else {
      const Range least = seen_by[0].keys, most = seen_by[columns - 1].keys;
      any = most.end > upper && least.begin <= lower;
      whole = most.begin <= upper && least.end > lower;
    }
    if (any) {
      typename E::Scores s, slope;  // then P and dS
      E::product(s, held, stream(stage, 0), d);
      if constexpr (sums_u) E::product(slope, y, stream(stage, 1), dv);
      to_scores<E>(s, f);
      const auto each = [&](auto f) {
#pragma unroll
        for (int j = 0; j < E::Scores::kCount; ++j)
#pragma unroll
          for (int i = 0; i < E::kThreadRows; ++i)
            if constexpr (of_queries)
              f(i, j, own[i], from + E::column(j));
            else
              f(i, j, seen_by[E::column(j)], first + E::row(i));
      };
      const auto query_of = [&](int i, int j) {
        return of_queries ? first + E::row(i) : from + E::column(j);
      };
      const auto key_of = [&](int i, int j) {
        return of_queries ? from + E::column(j) : first + E::row(i);
      };
      [[maybe_unused]] const typename X::Head terms = x.head(b, query_head(step));
      [[maybe_unused]] std::uint64_t kept = 0;
      if constexpr (X::any)
        if (x.drops) {
          if constexpr (of_queries)
            kept = kept_weights<E>(x, terms, first, from);
          else
            kept = kept_weights<E>(columns_kept + stage * columns);
          if constexpr (sums_u) drop_weights<E>(slope, x, kept);
        }
      if constexpr (sums_u) {
        each([&](int i, int j, const Statistics<T>& query, int) { slope.at(i, j) -= query.delta; });
        if (f.outer > 0)
          each([&](int i, int j, const Statistics<T>&, int) {
            const T bend = s.at(i, j) / f.outer;
            slope.at(i, j) *= 1 - bend * bend;
          });
      }
      [[maybe_unused]] const auto weigh = [&](int i, int j, const Statistics<T>& query, bool seen) {
        s.at(i, j) = seen ? exp2(s.at(i, j) - query.lse) : T(0);
        if constexpr (sums_u) slope.at(i, j) = seen ? slope.at(i, j) * s.at(i, j) : T(0);
      };
      if constexpr (X::any) {
        if (!whole)
          each([&](int i, int j, const Statistics<T>& query, int key) {
            if (!query.keys.has(key)) s.at(i, j) = T(-INFINITY);
          });
        apply_terms<E>(s, x, terms, query_of, key_of);
        each([&](int i, int j, const Statistics<T>& query, int) {
          const T p = s.at(i, j) == T(-INFINITY) ? T(0) : exp2(s.at(i, j) - query.lse);
          s.at(i, j) = p;
          if constexpr (sums_u) slope.at(i, j) = p == T(0) ? p : slope.at(i, j) * p;
        });
        if (x.drops) drop_weights<E>(s, x, kept);
      } else if (whole)
        each([&](int i, int j, const Statistics<T>& query, int) { weigh(i, j, query, true); });
      else
        each([&](int i, int j, const Statistics<T>& query, int key) {
          weigh(i, j, query, query.keys.has(key));
        });
      if constexpr (sums_w) E::add_product(sum_w, s, stream(stage, 1), dv, scratch);
      if constexpr (sums_u) E::add_product(sum_u, slope, stream(stage, 0), d, scratch);
    }
    if (E::kStages == 1) {
      __syncthreads();
      if (after() < steps) load(after(), next);
    }
    stage = next;
    step = after();
  }
  copy_wait<0>();
  __syncthreads();

  const i64 row = plane * length + first;
  T factor[E::kThreadRows];
  const auto store = [&](typename E::Sums& sums, T scale, S* to, int width) {
#pragma unroll
    for (int i = 0; i < E::kThreadRows; ++i) factor[i] = scale;
    store_rows<E>(held, sums, factor, to + row * width, count, width);
  };
  if constexpr (sums_u) store(sum_u, f.scale, of_queries ? p.query : p.key, d);
  if constexpr (sums_w) store(sum_w, T(1), p.value, dv);
}

// Rows of a warp and of a step, by what fits the registers; where both sums of a block of keys do
// not, it makes them one by one.
template <class S, int D>
struct BackwardEngine {
  using type = TensorCores<S, D, 1, 32>;
  static constexpr bool kSplit = D > 128;
};
template <int D>
struct BackwardEngine<float, D> {
  using type = Lanes<float, D, D <= 128 ? 4 : 2, 32>;
  static constexpr bool kSplit = false;
};
template <int D>
struct BackwardEngine<double, D> {
  using type = Lanes<double, D, D <= 64 ? 4 : D <= 128 ? 2 : 1, 16>;
  static constexpr bool kSplit = false;
};

template <class E, Part part, class X>
void run(const Backward<typename E::S>& p, const X& x, i64 length, i64 planes) {
  if (length * planes > 0)
    launch(backward_kernel<E, part, X>,
           {grid_of(ceil_div(length, E::kRows) * planes), kThreads, backward_memory<E, X>()}, p, x);
}

// dsinks (heads) = - sum over batch and queries of exp(sink - lse) delta: a sink's value is zero. A
// block a head.
template <class T>
__global__ void __launch_bounds__(kThreads)
    sinks_kernel(const T* sinks, const Statistics<T>* rows, i64 batch, i64 lq, Target dsinks) {
  __shared__ double scratch[kThreads / kWarp];
  const i64 head = blockIdx.x;
  const double sink = static_cast<double>(sinks[head]) * M_LOG2E;
  double sum = 0;
  for (i64 x = threadIdx.x; x < batch * lq; x += kThreads) {
    const Statistics<T>& row = rows[(x / lq * gridDim.x + head) * lq + x % lq];
    if (row.delta != T(0)) sum -= exp2(sink - row.lse) * row.delta;
  }
  sum = block_reduce<kThreads>(sum, Sum{}, scratch);
  if (threadIdx.x == 0) dsinks.store(head, static_cast<T>(sum));
}

}  // namespace
}  // namespace attention

AttentionGradients scaled_dot_product_attention_backward(
    const TensorView& grad, const TensorView& query, const TensorView& key, const TensorView& value,
    const TensorView& out, const TensorView& lse, const TensorView* mask,
    const ops::AttentionOptions& options) {
  using namespace attention;
  constexpr auto op = "scaled_dot_product_attention_backward";
  const Arguments a(op, query, key, value, mask, options);
  ops::attention_backward_args(op, grad, query, out, lse, a.sizes.dv);
  AttentionGradients result{
      Array::empty(a.dtype, query.shape), Array::empty(a.dtype, key.shape),
      Array::empty(a.dtype, value.shape),
      options.sinks ? Array::empty(options.sinks->dtype, a.extras.sinks.shape) : Array()};
  const i64 batch = a.sizes.batch.elements(), heads = a.sizes.query_heads,
            kv_heads = a.sizes.kv_heads, rows = batch * heads * a.sizes.lq;
  const Array grad_rows = even_rows(grad), out_rows = even_rows(out);
  const Array lse_rows = converted(lse, compute_dtype(a.dtype));
  dispatch_floating(a.dtype, [&](auto s) {
    using S = decltype(s);
    using T = Computed<S>;
    const Array statistics =
        Array::empty(DType::u8, Shape(rows, static_cast<i64>(sizeof(Statistics<T>))));
    const Backward<S> p{a.problem<S>(),    heads_of<S>(grad_rows), statistics.as<Statistics<T>>(),
                        result.dq.as<S>(), result.dk.as<S>(),      result.dv.as<S>()};
    if (rows)
      launch(statistics_kernel<S>, {blocks_for(rows, kThreads / kWarp), kThreads}, p.forward,
             p.grad, heads_of<S>(out_rows), lse_rows.as<T>(), statistics.as<Statistics<T>>());
    const auto make = [&](auto terms) {
      with_width(a.sizes, [&](auto d) {
        using Engine = BackwardEngine<S, d.value>;
        using E = typename Engine::type;
        run<E, Part::queries>(p, terms, a.sizes.lq, batch * heads);
        if constexpr (Engine::kSplit) {
          run<E, Part::keys>(p, terms, a.sizes.lk, batch * kv_heads);
          run<E, Part::values>(p, terms, a.sizes.lk, batch * kv_heads);
        } else {
          run<E, Part::keys_and_values>(p, terms, a.sizes.lk, batch * kv_heads);
        }
      });
    };
    if (!a.extras.any()) {
      if constexpr (sizeof(S) == 2)
        if (differentiate_on_hopper(p.forward, p.grad, p.rows, p.query, p.key, p.value)) return;
      return make(NoTerms{});
    }
    make(a.extras.terms<S>(a.sizes));
    mend_gradients(a, grad_rows, lse_rows, statistics, result);
    if (options.sinks && heads)
      launch(sinks_kernel<T>, {blocks_for(heads, 1), kThreads}, a.extras.sinks.as<T>(),
             statistics.as<Statistics<T>>(), batch, a.sizes.lq,
             Target{result.dsinks.data, result.dsinks.dtype});
  });
  if (a.rotary.any()) {
    result.dq = a.rotary.query(result.dq, true);
    result.dk = a.rotary.key(result.dk, true);
  }
  return result;
}

}  // namespace vectile::cuda
