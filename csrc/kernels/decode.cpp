// Attention of the newest tokens to a cache of keys and values (Flash-Decoding: pieces of the keys
// run apart and are merged by their log-sum-exp).
//
// For each kDecodeKeys keys: 1. scores of all rows; 2. terms (softcap, bias, masks), running
// maximum, exponentials; 3. rescale and add P V. Products read the cache itself.
//
// A key that a row does not see may hold anything, NaN included: where rows see different keys,
// each adds the values of its own.
#include "kernels/decode_append.h"
#include "kernels/decode_bytes.h"

namespace vectile::VECTILE_TIER {

template <class T, class S>
class Decode {
 public:
  using V = Vec<T>;

  Decode(const AttentionHead<T>& head, const DecodeCache& cache, i64 begin, i64 end, T* partial,
         T* scratch)
      : h_(head),
        c_(cache),
        begin_(begin),
        rows_(end - begin),
        q_row_(decode_padded(head.d)),
        acc_row_(decode_padded(head.dv)),
        step_(rows_ == 1 ? kDecodeKeys : kDecodeKeys / 2),
        plain_(is_plain(head)),
        words_(scaled && kBytesAsWords && head.d <= kWordDepth),
        ahead_(rows_ > 1 || cache.block_size < step_),
        queries_(scratch),
        acc_(partial + 2 * kDecodeRows),
        softmax_{partial, partial + kDecodeRows} {
    const V scale(T(h_.scale * T(kLog2e)));
    as_stored<T>(h_.dtype, h_.query, [&](const auto* q) {
      for (i64 r = 0; r < rows_; ++r)
        map_padded(q + head_of(r) * h_.query_head + query_of(r) * h_.query_row,
                   queries_ + r * q_row_, h_.d, [=](V v) VECTILE_LAMBDA { return v * scale; });
    });
    if constexpr (scaled)
      if (words_)
        for (i64 r = 0; r < rows_; ++r)
          query_scale_[r] = to_words(queries_ + r * q_row_, h_.d, query_words(r));
    for (i64 r = 0; r < rows_; ++r) softmax_.reset(r);
    for (i64 i = 0; i < rows_ * acc_row_; ++i) acc_[i] = T(0);
  }

  void run(KeyRange keys) {
    end_ = keys.end;
    for (i64 first = keys.begin; first < keys.end; first += step_)
      add_keys({first, smaller(first + step_, keys.end)});
  }

 private:
  static constexpr bool scaled = std::is_same_v<S, std::int8_t>;

  i64 head_of(i64 r) const { return (begin_ + r) / h_.lq; }
  i64 query_of(i64 r) const { return (begin_ + r) % h_.lq; }
  // Behind the queries, a row of words in the place of q_row_ / 2 elements.
  std::int16_t* query_words(i64 r) {
    return reinterpret_cast<std::int16_t*>(queries_ + kDecodeRows * q_row_) + r * q_row_;
  }
  T* score_row(i64 r) { return scores_ + r * kDecodeStride; }
  KeyRange seen(i64 r, KeyRange keys) const { return meet(h_.map.keys[query_of(r)], keys); }

  void add_keys(KeyRange keys) {
    KeyRange all{0, 0};
    for (i64 r = 0; r < rows_; ++r) all = hull(all, seen(r, keys));
    if (empty(all)) return;
    bool alike = true;
    for (i64 r = 0; r < rows_; ++r) {
      ranges_[r] = counted_from(all.begin, seen(r, all));
      alike = alike && ranges_[r].end - ranges_[r].begin == all.end - all.begin;
    }
    cut(all, all.begin);
    row_groups<kTileRows>(0, rows_, [&](auto mr, i64 r) { score<mr>(r); });
    T maxima[kDecodeRows], origin[kDecodeRows], factor[kDecodeRows], sums[kDecodeRows];
    for (i64 r = 0; r < rows_; ++r) {
      if constexpr (scaled)
        multiply(score_row(r), words_ ? query_scale_[r] : T(1), &DecodePiece<S>::key_scale);
      maxima[r] = apply_to_row(r, all.begin);
    }
    softmax_.raise(0, rows_, maxima, origin, factor);
    for (i64 r = 0; r < rows_; ++r) sums[r] = exponentials(score_row(r), ranges_[r], 0, origin[r]);
    softmax_.add(0, rows_, sums, factor);
    if (alike) {
      for (i64 r = 0; r < rows_; ++r) scale_weights(r);
      row_groups<kTileRows>(0, rows_, [&](auto mr, i64 r) { add_values<mr>(r, factor); });
    } else {
      for (i64 r = 0; r < rows_; ++r) {
        cut({all.begin + ranges_[r].begin, all.begin + ranges_[r].end}, all.begin);
        scale_weights(r);
        add_values<1>(r, factor);
      }
    }
  }

