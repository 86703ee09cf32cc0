// One task of the forward pass: some rows of a head against all its keys.
#pragma once

#include "kernels/attention_dropout.h"

namespace vectile::VECTILE_TIER {

constexpr i64 kKeys = 512;                // keys per block: K^T, V and the row state stay in L2
constexpr i64 kPack = kTurned;            // keys packed together, if any of them is seen
constexpr i64 kScoreStride = kKeys + 16;  // off the power of two: rows fall into different L1 sets
constexpr i64 kFewRows = 3;               // up to here packing K costs more than it saves
constexpr int kPieces = 8;                // runs of keys that share a score tile

template <class T>
struct ForwardScratch {
  T *queries, *panels, *values, *scores, *acc, *lse2, *factors, *turned;
  KeyRange* ranges;
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
    factors = take(h.dropout ? kScoreStride : 0);
    turned = take(h.cosine ? kTurned * round_up(h.d, Vec<T>::lanes) : 0);
    ranges =
        reinterpret_cast<KeyRange*>(take(rows * static_cast<i64>(sizeof(KeyRange) / sizeof(T))));
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
        few_(rows_ <= kFewRows && !head.cosine),
        plain_(is_plain(head)) {
    const T scale = T(h_.scale * T(kLog2e));
    // Rows of one query head at a time.
    for (i64 r = 0; r < rows_;) {
      const i64 g = head_of(r), i = query_of(r), n = smaller(rows_ - r, h_.lq - i);
      as_stored<T>(h_.dtype, h_.query, [&](const auto* q) {
        over_turned(
            h_, q + g * h_.query_head + i * h_.query_row, h_.query_row, n, m_.turned,
            [&](i64 x) { return h_.map.position[i + x]; },
            [&](const auto* rows, i64 stride, i64 at, i64 count) {
              copy_chunked(rows, stride, count, h_.d, scale, rows_,
                           m_.queries + (r + at) * kDepthStride);
            });
      });
      for (i64 x = 0; x < n; ++x) {
        const KeyRange range = h_.map.keys[i + x], first = m_.ranges[0];
        m_.ranges[r + x] = range;
        alike_ = r + x == 0 || (alike_ && range.begin == first.begin && range.end == first.end);
      }
      r += n;
    }
  }

  // Writes out; false if some of it is not finite.
  bool run(bool skip_zeros, void* out) {
    for (i64 r = 0; r < rows_; ++r)
      if (h_.sinks)
        m_.softmax.reset(r, h_.sinks[head_of(r)] * T(kLog2e));
      else
        m_.softmax.reset(r);
    for (i64 i = 0; i < rows_ * dv_; ++i) m_.acc[i] = T(0);
    over_tiles(true, [&](auto mr, i64 r, const Piece* pieces, int count, i64 first) VECTILE_LAMBDA {
      constexpr int MR = mr;
      T maxima[MR], origin[MR], sums[MR], factor[MR];
      for (int p = 0; p < count; ++p) {
        score_tile<MR>(r, pieces[p], first);
        for (int i = 0; i < MR; ++i) {
          const T top = apply_to_row(r + i, i, pieces[p]);
          if (p == 0 || top > maxima[i] || top != top) maxima[i] = top;
        }
      }
      m_.softmax.raise(r, MR, maxima, origin, factor);
      for (int p = 0; p < count; ++p)
        for (int i = 0; i < MR; ++i) {
          T* s = score_row(i) + pieces[p].column;
          const i64 width = pieces[p].keys.end - pieces[p].start;
          const T sum = exponentials(s, seen(r + i, pieces[p]), width, origin[i]);
          sums[i] = p ? sums[i] + sum : sum;
        }
      m_.softmax.add(r, MR, sums, factor);
      if (h_.dropout)
        for (int p = 0; p < count; ++p)
          for (int i = 0; i < MR; ++i) drop(r + i, i, pieces[p]);
      add_values<MR, Into::scale_add>(r, pieces[0], first, skip_zeros, factor);
      for (int p = 1; p < count; ++p)
        add_values<MR, Into::add>(r, pieces[p], first, skip_zeros, nullptr);
    });
    return write_out(out);
  }

  void write(const AttentionExtras<T>& extras) {
    if (!(extras.lse || extras.weights || extras.column_sums || extras.top_weights)) return;
    m_.softmax.write_lse2(rows_, m_.lse2);
    if (extras.lse)
      for (i64 r = 0; r < rows_; ++r) extras.lse[begin_ + r] = m_.lse2[r] * T(kLn2);
    if (extras.weights || extras.column_sums || extras.top_weights) write_weights(extras);
  }

