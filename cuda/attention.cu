// The forward pass of attention: tiles of scores live in registers only, with a running maximum and
// sum for each query (FlashAttention-2, arXiv 2307.08691). Tiles of keys that no query of a block
// sees are not loaded, those that a warp's do not see not computed.
#include "attention_rows.h"
#include "attention_terms.h"

namespace vectile::cuda {
namespace attention {
namespace {

template <class E>
constexpr std::size_t forward_memory() {
  using S = typename E::S;
  return (E::kRows + 2 * E::kStages * E::kColumns) * E::D * sizeof(S) +
         E::kScratch * sizeof(Computed<S>);
}

template <class E, class X, class S = typename E::S, class T = Computed<S>>
__global__ void __launch_bounds__(kThreads) forward_kernel(Problem<S> p, X x, S* out, T* lse) {
  constexpr int D = E::D, rows = E::kRows, columns = E::kColumns;
  using Place = Tile<S, D>;
  auto* memory = reinterpret_cast<S*>(dynamic_memory());
  const Place query{memory};
  const auto stream = [&](int stage, int which) {
    return Place{memory + (rows + (2 * stage + which) * columns) * D};
  };
  auto* scratch = reinterpret_cast<T*>(stream(E::kStages, 0).data);
  const int tiles = (p.lq + rows - 1) / rows, width = p.value.width;
  const i64 task = task_of_block();
  if (task >= tiles * p.batch * p.heads) return;
  // Last rows first: under a causal mask they see the most keys.
  const int first = (tiles - 1 - static_cast<int>(task % tiles)) * rows;
  const i64 plane = task / tiles, b = plane / p.heads, head = plane % p.heads;
  const int count = p.lq - first < rows ? p.lq - first : rows;
  const int begin = p.range(b, first).begin, end = p.range(b, first + count - 1).end;
  const Rows<S> keys = p.key.of(b, head / p.group()), values = p.value.of(b, head / p.group());
  const auto load = [&](int from, int stage) {
    load_rows<columns>(stream(stage, 0), keys, from, begin, end);
    load_rows<columns>(stream(stage, 1), values, from, begin, end);
    copy_commit();
  };
  [[maybe_unused]] const typename X::Head terms = x.head(b, head);
  // The first step from a key on that has work.
  const auto next_step = [&](int from) {
    if constexpr (X::any) {
      while (from < end && !x.live(terms, first, first + count, from,
                                   end - from < columns ? end : from + columns))
        from += columns;
    }
    return from;
  };
  // Of the warp's rows.
  const int upper = first + warp_index() * E::kWarpRows, lower = upper + E::kWarpRows - 1;
  const Range top_range = p.range(b, upper);
  const Range last_range = p.range(b, lower < p.lq ? lower : p.lq - 1);
  T top[E::kThreadRows], total[E::kThreadRows];
#pragma unroll
  for (int i = 0; i < E::kThreadRows; ++i) {
    top[i] = T(-INFINITY);
    total[i] = T(0);
  }
  if constexpr (X::any)
    if (x.sinks) {
#pragma unroll
      for (int i = 0; i < E::kThreadRows; ++i) {
        top[i] = x.sinks[head] * T(M_LOG2E);
        total[i] = lane_index() % E::kLanes == 0 ? T(1) : T(0);
      }
    }
  typename E::Sums sums;

  load_rows<rows>(query, p.query.of(b, head), first, 0, p.lq);
  int from = next_step(begin);
  if (from < end) load(from, 0);
  copy_commit();
  int stage = 0;
  for (int after; from < end; from = after) {
    copy_wait<0>();
    __syncthreads();  // this tile is there, and nobody reads the other any more
    const int next = (stage + 1) % E::kStages;
    after = next_step(from + columns);
    if (E::kStages > 1 && after < end) load(after, next);
    if (from + columns > top_range.begin && from < last_range.end) {
      typename E::Scores s;
      E::product(s, query, stream(stage, 0), p.query.width);
      const bool whole =
          last_range.begin <= from && from + columns <= top_range.end && (!X::any || lower < p.lq);
      to_scores<E>(s, p);
      if (!whole) {
#pragma unroll
        for (int i = 0; i < E::kThreadRows; ++i) {
          const Range seen = p.range(b, first + E::row(i));
#pragma unroll
          for (int j = 0; j < E::Scores::kCount; ++j)
            if (!seen.has(from + E::column(j))) s.at(i, j) = T(-INFINITY);
        }
      }
      const auto query_of = [&](int i, int) { return first + E::row(i); };
      const auto key_of = [&](int, int j) { return from + E::column(j); };
      if constexpr (X::any) apply_terms<E>(s, x, terms, query_of, key_of);
      T shrink[E::kThreadRows];
      bool rises = false;
#pragma unroll
      for (int i = 0; i < E::kThreadRows; ++i) {
        T highest = top[i];
#pragma unroll
        for (int j = 0; j < E::Scores::kCount; ++j)
          highest = s.at(i, j) > highest ? s.at(i, j) : highest;
        highest = row_reduce<E>(highest, [](T a, T b) { return a > b ? a : b; });
        const T shift = highest == T(-INFINITY) ? T(0) : highest;
        shrink[i] = exp2(top[i] - shift);
        rises = rises || highest > top[i];
        top[i] = highest;
        total[i] *= shrink[i];
#pragma unroll
        for (int j = 0; j < E::Scores::kCount; ++j) {
          s.at(i, j) = exp2(s.at(i, j) - shift);
          total[i] += s.at(i, j);
        }
      }
      if (__any_sync(kAll, rises)) {
#pragma unroll
        for (int i = 0; i < E::kThreadRows; ++i)
#pragma unroll
          for (int j = 0; j < E::Sums::kCount; ++j) sums.at(i, j) *= shrink[i];
      }
      if constexpr (X::any)
        if (x.drops) drop_weights<E>(s, x, kept_weights<E>(x, terms, first, from));
      E::add_product(sums, s, stream(stage, 1), width, scratch);
    }
    if (E::kStages == 1) {
      __syncthreads();
      if (after < end) load(after, next);
    }
    stage = next;
  }
  copy_wait<0>();
  __syncthreads();

  T inverse[E::kThreadRows];
  const i64 row = plane * p.lq + first;
#pragma unroll
  for (int i = 0; i < E::kThreadRows; ++i) {
    const T sum = row_reduce<E>(total[i], Sum{});
    inverse[i] = sum == T(0) ? T(0) : T(1) / sum;
    if (lse && lane_index() % E::kLanes == 0 && E::row(i) < count)
      lse[row + E::row(i)] = (top[i] + log2(sum)) * T(M_LN2);
  }
  store_rows<E>(query, sums, inverse, out + row * width, count, width);
}

// Rows of a warp and keys of a step, by what fits the registers.
template <class S, int D>
struct ForwardEngine {
  using type = TensorCores<S, D, D <= 128 ? 2 : 1, D <= 64 ? 64 : 32>;
};
template <int D>
struct ForwardEngine<float, D> {
  using type = Lanes<float, D, D <= 128 ? 4 : 2, 32>;
};
template <int D>
struct ForwardEngine<double, D> {
  using type = Lanes<double, D, D <= 64 ? 4 : D <= 128 ? 2 : 1, 16>;
};

}  // namespace

}  // namespace attention

AttentionResult scaled_dot_product_attention(const TensorView& query, const TensorView& key,
                                             const TensorView& value, const TensorView* mask,
                                             const ops::AttentionOptions& options) {
  using namespace attention;
  constexpr auto op = "scaled_dot_product_attention";
  const Arguments a(op, query, key, value, mask, options);
  const i64 top = options.return_top_k;
  check(top >= 0 && top <= a.sizes.lk, op, "return_top_k", "value", text("0 <= k <= ", a.sizes.lk),
        top);
  const bool weighs = options.return_weights || options.return_column_sums || top;
  const DType compute = compute_dtype(a.dtype);
  AttentionResult result;
  result.out = Array::empty(a.dtype, with_last(query.shape, a.sizes.dv));
  Array lse;
  if (options.return_lse || weighs || a.extras.any())
    lse = Array::empty(compute, without_last(query.shape));
  const i64 planes = a.sizes.heads.elements();
  if (planes > 0 && a.sizes.lq > 0)
    dispatch_floating(a.dtype, [&](auto s) {
      using S = decltype(s);
      const auto attend = [&](auto terms) {
        with_width(a.sizes, [&](auto d) {
          using E = typename ForwardEngine<S, d.value>::type;
          launch(forward_kernel<E, decltype(terms)>,
                 {grid_of(ceil_div(a.sizes.lq, E::kRows) * planes), kThreads, forward_memory<E>()},
                 a.problem<S>(), terms, result.out.as<S>(), lse.as<Computed<S>>());
        });
      };
      if (!a.extras.any()) {
        if constexpr (sizeof(S) == 2)
          if (attend_on_hopper(a.problem<S>(), result.out.as<S>(), lse.as<float>())) return;
        return attend(NoTerms{});
      }
      attend(a.extras.terms<S>(a.sizes));
      mend_rows(a, lse, result.out);
    });
  if (weighs) take_weights(a, options, lse, result);
  if (options.return_lse) result.lse = std::move(lse);
  return result;
}

}  // namespace vectile::cuda
