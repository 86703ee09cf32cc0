// batch_norm, group_norm, instance_norm: y = (x - mean) rstd weight + bias over groups of channel
// segments (NormGroup). Centred two-pass with the correction that norm.cpp explains: d = x - m with
// m the rounded mean, and sum d / count is what rounding took.
#pragma once

#include "kernels/norm_types.h"
#include "kernels/rows.h"

namespace vectile::VECTILE_TIER {

// f(i) and f(i, m) as in row_each, for the runs of one parameter; i counts from the group's start.
template <class T, class F>
VECTILE_INLINE void segments_each(const NormGroup& g, i64 p, F f) {
  for (i64 q = 0; q < g.segments; ++q) {
    const i64 at = p * g.parameter_stride + q * g.segment_stride;
    row_each<T>(g.n, [&](i64 j, auto... k) VECTILE_LAMBDA { f(at + j, k...); });
  }
}

// The sums of row_sums over the runs of one parameter, with its bound. Short runs share
// accumulators, which are folded once kRowBlock elements have gone into them.
template <class T, class F>
VECTILE_INLINE Sums<double> segment_sums(const NormGroup& g, i64 p, F f) {
  using V = Vec<T>;
  constexpr i64 w = V::lanes, kShort = 16 * w;
  Sums<double> total{0, 0, 0};
  const i64 base = p * g.parameter_stride;
  if (g.n >= kShort) {
    for (i64 q = 0; q < g.segments; ++q) {
      const i64 at = base + q * g.segment_stride;
      add(total,
          row_sums<T>(g.n, [&](auto& s, i64 j, auto... k) VECTILE_LAMBDA { f(s, at + j, k...); }));
    }
    return total;
  }
  const int tail = static_cast<int>(g.n % w);
  const i64 whole = g.n - tail, block = kRowBlock / g.n;
  const auto live = first_mask<T>(tail);
  for (i64 q = 0; q < g.segments;) {
    Sums<V> s0, s1;
    const i64 end = q + block < g.segments ? q + block : g.segments;
    for (; q < end; ++q) {
      const i64 at = base + q * g.segment_stride;
      i64 j = 0;
      for (; j + 2 * w <= whole; j += 2 * w) {
        f(s0, at + j);
        f(s1, at + j + w);
      }
      if (j < whole) f(s0, at + j);
      if (tail) {
        Sums<V> last;
        f(last, at + whole, tail);
        add(s1, {select(live, last.a, V()), select(live, last.b, V()), select(live, last.c, V())});
      }
    }
    add(s0, s1);
    add(total, {reduce_add(s0.a), reduce_add(s0.b), reduce_add(s0.c)});
  }
  return total;
}

template <class T>
static void group_norm(const T* x, const T* weight, const T* bias, double eps, Out<T> y, T* mean,
                       T* rstd, T* variance, NormGroup g) {
  using V = Vec<T>;
  const double share = 1 / static_cast<double>(g.parameters * g.segments * g.n);
  double sum = 0;
  for (i64 p = 0; p < g.parameters; ++p)
    sum += segment_sums<T>(g, p, [&](auto& s, i64 i, auto... k) VECTILE_LAMBDA {
             s.a += V::load(x + i, k...);
           }).a;
  const T m = static_cast<T>(sum * share);
  const V vm(m);
  double centred = 0, squares = 0;
  for (i64 p = 0; p < g.parameters; ++p) {
    const auto s = segment_sums<T>(g, p, [&](auto& s, i64 i, auto... k) VECTILE_LAMBDA {
      const V d = V::load(x + i, k...) - vm;
      s.a += d;
      s.b = fma(d, d, s.b);
    });
    centred += s.a;
    squares += s.b;
  }
  const double lost = centred * share, v = squares * share - lost * lost;
  const double scale = 1 / __builtin_sqrt((v < 0 ? 0 : v) + eps);
  for (i64 p = 0; p < g.parameters; ++p) {
    const double slope = weight ? scale * weight[p] : scale;
    const V vs(static_cast<T>(slope)), vo(static_cast<T>((bias ? bias[p] : 0) - lost * slope));
    for (i64 q = 0; q < g.segments; ++q) {
      const i64 at = p * g.parameter_stride + q * g.segment_stride;
      row_map(y.at(at), g.n, [&](i64 j, auto... k) VECTILE_LAMBDA {
        return fma(V::load(x + at + j, k...) - vm, vs, vo);
      });
    }
  }
  finish(y);
  *mean = static_cast<T>(m + lost);
  *rstd = static_cast<T>(scale);
  if (variance) *variance = static_cast<T>(v < 0 ? 0 : v);
}

// y = (x - mean) scale + offset, row by row.
template <class T>
static void affine_rows(const T* x, const T* mean, const T* scale, const T* offset, Out<T> y,
                        i64 rows, i64 first, i64 channels, i64 n) {
  using V = Vec<T>;
  for (i64 r = 0, c = first; r < rows; ++r, x += n, y = y.at(n)) {
    const V vm(mean[c]), vs(scale[c]), vo(offset[c]);
    row_map(y, n, [&](i64 j, auto... k) VECTILE_LAMBDA {
      return fma(V::load(x + j, k...) - vm, vs, vo);
    });
    if (++c == channels) c = 0;
  }
  finish(y);
}

// With u = (x - mean) rstd and h = grad·weight, over the group:
//   dx = rstd (h - mean(h) - u mean(h u)), or rstd h where the statistics are constants,
//   dweight = sum of grad·u and dbias = sum of grad over the runs of a parameter.
template <class T>
static void group_norm_backward(const T* grad, const T* x, const T* weight, T mean, T rstd,
                                bool constant, Out<T> dx, T* dweight, T* dbias, NormGroup g) {
  using V = Vec<T>;
  const V vm(mean);
  Sums<double> total{0, 0, 0};  // of h d, h and d
  for (i64 p = 0; p < g.parameters; ++p) {
    const auto s = segment_sums<T>(g, p, [&](auto& s, i64 i, auto... k) VECTILE_LAMBDA {
      const V v = V::load(grad + i, k...), d = V::load(x + i, k...) - vm;
      s.a = fma(v, d, s.a);
      s.b += v;
      s.c += d;
    });
    const double w = weight ? weight[p] : 1;
    add(total, {s.a * w, s.b * w, s.c});
    if (dweight) {
      dweight[p] = static_cast<T>(s.a);
      dbias[p] = static_cast<T>(s.b);
    }
  }
  const double share = 1 / static_cast<double>(g.parameters * g.segments * g.n), inverse = rstd;
  const double lost = constant ? 0 : total.c * share, h = total.b * share;
  const double hu = (total.a * share - lost * h) * inverse;
  // dx = grad (rstd weight) + d c1 + c0
  const V c1(constant ? T(0) : static_cast<T>(-hu * inverse * inverse));
  const V c0(constant ? T(0) : static_cast<T>((lost * inverse * hu - h) * inverse));
  for (i64 p = 0; p < g.parameters; ++p) {
    const V scale(static_cast<T>(weight ? inverse * weight[p] : inverse));
    for (i64 q = 0; q < g.segments; ++q) {
      const i64 at = p * g.parameter_stride + q * g.segment_stride;
      if (constant)
        row_map(dx.at(at), g.n, [&](i64 j, auto... k) VECTILE_LAMBDA {
          return V::load(grad + at + j, k...) * scale;
        });
      else
        row_map(dx.at(at), g.n, [&](i64 j, auto... k) VECTILE_LAMBDA {
          const V d = V::load(x + at + j, k...) - vm;
          return fma(V::load(grad + at + j, k...), scale, fma(d, c1, c0));
        });
    }
    if (dweight) dweight[p] = static_cast<T>((dweight[p] - lost * dbias[p]) * inverse);
  }
  finish(dx);
}

}  // namespace vectile::VECTILE_TIER
