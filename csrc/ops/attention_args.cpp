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
