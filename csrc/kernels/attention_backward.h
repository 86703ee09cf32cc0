// One task of the backward pass: all rows of a head against some of its keys. With
// P = exp(S - lse), dP = grad V^T, delta = rowsum(grad * out) and dS = P (dP - delta):
//   dV = P^T grad,  dQ = scale dS K,  dK = scale dS^T Q
// Dropout multiplies the P of dV, and dP, by its factors; dS takes the slope of the score's terms.
// Row blocks are outermost, so that packed keys serve every query head of the group.
#pragma once

#include "kernels/attention_dropout.h"

namespace vectile::VECTILE_TIER {

constexpr i64 kGradRows = 64;   // rows per block
constexpr i64 kGradKeys = 256;  // keys per block: two score tiles of this width in L2
constexpr i64 kGradStride = kGradKeys + 16;
constexpr i64 kGradChunk = 2048;  // keys packed at a time

template <class T>
struct BackwardScratch {
  T *queries, *grads, *key_panels, *value_panels, *keys, *p, *ds, *dq, *dk, *dv, *lse2, *factors,
      *turned;
  i64 size = 0;

  BackwardScratch(const AttentionHead<T>& h, T* base) {
    constexpr int lanes = Vec<T>::lanes;
    const i64 n = round_up(smaller(kGradChunk, h.lk), AttentionTile<T>::panel);
    const i64 d = round_up(h.d, lanes), dv_width = round_up(h.dv, lanes);
    const auto take = [&](i64 count) {
      T* at = base + size;
      size += round_up(count, 64);
      return at;
    };
    queries = take(chunked_size(kGradRows, h.d));
    grads = take(chunked_size(kGradRows, h.dv));
    key_panels = take(n * h.d);
    value_panels = take(n * h.dv);
    keys = take(n * d);
    p = take(kGradRows * kGradStride);
    ds = take(kGradRows * kGradStride);
    dq = take(kGradRows * d);
    dk = take(n * d);
    dv = take(n * dv_width);
    lse2 = take(kGradRows);
    factors = take(h.dropout ? kGradStride : 0);
    turned = take(h.cosine ? kTurned * d : 0);
  }
};

template <class T>
class Backward {
 public:
  using V = Vec<T>;
  static constexpr int lanes = V::lanes, MR = AttentionTile<T>::rows;

  Backward(const AttentionHead<T>& head, const AttentionGrad<T>& grad, T* scratch)
      : h_(head),
        g_(grad),
        d_(round_up(head.d, lanes)),
        dv_(round_up(head.dv, lanes)),
        m_(head, scratch),
        plain_(is_plain(head)) {}

  // Writes dq, dk and dv; false if some of it is not finite.
  bool run(i64 begin, i64 end, bool skip_zeros, T* dq, void* dk, void* dv) {
    skip_zeros_ = skip_zeros;
    bad_ = V(T(0));
    for (i64 first = begin; first < end; first += kGradChunk) {
      const KeyRange chunk{first, smaller(first + kGradChunk, end)};
      const i64 n = chunk.end - first;
      load_chunk(first, n);
      over_row_blocks([&](i64 g, i64 i, i64 rows) {
        row_block(g, i, rows, chunk, first == begin, dq + (g * h_.lq + i) * h_.d);
      });
      turn_rows(h_, m_.dk, d_, n, T(-1), [&](i64 j) { return first + j; });
      // The queries carry scale log2 e.
      as_stored<T>(h_.dtype, dk,
                   [&](auto* y) { write(m_.dk, d_, n, h_.d, T(kLn2), y + first * h_.d); });
      as_stored<T>(h_.dtype, dv,
                   [&](auto* y) { write(m_.dv, dv_, n, h_.dv, T(1), y + first * h_.dv); });
    }
    return !is_nan(bad_).any();
  }

