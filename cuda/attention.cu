// The forward pass of attention: tiles of scores live in registers only, with a running maximum and
// sum for each query (FlashAttention-2, arXiv 2307.08691). Tiles of keys that no query of a block
// sees are not loaded, those that a warp's do not see not computed.
#include "attention_problem.h"
#include "numbers.h"

namespace vectile::cuda {
namespace attention {
namespace {

struct Masks {
  i64 lq, lk, left, right;
  Integers starts_q, starts_k, lengths;  // no data: none
  i64 sequences;
};

__device__ i64 clamp(i64 x, i64 low, i64 high) { return x < low ? low : x > high ? high : x; }

__global__ void __launch_bounds__(kThreads) ranges_kernel(Masks m, Range* ranges, i64 batch) {
  for (i64 i = i64{blockIdx.x} * kThreads + threadIdx.x; i < batch * m.lq;
       i += i64{gridDim.x} * kThreads) {
    const i64 row = i % m.lq;
    i64 first = 0, end = m.lk, query_end = m.lq;  // the sequence's keys, and where its queries end
    if (m.starts_q.data) {
      i64 s = 0,
          more = m.sequences;  // the last sequence that begins at the row or before is s or up
      while (more > 1) {
        const i64 half = more / 2;
        if (m.starts_q.at(s + half) <= row) s += half;
        more -= half;
      }
      first = m.sequences ? clamp(m.starts_k.at(s), 0, m.lk) : 0;
      end = m.sequences ? clamp(m.starts_k.at(s + 1), first, m.lk) : 0;
      query_end = m.sequences ? clamp(m.starts_q.at(s + 1), 0, m.lq) : 0;
    }
    const i64 at = end - query_end + row;
    const i64 from = clamp(at - m.left, first, end);
    i64 to = clamp(at + m.right + 1, first, end);
    if (m.lengths.data) to = clamp(m.lengths.at(i / m.lq), 0, to);
    ranges[i] = {static_cast<int>(from), static_cast<int>(to)};
  }
}

template <class E>
constexpr std::size_t forward_memory() {
  using S = typename E::S;
  return (E::kRows + 2 * E::kStages * E::kColumns) * E::D * sizeof(S) +
         E::kScratch * sizeof(Computed<S>);
}

template <class E, class S = typename E::S, class T = Computed<S>>
__global__ void __launch_bounds__(kThreads) forward_kernel(Problem<S> p, S* out, T* lse) {
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
  typename E::Sums sums;

  load_rows<rows>(query, p.query.of(b, head), first, 0, p.lq);
  if (begin < end) load(begin, 0);
  copy_commit();
  int stage = 0;
  for (int from = begin; from < end; from += columns) {
    copy_wait<0>();
    __syncthreads();  // this tile is there, and nobody reads the other any more
    const int next = (stage + 1) % E::kStages;
    if (E::kStages > 1 && end - from > columns) load(from + columns, next);
    if (from + columns > top_range.begin && from < last_range.end) {
      typename E::Scores s;
      E::product(s, query, stream(stage, 0), p.query.width);
      const bool whole = last_range.begin <= from && from + columns <= top_range.end;
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
      E::add_product(sums, s, stream(stage, 1), width, scratch);
    }
    if (E::kStages == 1) {
      __syncthreads();
      if (end - from > columns) load(from + columns, next);
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

void reject(const char* op, const char* argument, bool given) {
  check(!given, op, argument, "value", "its default, as a device op has no other", "another");
}

}  // namespace

Array even_rows(const TensorView& x) {
  const bool even = x.ndim() <= 4 && (x.stride(-1) == 1 || x.shape[-1] <= 1);
  return even ? Array(x) : contiguous(x);
}

Arguments::Arguments(const char* op, const TensorView& q, const TensorView& k, const TensorView& v,
                     const TensorView* mask, const ops::AttentionOptions& o)
    : sizes(ops::attention_args(op, q, k, v)),
      dtype(q.dtype),
      scale(ops::checked_scale(op, o.scale, sizes.d)),
      softcap(ops::checked_softcap(op, o.softcap)) {
  reject(op, "attn_mask", mask);
  reject(op, "block_mask", o.block_mask);
  reject(op, "block_size", o.block_rows || o.block_columns);
  reject(op, "document_ids", o.document_ids);
  reject(op, "alibi_slopes", o.alibi_slopes);
  reject(op, "sinks", o.sinks);
  reject(op, "rotary", o.cosine);
  reject(op, "dropout_p", o.dropout_p != 0);
  reject(op, "return_weights", o.return_weights);
  reject(op, "return_column_sums", o.return_column_sums);
  reject(op, "return_top_k", o.return_top_k != 0);
  check(sizes.d <= 256, op, "query", "dim", "at most 256 on a device", sizes.d);
  check(sizes.dv <= 256, op, "value", "dim", "at most 256 on a device", sizes.dv);
  constexpr i64 most = INT_MAX - 1024;  // tiles end a little past the rows
  check(sizes.lq <= most, op, "query", "length", text("at most ", most), sizes.lq);
  check(sizes.lk <= most, op, "key", "length", text("at most ", most), sizes.lk);

  Masks m{sizes.lq, sizes.lk, 0, 0, {}, {}, {}, 0};
  const i64 all = sizes.lq + sizes.lk;
  m.left = ops::checked_reach(op, o.left, all);
  m.right = ops::checked_reach(op, o.right, all);
  if (o.is_causal) m.right = 0;
  Array starts_q, starts_k, lengths;
  const auto integers = [&](const char* argument, const TensorView& x, const Shape& shape,
                            Array& kept) {
    ops::check_integers(op, argument, x);
    kept = contiguous(ops::broadcast_to(x, shape));
    return Integers{kept.data, x.dtype};
  };
  if (o.cu_seqlens_q) {
    const TensorView& of_keys = o.cu_seqlens_k ? *o.cu_seqlens_k : *o.cu_seqlens_q;
    const char* name = o.cu_seqlens_k ? "cu_seqlens_k" : "cu_seqlens_q";
    ops::check_starts(op, "cu_seqlens_q", *o.cu_seqlens_q);
    ops::check_starts(op, name, of_keys);
    const Shape shape = o.cu_seqlens_q->shape;
    check(of_keys.shape == shape, op, "cu_seqlens_k", "length", shape[0], of_keys.shape[0]);
    m.starts_q = integers("cu_seqlens_q", *o.cu_seqlens_q, shape, starts_q);
    m.starts_k = integers(name, of_keys, shape, starts_k);
    m.sequences = shape[0] - 1;
  } else {
    check(!o.cu_seqlens_k, op, "cu_seqlens_q", "value", "an array beside cu_seqlens_k", "None");
  }
  i64 copies = 1;
  if (o.key_lengths) {
    ops::check_broadcast(op, "key_lengths", *o.key_lengths, sizes.batch);
    m.lengths = integers("key_lengths", *o.key_lengths, sizes.batch, lengths);
    copies = sizes.batch.elements();
    range_batch = sizes.lq;
  }
  query = even_rows(q);
  key = even_rows(k);
  value = even_rows(v);
  ranges = Array::empty(DType::i32, Shape(copies, sizes.lq, 2));
  if (copies * sizes.lq > 0)
    launch(ranges_kernel, {blocks_for(copies * sizes.lq, kThreads), kThreads}, m,
           static_cast<Range*>(ranges.data), copies);
}

}  // namespace attention

AttentionResult scaled_dot_product_attention(const TensorView& query, const TensorView& key,
                                             const TensorView& value, const TensorView* mask,
                                             const ops::AttentionOptions& options) {
  using namespace attention;
  const Arguments a("scaled_dot_product_attention", query, key, value, mask, options);
  AttentionResult result;
  result.out = Array::empty(a.dtype, with_last(query.shape, a.sizes.dv));
  if (options.return_lse)
    result.lse = Array::empty(compute_dtype(a.dtype), without_last(query.shape));
  const i64 planes = a.sizes.heads.elements();
  if (planes == 0 || a.sizes.lq == 0) return result;
  dispatch_floating(a.dtype, [&](auto s) {
    using S = decltype(s);
    if constexpr (sizeof(S) == 2)
      if (attend_on_hopper(a.problem<S>(), result.out.as<S>(), result.lse.as<float>())) return;
    with_width(a.sizes, [&](auto d) {
      using E = typename ForwardEngine<S, d.value>::type;
      launch(forward_kernel<E>,
             {grid_of(ceil_div(a.sizes.lq, E::kRows) * planes), kThreads, forward_memory<E>()},
             a.problem<S>(), result.out.as<S>(), result.lse.as<Computed<S>>());
    });
  });
  return result;
}

}  // namespace vectile::cuda