 private:
  // Keys that some rows see: columns of the score tile from `column` on, the first is key `start`.
  struct Piece {
    KeyRange keys;
    i64 start, column;
  };

  i64 head_of(i64 r) const { return (begin_ + r) / h_.lq; }
  i64 query_of(i64 r) const { return (begin_ + r) % h_.lq; }
  T* score_row(int i) const { return m_.scores + i * kScoreStride; }
  // What row r sees of a piece, counted from its first column.
  VECTILE_INLINE KeyRange seen(i64 r, const Piece& p) const {
    if (alike_) return {p.keys.begin - p.start, p.keys.end - p.start};  // what some see, all do
    return counted_from(p.start, meet(m_.ranges[r], p.keys));
  }
  // The smallest range with all that rows [begin, end) see of `keys`.
  KeyRange seen_by(i64 begin, i64 end, KeyRange keys) const {
    if (alike_) return meet(m_.ranges[begin], keys);
    KeyRange all{0, 0};
    for (i64 r = begin; r < end; ++r) all = hull(all, m_.ranges[r]);
    return meet(all, keys);
  }

  // One past the rows from r on each of which shares keys with the one before: a sequence's.
  i64 neighbours(i64 r) const {
    if (alike_) return rows_;
    while (++r < rows_) {
      const KeyRange a = m_.ranges[r - 1], b = m_.ranges[r];
      if (empty(meet(a, b)) && !empty(a) && !empty(b)) break;
    }
    return r;
  }

  // f(first row, one past the last, runs, their number) for rows of one block row and their runs in
  // `keys`, at most kPieces at a time.
  template <class F>
  VECTILE_INLINE void over_block_rows(KeyRange keys, F&& f) {
    for (i64 r = 0, end; r < rows_; r = end) {
      const i64 size = h_.map.block_rows, i = size ? query_of(r) : 0;
      end = size ? smaller(rows_, r + smaller(size - i % size, h_.lq - i)) : neighbours(r);
      KeyRange runs[kPieces];
      int count = 0;
      const auto flush = [&] {
        if (count) f(r, end, static_cast<const KeyRange*>(runs), count);
        count = 0;
      };
      over_runs(h_.map, size ? head_of(r) : 0, size ? i / size : 0, keys, [&](KeyRange run) {
        if (count == kPieces) flush();
        runs[count++] = run;
      });
      flush();
    }
  }

  // f(Index<MR>, row, pieces, their number, first key of the block) for MR rows and what any of
  // them sees, block by block; what f reads is packed before. Blocks that nobody sees are left out.
  template <class F>
  VECTILE_INLINE void over_tiles(bool values, F&& f) {
    constexpr i64 panel = AttentionTile<T>::panel;
    const KeyRange all = seen_by(0, rows_, {0, h_.lk});
    for (i64 first = all.begin / kPack * kPack; first < all.end; first += kKeys) {
      const KeyRange block{first, smaller(first + kKeys, all.end)};
      if (!load(block, values)) continue;
      over_block_rows(block, [&](i64 begin, i64 end, const KeyRange* runs, int n) {
        row_groups<AttentionTile<T>::rows>(begin, end, [&](auto mr, i64 r) VECTILE_LAMBDA {
          const KeyRange some = seen_by(r, r + mr, block);
          for (int x = 0; x < n;) {  // as many runs as the tile holds
            Piece pieces[kPieces];
            int count = 0;
            for (i64 column = 0; x < n; ++x) {
              const KeyRange keys = meet(runs[x], some);
              if (empty(keys)) continue;
              const i64 start = few_ ? keys.begin : first + (keys.begin - first) / panel * panel;
              const i64 width = round_up(keys.end - start, lanes);
              if (column + width > kKeys) break;
              pieces[count++] = {keys, start, column};
              column += width;
            }
            if (count) f(mr, r, static_cast<const Piece*>(pieces), count, first);
          }
        });
      });
    }
  }

