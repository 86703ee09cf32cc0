// The arguments of a call, checked, and which keys each query sees.
#include "attention_problem.h"

#include "numbers.h"

namespace vectile::cuda::attention {
namespace {

struct Masks {
  i64 lq, lk, left, right;
  Integers starts_q, starts_k, lengths;  // no data: none
  i64 sequences;
  const Range* documents;  // (batch or 1, lq) or null
  i64 document_batch;
};

__device__ i64 clamp(i64 x, i64 low, i64 high) { return x < low ? low : x > high ? high : x; }

// places[i] is the key at the place of query i; null where nobody asks.
__global__ void __launch_bounds__(kThreads)
    ranges_kernel(Masks m, Range* ranges, int* places, i64 batch) {
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
    if (places && i < m.lq) places[i] = static_cast<int>(at);
    i64 from = clamp(at - m.left, first, end);
    i64 to = clamp(at + m.right + 1, first, end);
    if (m.lengths.data) to = clamp(m.lengths.at(i / m.lq), 0, to);
    if (m.documents) {
      const Range whole = m.documents[i / m.lq * m.document_batch + row];
      from = from > whole.begin ? from : whole.begin;
      to = to < whole.end ? to : whole.end;
    }
    ranges[i] = {static_cast<int>(from), static_cast<int>(to)};
  }
}

// The keys from the first to the last of each key's id; copies of lk ids. Each id meets each other,
// which is little beside attention.
__global__ void __launch_bounds__(kThreads)
    documents_kernel(Integers ids, int lk, i64 copies, int* firsts, Range* whole) {
  __shared__ i64 tile[kThreads];
  const int tiles = (lk + kThreads - 1) / kThreads, thread = static_cast<int>(threadIdx.x);
  const i64 task = task_of_block();
  if (task >= tiles * copies) return;
  const i64 copy = task / tiles * lk;
  const int mine = static_cast<int>(task % tiles) * kThreads + thread;
  const i64 id = mine < lk ? ids.at(copy + mine) : 0;
  int first = mine, last = mine;
  for (int from = 0; from < lk; from += kThreads) {
    __syncthreads();
    if (from + thread < lk) tile[thread] = ids.at(copy + from + thread);
    __syncthreads();
    const int count = lk - from < kThreads ? lk - from : kThreads;
    for (int x = 0; x < count; ++x) {
      if (tile[x] != id) continue;
      first = from + x < first ? from + x : first;
      last = from + x > last ? from + x : last;
    }
  }
  if (mine >= lk) return;
  firsts[copy + mine] = first;
  whole[copy + mine] = {first, last + 1};
}

// hull[i]: what begins with the least key of the documents of queries i and up, and ends with the
// last of those of queries up to i: that of its own where none recurs after another. A block a
// copy, a piece of the queries a thread.
__global__ void __launch_bounds__(kThreads)
    hull_kernel(const Range* whole, int lq, int lk, Range* hull) {
  __shared__ Range pieces[kThreads];
  const int thread = static_cast<int>(threadIdx.x), size = (lq + kThreads - 1) / kThreads;
  const int from = thread * size < lq ? thread * size : lq,
            to = lq - from < size ? lq : from + size;
  whole += i64{blockIdx.x} * lk + lk - lq;
  hull += i64{blockIdx.x} * lq;
  const auto begin_with = [](int& begin, Range r) { begin = r.begin < begin ? r.begin : begin; };
  const auto end_with = [](int& end, Range r) { end = r.end > end ? r.end : end; };
  Range all{INT_MAX, 0};
  for (int i = from; i < to; ++i) begin_with(all.begin, whole[i]), end_with(all.end, whole[i]);
  pieces[thread] = all;
  __syncthreads();
  int begin = INT_MAX, end = 0;
  for (int x = 0; x < thread; ++x) end_with(end, pieces[x]);
  for (int x = thread + 1; x < kThreads; ++x) begin_with(begin, pieces[x]);
  for (int i = from; i < to; ++i) {
    end_with(end, whole[i]);
    hull[i].end = end;
  }
  for (int i = to; i-- > from;) {
    begin_with(begin, whole[i]);
    hull[i].begin = begin;
  }
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
      softcap(ops::checked_softcap(op, o.softcap)),
      extras(op, mask, o, sizes, dtype) {
  check(sizes.d <= 256, op, "query", "dim", "at most 256 on a device", sizes.d);
  check(sizes.dv <= 256, op, "value", "dim", "at most 256 on a device", sizes.dv);
  constexpr i64 most = INT_MAX - 1024;  // tiles end a little past the rows
  check(sizes.lq <= most, op, "query", "length", text("at most ", most), sizes.lq);
  check(sizes.lk <= most, op, "key", "length", text("at most ", most), sizes.lk);
  if (o.alibi_slopes || (o.cosine && o.cu_seqlens_q))
    extras.places = Array::empty(DType::i32, Shape(sizes.lq));
  find_ranges(op, o);
  if (o.cosine) rotary = Rotary(op, o, q, sizes, extras.places);
  query = rotary.any() ? rotary.query(q, false) : even_rows(q);
  key = rotary.any() ? rotary.key(k, false) : even_rows(k);
  value = even_rows(v);
}

void Arguments::find_ranges(const char* op, const ops::AttentionOptions& o) {
  const i64 lq = sizes.lq, lk = sizes.lk, all = lq + lk;
  Masks m{lq, lk, 0, 0, {}, {}, {}, 0, nullptr, 0};
  m.left = ops::checked_reach(op, o.left, all);
  m.right = ops::checked_reach(op, o.right, all);
  if (o.is_causal) m.right = 0;
  Array starts_q, starts_k, lengths, ids, whole, hull;
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
  const i64 batch = sizes.batch.elements();
  bool per_batch = o.key_lengths;
  if (o.key_lengths) {
    ops::check_broadcast(op, "key_lengths", *o.key_lengths, sizes.batch);
    m.lengths = integers("key_lengths", *o.key_lengths, sizes.batch, lengths);
  }
  if (o.document_ids) {
    ops::document_args(op, *o.document_ids, sizes.batch, lq, lk);
    const bool each = o.document_ids->ndim() > 1;
    const i64 lists = each ? batch : 1;
    Shape full = each ? sizes.batch : Shape();
    full.push(lk);
    const Integers id = integers("document_ids", *o.document_ids, full, ids);
    extras.documents = Array::empty(DType::i32, Shape(lists, lk));
    whole = Array::empty(DType::i32, Shape(lists, lk, 2));
    hull = Array::empty(DType::i32, Shape(lists, lq, 2));
    if (lists * lq > 0) {
      launch(documents_kernel, {grid_of(ceil_div(lk, kThreads) * lists), kThreads}, id,
             static_cast<int>(lk), lists, extras.documents.as<int>(), whole.as<Range>());
      launch(hull_kernel, {blocks_for(lists, 1), kThreads}, whole.as<Range>(), static_cast<int>(lq),
             static_cast<int>(lk), hull.as<Range>());
    }
    m.documents = hull.as<Range>();
    m.document_batch = each ? lq : 0;
    per_batch = per_batch || each;
  }
  const i64 copies = per_batch ? batch : 1;
  range_batch = per_batch ? lq : 0;
  ranges = Array::empty(DType::i32, Shape(copies, lq, 2));
  if (copies * lq > 0)
    launch(ranges_kernel, {blocks_for(copies * lq, kThreads), kThreads}, m, ranges.as<Range>(),
           extras.places.as<int>(), copies);
}

}  // namespace vectile::cuda::attention
