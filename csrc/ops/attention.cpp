#include "ops/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "ops/attention_map.h"
#include "ops/staging.h"

namespace vectile::ops {
namespace {

i64 head_stride(const TensorView& x) { return x.ndim() > 2 ? x.stride(-3) : 0; }

// Checked arguments of one call, in the layouts the kernels read.
struct Problem {
  DType dtype;
  Array query, key, value;
  Array mask_rows;  // the mask as given, its last axis full and contiguous
  TensorView mask;  // that, broadcast to (..., heads, lq, lk)
  i64 batch = 1, heads, kv_heads, lq, lk, d, dv;
  double scale, softcap = 0, dropout_p;
  std::uint64_t seed;
  AttentionMaps maps;
  Array slopes_given, documents, sinks;  // of the type kernels compute in
  TensorView slopes;                     // broadcast to (..., heads)
  Array cosine_given, sine_given;        // of that type
  TensorView cosine, sine;               // broadcast to (..., lk, pairs)
  bool interleaved = false;

  i64 group() const { return kv_heads ? heads / kv_heads : 0; }
  i64 rows() const { return group() * lq; }
  const char* place(const TensorView& x, i64 b, i64 head) const {
    return static_cast<const char*>(x.data) +
           (plane_offset(x, 3, b) + head * head_stride(x)) * static_cast<i64>(item_size(x.dtype));
  }

