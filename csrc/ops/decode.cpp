#include "ops/decode.h"

#include <algorithm>
#include <cmath>

#include "ops/attention_map.h"
#include "ops/cast.h"
#include "ops/indices.h"

namespace vectile::ops {
namespace {

// A checked cache, and the places that a call reads or writes.
struct Blocks : CacheSizes {
  Buffer<i64> table, lengths;

  Blocks(const char* op, const BlockCache& c);
  // [begin, end) of sequence b has blocks: within its table, which names ones that exist.
  void check_places(const char* op, i64 b, i64 begin, i64 end) const;
  DecodeCache of(const BlockCache& c, i64 b, i64 kv) const;
};

Blocks::Blocks(const char* op, const BlockCache& c)
    : CacheSizes(cache_args(op, c)),
      table(integers(op, "block_tables", *c.block_tables)),
      lengths(integers(op, "lengths", *c.lengths)) {}

void Blocks::check_places(const char* op, i64 b, i64 begin, i64 end) const {
  if (begin >= end) return;
  const i64 last = block_size ? (end - 1) / block_size : most;
  if (last >= most)
    fail(op, "block_tables", "length",
         text("blocks of ", block_size, " for the ", end, " tokens of sequence ", b), most);
  for (i64 x = begin / block_size; x <= last; ++x)
    if (const i64 block = table[b * most + x]; block < 0 || block >= blocks)
      fail<IndexError>(op, "block_tables", text("at ", Shape(b, x)).c_str(),
                       text("0 <= index < ", blocks), text(block));
}

DecodeCache Blocks::of(const BlockCache& c, i64 b, i64 kv) const {
  DecodeCache y{};
  const auto size = static_cast<i64>(item_size(dtype));
  y.dtype = dtype;
  y.key = c.key.as<char>() + kv * block_size * d * size;
  y.value = c.value.as<char>() + kv * block_size * dv * size;
  if (dtype == DType::i8) {
    y.key_scales = c.key_scales->as<float>() + kv * block_size;
    y.value_scales = c.value_scales->as<float>() + kv * block_size;
  }
  y.key_block = kv_heads * block_size * d;
  y.value_block = kv_heads * block_size * dv;
  y.scale_block = kv_heads * block_size;
  y.table = table.get() + b * most;
  y.block_size = block_size;
  return y;
}

// `x` as kernels over T read it beside other types: a half type where T is float, else T; rows are
// contiguous.
Array readable(const TensorView& x, DType compute) {
  const bool as_is = x.dtype == compute || (is_half(x.dtype) && compute == DType::f32);
  return as_is ? rows_contiguous(x) : cast_to(x, compute);
}

// Checked arguments of decode_attention.
struct Problem {
  Array query;
  i64 heads, lq;
  double scale, softcap = 0;
  Buffer<KeyRange> keys;  // (batch, lq)
  Buffer<i64> position;
  Array slopes, sinks;  // (batch, heads), (heads,)