  // Packs the keys, and the values, of those parts of the block that some row sees; false if none.
  bool load(KeyRange block, bool values) {
    constexpr i64 parts = kKeys / kPack;
    bool live[parts] = {}, any = false;
    over_block_rows(block, [&](i64 begin, i64 end, const KeyRange* runs, int n) {
      const KeyRange some = seen_by(begin, end, block);
      for (int r = 0; r < n; ++r) {
        const KeyRange keys = counted_from(block.begin, meet(runs[r], some));
        for (i64 x = keys.begin / kPack; x * kPack < keys.end; ++x) live[x] = any = true;
      }
    });
    const RowMajor<T> v(h_.dtype, nullptr, h_.value_row, h_.dv, few_, m_.values);
    value_stride_ = v.stride;
    values_ = v.copied ? m_.values : static_cast<const T*>(h_.value) + block.begin * h_.value_row;
    for (i64 x = 0; x < parts; ++x) {
      if (!live[x]) continue;
      const i64 at = x * kPack, key = block.begin + at, n = smaller(kPack, block.end - key);
      if (!few_)
        as_stored<T>(h_.dtype, h_.key, [&](const auto* k) {
          over_turned(
              h_, k + key * h_.key_row, h_.key_row, n, m_.turned, [&](i64 j) { return key + j; },
              [&](const auto* rows, i64 stride, i64, i64 count) {
                pack_transposed(rows, stride, count, h_.d, m_.panels + at * h_.d);
              });
        });
      if (values && v.copied)
        as_stored<T>(h_.dtype, h_.value, [&](const auto* p) {
          copy_rows(p + key * h_.value_row, h_.value_row, n, h_.dv, m_.values + at * dv_);
        });
    }
    return any;
  }

  // Scores of MR rows against a piece of the block at key `first`.
  template <int MR>
  VECTILE_INLINE void score_tile(i64 r, const Piece& p, i64 first) {
    const T* q = m_.queries + r * kDepthStride;
    T* s = m_.scores + p.column;
    if constexpr (MR < kFewRows)
      if (few_) {
        as_stored<T>(h_.dtype, h_.key, [&](const auto* k) { score_rows<MR>(q, k, p.keys, s); });
        return;
      }
    tile_scores<T, MR>(q, rows_, m_.panels + (p.start - first) * h_.d, h_.d, p.keys.end - p.start,
                       s, kScoreStride);
  }

  // acc (=, +=) P V for MR rows and a piece.
  template <int MR, Into into>
  VECTILE_INLINE void add_values(i64 r, const Piece& p, i64 first, bool skip_zeros,
                                 const T* factor) {
    const T* weights = m_.scores + p.column + (p.keys.begin - p.start);
    const T* v = values_ + (p.keys.begin - first) * value_stride_;
    const i64 n = p.keys.end - p.keys.begin;
    T* acc = m_.acc + r * dv_;
    if (skip_zeros)
      tile_row_skipping_zeros<T, into>(MR, weights, kScoreStride, 1, v, value_stride_, dv_, n, acc,
                                       dv_, factor);
    else
      tile_row<T, MR, kScoreStride, into>(weights, 1, v, value_stride_, dv_, n, acc, dv_, factor);
  }

  // Dot products straight from the rows of K.
  template <int MR, class S>
  void score_rows(const T* q, const S* key, KeyRange keys, T* s) {
    for (i64 j = keys.begin; j < keys.end; ++j) {
      const S* k = key + j * h_.key_row;
      V sum[MR];
      for (i64 c = 0; c < h_.d; c += kDepth) {
        const T* qc = q + c / kDepth * rows_ * kDepthStride;
        const i64 n = smaller(kDepth, h_.d - c);
        i64 x = 0;
        for (; x + lanes <= n; x += lanes) {
          const V kx = load_as<V>(k + c + x);
          unroll<MR>([&](auto i) VECTILE_LAMBDA {
            sum[i] = multiply_add(V::load(qc + i * kDepthStride + x), kx, sum[i]);
          });
        }
        if (x < n) {
          const V kx = load_as<V>(k + c + x, static_cast<int>(n - x));
          unroll<MR>([&](auto i) VECTILE_LAMBDA {
            sum[i] = multiply_add(V::load(qc + i * kDepthStride + x), kx, sum[i]);
          });
        }
      }
      unroll<MR>([&](auto i)
                     VECTILE_LAMBDA { s[i * kScoreStride + j - keys.begin] = reduce_add(sum[i]); });
    }
  }

  // Applies the terms to what row r, row i of the score tile, sees of a piece; the maximum.
  VECTILE_INLINE T apply_to_row(i64 r, int i, const Piece& p) {
    const KeyRange k = seen(r, p);
    T* s = score_row(i) + p.column;
    return plain_ ? apply_terms(s, k, NoTerms{}) : apply_terms_of(r, s, k, p.start);
  }
  T apply_terms_of(i64 r, T* s, KeyRange k, i64 start) {
    T top;
    with_terms(h_, head_of(r), query_of(r), start,
               [&](auto terms) { top = apply_terms(s, k, terms); });
    return top;
  }