  // The pieces of the cache that hold `keys`; column 0 is key `first`.
  void cut(KeyRange keys, i64 first) {
    count_ = 0;
    for (i64 key = keys.begin; key < keys.end;) {
      const i64 block = c_.table[key / c_.block_size], row = key % c_.block_size;
      const i64 n = smaller(c_.block_size - row, keys.end - key);
      DecodePiece<S>& piece = pieces_[count_++];
      piece.key = static_cast<const S*>(c_.key) + block * c_.key_block + row * h_.d;
      piece.value = static_cast<const S*>(c_.value) + block * c_.value_block + row * h_.dv;
      if constexpr (scaled) {
        piece.key_scale = c_.key_scales + block * c_.scale_block + row;
        piece.value_scale = c_.value_scales + block * c_.scale_block + row;
      }
      const i64 later = key + step_;
      piece.next = ahead_ && later < end_ ? static_cast<const S*>(c_.key) +
                                                c_.table[later / c_.block_size] * c_.key_block +
                                                later % c_.block_size * h_.d
                                          : nullptr;
      piece.column = key - first;
      piece.count = n;
      key += n;
    }
  }

  template <int MR>
  VECTILE_INLINE void score(i64 r) {
    for (int x = 0; x < count_; ++x) {
      const auto rows = [&](const auto* q) VECTILE_LAMBDA {
        score_rows<T, S, MR>(q, q_row_, pieces_[x], h_.d, h_.dv, ahead_ && r == 0, score_row(r));
      };
      if constexpr (scaled && kBytesAsWords)
        if (words_) {
          rows(query_words(r));
          continue;
        }
      rows(queries_ + r * q_row_);
    }
  }

  template <int MR>
  VECTILE_INLINE void add_values(i64 r, const T* factor) {
    T* acc = acc_ + r * acc_row_;
    if constexpr (scaled && kBytesAsWords)
      value_rows_words<MR>(weights_ + r * kDecodeStride, score_row(r), pieces_, count_, h_.dv, acc,
                           acc_row_, factor + r, weight_scale_ + r);
    else
      value_rows<T, S, MR>(score_row(r), pieces_, count_, 0, h_.dv, acc, acc_row_, factor + r);
  }

  // The weights of what the pieces hold, as their values need them.
  void scale_weights(i64 r) {
    if constexpr (scaled) {
      multiply(score_row(r), T(1), &DecodePiece<S>::value_scale);
      if constexpr (kBytesAsWords) {
        const i64 first = count_ ? pieces_[0].column : 0;
        const i64 end = count_ ? pieces_[count_ - 1].column + pieces_[count_ - 1].count : 0;
        weight_scale_[r] =
            to_words(score_row(r) + first, end - first, weights_ + r * kDecodeStride + first);
      }
    }
  }

  // A row times a factor and what each token of the pieces is scaled by.
  void multiply(T* s, T factor, const float* DecodePiece<S>::* scale) {
    for (int x = 0; x < count_; ++x) {
      T* y = s + pieces_[x].column;
      row_each<T>(pieces_[x].count, [&](i64 j, auto... m) VECTILE_LAMBDA {
        (V::load(y + j, m...) * V(factor) * V::load(pieces_[x].*scale + j, m...))
            .store(y + j, m...);
      });
    }
  }

  T apply_to_row(i64 r, i64 first) {
    T* s = score_row(r);
    const KeyRange k = ranges_[r];
    if (plain_) return apply_terms(s, k, NoTerms{});
    T top;
    with_terms(h_, head_of(r), query_of(r), first,
               [&](auto terms) { top = apply_terms(s, k, terms); });
    return top;
  }

