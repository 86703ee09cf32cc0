// One task of the forward pass: some rows of a head against all its keys.
#pragma once

#include "kernels/attention_scores.h"

namespace vectile::VECTILE_TIER {

constexpr i64 kKeys = 512;                // keys per block: K^T, V and the row state stay in L2
constexpr i64 kScoreStride = kKeys + 16;  // off the power of two: rows fall into different L1 sets
constexpr i64 kFewRows = 3;               // up to here packing K costs more than it saves

template <class T>
struct ForwardScratch {
  T *queries, *panels, *values, *scores, *acc, *lse2;
  RunningSoftmax<T> softmax;
  i64 size = 0;

  ForwardScratch(const AttentionHead<T>& h, i64 rows, T* base) {
    const i64 keys = round_up(smaller(kKeys, h.lk), AttentionTile<T>::panel);
    const i64 dv = round_up(h.dv, Vec<T>::lanes);
    const auto take = [&](i64 n) {
      T* p = base + size;
      size += round_up(n, 64);
      return p;
    };
    queries = take(chunked_size(rows, h.d));
    panels = take(keys * h.d);
    values = take(keys * dv);
    scores = take(AttentionTile<T>::rows * kScoreStride);
    acc = take(rows * dv);
    lse2 = take(rows);
    softmax = {take(rows), take(rows)};
  }
};

template <class T>
class Forward {
 public:
  using V = Vec<T>;
  static constexpr int lanes = V::lanes;

  Forward(const AttentionHead<T>& head, i64 begin, i64 end, T* scratch)
      : h_(head),
        begin_(begin),
        rows_(end - begin),
        dv_(round_up(head.dv, lanes)),
        m_(head, end - begin, scratch),
        few_(rows_ <= kFewRows) {
    const T scale = T(h_.scale * T(kLog2e));
    // Rows of one query head at a time.
    for (i64 r = 0; r < rows_;) {
      const i64 g = (begin_ + r) / h_.lq, i = (begin_ + r) % h_.lq;
      const i64 n = smaller(rows_ - r, h_.lq - i);
      copy_chunked(h_.query + g * h_.query_head + i * h_.query_row, h_.query_row, n, h_.d, scale,
                   rows_, m_.queries + r * kDepthStride);
      r += n;
    }
  }

  // Writes out; false if some of it is not finite.
  bool run(bool skip_zeros, T* out) {
    m_.softmax.reset(rows_);
    for (i64 i = 0; i < rows_ * dv_; ++i) m_.acc[i] = T(0);
    over_blocks([&](i64 first, i64 n) {
      const RowMajor<T> v(h_.value + first * h_.value_row, h_.value_row, n, h_.dv, few_, m_.values);
      over_groups(first, n, [&](auto mr, i64 r, i64 width) VECTILE_LAMBDA {
        constexpr int MR = mr;
        scores<MR>(r, first, width);
        T maxima[MR], origin[MR], sums[MR], factor[MR];
        for (int i = 0; i < MR; ++i)
          with_row_mask(r + i, first, [&](auto mask) {
            maxima[i] = mask_scores(m_.scores + i * kScoreStride, visible(r + i, first, n), mask);
          });
        m_.softmax.raise(r, MR, maxima, origin, factor);
        for (int i = 0; i < MR; ++i)
          sums[i] = exponentials(m_.scores + i * kScoreStride, visible(r + i, first, n), width,
                                 origin[i]);
        m_.softmax.add(r, MR, sums, factor);
        T* acc = m_.acc + r * dv_;
        if (skip_zeros)
          tile_row_skipping_zeros<T, Into::scale_add>(MR, m_.scores, kScoreStride, 1, v.data,
                                                      v.stride, dv_, width, acc, dv_, factor);
        else
          tile_row<T, MR, kScoreStride, Into::scale_add>(m_.scores, 1, v.data, v.stride, dv_, width,
                                                         acc, dv_, factor);
      });
    });
    return write_out(out);
  }

  void write_lse(T* lse) {
    m_.softmax.write_lse2(rows_, m_.lse2);
    for (i64 r = 0; r < rows_; ++r) lse[begin_ + r] = m_.lse2[r] * T(kLn2);
  }