  // Dropout of what row r, row i of the score tile, sees of a piece.
  void drop(i64 r, int i, const Piece& p) {
    const KeyRange k = seen(r, p);
    T* s = score_row(i) + p.column + k.begin;
    const i64 n = k.end - k.begin;
    dropout_factors(h_, head_of(r), query_of(r), p.start + k.begin, n, m_.factors);
    for (i64 j = 0; j < n; ++j) s[j] *= m_.factors[j];
  }

  // The scores once more, now that their normaliser is known.
  void write_weights(const AttentionExtras<T>& extras) {
    if (extras.weights)
      as_stored<T>(h_.dtype, extras.weights, [&](auto* w) {
        std::memset(w + begin_ * h_.lk, 0, static_cast<std::size_t>(rows_ * h_.lk) * sizeof(*w));
      });
    if (extras.column_sums)
      for (i64 x = 0; x < h_.group * h_.lk; ++x) extras.column_sums[x] = T(0);
    for (i64 x = begin_ * extras.top; x < (begin_ + rows_) * extras.top; ++x)
      extras.top_weights[x] = T(0), extras.top_keys[x] = -1;
    over_tiles(false, [&](auto mr, i64 r, const Piece* pieces, int count, i64 first) {
      constexpr int MR = mr;
      for (int p = 0; p < count; ++p) {
        score_tile<MR>(r, pieces[p], first);
        for (int i = 0; i < MR; ++i) {
          const KeyRange k = seen(r + i, pieces[p]);
          T* s = score_row(i) + pieces[p].column;
          const V lse2(m_.lse2[r + i]);
          if (!plain_) apply_terms_of(r + i, s, k, pieces[p].start);
          map_scores(s, s, k, 0, NoTerms{},
                     [=](V v, i64) VECTILE_LAMBDA { return probability(v, lse2); });
          write_row(extras, r + i, pieces[p].start + k.begin, k.end - k.begin, s + k.begin);
        }
      }
    });
  }

  // The weights w of row r for n keys from `key` on.
  void write_row(const AttentionExtras<T>& extras, i64 r, i64 key, i64 n, const T* w) {
    if (extras.weights)
      as_stored<T>(h_.dtype, extras.weights, [&](auto* y) {
        y += (begin_ + r) * h_.lk + key;
        over_rows<T>(n, [&](i64 j, int m) { store_as(V::load(w + j, m), y + j, m); });
      });
    if (extras.column_sums) {
      T* y = extras.column_sums + head_of(r) * h_.lk + key;
      for (i64 j = 0; j < n; ++j) y[j] += w[j];
    }
    if (extras.top == 0) return;
    T* best = extras.top_weights + (begin_ + r) * extras.top;
    i64* best_key = extras.top_keys + (begin_ + r) * extras.top;
    for (i64 j = 0; j < n; ++j) {  // insertion; of equal weights the earlier key stands first
      i64 x = extras.top;
      if (!(w[j] > best[x - 1])) continue;
      for (--x; x > 0 && w[j] > best[x - 1]; --x)
        best[x] = best[x - 1], best_key[x] = best_key[x - 1];
      best[x] = w[j], best_key[x] = key + j;
    }
  }

  bool write_out(void* out) {
    V bad[2];  // sums that would wait for one another
    as_stored<T>(h_.dtype, out, [&](auto* typed) {
      for (i64 r = 0; r < rows_; ++r) {
        const T* acc = m_.acc + r * dv_;
        auto* y = typed + (begin_ + r) * h_.dv;
        const T sum = m_.softmax.sum[r];
        const V norm(sum == T(0) ? T(0) : T(1) / sum);
        i64 j = 0;
        for (; j + 2 * lanes <= h_.dv; j += 2 * lanes)
          unroll<2>([&](auto u) VECTILE_LAMBDA {
            const V v = V::load(acc + j + u * lanes) * norm;
            bad[u] = fma(v, V(T(0)), bad[u]);
            store_as(v, y + j + u * lanes);
          });
        for (; j < h_.dv; j += lanes) {
          const V v = V::load(acc + j) * norm;
          bad[0] = fma(v, V(T(0)), bad[0]);
          store_as(v, y + j, static_cast<int>(smaller(lanes, h_.dv - j)));
        }
      }
    });
    return !is_nan(bad[0] + bad[1]).any();
  }

  const AttentionHead<T>& h_;
  const i64 begin_, rows_, dv_;
  ForwardScratch<T> m_;
  const bool few_, plain_;
  bool alike_ = true;          // all rows see the same keys
  const T* values_ = nullptr;  // of the block, as the products read them
  i64 value_stride_ = 0;
};

}  // namespace vectile::VECTILE_TIER