  const AttentionHead<T>& h_;
  const DecodeCache& c_;
  const i64 begin_, rows_, q_row_, acc_row_, step_;
  const bool plain_, words_, ahead_;
  T *queries_, *acc_;
  RunningSoftmax<T> softmax_;
  i64 end_ = 0;
  int count_ = 0;
  KeyRange ranges_[kDecodeRows];  // of the columns of the scores
  DecodePiece<S> pieces_[kDecodeKeys];
  T scores_[kDecodeRows * kDecodeStride];
  // Of a cache of bytes: the weights as words, and the scales of words.
  static constexpr i64 kWordRows = scaled && kBytesAsWords ? kDecodeRows : 1;
  std::int16_t weights_[kWordRows * kDecodeStride];
  T query_scale_[kDecodeRows], weight_scale_[kDecodeRows];
};

// f(element of the cache)
template <class T, class F>
VECTILE_INLINE void as_cached(DType dtype, F&& f) {
  if constexpr (sizeof(T) == 4) {
    if (dtype == DType::f16) return f(Float16{});
    if (dtype == DType::bf16) return f(BFloat16{});
    if (dtype == DType::i8) return f(std::int8_t{});
  }
  f(T{});
}

template <class T>
static void decode_attention(const AttentionHead<T>& head, const DecodeCache& cache, i64 begin,
                             i64 end, KeyRange keys, T* partial, T* scratch) {
  as_cached<T>(cache.dtype, [&](auto s) {
    Decode<T, decltype(s)>(head, cache, begin, end, partial, scratch).run(keys);
  });
}

template <class T>
static void decode_merge(const AttentionHead<T>& head, i64 begin, i64 end, T* partials, i64 count,
                         void* out, T* lse) {
  using V = Vec<T>;
  const i64 rows = end - begin, acc_row = decode_padded(head.dv);
  const i64 size = decode_partial(rows, head.dv);
  T top[kDecodeRows], sum[kDecodeRows], origin[kDecodeRows], factor[kDecodeRows];
  T share[kDecodeRows], sums[kDecodeRows];
  RunningSoftmax<T> softmax{top, sum};
  for (i64 r = 0; r < rows; ++r)
    if (head.sinks)
      softmax.reset(r, head.sinks[(begin + r) / head.lq] * T(kLog2e));
    else
      softmax.reset(r);
  T* acc = partials + 2 * kDecodeRows;
  for (i64 c = 0; c < count; ++c) {
    const T *part = partials + c * size, *values = part + 2 * kDecodeRows;
    softmax.raise(0, rows, part, origin, factor);
    over_rows<T>(rows, [&](i64 j, int m) VECTILE_LAMBDA {
      const V weight = exp2_flushed(V::load(part + j, m) - V::load(origin + j, m));
      weight.store(share + j, m);
      (weight * V::load(part + kDecodeRows + j, m)).store(sums + j, m);
    });
    softmax.add(0, rows, sums, factor);
    for (i64 r = 0; r < rows; ++r)
      over_rows<T>(head.dv, [&](i64 j, int) VECTILE_LAMBDA {
        const i64 at = r * acc_row + j;
        const V more = V::load(values + at) * V(share[r]);
        (c ? fma(V::load(acc + at), V(factor[r]), more) : more).store(acc + at);
      });
  }
  as_stored<T>(head.dtype, out, [&](auto* y) {
    for (i64 r = 0; r < rows; ++r) {
      const V norm(sum[r] == T(0) ? T(0) : T(1) / sum[r]);
      over_rows<T>(head.dv, [&](i64 j, int m) VECTILE_LAMBDA {
        const V v = count ? V::load(acc + r * acc_row + j) * norm : V(T(0));
        store_as(v, y + (begin + r) * head.dv + j, m);
      });
    }
  });
  if (!lse) return;
  softmax.write_lse2(rows, share);
  for (i64 r = 0; r < rows; ++r) lse[begin + r] = share[r] * T(kLn2);
}

template <class T>
static void append_rows(const void* x, DType dtype, i64 stride, i64 rows, i64 n, void* cache,
                        DType cache_dtype, float* scales) {
  as_stored<T>(dtype, x, [&](const auto* from) {
    as_cached<T>(cache_dtype, [&](auto s) {
      auto* to = static_cast<decltype(s)*>(cache);
      for (i64 i = 0; i < rows; ++i) append_row<T>(from + i * stride, n, to + i * n, scales + i);
    });
  });
}

}  // namespace vectile::VECTILE_TIER

#include "kernels/register.h"