  template <class T>
  AttentionHead<T> head(i64 b, i64 kv) const {
    const i64 g = group(), first = kv * g;
    AttentionHead<T> h{};
    h.dtype = dtype;
    h.query = place(query, b, first);
    h.key = place(key, b, kv);
    h.value = place(value, b, kv);
    h.query_head = head_stride(query);
    h.query_row = query.stride(-2);
    h.key_row = key.stride(-2);
    h.value_row = value.stride(-2);
    h.group = g;
    h.lq = lq;
    h.lk = lk;
    h.d = d;
    h.dv = dv;
    h.scale = static_cast<T>(scale);
    h.map = maps.map(b, first);
    h.softcap = static_cast<T>(softcap);
    if (mask.data) {
      h.mask = place(mask, b, first);
      h.mask_dtype = mask.dtype;
      h.mask_head = head_stride(mask);
      h.mask_row = mask.stride(-2);
    }
    if (slopes.data)
      h.slopes = slopes.as<T>() + (slopes.ndim() ? plane_offset(slopes, 1, b) : 0) + first;
    if (documents.data) {
      h.documents = documents.as<T>() + (maps.batch_stride() ? b * lk : 0);
      h.query_documents = h.documents + lk - lq;
    }
    if (sinks.data) h.sinks = sinks.as<T>() + first;
    if (cosine.data) {
      h.cosine = cosine.as<T>() + plane_offset(cosine, 2, b);
      h.sine = sine.as<T>() + plane_offset(sine, 2, b);
      h.pairs = cosine.shape[-1];
      h.interleaved = interleaved;
    }
    h.dropout = dropout_p > 0;
    h.threshold = static_cast<std::uint32_t>(std::min(dropout_p * 0x1p32, 0x1p32 - 1));
    h.keep_scale = dropout_p < 1 ? static_cast<T>(1 / (1 - dropout_p)) : T(0);
    h.seed = seed;
    h.first_weight = static_cast<std::uint64_t>(((b * heads + first) * lq) * lk);
    return h;
  }
};

void take_mask(const TensorView& m, const Shape& scores, Problem& p) {
  const Shape full = m.ndim() ? with_last(m.shape, scores[-1]) : Shape(scores[-1]);
  const TensorView wide = broadcast_to(m, full);
  p.mask_rows = full.back() <= 1 || wide.stride(-1) == 1 ? Array(wide) : contiguous(wide);
  p.mask = broadcast_to(p.mask_rows, scores);
}

// Documents that recur, as numbers that the kernels compare.
Array compared_documents(const char* op, const Array& numbers, DType dtype) {
  if (dtype != DType::f64)
    check(numbers.shape.back() <= (1 << 24), op, "document_ids", "length",
          "at most 2**24 where documents recur", numbers.shape.back());
  Array y = Array::empty(dtype, numbers.shape);
  dispatch_float(dtype, [&](auto t) {
    using T = decltype(t);
    std::transform(numbers.as<i64>(), numbers.as<i64>() + numbers.elements(), y.as<T>(),
                   [](i64 x) { return static_cast<T>(x); });
  });
  return y;
}

// Score terms and dropout.
void take_terms(const char* op, const AttentionOptions& o, const AttentionSizes& s, Problem& p) {
  const DType dtype = compute_dtype(p.dtype);
  p.softcap = checked_softcap(op, o.softcap);
  attention_term_args(op, o, s);
  if (o.alibi_slopes) {
    p.slopes_given = converted(broadcast_to(*o.alibi_slopes, s.heads), dtype);
    p.slopes = p.slopes_given;
  }
  if (o.sinks) p.sinks = converted(*o.sinks, dtype);
  p.dropout_p = o.dropout_p;
  p.seed = o.seed;
}

// Tables of rotary embedding, and that every query has a place in them.
void take_rotary(const char* op, const AttentionOptions& o, const TensorView& query,
                 const AttentionSizes& s, Problem& p) {
  if (!o.cosine) return;
  rotary_table_args(op, o, query, s);
  for (i64 i = 0; i < p.lq; ++i)
    check(p.maps.place(i) >= 0, op, "rotary", "key length", "at least the query's",
          text("none for query ", i));
  const DType dtype = compute_dtype(p.dtype);
  const Shape full = with_axes(s.batch, p.lk, o.cosine->shape[-1]);
  p.cosine_given = converted(*o.cosine, dtype);
  p.sine_given = converted(*o.sine, dtype);
  p.cosine = broadcast_to(p.cosine_given, full);
  p.sine = broadcast_to(p.sine_given, full);
  p.interleaved = o.interleaved;
}

Problem check_inputs(const char* op, const TensorView& q, const TensorView& k, const TensorView& v,
                     const TensorView* mask, const AttentionOptions& options) {
  const AttentionSizes s = attention_args(op, q, k, v);
  Problem p;
  p.dtype = q.dtype;
  p.batch = s.batch.elements();
  p.heads = s.query_heads;
  p.kv_heads = s.kv_heads;
  p.lq = s.lq;
  p.lk = s.lk;
  p.d = s.d;
  p.dv = s.dv;
  p.scale = checked_scale(op, options.scale, p.d);
  if (mask) {
    const Shape scores = with_last(q.shape, p.lk);
    attention_mask_args(op, *mask, p.dtype, scores);
    take_mask(*mask, scores, p);
  }
  take_terms(op, options, s, p);
  p.maps = AttentionMaps(op, options, s.heads, p.lq, p.lk);
  take_rotary(op, options, q, s, p);
  if (p.maps.ids_recur())
    p.documents = compared_documents(op, p.maps.document_numbers(), compute_dtype(p.dtype));
  p.query = rows_contiguous(q);
  p.key = rows_contiguous(k);
  p.value = rows_contiguous(v);
  return p;
}

// Multiply-adds worth handing to another thread.
constexpr i64 kWork = 1 << 20;

// Pieces of `n` so that `outer` times as many tasks keep some threads busy; each at least `least`
// and at most `most` long.
i64 piece(i64 n, i64 outer, i64 least, i64 most) {
  constexpr i64 tasks = 16;
  const i64 wanted = std::max<i64>(1, tasks / std::max<i64>(1, outer));
  const i64 size = std::clamp(ceil_div(n, wanted), least, most);
  return round_up(size, least);
}

// Runs fn(first task, one past the last) over chunks of tasks of `work` multiply-adds each.
template <class F>
void over_tasks(i64 tasks, i64 work, F&& fn) {
  parallel_ranges(tasks, kWork / std::max<i64>(1, work), fn);
}

// What parts of a sum gather apart from one another, added to the first's place in order.
template <class T>
class Shares {
 public:
  Shares(const Array& total, i64 parts, i64 size)
      : total_(total.as<T>()),
        parts_(parts),
        size_(size),
        rest_(checked_elements(Shape(std::max<i64>(0, parts - 1), size))) {}
  T* of(i64 part) { return part ? rest_.get() + (part - 1) * size_ : total_; }
  void add() {
    if (parts_ > 1)
      parallel_ranges(size_, kGrain, [&](i64 begin, i64 end) {
        for (i64 part = 1; part < parts_; ++part) {
          const T* share = of(part);
          for (i64 i = begin; i < end; ++i) total_[i] += share[i];
        }
      });
  }

