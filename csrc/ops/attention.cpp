#include "ops/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "ops/staging.h"

namespace vectile::ops {
namespace {

// Heads of an array (..., heads, rows, columns); 1 for a matrix.
i64 heads_of(const Shape& s) { return s.ndim > 2 ? s[-3] : 1; }

// Offset of plane b among the axes before the last `skip`, in row-major order.
i64 plane_offset(const TensorView& x, int skip, i64 b) {
  i64 offset = 0;
  for (int i = x.ndim() - skip - 1; i >= 0; --i) {
    offset += b % x.shape[i] * x.strides[i];
    b /= x.shape[i];
  }
  return offset;
}

// `x` seen as `shape`, whose trailing axes it broadcasts to.
TensorView broadcast_to(const TensorView& x, const Shape& shape) {
  TensorView y = x;
  y.shape = shape;
  const int lead = shape.ndim - x.ndim();
  for (int i = 0; i < shape.ndim; ++i)
    y.strides[i] = i < lead || x.shape[i - lead] == 1 ? 0 : x.strides[i - lead];
  return y;
}

// Checked arguments of one call, in the layouts the kernels read.
struct Problem {
  Array query, key, value;
  Array mask_rows;  // the mask as given, its last axis full and contiguous
  TensorView mask;  // that, broadcast to (..., heads, lq, lk)
  MaskKind mask_kind = MaskKind::none;
  i64 batch = 1, heads, kv_heads, lq, lk, d, dv;
  double scale;
  bool causal;

  i64 group() const { return kv_heads ? heads / kv_heads : 0; }
  i64 rows() const { return group() * lq; }

