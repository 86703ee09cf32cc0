// One task of the backward pass: all rows of a head against some of its keys. With
// P = exp(S - lse), dP = grad V^T, delta = rowsum(grad * out) and dS = P (dP - delta):
//   dV = P^T grad,  dQ = scale dS K,  dK = scale dS^T Q
// Row blocks are outermost, so that packed keys serve every query head of the group.
#pragma once

#include "kernels/attention_scores.h"

namespace vectile::VECTILE_TIER {

constexpr i64 kGradRows = 64;   // rows per block
constexpr i64 kGradKeys = 256;  // keys per block: two score tiles of this width in L2
constexpr i64 kGradStride = kGradKeys + 16;
constexpr i64 kGradChunk = 2048;  // keys packed at a time

template <class T>
struct BackwardScratch {
  T *queries, *grads, *key_panels, *value_panels, *keys, *p, *ds, *dq, *dk, *dv, *delta, *lse2;
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
    delta = take(kGradRows);
    lse2 = take(kGradRows);
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
        m_(head, scratch) {}

  // Writes dq, dk and dv; false if some of it is not finite.
  bool run(i64 begin, i64 end, bool skip_zeros, T* dq, T* dk, T* dv) {
    skip_zeros_ = skip_zeros;
    bad_ = V(T(0));
    for (i64 first = begin; first < end; first += kGradChunk) {
      const i64 n = smaller(kGradChunk, end - first);
      const RowMajor<T> keys = load_chunk(first, n);
      for (i64 g = 0; g < h_.group; ++g)
        for (i64 i = 0; i < h_.lq; i += kGradRows)
          row_block(g, i, smaller(kGradRows, h_.lq - i), first, n, keys, first == begin, dq);
      write(m_.dk, d_, n, h_.d, T(kLn2), dk + first * h_.d);  // the queries carry scale log2 e
      write(m_.dv, dv_, n, h_.dv, T(1), dv + first * h_.dv);
    }
    return !is_nan(bad_).any();
  }

 private:
  RowMajor<T> load_chunk(i64 first, i64 n) {
    const T* k = h_.key + first * h_.key_row;
    pack_transposed(k, h_.key_row, n, h_.d, m_.key_panels);
    pack_transposed(h_.value + first * h_.value_row, h_.value_row, n, h_.dv, m_.value_panels);
    for (i64 j = 0; j < n * d_; ++j) m_.dk[j] = T(0);
    for (i64 j = 0; j < n * dv_; ++j) m_.dv[j] = T(0);
    return RowMajor<T>(k, h_.key_row, n, h_.d, false, m_.keys);
  }