  template <class T>
  AttentionHead<T> head(const Blocks& blocks, i64 b, i64 kv) const {
    const i64 group = heads / blocks.kv_heads, first = kv * group;
    AttentionHead<T> h{};
    h.dtype = query.dtype;
    h.query = query.as<char>() + (b * query.stride(0) + first * query.stride(1)) *
                                     static_cast<i64>(item_size(query.dtype));
    h.query_head = query.stride(1);
    h.query_row = query.stride(2);
    h.group = group;
    h.lq = lq;
    h.d = blocks.d;
    h.dv = blocks.dv;
    h.scale = static_cast<T>(scale);
    h.map.keys = keys.get() + b * lq;
    h.map.position = position.get() + b * lq;
    h.softcap = static_cast<T>(softcap);
    if (slopes.data) h.slopes = slopes.as<T>() + b * heads + first;
    if (sinks.data) h.sinks = sinks.as<T>() + first;
    return h;
  }
};

Problem check_query(const char* op, const TensorView& q, const Blocks& blocks,
                    const DecodeOptions& o) {
  decode_args(op, q, blocks, o);
  Problem p;
  p.heads = q.shape[1];
  p.lq = q.shape[2];
  p.scale = checked_scale(op, o.scale, blocks.d);
  p.softcap = checked_softcap(op, o.softcap);
  if (o.alibi_slopes)
    p.slopes =
        converted(broadcast_to(*o.alibi_slopes, Shape(blocks.batch, p.heads)), blocks.compute);
  if (o.sinks) p.sinks = converted(*o.sinks, blocks.compute);
  const i64 places = checked_elements(Shape(blocks.batch, p.lq));
  p.keys = Buffer<KeyRange>(places);
  p.position = Buffer<i64>(places);
  for (i64 b = 0; b < blocks.batch; ++b) {
    const i64 length = blocks.lengths[b];
    check(length >= 0, op, "lengths", text("at ", b).c_str(), "at least 0", length);
    i64 first = length;
    const i64 left = checked_reach(op, o.left, length);
    for (i64 i = 0; i < p.lq; ++i) {
      const i64 at = length - p.lq + i;
      const KeyRange seen{std::max<i64>(0, at - left), at + 1};
      p.position[b * p.lq + i] = at;
      p.keys[b * p.lq + i] = at < 0 ? KeyRange{0, 0} : seen;
      if (at >= 0) first = std::min(first, seen.begin);
    }
    if (p.heads) blocks.check_places(op, b, first, length);
  }
  p.query = readable(q, blocks.compute);
  return p;
}

// Elements of the cache worth a task of their own.
constexpr i64 kTask = 1 << 16;

// Rows [row, end) of head kv of sequence b against some keys; their partials lie together.
struct Unit {
  i64 b, kv, row, end;
  KeyRange keys;
  i64 pieces, partial;
};
struct Task {
  i64 unit, piece;
};

// Pieces of the keys depend on the problem alone: enough of them to share, none too small.
class Plan {
 public:
  Plan(const Problem& p, const Blocks& blocks) {
    const i64 rows = p.heads / blocks.kv_heads * p.lq, tiles = ceil_div(rows, kDecodeRows);
    const i64 per_tile = ceil_div(rows, tiles);
    units = Buffer<Unit>(checked_elements(Shape(blocks.batch, blocks.kv_heads, tiles)));
    for (i64 b = 0; b < blocks.batch; ++b)
      for (i64 kv = 0; kv < blocks.kv_heads; ++kv)
        for (i64 row = 0; row < rows; row += per_tile) {
          Unit u{b, kv, row, std::min(rows, row + per_tile), {0, 0}, 0, 0};
          for (i64 r = u.row; r < u.end; ++r) {
            const KeyRange k = p.keys[b * p.lq + r % p.lq];
            if (k.begin == k.end) continue;
            u.keys = u.keys.end
                         ? KeyRange{std::min(u.keys.begin, k.begin), std::max(u.keys.end, k.end)}
                         : k;
          }
          all_keys_ += u.keys.end - u.keys.begin;
          units[count++] = u;
        }
    const i64 width = std::max<i64>(1, blocks.d + blocks.dv);
    piece = round_up(std::max(ceil_div(kTask, width), ceil_div(all_keys_, 32)), kDecodeKeys);
    i64 all = 0;
    for (i64 i = 0; i < count; ++i) {
      Unit& u = units[i];
      u.pieces = ceil_div(u.keys.end - u.keys.begin, piece);
      u.partial = partials;
      partials += std::max<i64>(1, u.pieces) * decode_partial(u.end - u.row, blocks.dv);
      all += u.pieces;
    }
    tasks = Buffer<Task>(all);
    for (i64 i = 0; i < count; ++i)
      for (i64 x = 0; x < units[i].pieces; ++x) tasks[task_count++] = {i, x};
    if (task_count)
      grain = std::max<i64>(1, kTask / (std::max<i64>(1, all_keys_ / task_count) * width));
  }
  Buffer<Unit> units;
  Buffer<Task> tasks;
  i64 count = 0, task_count = 0, partials = 0, piece = 0, grain = 1;