 private:
  // f(query head, first query, queries) for at most kGradRows of one block row.
  template <class F>
  void over_row_blocks(F&& f) {
    const i64 size = h_.map.block_rows;
    for (i64 g = 0; g < h_.group; ++g)
      for (i64 i = 0, rows; i < h_.lq; i += rows) {
        rows = smaller(kGradRows, h_.lq - i);
        if (size) rows = smaller(rows, size - i % size);
        f(g, i, rows);
      }
  }

  void load_chunk(i64 first, i64 n) {
    const RowMajor<T> keys(h_.dtype, nullptr, h_.key_row, h_.d, false, m_.keys);
    const bool copied = keys.copied || h_.cosine;
    keys_ = copied ? m_.keys : static_cast<const T*>(h_.key) + first * h_.key_row;
    key_stride_ = copied ? d_ : keys.stride;
    as_stored<T>(h_.dtype, h_.key, [&](const auto* k) {
      over_turned(
          h_, k + first * h_.key_row, h_.key_row, n, m_.turned, [&](i64 j) { return first + j; },
          [&](const auto* rows, i64 stride, i64 at, i64 count) {
            pack_transposed(rows, stride, count, h_.d, m_.key_panels + at * h_.d);
            if (copied) copy_rows(rows, stride, count, h_.d, m_.keys + at * d_);
          });
    });
    as_stored<T>(h_.dtype, h_.value, [&](const auto* v) {
      pack_transposed(v + first * h_.value_row, h_.value_row, n, h_.dv, m_.value_panels);
    });
    for (i64 j = 0; j < n * d_; ++j) m_.dk[j] = T(0);
    for (i64 j = 0; j < n * dv_; ++j) m_.dv[j] = T(0);
  }

  KeyRange range(i64 i) const { return h_.map.keys[i]; }
  // The smallest range with all that queries [begin, end) see of `keys`.
  KeyRange seen_by(i64 begin, i64 end, KeyRange keys) const {
    KeyRange all{0, 0};
    for (i64 i = begin; i < end; ++i) all = hull(all, range(i));
    return meet(all, keys);
  }

  // Queries [i, i + rows) of head g, all of one block row, against the chunk; dq (=, +=).
  void row_block(i64 g, i64 i, i64 rows, KeyRange chunk, bool assign, T* dq) {
    const KeyRange all = seen_by(i, i + rows, chunk);
    const i64 size = h_.map.block_rows;
    bool loaded = false;
    over_runs(h_.map, g, size ? i / size : 0, all, [&](KeyRange run) {
      if (!loaded) load_rows(g, i, rows);
      loaded = true;
      constexpr i64 panel = AttentionTile<T>::panel;
      i64 first = chunk.begin + (run.begin - chunk.begin) / panel * panel;
      for (; first < run.end; first += kGradKeys)
        key_block(g, i, rows, meet(run, {first, first + kGradKeys}), first, first - chunk.begin);
    });
    if (loaded) {
      turn_rows(h_, m_.dq, d_, rows, T(-1), [&](i64 x) { return h_.map.position[i + x]; });
      add_rows(m_.dq, rows, assign, dq);
    } else if (assign) {
      for (i64 x = 0; x < rows * h_.d; ++x) dq[x] = T(0);
    }
  }

  // The same against `keys`; column 0 of the tiles is key `first`, `offset` in the chunk.
  void key_block(i64 g, i64 i, i64 rows, KeyRange keys, i64 first, i64 offset) {
    weights(g, i, rows, keys, first, offset);
    const T* grads = m_.grads;
    // Keys in groups of MR, with the queries from the first to the last that sees any of them.
    row_groups<MR>(keys.begin - first, keys.end - first, [&](auto mr, i64 j) VECTILE_LAMBDA {
      const KeyRange some{first + j, first + j + mr};
      i64 start = 0, end = rows;
      while (start < end && empty(meet(range(i + start), some))) ++start;
      while (start < end && empty(meet(range(i + end - 1), some))) --end;
      const i64 x = start * kGradStride + j;
      add_chunked<mr>(m_.p + x, grads, start, end, h_.dv, dv_, m_.dv + (offset + j) * dv_);
      add_chunked<mr>(m_.ds + x, m_.queries, start, end, h_.d, d_, m_.dk + (offset + j) * d_);
    });
    row_groups<MR>(0, rows, [&](auto mr, i64 r) VECTILE_LAMBDA {
      const KeyRange k = counted_from(first, seen_by(i + r, i + r + mr, keys));
      if (!empty(k))
        add<mr, kGradStride>(m_.ds + r * kGradStride + k.begin, kGradStride, 1,
                             keys_ + (offset + k.begin) * key_stride_, key_stride_, d_,
                             k.end - k.begin, m_.dq + r * d_, d_);
    });
  }

