#include "ops/attention_args.h"

#include <algorithm>
#include <cmath>

namespace vectile::ops {
namespace {

// Heads of an array (..., heads, rows, columns); 1 for a matrix.
i64 heads_of(const Shape& s) { return s.ndim > 2 ? s[-3] : 1; }

Shape batch_of(Shape s) {
  s.ndim = std::max(0, s.ndim - 3);
  return s;
}

// Rows (or columns) of a block, as many as given or the fewest that make `blocks` of `length`.
i64 checked_block(const char* op, const char* property, std::optional<i64> given, i64 blocks,
                  i64 length) {
  const i64 fewest = std::max<i64>(1, ceil_div(length, std::max<i64>(1, blocks)));
  const i64 size = std::min(given.value_or(fewest), std::max<i64>(1, length));
  check(size >= 1, op, "block_size", property, "at least 1", size);
  if (ceil_div(length, size) != blocks)
    fail(op, "block_mask", property, text(ceil_div(length, size), " blocks of ", size), blocks);
  return size;
}

}  // namespace

AttentionSizes attention_args(const char* op, const TensorView& q, const TensorView& k,
                              const TensorView& v) {
  check_floating(op, "query", q);
  check_same_dtype(op, "key", k, q);
  check_same_dtype(op, "value", v, q);
  check(q.ndim() >= 2, op, "query", "ndim", "at least 2", q.ndim());
  check(k.ndim() == q.ndim(), op, "key", "ndim", q.ndim(), k.ndim());
  check(v.ndim() == q.ndim(), op, "value", "ndim", q.ndim(), v.ndim());
  AttentionSizes s;
  s.batch = batch_of(q.shape);
  check(batch_of(k.shape) == s.batch, op, "key", "batch", s.batch, batch_of(k.shape));
  check(batch_of(v.shape) == s.batch, op, "value", "batch", s.batch, batch_of(v.shape));
  s.heads = q.shape;
  s.heads.ndim -= 2;
  s.query_heads = heads_of(q.shape);
  s.kv_heads = heads_of(k.shape);
  if (s.kv_heads == 0 ? s.query_heads != 0 : s.query_heads % s.kv_heads != 0)
    fail(op, "key", "heads", text("a divisor of the query's ", s.query_heads), s.kv_heads);
  check(heads_of(v.shape) == s.kv_heads, op, "value", "heads", s.kv_heads, heads_of(v.shape));
  s.lq = q.shape[-2];
  s.lk = k.shape[-2];
  s.d = q.shape[-1];
  s.dv = v.shape[-1];
  check(k.shape[-1] == s.d, op, "key", "dim", s.d, k.shape[-1]);
  check(v.shape[-2] == s.lk, op, "value", "length", s.lk, v.shape[-2]);
  return s;
}

void attention_backward_args(const char* op, const TensorView& grad, const TensorView& query,
                             const TensorView& out, const TensorView& lse, i64 dv) {
  const Shape shape = with_last(query.shape, dv);
  check_same_dtype(op, "grad", grad, query);
  check_same_dtype(op, "out", out, query);
  check_parameter_dtype(op, "lse", lse, query);
  check_shape(op, "grad", grad, shape);
  check_shape(op, "out", out, shape);
  check_shape(op, "lse", lse, without_last(query.shape));
}

void attention_mask_args(const char* op, const TensorView& m, DType dtype, const Shape& scores) {
  if (m.dtype != DType::boolean && m.dtype != dtype)
    fail<TypeError>(op, "attn_mask", "dtype", text("bool or ", dtype), m.dtype);
  check_broadcast(op, "attn_mask", m, scores);
}

void attention_term_args(const char* op, const AttentionOptions& o, const AttentionSizes& s) {
  if (o.alibi_slopes) {
    check_floating(op, "alibi_slopes", *o.alibi_slopes);
    check_broadcast(op, "alibi_slopes", *o.alibi_slopes, s.heads);
  }
  if (o.sinks) {
    check_floating(op, "sinks", *o.sinks);
    check_shape(op, "sinks", *o.sinks, Shape(s.query_heads));
  }
  check(o.dropout_p >= 0 && o.dropout_p <= 1, op, "dropout_p", "value", "0 <= dropout_p <= 1",
        o.dropout_p);
}

void document_args(const char* op, const TensorView& ids, const Shape& batch, i64 lq, i64 lk) {
  Shape full = batch;
  full.push(lk);
  check_broadcast(op, "document_ids", ids, full);
  check(lq <= lk, op, "document_ids", "queries", text("at most the ", lk, " keys"), lq);
}

void rotary_table_args(const char* op, const AttentionOptions& o, const TensorView& query,
                       const AttentionSizes& s) {
  const TensorView &cosine = *o.cosine, &sine = *o.sine;
  check_parameter_dtype(op, "rotary cosine", cosine, query);
  check_parameter_dtype(op, "rotary sine", sine, query);
  check(cosine.ndim() >= 2, op, "rotary", "ndim", "at least 2", cosine.ndim());
  check_shape(op, "rotary sine", sine, cosine.shape);
  const i64 pairs = cosine.shape[-1];
  check(2 * pairs <= s.d, op, "rotary", "pairs", text("at most ", s.d / 2), pairs);
  check(cosine.shape[-2] == s.lk, op, "rotary", "length", s.lk, cosine.shape[-2]);
  check_broadcast(op, "rotary", cosine, with_axes(s.batch, s.lk, pairs));
}

BlockSize block_mask_args(const char* op, const AttentionSparsity& o, const Shape& heads, i64 lq,
                          i64 lk) {
  const TensorView& m = *o.block_mask;
  check<TypeError>(m.dtype == DType::boolean, op, "block_mask", "dtype", "bool", m.dtype);
  check(m.ndim() >= 2, op, "block_mask", "ndim", "at least 2", m.ndim());
  const i64 rows = m.shape[-2], columns = m.shape[-1];
  const BlockSize size{checked_block(op, "rows", o.block_rows, rows, lq),
                       checked_block(op, "columns", o.block_columns, columns, lk)};
  check_broadcast(op, "block_mask", m, with_axes(heads, rows, columns));
  return size;
}

Shape with_axes(Shape shape, i64 rows, i64 columns) {
  shape.push(rows);
  shape.push(columns);
  return shape;
}

void check_integers(const char* op, const char* argument, const TensorView& x) {
  switch (x.dtype) {
    case DType::i8:
    case DType::u8:
    case DType::i16:
    case DType::u16:
    case DType::i32:
    case DType::u32:
    case DType::i64:
    case DType::u64:
      return;
    default:
      fail<TypeError>(op, argument, "dtype", "an integer type", x.dtype);
  }
}

void check_starts(const char* op, const char* argument, const TensorView& x) {
  check(x.ndim() == 1, op, argument, "ndim", 1, x.ndim());
  check(x.elements() >= 1, op, argument, "length", "at least 1", x.elements());
}

i64 checked_reach(const char* op, std::optional<i64> reach, i64 most) {
  if (!reach) return most;
  check(*reach >= 0, op, "window", "value", "at least 0, or None", *reach);
  return std::min(*reach, most);
}

double checked_scale(const char* op, std::optional<double> scale, i64 d) {
  const double found = scale.value_or(d ? 1 / std::sqrt(static_cast<double>(d)) : 1.0);
  check(std::isfinite(found), op, "scale", "value", "a finite number", found);
  return found;
}

double checked_softcap(const char* op, std::optional<double> softcap) {
  if (!softcap) return 0;
  check(std::isfinite(*softcap) && *softcap > 0, op, "softcap", "value", "a finite number above 0",
        *softcap);
  return *softcap;
}

i64 plane_offset(const TensorView& x, int skip, i64 b) {
  i64 offset = 0;
  for (int i = x.ndim() - skip - 1; i >= 0; --i) {
    offset += b % x.shape[i] * x.strides[i];
    b /= x.shape[i];
  }
  return offset;
}

TensorView broadcast_to(const TensorView& x, const Shape& shape) {
  TensorView y = x;
  y.shape = shape;
  const int lead = shape.ndim - x.ndim();
  for (int i = 0; i < shape.ndim; ++i)
    y.strides[i] = i < lead || x.shape[i - lead] == 1 ? 0 : x.strides[i - lead];
  return y;
}

void check_broadcast(const char* op, const char* argument, const TensorView& x,
                     const Shape& shape) {
  bool fits = x.ndim() <= shape.ndim;
  for (int i = 1; fits && i <= x.ndim(); ++i) fits = x.shape[-i] == 1 || x.shape[-i] == shape[-i];
  if (!fits) [[unlikely]]
    fail(op, argument, "shape", text("one that broadcasts to ", shape), x.shape);
}

}  // namespace vectile::ops