 private:
  i64 all_keys_ = 0;
};

}  // namespace

DecodeResult decode_attention(const TensorView& query, const BlockCache& cache,
                              const DecodeOptions& options) {
  constexpr auto op = "decode_attention";
  const Blocks blocks(op, cache);
  const Problem p = check_query(op, query, blocks, options);
  DecodeResult result;
  result.out = Array::empty(p.query.dtype, with_last(query.shape, blocks.dv));
  if (options.return_lse) result.lse = Array::empty(blocks.compute, without_last(query.shape));
  if (p.heads && p.lq && blocks.batch)
    dispatch_float(blocks.compute, [&](auto t) {
      using T = decltype(t);
      const FloatKernels<T>& kernels = kernels_of<T>();
      const Plan plan(p, blocks);
      const Buffer<T> partials(plan.partials);
      parallel_ranges(plan.task_count, plan.grain, [&](i64 begin, i64 end) {
        const Buffer<T> scratch(2 * kDecodeRows * decode_padded(blocks.d));
        for (i64 i = begin; i < end; ++i) {
          const Unit& u = plan.units[plan.tasks[i].unit];
          const i64 piece = plan.tasks[i].piece, first = u.keys.begin + piece * plan.piece;
          kernels.decode_attention(
              p.head<T>(blocks, u.b, u.kv), blocks.of(cache, u.b, u.kv), u.row, u.end,
              {first, std::min(first + plan.piece, u.keys.end)},
              partials.get() + u.partial + piece * decode_partial(u.end - u.row, blocks.dv),
              scratch.get());
        }
      });
      parallel_ranges(
          plan.count, kGrain / (kDecodeRows * std::max<i64>(1, blocks.dv)),
          [&](i64 begin, i64 end) {
            for (i64 i = begin; i < end; ++i) {
              const Unit& u = plan.units[i];
              const i64 row = (u.b * p.heads * p.lq) + u.kv * (p.heads / blocks.kv_heads) * p.lq;
              kernels.decode_merge(
                  p.head<T>(blocks, u.b, u.kv), u.row, u.end, partials.get() + u.partial, u.pieces,
                  result.out.template as<char>() +
                      row * blocks.dv * static_cast<i64>(item_size(p.query.dtype)),
                  options.return_lse ? result.lse.template as<T>() + row : nullptr);
            }
          });
    });
  if (result.out.dtype != query.dtype) result.out = cast_to(result.out, query.dtype);
  return result;
}

void append_to_cache(const TensorView& key, const TensorView& value, const BlockCache& cache,
                     const TensorView* counts) {
  constexpr auto op = "append_to_cache";
  const Blocks blocks(op, cache);
  append_args(op, key, value, cache, blocks, counts);
  const i64 n = key.shape[2];
  const Buffer<i64> count = counts ? integers(op, "counts", *counts) : Buffer<i64>();
  const auto count_of = [&](i64 b) { return counts ? count[b] : n; };
  for (i64 b = 0; b < blocks.batch; ++b) {
    const i64 length = blocks.lengths[b], more = count_of(b);
    check(length >= 0, op, "lengths", text("at ", b).c_str(), "at least 0", length);
    if (counts)
      check(more >= 0 && more <= n, op, "counts", text("at ", b).c_str(), text("0 <= count <= ", n),
            more);
    if (length > INT64_MAX - more)
      fail(op, "lengths", text("at ", b).c_str(), "a length of int64 after the call", length);
    blocks.check_places(op, b, length, length + more);
  }
  const auto source = [&](const TensorView& x, const TensorView& into) {
    Array y = readable(x, blocks.compute);
    if (!overlaps(y, into)) return y;
    Array copy = Array::empty(y.dtype, y.shape);
    copy_strided(y, copy);
    return copy;
  };
  const Array keys = source(key, cache.key), values = source(value, cache.value);
  const auto size = static_cast<i64>(item_size(blocks.dtype));
  const i64 work = std::max<i64>(1, n * (blocks.d + blocks.dv));
  dispatch_float(blocks.compute, [&](auto t) {
    using T = decltype(t);
    const auto append = kernels_of<T>().append_rows;
    parallel_ranges(blocks.batch * blocks.kv_heads, kGrain / work, [&](i64 begin, i64 end) {
      for (i64 x = begin; x < end; ++x) {
        const i64 b = x / blocks.kv_heads, kv = x % blocks.kv_heads;
        const DecodeCache c = blocks.of(cache, b, kv);
        const auto put = [&](const Array& from, i64 i, i64 rows, i64 width, const void* to, i64 at,
                             const float* scales, i64 scale_at) {
          const char* first =
              from.as<char>() + (b * from.stride(0) + kv * from.stride(1) + i * from.stride(2)) *
                                    static_cast<i64>(item_size(from.dtype));
          append(first, from.dtype, from.stride(2), rows, width,
                 static_cast<char*>(const_cast<void*>(to)) + at * size, blocks.dtype,
                 scales ? const_cast<float*>(scales) + scale_at : nullptr);
        };
        const i64 more = count_of(b);
        for (i64 i = 0, rows; i < more; i += rows) {
          const i64 place = blocks.lengths[b] + i, row = place % blocks.block_size;
          const i64 block = c.table[place / blocks.block_size];
          rows = std::min(more - i, blocks.block_size - row);
          put(keys, i, rows, blocks.d, c.key, block * c.key_block + row * blocks.d, c.key_scales,
              block * c.scale_block + row);
          put(values, i, rows, blocks.dv, c.value, block * c.value_block + row * blocks.dv,
              c.value_scales, block * c.scale_block + row);
        }
      }
    });
  });
}

}  // namespace vectile::ops
