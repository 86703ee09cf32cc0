#include "ops/attention_map.h"

#include <algorithm>
#include <vector>

#include "ops/indices.h"

namespace vectile::ops {
namespace {

KeyRange meet(KeyRange a, KeyRange b) {
  const KeyRange r{std::max(a.begin, b.begin), std::min(a.end, b.end)};
  return r.begin < r.end ? r : KeyRange{0, 0};
}

// The starts of sequences and their end, n + 1 increasing numbers from 0 to `length`.
Buffer<i64> checked_starts(const char* op, const char* argument, const TensorView& starts,
                           i64 length) {
  check_starts(op, argument, starts);
  const i64 n = starts.elements();
  Buffer<i64> at = integers(op, argument, starts);
  check(at[0] == 0, op, argument, "first", 0, at[0]);
  for (i64 s = 1; s < n; ++s)
    if (at[s] < at[s - 1]) fail(op, argument, "order", "no decrease", text(at[s - 1], ", ", at[s]));
  check(at[n - 1] == length, op, argument, "last", length, at[n - 1]);
  return at;
}

}  // namespace

AttentionMaps::AttentionMaps(const char* op, const AttentionSparsity& options, const Shape& heads,
                             i64 lq, i64 lk)
    : lq_(lq), lk_(lk) {
  const Shape batch = heads.ndim ? without_last(heads) : heads;
  batch_ = batch.elements();
  if (options.key_lengths) check_broadcast(op, "key_lengths", *options.key_lengths, batch);
  if (options.document_ids) document_args(op, *options.document_ids, batch, lq, lk);
  per_batch_ = (options.key_lengths && options.key_lengths->ndim() > 0) ||
               (options.document_ids && options.document_ids->ndim() > 1);
  const i64 copies = per_batch_ ? batch_ : 1;
  keys_ = Buffer<KeyRange>(checked_elements(Shape(std::max<i64>(1, copies), lq)));
  position_ = Buffer<i64>(lq);
  sequences(op, options);
  for (i64 c = 1; c < copies; ++c) std::copy_n(keys_.get(), lq, keys_.get() + c * lq);
  if (options.key_lengths) {
    const Array lengths = contiguous(broadcast_to(*options.key_lengths, batch));
    const Buffer<i64> length = integers(op, "key_lengths", lengths);
    for (i64 b = 0; b < lengths.elements(); ++b)
      if (length[b] < 0 || length[b] > lk)
        fail(op, "key_lengths", "value", text("0 <= length <= ", lk), length[b]);
    for (i64 c = 0; c < copies && batch_ > 0; ++c)
      for (i64 i = 0; i < lq; ++i) keys_[c * lq + i] = meet(keys_[c * lq + i], {0, length[c]});
  }
  if (options.document_ids) documents(op, *options.document_ids, batch);
  blocks(op, options, heads);
}

// Ranges and places from what every batch shares: sequences, causality, window.
void AttentionMaps::sequences(const char* op, const AttentionSparsity& o) {
  const i64 most = lq_ + lk_;
  const i64 left = checked_reach(op, o.left, most);
  const i64 right = std::min(checked_reach(op, o.right, most), o.is_causal ? 0 : most);
  const auto fill = [&](KeyRange rows, KeyRange keys) {
    for (i64 i = rows.begin; i < rows.end; ++i) {
      const i64 at = keys.end - rows.end + i;
      position_[i] = at;
      keys_[i] = meet(keys, {at - left, at + right + 1});
    }
  };
  if (!o.cu_seqlens_q) {
    check(!o.cu_seqlens_k, op, "cu_seqlens_q", "value", "an array beside cu_seqlens_k", "None");
    return fill({0, lq_}, {0, lk_});
  }
  const TensorView& of_keys = o.cu_seqlens_k ? *o.cu_seqlens_k : *o.cu_seqlens_q;
  const Buffer<i64> q = checked_starts(op, "cu_seqlens_q", *o.cu_seqlens_q, lq_);
  const Buffer<i64> k =
      checked_starts(op, o.cu_seqlens_k ? "cu_seqlens_k" : "cu_seqlens_q", of_keys, lk_);
  const i64 n = o.cu_seqlens_q->elements();
  check(of_keys.elements() == n, op, "cu_seqlens_k", "length", n, of_keys.elements());
  for (i64 s = 0; s + 1 < n; ++s) fill({q[s], q[s + 1]}, {k[s], k[s + 1]});
}

void AttentionMaps::documents(const char* op, const TensorView& given, const Shape& batch) {
  const i64 copies = per_batch_ ? batch_ : 1;
  if (copies == 0 || lk_ == 0) return;
  Shape shape(copies, lk_);
  Shape full = batch;
  full.push(lk_);
  const Buffer<i64> ids = integers(
      op, "document_ids", per_batch_ ? broadcast_to(given, full) : broadcast_to(given, Shape(lk_)));
  struct Run {
    i64 id, begin, end;
  };
  std::vector<Run> runs;
  Array numbers = Array::empty(DType::i64, shape);
  bool recur = false;
  for (i64 c = 0; c < copies; ++c) {
    const i64* id = ids.get() + c * lk_;
    i64* number = numbers.as<i64>() + c * lk_;
    runs.clear();
    for (i64 j = 0; j < lk_; ++j) {
      if (j == 0 || id[j] != id[j - 1]) runs.push_back({id[j], j, j});
      runs.back().end = j + 1;
    }
    std::sort(runs.begin(), runs.end(), [](const Run& a, const Run& b) {
      return a.id != b.id ? a.id < b.id : a.begin < b.begin;
    });
    KeyRange whole{0, 0};
    i64 rank = -1;
    for (std::size_t r = 0, next; r < runs.size(); r = next) {
      for (next = r; next < runs.size() && runs[next].id == runs[r].id;) ++next;
      recur |= next - r > 1;
      whole = {runs[r].begin, runs[next - 1].end};
      ++rank;
      for (std::size_t x = r; x < next; ++x)
        for (i64 j = runs[x].begin; j < runs[x].end; ++j) {
          number[j] = rank;
          if (const i64 i = j - (lk_ - lq_); i >= 0)
            keys_[c * lq_ + i] = meet(keys_[c * lq_ + i], whole);
        }
    }
  }
  if (recur) ids_ = std::move(numbers);
}

void AttentionMaps::blocks(const char* op, const AttentionSparsity& o, const Shape& heads) {
  if (!o.block_mask) {
    check(!o.block_rows, op, "block_mask", "value", "an array beside block_size", "None");
    runs_ = Buffer<KeyRange>(1);
    runs_[0] = {0, lk_};
    run_start_ = Array::empty(DType::i64, Shape(2));
    run_start_.as<i64>()[0] = 0, run_start_.as<i64>()[1] = 1;
    run_heads_ = run_start_;
    return;
  }
  const TensorView& m = *o.block_mask;
  const BlockSize size = block_mask_args(op, o, heads, lq_, lk_);
  const i64 rows = m.shape[-2], columns = m.shape[-1], width = size.columns;
  block_rows_ = size.rows;

  const Array packed = contiguous(m);
  const auto* seen = packed.as<std::uint8_t>();
  Shape starts = m.shape;
  --starts.ndim;
  starts[-1] = rows + 1;
  i64 planes = 1;
  for (int i = 0; i + 2 < m.ndim(); ++i) planes *= m.shape[i];
  run_start_ = Array::empty(DType::i64, starts);
  std::vector<KeyRange> runs;
  i64* start = run_start_.as<i64>();
  for (i64 p = 0; p < planes; ++p) {
    for (i64 r = 0; r < rows; ++r, seen += columns) {
      *start++ = static_cast<i64>(runs.size());
      for (i64 c = 0; c < columns; ++c) {
        if (!seen[c]) continue;
        const KeyRange block{c * width, std::min(lk_, (c + 1) * width)};
        if (c > 0 && seen[c - 1])
          runs.back().end = block.end;
        else
          runs.push_back(block);
      }
    }
    *start++ = static_cast<i64>(runs.size());
  }
  runs_ = Buffer<KeyRange>(static_cast<i64>(runs.size()));
  std::copy(runs.begin(), runs.end(), runs_.get());
  Shape full = heads;
  full.push(rows + 1);
  run_heads_ = broadcast_to(run_start_, full);
}

AttentionMap AttentionMaps::map(i64 b, i64 first_head) const {
  const i64 head = run_heads_.ndim() > 1 ? run_heads_.stride(-2) : 0;
  AttentionMap m;
  m.keys = keys_.get() + b * batch_stride();
  m.position = position_.get();
  m.block_rows = block_rows_;
  m.runs = runs_.get();
  m.run_start = run_start_.as<i64>() + plane_offset(run_heads_, 2, b) + first_head * head;
  m.run_head = head;
  return m;
}

}  // namespace vectile::ops