  template <class T>
  AttentionHead<T> head(i64 b, i64 kv) const {
    const i64 g = group(), first = kv * g;
    const auto head_stride = [](const TensorView& x) { return x.ndim() > 2 ? x.stride(-3) : 0; };
    AttentionHead<T> h;
    h.query = query.as<T>() + plane_offset(query, 3, b) + first * head_stride(query);
    h.key = key.as<T>() + plane_offset(key, 3, b) + kv * head_stride(key);
    h.value = value.as<T>() + plane_offset(value, 3, b) + kv * head_stride(value);
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
    h.causal = causal;
    h.mask_kind = mask_kind;
    h.mask = nullptr;
    h.mask_head = h.mask_row = 0;
    if (mask_kind != MaskKind::none) {
      const i64 offset = plane_offset(mask, 3, b) + first * head_stride(mask);
      h.mask =
          static_cast<const char*>(mask.data) + offset * static_cast<i64>(item_size(mask.dtype));
      h.mask_head = head_stride(mask);
      h.mask_row = mask.stride(-2);
    }
    return h;
  }
};

void check_mask(const char* op, const TensorView& m, DType dtype, const Shape& scores, Problem& p) {
  if (m.dtype != DType::boolean && given_dtype(m) != dtype)
    fail<TypeError>(op, "attn_mask", "dtype", text("bool or ", dtype), given_dtype(m));
  bool fits = m.ndim() <= scores.ndim;
  for (int i = 1; fits && i <= m.ndim(); ++i) fits = m.shape[-i] == 1 || m.shape[-i] == scores[-i];
  if (!fits) [[unlikely]]
    fail(op, "attn_mask", "shape", text("one that broadcasts to ", scores), m.shape);
  p.mask_kind = m.dtype == DType::boolean ? MaskKind::boolean : MaskKind::additive;
  const Shape full = m.ndim() ? with_last(m.shape, scores[-1]) : Shape(scores[-1]);
  const TensorView wide = broadcast_to(m, full);
  p.mask_rows = full.back() <= 1 || wide.stride(-1) == 1 ? Array(wide) : contiguous(wide);
  p.mask = broadcast_to(p.mask_rows, scores);
}

Problem check_inputs(const char* op, const TensorView& q, const TensorView& k, const TensorView& v,
                     const TensorView* mask, const AttentionOptions& options) {
  check_floating(op, "query", q);
  check_same_dtype(op, "key", k, q);
  check_same_dtype(op, "value", v, q);
  check(q.ndim() >= 2, op, "query", "ndim", "at least 2", q.ndim());
  check(k.ndim() == q.ndim(), op, "key", "ndim", q.ndim(), k.ndim());
  check(v.ndim() == q.ndim(), op, "value", "ndim", q.ndim(), v.ndim());
  Problem p;
  const auto batch_of = [](const TensorView& x) {
    Shape s = x.shape;
    s.ndim = std::max(0, s.ndim - 3);
    return s;
  };
  const Shape batch = batch_of(q);
  check(batch_of(k) == batch, op, "key", "batch", batch, batch_of(k));
  check(batch_of(v) == batch, op, "value", "batch", batch, batch_of(v));
  p.batch = batch.elements();
  p.heads = heads_of(q.shape);
  p.kv_heads = heads_of(k.shape);
  if (p.kv_heads == 0 ? p.heads != 0 : p.heads % p.kv_heads != 0)
    fail(op, "key", "heads", text("a divisor of the query's ", p.heads), p.kv_heads);
  check(heads_of(v.shape) == p.kv_heads, op, "value", "heads", p.kv_heads, heads_of(v.shape));
  p.lq = q.shape[-2];
  p.lk = k.shape[-2];
  p.d = q.shape[-1];
  p.dv = v.shape[-1];
  check(k.shape[-1] == p.d, op, "key", "dim", p.d, k.shape[-1]);
  check(v.shape[-2] == p.lk, op, "value", "length", p.lk, v.shape[-2]);
  p.scale = options.scale.value_or(p.d ? 1 / std::sqrt(static_cast<double>(p.d)) : 1.0);
  check(std::isfinite(p.scale), op, "scale", "value", "a finite number", p.scale);
  p.causal = options.is_causal;
  if (mask) check_mask(op, *mask, given_dtype(q), with_last(q.shape, p.lk), p);
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

}  // namespace

AttentionResult scaled_dot_product_attention(const TensorView& query, const TensorView& key,
                                             const TensorView& value, const TensorView* mask,
                                             const AttentionOptions& options) {
  constexpr auto op = "scaled_dot_product_attention";
  if (is_half(query.dtype))
    return in_float32(query.dtype, scaled_dot_product_attention, query, key, value, mask, options);
  const Problem p = check_inputs(op, query, key, value, mask, options);
  Shape rows = query.shape;
  --rows.ndim;
  AttentionResult result;
  result.out = Array::empty(query.dtype, with_last(query.shape, p.dv));
  if (options.return_lse) result.lse = Array::empty(query.dtype, rows);
  if (options.return_weights)
    result.weights = Array::empty(query.dtype, with_last(query.shape, p.lk));
  const i64 outer = p.batch * p.kv_heads;
  if (outer == 0 || p.rows() == 0) return result;

  dispatch_float(query.dtype, [&](auto t) {
    using T = decltype(t);
    const FloatKernels<T>& kernels = kernels_of<T>();
    const i64 per_task = piece(p.rows(), outer, 128, 512);
    const i64 pieces = ceil_div(p.rows(), per_task);
    i64 scratch_size, unused;
    kernels.attention_scratch(p.head<T>(0, 0), std::min(per_task, p.rows()), &scratch_size,
                              &unused);
    over_tasks(outer * pieces, std::min(per_task, p.rows()) * p.lk * (p.d + p.dv),
               [&](i64 begin, i64 end) {
                 const Buffer<T> scratch(scratch_size);
                 for (i64 task = begin; task < end; ++task) {
                   // Last rows first: under a causal mask they are the longest tasks.
                   const i64 kv = task % outer, i = (pieces - 1 - task / outer) * per_task;
                   const AttentionHead<T> head = p.head<T>(kv / p.kv_heads, kv % p.kv_heads);
                   const auto at = [&](const Array& a, i64 columns) {
                     return a.data ? a.as<T>() + kv * p.rows() * columns : nullptr;
                   };
                   kernels.attention_forward(head, i, std::min(i + per_task, p.rows()),
                                             at(result.out, p.dv), at(result.lse, 1),
                                             at(result.weights, p.lk), scratch.get());
                 }
               });
  });
  return result;
}

AttentionGradients scaled_dot_product_attention_backward(
    const TensorView& grad, const TensorView& query, const TensorView& key, const TensorView& value,
    const TensorView& out, const TensorView& lse, const TensorView* mask,
    const AttentionOptions& options) {
  constexpr auto op = "scaled_dot_product_attention_backward";
  if (is_half(query.dtype))
    return in_float32(query.dtype, scaled_dot_product_attention_backward, grad, query, key, value,
                      out, lse, mask, options);
  const Problem p = check_inputs(op, query, key, value, mask, options);
  const Shape out_shape = with_last(query.shape, p.dv);
  Shape rows = query.shape;
  --rows.ndim;
  check_same_dtype(op, "grad", grad, query);
  check_same_dtype(op, "out", out, query);
  check_parameter_dtype(op, "lse", lse, query);
  check_shape(op, "grad", grad, out_shape);
  check_shape(op, "out", out, out_shape);
  check_shape(op, "lse", lse, rows);
  const Array grad_rows = rows_contiguous(grad), out_rows = rows_contiguous(out);
  const Array lse_rows = contiguous(lse);

  AttentionGradients result;
  result.dq = Array::empty(query.dtype, query.shape);
  result.dk = Array::empty(query.dtype, key.shape);
  result.dv = Array::empty(query.dtype, value.shape);
  const i64 outer = p.batch * p.kv_heads;
  if (outer == 0) return result;

  dispatch_float(query.dtype, [&](auto t) {
    using T = decltype(t);
    const FloatKernels<T>& kernels = kernels_of<T>();
    // Where heads are few, the keys are split too; each piece gives its share of dq, added in
    // order.
    const i64 keys = piece(p.lk, outer, 512, std::max<i64>(512, p.lk));
    const i64 pieces = std::max<i64>(1, ceil_div(p.lk, keys));
    const i64 dq_size = p.batch * p.heads * p.lq * p.d;
    const Buffer<T> shares((pieces - 1) * dq_size);
    i64 scratch_size, unused;
    kernels.attention_scratch(p.head<T>(0, 0), 0, &unused, &scratch_size);
    over_tasks(
        outer * pieces, p.rows() * std::min(keys, p.lk) * (3 * p.d + 2 * p.dv),
        [&](i64 begin, i64 end) {
          const Buffer<T> scratch(scratch_size);
          for (i64 task = begin; task < end; ++task) {
            const i64 kv = task % outer, part = task / outer, b = kv / p.kv_heads;
            const AttentionHead<T> head = p.head<T>(b, kv % p.kv_heads);
            const auto plane = [&](const Array& x) {
              const i64 stride = x.ndim() > 2 ? x.stride(-3) : 0;
              return x.as<T>() + plane_offset(x, 3, b) + kv % p.kv_heads * p.group() * stride;
            };
            const auto head_stride = [](const Array& x) { return x.ndim() > 2 ? x.stride(-3) : 0; };
            const AttentionGrad<T> g{plane(grad_rows),
                                     plane(out_rows),
                                     head_stride(grad_rows),
                                     grad_rows.stride(-2),
                                     head_stride(out_rows),
                                     out_rows.stride(-2),
                                     lse_rows.as<T>() + kv * p.rows()};
            T* dq = part ? shares.get() + (part - 1) * dq_size : result.dq.as<T>();
            kernels.attention_backward(head, g, part * keys, std::min((part + 1) * keys, p.lk),
                                       dq + kv * p.rows() * p.d,
                                       result.dk.as<T>() + kv * p.lk * p.d,
                                       result.dv.as<T>() + kv * p.lk * p.dv, scratch.get());
          }
        });
    if (pieces > 1)
      parallel_ranges(dq_size, kGrain, [&](i64 begin, i64 end) {
        T* dq = result.dq.as<T>();
        for (i64 part = 0; part + 1 < pieces; ++part) {
          const T* share = shares.get() + part * dq_size;
          for (i64 i = begin; i < end; ++i) dq[i] += share[i];
        }
      });
    if (p.lk == 0) std::fill_n(result.dq.as<T>(), dq_size, T(0));
  });
  return result;
}

}  // namespace vectile::ops