  // C (mr x n) += A B, careful about zeros when asked.
  template <int mr, int A_ROW>
  VECTILE_INLINE void add(const T* a, i64 a_row, i64 a_step, const T* b, i64 b_step, i64 n,
                          i64 depth, T* c, i64 ldc) {
    if (skip_zeros_)
      tile_row_skipping_zeros<T, Into::add>(mr, a, a_row, a_step, b, b_step, n, depth, c, ldc,
                                            nullptr);
    else
      tile_row<T, mr, A_ROW, Into::add>(a, a_step, b, b_step, n, depth, c, ldc, nullptr);
  }

  // C (mr x n) += columns of A^T times rows [start, end) of a chunked copy.
  template <int mr>
  VECTILE_INLINE void add_chunked(const T* a, const T* b, i64 start, i64 end, i64 n, i64 padded,
                                  T* c) {
    if (start >= end) return;
    b += start * kDepthStride;
    for (i64 x = 0; x < n; x += kDepth, b += kGradRows * kDepthStride)
      add<mr, 1>(a, 1, kGradStride, b, kDepthStride, smaller(kDepth, padded - x), end - start,
                 c + x, padded);
  }

  void load_rows(i64 g, i64 i, i64 rows) {
    as_stored<T>(h_.dtype, h_.query, [&](const auto* q) {
      over_turned(
          h_, q + g * h_.query_head + i * h_.query_row, h_.query_row, rows, m_.turned,
          [&](i64 x) { return h_.map.position[i + x]; },
          [&](const auto* x, i64 stride, i64 at, i64 count) {
            copy_chunked(x, stride, count, h_.d, T(h_.scale * T(kLog2e)), kGradRows,
                         m_.queries + at * kDepthStride);
          });
    });
    as_stored<T>(h_.dtype, g_.grad, [&](const auto* grad) {
      copy_chunked(grad + g * g_.grad_head + i * g_.grad_row, g_.grad_row, rows, h_.dv, T(1),
                   kGradRows, m_.grads);
    });
    for (i64 r = 0; r < rows; ++r) m_.lse2[r] = g_.lse[g * h_.lq + i + r] * T(kLog2e);
    for (i64 x = 0; x < rows * d_; ++x) m_.dq[x] = T(0);
  }

  // P and dS of the block, with zeros where a query does not see a key.
  void weights(i64 g, i64 i, i64 rows, KeyRange keys, i64 first, i64 offset) {
    constexpr i64 panel = AttentionTile<T>::panel;
    const i64 width = keys.end - first;
    row_groups<MR>(0, rows, [&](auto mr, i64 r) VECTILE_LAMBDA {
      const KeyRange live = counted_from(first, seen_by(i + r, i + r + mr, keys));
      if (!empty(live)) {
        const i64 at = live.begin / panel * panel, n = live.end - at;
        const i64 x = r * kGradStride + at, from = offset + at;
        tile_scores<T, mr>(m_.queries + r * kDepthStride, kGradRows, m_.key_panels + from * h_.d,
                           h_.d, n, m_.p + x, kGradStride);
        tile_scores<T, mr>(m_.grads + r * kDepthStride, kGradRows, m_.value_panels + from * h_.dv,
                           h_.dv, n, m_.ds + x, kGradStride);
      }
      for (int x = 0; x < mr; ++x) weights_row(g, i, r + x, keys, first, width);
    });
  }