 private:
  T* total_;
  i64 parts_, size_;
  Buffer<T> rest_;
};

// dsinks (heads,) = - sum over batch and queries of exp(sink - lse) delta: a sink's value is zero.
template <class T>
void sink_gradients(const Problem& p, const T* lse, const T* delta, T* dsinks) {
  parallel_ranges(p.heads, 1, [&](i64 begin, i64 end) {
    for (i64 h = begin; h < end; ++h) {
      double sum = 0;
      for (i64 b = 0; b < p.batch; ++b)
        for (i64 i = 0, at = (b * p.heads + h) * p.lq; i < p.lq; ++i, ++at)
          if (delta[at] != 0)
            sum += std::exp(double(p.sinks.as<T>()[h]) - double(lse[at])) * double(delta[at]);
      dsinks[h] = static_cast<T>(-sum);
    }
  });
}

}  // namespace

AttentionResult scaled_dot_product_attention(const TensorView& query, const TensorView& key,
                                             const TensorView& value, const TensorView* mask,
                                             const AttentionOptions& options) {
  constexpr auto op = "scaled_dot_product_attention";
  const Problem p = check_inputs(op, query, key, value, mask, options);
  const i64 top = options.return_top_k;
  check(top >= 0 && top <= p.lk, op, "return_top_k", "value", text("0 <= k <= ", p.lk), top);
  const DType dtype = compute_dtype(p.dtype);
  const Shape rows = without_last(query.shape);
  AttentionResult result;
  result.out = Array::empty(p.dtype, with_last(query.shape, p.dv));
  if (options.return_lse) result.lse = Array::empty(dtype, rows);
  if (options.return_weights) result.weights = Array::empty(p.dtype, with_last(query.shape, p.lk));
  if (options.return_column_sums) result.column_sums = Array::zeros(dtype, with_last(rows, p.lk));
  if (top) {
    result.top_weights = Array::empty(dtype, with_last(query.shape, top));
    result.top_keys = Array::empty(DType::i64, with_last(query.shape, top));
  }
  const i64 outer = p.batch * p.kv_heads;
  if (outer == 0 || p.rows() == 0) return result;

  dispatch_float(dtype, [&](auto t) {
    using T = decltype(t);
    const FloatKernels<T>& kernels = kernels_of<T>();
    // Each task packs what its rows see; rows of a block map see more than one of them does.
    const i64 per_task = piece(p.rows(), outer, 128, options.block_mask ? 1024 : 512);
    const i64 pieces = ceil_div(p.rows(), per_task);
    // Each piece of the rows has column sums of its own, added in order.
    const i64 sums_size = options.return_column_sums ? p.batch * p.heads * p.lk : 0;
    Shares<T> sums(result.column_sums, pieces, sums_size);
    i64 scratch_size, unused;
    kernels.attention_scratch(p.head<T>(0, 0), std::min(per_task, p.rows()), &scratch_size,
                              &unused);
    over_tasks(outer * pieces, std::min(per_task, p.rows()) * p.lk * (p.d + p.dv),
               [&](i64 begin, i64 end) {
                 const Buffer<T> scratch(scratch_size);
                 for (i64 task = begin; task < end; ++task) {
                   // Last rows first: under a causal mask they are the longest tasks.
                   const i64 kv = task % outer, part = pieces - 1 - task / outer,
                             i = part * per_task;
                   const AttentionHead<T> head = p.head<T>(kv / p.kv_heads, kv % p.kv_heads);
                   const auto at = [&](const Array& a, i64 columns) -> char* {
                     if (!a.data) return nullptr;
                     const i64 offset = kv * p.rows() * columns;
                     return a.as<char>() + offset * static_cast<i64>(item_size(a.dtype));
                   };
                   AttentionExtras<T> extras{};
                   extras.lse = reinterpret_cast<T*>(at(result.lse, 1));
                   extras.weights = at(result.weights, p.lk);
                   if (sums_size) extras.column_sums = sums.of(part) + kv * p.group() * p.lk;
                   extras.top = top;
                   extras.top_weights = reinterpret_cast<T*>(at(result.top_weights, top));
                   extras.top_keys = reinterpret_cast<i64*>(at(result.top_keys, top));
                   kernels.attention_forward(head, i, std::min(i + per_task, p.rows()),
                                             at(result.out, p.dv), extras, scratch.get());
                 }
               });
    sums.add();
  });
  result.top_weights = narrowed(std::move(result.top_weights), p.dtype);
  return result;
}

AttentionGradients scaled_dot_product_attention_backward(
    const TensorView& grad, const TensorView& query, const TensorView& key, const TensorView& value,
    const TensorView& out, const TensorView& lse, const TensorView* mask,
    const AttentionOptions& options) {
  constexpr auto op = "scaled_dot_product_attention_backward";
  const Problem p = check_inputs(op, query, key, value, mask, options);
  const DType dtype = compute_dtype(p.dtype);
  const Shape rows = without_last(query.shape);
  attention_backward_args(op, grad, query, out, lse, p.dv);
  const Array grad_rows = rows_contiguous(grad), out_rows = rows_contiguous(out);
  const Array lse_rows = converted(lse, dtype), delta_rows = Array::empty(dtype, rows);

  AttentionGradients result;
  result.dk = Array::empty(p.dtype, key.shape);
  result.dv = Array::empty(p.dtype, value.shape);
  Array dq = Array::empty(dtype, query.shape);
  if (options.sinks) result.dsinks = Array::zeros(dtype, options.sinks->shape);
  const i64 outer = p.batch * p.kv_heads, dq_size = p.batch * p.heads * p.lq * p.d;

  dispatch_float(dtype, [&](auto t) {
    using T = decltype(t);
    if (p.lk == 0) std::fill_n(dq.as<T>(), dq_size, T(0));
    if (outer == 0) return;
    const FloatKernels<T>& kernels = kernels_of<T>();
    const auto gradient = [&](i64 b, i64 kv) {
      AttentionGrad<T> g;
      g.grad = p.place(grad_rows, b, kv * p.group());
      g.out = p.place(out_rows, b, kv * p.group());
      g.grad_head = head_stride(grad_rows);
      g.grad_row = grad_rows.stride(-2);
      g.out_head = head_stride(out_rows);
      g.out_row = out_rows.stride(-2);
      g.lse = lse_rows.as<T>() + (b * p.kv_heads + kv) * p.rows();
      g.delta = delta_rows.as<T>() + (b * p.kv_heads + kv) * p.rows();
      return g;
    };
    over_tasks(outer, p.rows() * p.dv, [&](i64 begin, i64 end) {
      for (i64 task = begin; task < end; ++task) {
        const i64 b = task / p.kv_heads, kv = task % p.kv_heads;
        kernels.attention_delta(p.head<T>(b, kv), gradient(b, kv), 0, p.rows(),
                                delta_rows.as<T>() + task * p.rows());
      }
    });
    if (options.sinks)
      sink_gradients(p, lse_rows.as<T>(), delta_rows.as<T>(), result.dsinks.as<T>());
    // Where heads are few, the keys are split too; each piece gives its share of dq, added in
    // order.
    const i64 keys = piece(p.lk, outer, 512, std::max<i64>(512, p.lk));
    const i64 pieces = ceil_div(p.lk, keys);
    Shares<T> shares(dq, pieces, dq_size);
    i64 scratch_size, unused;
    kernels.attention_scratch(p.head<T>(0, 0), 0, &unused, &scratch_size);
    over_tasks(outer * pieces, p.rows() * std::min(keys, p.lk) * (3 * p.d + 2 * p.dv),
               [&](i64 begin, i64 end) {
                 const Buffer<T> scratch(scratch_size);
                 for (i64 task = begin; task < end; ++task) {
                   const i64 kv = task % outer, part = task / outer, b = kv / p.kv_heads;
                   const auto size = static_cast<i64>(item_size(p.dtype));
                   kernels.attention_backward(
                       p.head<T>(b, kv % p.kv_heads), gradient(b, kv % p.kv_heads), part * keys,
                       std::min((part + 1) * keys, p.lk), shares.of(part) + kv * p.rows() * p.d,
                       result.dk.as<char>() + kv * p.lk * p.d * size,
                       result.dv.as<char>() + kv * p.lk * p.dv * size, scratch.get());
                 }
               });
    shares.add();
  });
  result.dq = narrowed(std::move(dq), p.dtype);
  if (options.sinks) result.dsinks = narrowed(std::move(result.dsinks), options.sinks->dtype);
  return result;
}

}  // namespace vectile::ops
