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

// Keys that query i (of its head) may see when masks are left aside: [0, limit).
template <class T>
VECTILE_INLINE i64 key_limit(const AttentionHead<T>& h, i64 i) {
  if (!h.causal) return h.lk;
  return larger(0, smaller(h.lk, i + h.lk - h.lq + 1));
}

// f(row's mask from key `first` on); the mask is a function (scores, j, lanes) -> scores.
template <class T, class F>
VECTILE_INLINE auto with_mask(const AttentionHead<T>& h, i64 head, i64 i, i64 first, F&& f) {
  using V = Vec<T>;
  const i64 offset = head * h.mask_head + i * h.mask_row + first;
  const V masked(-__builtin_inff());
  switch (h.mask_kind) {
    case MaskKind::boolean: {
      const auto* m = static_cast<const std::uint8_t*>(h.mask) + offset;
      return f([=](V s, i64 j, int n) VECTILE_LAMBDA {
        const V seen = n == V::lanes ? V::load(m + j) : V::load(m + j, n);
        return select(seen > V(T(0)), s, masked);
      });
    }
    case MaskKind::additive: {
      const auto* m = static_cast<const T*>(h.mask) + offset;
      return f([=](V s, i64 j, int n) VECTILE_LAMBDA {
        const V a = n == V::lanes ? V::load(m + j) : V::load(m + j, n);
        return select(a == masked, masked, fma(a, V(T(kLog2e)), s));
      });
    }
    default:
      return f([](V s, i64, int) VECTILE_LAMBDA { return s; });
  }
}

// y[j] = f(masked s[j], j) for j < n, in whole vectors (lanes past n see -inf), then zeros up to
// `width`; y may be s. Rows of s have room up to a whole vector.
template <class T, class Mask, class F>
VECTILE_INLINE void map_scores(const T* s, T* y, i64 n, i64 width, Mask mask, F&& f) {
  using V = Vec<T>;
  constexpr int w = V::lanes;
  i64 j = 0;
  for (; j + w <= n; j += w) f(mask(V::load(s + j), j, w), j).store(y + j);
  if (j < n) {
    const int m = static_cast<int>(n - j);
    const V v = mask(V::load(s + j), j, m);
    f(select(first_mask<T>(m), v, V(-__builtin_inff())), j).store(y + j);
    j += w;
  }
  for (; j < width; j += w) V(T(0)).store(y + j);
}

// Masks s[0, n) in place and returns its maximum (-inf when nothing is left, NaN if there is one).
template <class T, class Mask>
VECTILE_INLINE T mask_scores(T* s, i64 n, Mask mask) {
  Vec<T> top(-__builtin_inff());
  map_scores(s, s, n, 0, mask, [&](Vec<T> v, i64) VECTILE_LAMBDA {
    top = max(v, top);
    return v;
  });
  return reduce_max(top);
}

// s[j] = 2^(s[j] - origin) for j < n, zeros up to `width`; returns their sum.
template <class T>
VECTILE_INLINE T exponentials(T* s, i64 n, i64 width, T origin) {
  using V = Vec<T>;
  V total(T(0));
  const V shift(origin);
  map_scores(
      s, s, n, width, [](V v, i64, int) VECTILE_LAMBDA { return v; },
      [&](V v, i64) VECTILE_LAMBDA {
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

  void reset(i64 rows) {
    for (i64 r = 0; r < rows; ++r) top[r] = -__builtin_inff(), sum[r] = T(0);
  }
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