  VECTILE_INLINE void weights_row(i64 g, i64 i, i64 r, KeyRange keys, i64 first, i64 width) {
    T* ds = m_.ds + r * kGradStride;
    const KeyRange k = counted_from(first, meet(range(i + r), keys));
    if (plain_)
      weights_row(g, i, r, k, width, NoTerms{});
    else
      weights_with_terms(g, i, r, k, width, first);
    // map_scores left ds alone where it wrote zeros.
    for (i64 j = 0; j + lanes <= k.begin; j += lanes) V(T(0)).store(ds + j);
    for (i64 j = round_up(k.end, lanes); j < width; j += lanes) V(T(0)).store(ds + j);
  }

  template <class Terms>
  VECTILE_INLINE void weights_row(i64 g, i64 i, i64 r, KeyRange k, i64 width, Terms terms) {
    T *s = m_.p + r * kGradStride, *ds = m_.ds + r * kGradStride;
    const V lse2(m_.lse2[r]), delta(g_.delta[g * h_.lq + i + r]), zero(T(0));
    map_scores(s, s, k, width, terms, [&](V v, i64 j) VECTILE_LAMBDA {
      const V p = probability(v, lse2);
      select(p == zero, zero, p * (V::load(ds + j) - delta)).store(ds + j);
      return p;
    });
  }

  void weights_with_terms(i64 g, i64 i, i64 r, KeyRange k, i64 width, i64 first) {
    T *s = m_.p + r * kGradStride, *ds = m_.ds + r * kGradStride;
    const V lse2(m_.lse2[r]), delta(g_.delta[g * h_.lq + i + r]), zero(T(0));
    if (h_.dropout)
      dropout_factors(h_, g, i + r, first + k.begin, k.end - k.begin, m_.factors + k.begin);
    with_terms(h_, g, i + r, first, [&](auto terms) {
      if constexpr (decltype(terms)::plain)
        return weights_row(g, i, r, k, width, terms);
      else {
        const T* factors = h_.dropout ? m_.factors : nullptr;
        V slope;
        map_scores(
            s, s, k, width,
            [&](V v, i64 j, int n) VECTILE_LAMBDA { return terms.with_slope(v, j, n, slope); },
            [&](V v, i64 j) VECTILE_LAMBDA {
              const V p = probability(v, lse2);
              const V kept = factors ? V::load(factors + j) : V(T(1));
              const V dp = select(kept == zero, zero, V::load(ds + j) * kept);
              select(p == zero, zero, p * slope * (dp - delta)).store(ds + j);
              return select(p == zero, zero, p * kept);
            });
      }
    });
  }

  // dq (=, +=) scale * rows
  void add_rows(const T* rows, i64 count, bool assign, T* dq) {
    const V scale(h_.scale);
    for (i64 r = 0; r < count; ++r, rows += d_, dq += h_.d)
      for (i64 j = 0; j < h_.d; j += lanes) {
        const int m = static_cast<int>(smaller(lanes, h_.d - j));
        const V v = V::load(rows + j) * scale;
        bad_ = fma(v, V(T(0)), bad_);
        (assign ? v : V::load(dq + j, m) + v).store(dq + j, m);
      }
  }

  template <class S>
  void write(const T* x, i64 stride, i64 rows, i64 n, T scale, S* y) {
    for (i64 r = 0; r < rows; ++r, x += stride, y += n)
      for (i64 j = 0; j < n; j += lanes) {
        const V v = V::load(x + j) * V(scale);
        bad_ = fma(v, V(T(0)), bad_);
        if (j + lanes <= n)
          store_as(v, y + j);
        else
          store_as(v, y + j, static_cast<int>(n - j));
      }
  }

  const AttentionHead<T>& h_;
  const AttentionGrad<T>& g_;
  const i64 d_, dv_;
  const BackwardScratch<T> m_;
  const bool plain_;
  bool skip_zeros_ = false;
  V bad_;
  const T* keys_ = nullptr;  // of the chunk, as the products read them
  i64 key_stride_ = 0;
};

}  // namespace vectile::VECTILE_TIER
