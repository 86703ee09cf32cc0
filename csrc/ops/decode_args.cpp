#include "ops/decode_args.h"

namespace vectile::ops {
namespace {

void check_cache(const char* op, const char* argument, const TensorView& x) {
  check(x.ndim() == 4, op, argument, "ndim", 4, x.ndim());
  check(x.contiguous(), op, argument, "layout", "C-contiguous", "strided");
}

void check_scales(const char* op, const char* argument, const TensorView* x, DType dtype,
                  const Shape& expected) {
  if (dtype != DType::i8) {
    check(!x, op, argument, "value", text("None beside a cache of ", dtype), "an array");
    return;
  }
  check(x != nullptr, op, argument, "value", "an array beside a cache of int8", "None");
  if (x->dtype != DType::f32) fail<TypeError>(op, argument, "dtype", "float32", x->dtype);
  check_shape(op, argument, *x, expected);
  check(x->contiguous(), op, argument, "layout", "C-contiguous", "strided");
}

void check_writable(const char* op, const char* argument, const TensorView& x) {
  check(x.writable, op, argument, "flags", "a writable array", "a read-only one");
}

}  // namespace

CacheSizes cache_args(const char* op, const BlockCache& c) {
  CacheSizes s;
  s.dtype = c.key.dtype;
  if (s.dtype != DType::i8 && s.dtype != DType::f32 && s.dtype != DType::f64 && !is_half(s.dtype))
    fail<TypeError>(op, "key_cache", "dtype", "float32, float64, float16, bfloat16 or int8",
                    s.dtype);
  check_same_dtype(op, "value_cache", c.value, c.key);
  s.compute = s.dtype == DType::f64 ? DType::f64 : DType::f32;
  check_cache(op, "key_cache", c.key);
  check_cache(op, "value_cache", c.value);
  s.blocks = c.key.shape[0];
  s.kv_heads = c.key.shape[1];
  s.block_size = c.key.shape[2];
  s.d = c.key.shape[3];
  s.dv = c.value.shape[3];
  check_shape(op, "value_cache", c.value, with_last(c.key.shape, s.dv));
  const Shape scales = without_last(c.key.shape);
  check_scales(op, "key_scales", c.key_scales, s.dtype, scales);
  check_scales(op, "value_scales", c.value_scales, s.dtype, scales);
  check(c.block_tables->ndim() == 2, op, "block_tables", "ndim", 2, c.block_tables->ndim());
  s.batch = c.block_tables->shape[0];
  s.most = c.block_tables->shape[1];
  check_shape(op, "lengths", *c.lengths, Shape(s.batch));
  check_integers(op, "block_tables", *c.block_tables);
  check_integers(op, "lengths", *c.lengths);
  return s;
}

void decode_args(const char* op, const TensorView& q, const CacheSizes& s, const DecodeOptions& o) {
  check_floating(op, "query", q);
  check(q.ndim() == 4, op, "query", "ndim", 4, q.ndim());
  check(q.shape[0] == s.batch, op, "query", "batch", s.batch, q.shape[0]);
  check(q.shape[3] == s.d, op, "query", "dim", s.d, q.shape[3]);
  const i64 heads = q.shape[1];
  if (s.kv_heads == 0 ? heads != 0 : heads % s.kv_heads != 0)
    fail(op, "key_cache", "heads", text("a divisor of the query's ", heads), s.kv_heads);
  checked_scale(op, o.scale, s.d);
  checked_softcap(op, o.softcap);
  if (o.alibi_slopes) {
    check_floating(op, "alibi_slopes", *o.alibi_slopes);
    check_broadcast(op, "alibi_slopes", *o.alibi_slopes, Shape(s.batch, heads));
  }
  if (o.sinks) {
    check_floating(op, "sinks", *o.sinks);
    check_shape(op, "sinks", *o.sinks, Shape(heads));
  }
  checked_reach(op, o.left, 0), checked_reach(op, o.right, 0);
}

void append_args(const char* op, const TensorView& key, const TensorView& value,
                 const BlockCache& cache, const CacheSizes& s, const TensorView* counts) {
  check_floating(op, "key", key);
  check_floating(op, "value", value);
  check(key.ndim() == 4, op, "key", "ndim", 4, key.ndim());
  const i64 n = key.shape[2];
  check_shape(op, "key", key, Shape(s.batch, s.kv_heads, n, s.d));
  check_shape(op, "value", value, Shape(s.batch, s.kv_heads, n, s.dv));
  check_writable(op, "key_cache", cache.key);
  check_writable(op, "value_cache", cache.value);
  if (cache.key_scales) check_writable(op, "key_scales", *cache.key_scales);
  if (cache.value_scales) check_writable(op, "value_scales", *cache.value_scales);
  if (!counts) return;
  check_shape(op, "counts", *counts, Shape(s.batch));
  check_integers(op, "counts", *counts);
}

}  // namespace vectile::ops