  // Rows [i, i + rows) of query head g against the chunk of n keys from `first` on.
  void row_block(i64 g, i64 i, i64 rows, i64 first, i64 n, const RowMajor<T>& keys, bool assign,
                 T* dq) {
    load_rows(g, i, rows);
    for (i64 x = 0; x < rows * d_; ++x) m_.dq[x] = T(0);
    const i64 seen = smaller(n, key_limit(h_, i + rows - 1) - first);
    for (i64 b = 0; b < seen; b += kGradKeys) {
      const i64 width = smaller(kGradKeys, seen - b);
      weights(g, i, rows, first + b, width, b);
      const T* grads = m_.grads;
      // Keys in groups of MR; a causal group starts at the first row that sees it.
      row_groups<MR>(0, width, [&](auto mr, i64 j) VECTILE_LAMBDA {
        const i64 start = h_.causal ? larger(0, first + b + j - (h_.lk - h_.lq) - i) : 0;
        const i64 x = start * kGradStride + j;
        add_chunked<mr>(m_.p + x, grads, start, rows, h_.dv, dv_, m_.dv + (b + j) * dv_);
        add_chunked<mr>(m_.ds + x, m_.queries, start, rows, h_.d, d_, m_.dk + (b + j) * d_);
      });
      row_groups<MR>(0, rows, [&](auto mr, i64 r) VECTILE_LAMBDA {
        const i64 depth = smaller(width, key_limit(h_, i + r + mr - 1) - first - b);
        if (depth > 0)
          add<mr, kGradStride>(m_.ds + r * kGradStride, kGradStride, 1, keys.data + b * keys.stride,
                               keys.stride, d_, depth, m_.dq + r * d_, d_);
      });
    }
    add_rows(m_.dq, rows, assign, dq + (g * h_.lq + i) * h_.d);
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

  // C (mr x n) += columns of A^T times rows [start, rows) of a chunked copy.
  template <int mr>
  VECTILE_INLINE void add_chunked(const T* a, const T* b, i64 start, i64 rows, i64 n, i64 padded,
                                  T* c) {
    if (start >= rows) return;
    b += start * kDepthStride;
    for (i64 x = 0; x < n; x += kDepth, b += kGradRows * kDepthStride)
      add<mr, 1>(a, 1, kGradStride, b, kDepthStride, smaller(kDepth, padded - x), rows - start,
                 c + x, padded);
  }

  void load_rows(i64 g, i64 i, i64 rows) {
    copy_chunked(h_.query + g * h_.query_head + i * h_.query_row, h_.query_row, rows, h_.d,
                 T(h_.scale * T(kLog2e)), kGradRows, m_.queries);
    const T* grad = g_.grad + g * g_.grad_head + i * g_.grad_row;
    const T* out = g_.out + g * g_.out_head + i * g_.out_row;
    copy_chunked(grad, g_.grad_row, rows, h_.dv, T(1), kGradRows, m_.grads);
    for (i64 r = 0; r < rows; ++r, grad += g_.grad_row, out += g_.out_row) {
      V sum(T(0));
      for (i64 j = 0; j < h_.dv; j += lanes) {
        const int m = static_cast<int>(smaller(lanes, h_.dv - j));
        sum = multiply_add(V::load(grad + j, m), V::load(out + j, m), sum);
      }
      m_.delta[r] = reduce_add(sum);
      m_.lse2[r] = g_.lse[g * h_.lq + i + r] * T(kLog2e);
    }
  }

  // P and dS of the block, rows x width, with zeros where a row does not see a key.
  void weights(i64 g, i64 i, i64 rows, i64 first, i64 width, i64 offset) {
    row_groups<MR>(0, rows, [&](auto mr, i64 r) VECTILE_LAMBDA {
      T *s = m_.p + r * kGradStride, *dp = m_.ds + r * kGradStride;
      const i64 live = larger(0, smaller(width, key_limit(h_, i + r + mr - 1) - first));
      if (live > 0) {
        tile_scores<T, mr>(m_.queries + r * kDepthStride, kGradRows, m_.key_panels + offset * h_.d,
                           h_.d, live, s, kGradStride);
        tile_scores<T, mr>(m_.grads + r * kDepthStride, kGradRows, m_.value_panels + offset * h_.dv,
                           h_.dv, live, dp, kGradStride);
      }
      for (i64 x = 0; x < mr; ++x, s += kGradStride, dp += kGradStride) {
        const i64 n = larger(0, smaller(width, key_limit(h_, i + r + x) - first));
        const V lse2(m_.lse2[r + x]), delta(m_.delta[r + x]), zero(T(0));
        with_mask(h_, g, i + r + x, first, [&](auto mask) {
          map_scores(s, s, n, width, mask, [&](V v, i64 j) VECTILE_LAMBDA {
            const V p = probability(v, lse2);
            select(p == zero, zero, p * (V::load(dp + j) - delta)).store(dp + j);
            return p;
          });
        });
        for (i64 j = round_up(n, lanes); j < width; j += lanes) zero.store(dp + j);
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

  void write(const T* x, i64 stride, i64 rows, i64 n, T scale, T* y) {
    for (i64 r = 0; r < rows; ++r, x += stride, y += n)
      for (i64 j = 0; j < n; j += lanes) {
        const V v = V::load(x + j) * V(scale);
        bad_ = fma(v, V(T(0)), bad_);
        v.store(y + j, static_cast<int>(smaller(lanes, n - j)));
      }
  }

  const AttentionHead<T>& h_;
  const AttentionGrad<T>& g_;
  const i64 d_, dv_;
  const BackwardScratch<T> m_;
  bool skip_zeros_ = false;
  V bad_;
};

}  // namespace vectile::VECTILE_TIER