  // The scores once more, now that their normaliser is known.
  void write_weights(T* weights) {
    m_.softmax.write_lse2(rows_, m_.lse2);
    for (i64 r = begin_ * h_.lk; r < (begin_ + rows_) * h_.lk; ++r) weights[r] = T(0);
    over_blocks([&](i64 first, i64 n) {
      over_groups(first, n, [&](auto mr, i64 r, i64 width) {
        constexpr int MR = mr;
        scores<MR>(r, first, width);
        for (int i = 0; i < MR; ++i) {
          T* s = m_.scores + i * kScoreStride;
          const i64 live = visible(r + i, first, n);
          const V lse2(m_.lse2[r + i]);
          with_row_mask(r + i, first, [&](auto mask) {
            map_scores(s, s, live, 0, mask,
                       [=](V v, i64) VECTILE_LAMBDA { return probability(v, lse2); });
          });
          T* w = weights + (begin_ + r + i) * h_.lk + first;
          for (i64 j = 0; j < live; ++j) w[j] = s[j];
        }
      });
    });
  }

 private:
  i64 limit(i64 r) const { return key_limit(h_, (begin_ + r) % h_.lq); }
  // Keys of the block [first, first + n) before the causal limit of row r.
  i64 visible(i64 r, i64 first, i64 n) const { return larger(0, smaller(n, limit(r) - first)); }

  template <class F>
  void with_row_mask(i64 r, i64 first, F&& f) {
    with_mask(h_, (begin_ + r) / h_.lq, (begin_ + r) % h_.lq, first, f);
  }

  // f(first key, keys) for blocks of keys that some row sees.
  template <class F>
  void over_blocks(F&& f) {
    i64 seen = 0;
    for (i64 r = 0; r < rows_ && seen < h_.lk; ++r) seen = larger(seen, limit(r));
    for (i64 first = 0; first < seen; first += kKeys) {
      const i64 n = smaller(kKeys, seen - first);
      if (!few_) pack_transposed(h_.key + first * h_.key_row, h_.key_row, n, h_.d, m_.panels);
      f(first, n);
    }
  }

  // f(Index<MR>, row, keys seen by any of the MR rows) for groups that see any.
  template <class F>
  VECTILE_INLINE void over_groups(i64 first, i64 n, F&& f) {
    row_groups<AttentionTile<T>::rows>(0, rows_, [&](auto mr, i64 r) VECTILE_LAMBDA {
      i64 width = 0;
      for (int i = 0; i < mr; ++i) width = larger(width, visible(r + i, first, n));
      if (width > 0) f(mr, r, width);
    });
  }

  template <int MR>
  VECTILE_INLINE void scores(i64 r, i64 first, i64 width) {
    const T* q = m_.queries + r * kDepthStride;
    if (few_)
      row_scores<MR>(q, first, width);
    else
      tile_scores<T, MR>(q, rows_, m_.panels, h_.d, width, m_.scores, kScoreStride);
  }

  // Dot products straight from the rows of K.
  template <int MR>
  void row_scores(const T* q, i64 first, i64 width) {
    for (i64 j = 0; j < width; ++j) {
      const T* k = h_.key + (first + j) * h_.key_row;
      V sum[MR];
      for (i64 c = 0; c < h_.d; c += kDepth) {
        const T* qc = q + c / kDepth * rows_ * kDepthStride;
        const i64 n = smaller(kDepth, h_.d - c);
        i64 x = 0;
        for (; x + lanes <= n; x += lanes) {
          const V kx = V::load(k + c + x);
          unroll<MR>([&](auto i) VECTILE_LAMBDA {
            sum[i] = multiply_add(V::load(qc + i * kDepthStride + x), kx, sum[i]);
          });
        }
        if (x < n) {
          const V kx = V::load(k + c + x, static_cast<int>(n - x));
          unroll<MR>([&](auto i) VECTILE_LAMBDA {
            sum[i] = multiply_add(V::load(qc + i * kDepthStride + x), kx, sum[i]);
          });
        }
      }
      unroll<MR>([&](auto i)
                     VECTILE_LAMBDA { m_.scores[i * kScoreStride + j] = reduce_add(sum[i]); });
    }
  }

  bool write_out(T* out) {
    V bad(T(0));
    for (i64 r = 0; r < rows_; ++r) {
      const T* acc = m_.acc + r * dv_;
      T* y = out + (begin_ + r) * h_.dv;
      const T sum = m_.softmax.sum[r];
      const V norm(sum == T(0) ? T(0) : T(1) / sum);
      for (i64 j = 0; j < h_.dv; j += lanes) {
        const V v = V::load(acc + j) * norm;
        bad = fma(v, V(T(0)), bad);
        if (j + lanes <= h_.dv)
          v.store(y + j);
        else
          v.store(y + j, static_cast<int>(h_.dv - j));
      }
    }
    return !is_nan(bad).any();
  }

  const AttentionHead<T>& h_;
  const i64 begin_, rows_, dv_;
  ForwardScratch<T> m_;
  const bool few_;
};

}  // namespace vectile::VECTILE_TIER
