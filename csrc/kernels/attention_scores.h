// What happens to a row of scores between the two products: masks, maximum, exponentials.
// Scores are in base 2 (scale and log2 e are folded into the queries); a masked score is -inf.
#pragma once

#include "kernels/attention_tile.h"

namespace vectile::VECTILE_TIER {

constexpr double kLn2 = 0.6931471805599453, kLog2e = 1.4426950408889634;

// 2^x for x <= 126, relative error <= 2.5e-7; from 2^-126.5 (and for -inf) exactly 0.
template <class T>
VECTILE_INLINE Vec<T> exp2_flushed(Vec<T> x) {
  if constexpr (sizeof(T) == 8) {
    return __builtin_exp2(x.v);
  } else {
    const Vec<T> y = max_number(x, Vec<T>(-127.f)), shifted = y + Vec<T>(kShift);
    const Vec<T> r = y - (shifted - Vec<T>(kShift));
    // (2^r - 1) / r
    const Vec<T> q =
        polynomial(r, 6.93147e-01f, 2.4022242e-01f, 5.5507336e-02f, 9.671513e-03f, 1.3264727e-03f);
    return times_power_of_two(fma(r, q, Vec<T>(1.f)), shifted);
  }
}

static inline KeyRange meet(KeyRange a, KeyRange b) {
  return {larger(a.begin, b.begin), smaller(a.end, b.end)};
}
static inline bool empty(KeyRange r) { return r.begin >= r.end; }
// The range counted from key `first`; an empty one is {0, 0}.
static inline KeyRange counted_from(i64 first, KeyRange r) {
  return empty(r) ? KeyRange{0, 0} : KeyRange{r.begin - first, r.end - first};
}
// The smallest range with the keys of both, the second of which may be empty.
static inline KeyRange hull(KeyRange a, KeyRange b) {
  if (empty(b)) return a;
  return empty(a) ? b : KeyRange{smaller(a.begin, b.begin), larger(a.end, b.end)};
}

// f(run) for the runs of block row `row` of head `head`, each cut to `keys`.
template <class F>
VECTILE_INLINE void over_runs(const AttentionMap& map, i64 head, i64 row, KeyRange keys, F&& f) {
  if (empty(keys)) return;
  const i64* start = map.run_start + head * map.run_head + row;
  i64 low = start[0], high = start[1];
  while (low < high) {  // to the first run that ends after keys.begin
    const i64 middle = (low + high) / 2;
    if (map.runs[middle].end > keys.begin)
      high = middle;
    else
      low = middle + 1;
  }
  for (; low < start[1] && map.runs[low].begin < keys.end; ++low) f(meet(map.runs[low], keys));
}

template <class T>
constexpr T kLane[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

// What changes the scores of one query elementwise, as a function of key first + j.
template <class T>
class ScoreTerms {
  using V = Vec<T>;

 public:
  static constexpr bool plain = false;

  ScoreTerms(const AttentionHead<T>& h, i64 head, i64 i, i64 first)
      : cap_in_(h.softcap == T(0) ? T(0) : T(kLn2) / h.softcap),
        cap_out_(h.softcap * T(kLog2e)),
        alibi_(h.slopes ? -h.slopes[head] * T(kLog2e) : T(0)),
        distance_(T(first - h.map.position[i])),
        mask_dtype_(h.mask_dtype) {
    if (h.mask) {
      const bool half = mask_dtype_ == DType::f16 || mask_dtype_ == DType::bf16;
      const i64 size = mask_dtype_ == DType::boolean ? 1 : half ? 2 : sizeof(T);
      mask_ =
          static_cast<const char*>(h.mask) + (head * h.mask_head + i * h.mask_row + first) * size;
    }
    if (h.documents) {
      documents_ = h.documents + first;
      document_ = h.query_documents[i];
    }
  }

  // `slope` becomes the derivative by s of what is returned.
  VECTILE_INLINE V with_slope(V s, i64 j, int n, V& slope) const {
    const V masked(-__builtin_inff());
    slope = V(T(1));
    if (cap_in_ != T(0)) {
      const V t = tanh(s * V(cap_in_));
      slope = fnma(t, t, slope);
      s = t * V(cap_out_);
    }
    if (alibi_ != T(0)) s = fma(abs(V::load(kLane<T>) + V(T(j) + distance_)), V(alibi_), s);
    if (mask_) {
      if (mask_dtype_ == DType::boolean) {
        const auto* m = reinterpret_cast<const std::uint8_t*>(mask_) + j;
        s = select((n == V::lanes ? V::load(m) : V::load(m, n)) > V(T(0)), s, masked);
      } else {
        as_stored<T>(mask_dtype_, mask_, [&](const auto* m) VECTILE_LAMBDA {
          const V a = n == V::lanes ? load_as<V>(m + j) : load_as<V>(m + j, n);
          s = select(a == masked, masked, fma(a, V(T(kLog2e)), s));
        });
      }
    }
    if (documents_) {
      const V d = n == V::lanes ? V::load(documents_ + j) : V::load(documents_ + j, n);
      s = select(d == V(document_), s, masked);
    }
    return s;
  }
  VECTILE_INLINE V operator()(V s, i64 j, int n) const {
    V slope;
    return with_slope(s, j, n, slope);
  }

 private:
  T cap_in_, cap_out_, alibi_, distance_, document_ = T(0);
  DType mask_dtype_;
  const char* mask_ = nullptr;
  const T* documents_ = nullptr;
};

// The same where it is a boolean mask alone.
template <class T>
class SeenTerms {
  using V = Vec<T>;

 public:
  static constexpr bool plain = true;
  explicit SeenTerms(const std::uint8_t* seen) : seen_(seen) {}
  VECTILE_INLINE V operator()(V s, i64 j, int n) const {
    const V seen = n == V::lanes ? V::load(seen_ + j) : V::load(seen_ + j, n);
    return select(seen > V(T(0)), s, V(-__builtin_inff()));
  }

 private:
  const std::uint8_t* seen_;
};

// The same where nothing does.
struct NoTerms {
  static constexpr bool plain = true;
  template <class V>
  VECTILE_INLINE V operator()(V s, i64, int) const {
    return s;
  }
};

template <class T>
VECTILE_INLINE bool is_plain(const AttentionHead<T>& h) {
  return h.softcap == T(0) && !h.slopes && !h.mask && !h.documents && !h.dropout;
}

// f(terms) for query i of a head whose scores are not plain, from key `first` on.
template <class T, class F>
VECTILE_INLINE void with_terms(const AttentionHead<T>& h, i64 head, i64 i, i64 first, F&& f) {
  const bool more = h.softcap != T(0) || h.slopes || h.documents || h.dropout;
  if (h.mask && h.mask_dtype == DType::boolean && !more)
    f(SeenTerms<T>(static_cast<const std::uint8_t*>(h.mask) + head * h.mask_head + i * h.mask_row +
                   first));
  else
    f(ScoreTerms<T>(h, head, i, first));
}

// y[j] = f(terms of s[j], j) for j in `keys`, in whole vectors (lanes outside see -inf), zeros
// before it and up to `width`; y may be s. Rows of s have room up to a whole vector.
template <class T, class Terms, class F>
VECTILE_INLINE void map_scores(const T* s, T* y, KeyRange keys, i64 width, Terms terms, F&& f) {
  using V = Vec<T>;
  constexpr int w = V::lanes;
  const V masked(-__builtin_inff());
  i64 j = 0;
  for (; j + w <= keys.begin; j += w) V(T(0)).store(y + j);
  if (j < keys.begin) {
    const int m = static_cast<int>(smaller(w, keys.end - j));
    const V v = terms(V::load(s + j), j, m);
    const auto outside = first_mask<T>(static_cast<int>(keys.begin - j));
    f(select(outside, masked, select(first_mask<T>(m), v, masked)), j).store(y + j);
    j += w;
  }
  for (; j + w <= keys.end; j += w) f(terms(V::load(s + j), j, w), j).store(y + j);
  if (j < keys.end) {
    const int m = static_cast<int>(keys.end - j);
    const V v = terms(V::load(s + j), j, m);
    f(select(first_mask<T>(m), v, masked), j).store(y + j);
    j += w;
  }
  for (; j < width; j += w) V(T(0)).store(y + j);
}

// Applies the terms to s[keys] in place and returns the maximum (-inf when nothing is left, NaN if
// there is one).
template <class T, class Terms>
VECTILE_INLINE T apply_terms(T* s, KeyRange keys, Terms terms) {
  using V = Vec<T>;
  V top(-__builtin_inff());
  if constexpr (std::is_same_v<Terms, NoTerms>) {
    i64 j = keys.begin;
    for (; j + V::lanes <= keys.end; j += V::lanes) top = max(V::load(s + j), top);
    if (j < keys.end) {
      const int m = static_cast<int>(keys.end - j);
      top = max(select(first_mask<T>(m), V::load(s + j, m), V(-__builtin_inff())), top);
    }
  } else {
    map_scores(s, s, keys, 0, terms, [&](V v, i64) VECTILE_LAMBDA {
      top = max(v, top);
      return v;
    });
  }
  return reduce_max(top);
}

// s[j] = 2^(s[j] - origin) for j in `keys`, zeros elsewhere up to `width`; returns their sum.
template <class T>
VECTILE_INLINE T exponentials(T* s, KeyRange keys, i64 width, T origin) {
  using V = Vec<T>;
  V total(T(0));
  const V shift(origin);
  map_scores(s, s, keys, width, NoTerms{}, [&](V v, i64) VECTILE_LAMBDA {
    const V e = exp2_flushed(v - shift);
    total += e;
    return e;
  });
  return reduce_add(total);
}

// f(j, lanes) for vectors of rows [0, n)
template <class T, class F>
VECTILE_INLINE void over_rows(i64 n, F&& f) {
  for (i64 j = 0; j < n; j += Vec<T>::lanes) f(j, static_cast<int>(smaller(Vec<T>::lanes, n - j)));
}

// The running softmax of some rows: the maximum and the sum of exponentials so far.
template <class T>
struct RunningSoftmax {
  using V = Vec<T>;
  T *top, *sum;

  void reset(i64 r) { top[r] = -__builtin_inff(), sum[r] = T(0); }
  void reset(i64 r, T score2) { top[r] = score2, sum[r] = T(1); }  // one key of that score was seen
  // Takes the maxima of the next block of rows [r, r + n). The block's exponentials are taken about
  // `origin`; `factor` brings what was accumulated before to that origin.
  VECTILE_INLINE void raise(i64 r, i64 n, const T* maxima, T* origin, T* factor) {
    over_rows<T>(n, [&](i64 j, int m) VECTILE_LAMBDA {
      const V before = V::load(top + r + j, m), now = max(before, V::load(maxima + j, m));
      const V shift = select(now == V(-__builtin_inff()), V(T(0)), now);
      now.store(top + r + j, m);
      shift.store(origin + j, m);
      exp2_flushed(before - shift).store(factor + j, m);
    });
  }
  VECTILE_INLINE void add(i64 r, i64 n, const T* sums, const T* factor) {
    over_rows<T>(n, [&](i64 j, int m) VECTILE_LAMBDA {
      fma(V::load(sum + r + j, m), V::load(factor + j, m), V::load(sums + j, m))
          .store(sum + r + j, m);
    });
  }
  // log2 of the sum of all exponentials; -inf for a row that saw none.
  void write_lse2(i64 rows, T* lse2) const {
    over_rows<T>(rows, [&](i64 j, int m) VECTILE_LAMBDA {
      const V t = V::load(top + j, m), none(-__builtin_inff());
      select(t == none, none, fma(log(V::load(sum + j, m)), V(T(kLog2e)), t)).store(lse2 + j, m);
    });
  }
};

// 2^(s - lse), 0 where masked
template <class T>
VECTILE_INLINE Vec<T> probability(Vec<T> s, Vec<T> lse2) {
  const Vec<T> none(-__builtin_inff());
  return select(s == none, Vec<T>(T(0)), exp2_flushed(s - lse2));
}

}  // namespace vectile::VECTILE_TIER
