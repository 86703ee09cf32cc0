// layer_norm: y = (x - mean) rstd weight + bias;  rms_norm: y = x rstd weight, row by row.
// Centred two-pass: 1. m = mean, rounded to T; 2. sums of d = x - m and of d²; 3. output. sum d / n
// is what rounding took from the mean, so x - mean = d - sum d / n holds even where |mean| is far
// above the spread, and variance = sum d² / n - (sum d / n)² loses nothing: its second term is
// tiny.
#include "kernels/norm_groups.h"
#include "kernels/rows.h"
#include "simd/math.h"

namespace vectile::VECTILE_TIER {

// y = (x - m) scale + offset, then weight and bias where there are any.
template <class T>
static void scale_row(const T* x, T m, T scale, T offset, const T* weight, const T* bias, Out<T> y,
                      i64 n) {
  using V = Vec<T>;
  const V vm(m), vs(scale), vo(offset);
  const auto unit = [&](i64 j, auto... k) VECTILE_LAMBDA {
    prefetch(x + n + j);
    return fma(V::load(x + j, k...) - vm, vs, vo);
  };
  if (weight && bias)
    row_map(y, n, [&](i64 j, auto... k) VECTILE_LAMBDA {
      return fma(unit(j, k...), V::load(weight + j, k...), V::load(bias + j, k...));
    });
  else if (weight)
    row_map(y, n, [&](i64 j, auto... k) VECTILE_LAMBDA {
      return unit(j, k...) * V::load(weight + j, k...);
    });
  else if (bias)
    row_map(y, n, [&](i64 j, auto... k) VECTILE_LAMBDA {
      return unit(j, k...) + V::load(bias + j, k...);
    });
  else
    row_map(y, n, unit);
}

template <class T>
static void layer_norm(const T* x, const T* weight, const T* bias, double eps, Out<T> y, T* mean,
                       T* rstd, i64 rows, i64 n) {
  using V = Vec<T>;
  const double share = 1 / static_cast<double>(n);
  for (i64 r = 0; r < rows; ++r, x += n, y = y.at(n)) {
    const auto sum = row_sums<T>(
        n, [&](auto& s, i64 j, auto... k) VECTILE_LAMBDA { s.a += V::load(x + j, k...); });
    const T m = static_cast<T>(sum.a * share);
    const V vm(m);
    const auto s = row_sums<T>(n, [&](auto& s, i64 j, auto... k) VECTILE_LAMBDA {
      const V d = V::load(x + j, k...) - vm;
      s.a += d;
      s.b = fma(d, d, s.b);
    });
    const double lost = s.a * share, variance = s.b * share - lost * lost;
    const double scale = 1 / __builtin_sqrt((variance < 0 ? 0 : variance) + eps);
    scale_row(x, m, static_cast<T>(scale), static_cast<T>(-lost * scale), weight, bias, y, n);
    if (mean) mean[r] = static_cast<T>(m + lost);
    if (rstd) rstd[r] = static_cast<T>(scale);
  }
  finish(y);
}

template <class T>
static void rms_norm(const T* x, const T* weight, double eps, Out<T> y, T* rstd, i64 rows, i64 n) {
  using V = Vec<T>;
  const double share = 1 / static_cast<double>(n);
  for (i64 r = 0; r < rows; ++r, x += n, y = y.at(n)) {
    const auto s = row_sums<T>(n, [&](auto& s, i64 j, auto... k) VECTILE_LAMBDA {
      const V v = V::load(x + j, k...);
      s.a = fma(v, v, s.a);
    });
    const T scale = static_cast<T>(1 / __builtin_sqrt(s.a * share + eps));
    scale_row(x, T(0), scale, T(0), weight, static_cast<const T*>(nullptr), y, n);
    if (rstd) rstd[r] = scale;
  }
  finish(y);
}

// With u = (x - mean) rstd and g = grad·weight, per row:
//   dx = rstd (g - mean(g) - u mean(g u)),  dweight = sum of grad·u,  dbias = sum of grad.
// rms_norm is the same with mean = 0 and without the term mean(g). Pass 1 sums g, g·d and d = x -
// mean, whose sum is what the mean lost to rounding, as in the forward; pass 2 writes R rows at
// once, so that the running dweight and dbias are read and written once for all of them.
template <bool centred, bool weighted, int R, class T>
VECTILE_INLINE void norm_backward_rows(const T* grad, const T* x, const T* weight, const T* mean,
                                       const T* rstd, T* dx, T* dweight, T* dbias, i64 n) {
  using V = Vec<T>;
  const double share = 1 / static_cast<double>(n);
  // u = d scale + u0;  dx = g scale + d c1 + c0
  T m[R], scale[R], u0[R], c1[R], c0[R];
  for (int r = 0; r < R; ++r) {
    m[r] = centred ? mean[r] : T(0);
    const V shift(m[r]);
    const auto s = row_sums<T>(n, [&](auto& s, i64 j, auto... k) VECTILE_LAMBDA {
      V g = V::load(grad + r * n + j, k...);
      if constexpr (weighted) g *= V::load(weight + j, k...);
      const V d = V::load(x + r * n + j, k...) - shift;
      s.a = fma(g, d, s.a);
      if constexpr (centred) {
        s.b += g;
        s.c += d;
      }
    });
    const double inverse = rstd[r], lost = s.c * share, g_mean = s.b * share;
    const double gu = (s.a * share - lost * g_mean) * inverse;  // mean(g u)
    scale[r] = rstd[r];
    u0[r] = static_cast<T>(-lost * inverse);
    c1[r] = static_cast<T>(-gu * inverse * inverse);
    c0[r] = static_cast<T>((lost * inverse * gu - g_mean) * inverse);
  }
  row_each<T>(n, [&](i64 j, auto... k) VECTILE_LAMBDA {
    V w, dw, db;
    if constexpr (weighted) {
      w = V::load(weight + j, k...);
      dw = V::load(dweight + j, k...);
      if constexpr (centred) db = V::load(dbias + j, k...);
    }
    for (int r = 0; r < R; ++r) {
      const V d = V::load(x + r * n + j, k...) - V(m[r]);
      V g = V::load(grad + r * n + j, k...);
      if constexpr (weighted) {
        dw = fma(g, fma(d, V(scale[r]), V(u0[r])), dw);
        if constexpr (centred) db += g;
        g *= w;
      }
      fma(g, V(scale[r]), fma(d, V(c1[r]), V(c0[r]))).store(dx + r * n + j, k...);
    }
    if constexpr (weighted) {
      dw.store(dweight + j, k...);
      if constexpr (centred) db.store(dbias + j, k...);
    }
  });
}

template <bool centred, bool weighted, class T>
static void norm_backward(const T* grad, const T* x, const T* weight, const T* mean, const T* rstd,
                          T* dx, T* dweight, T* dbias, i64 rows, i64 n) {
  constexpr int R = weighted ? 2 : 1;  // more rows collide in L1 where they lie 4 KiB apart
  if constexpr (weighted)
    row_each<T>(n, [&](i64 j, auto... k) VECTILE_LAMBDA {
      Vec<T>().store(dweight + j, k...);
      if constexpr (centred) Vec<T>().store(dbias + j, k...);
    });
  i64 r = 0;
  for (; r + R <= rows; r += R)
    norm_backward_rows<centred, weighted, R>(grad + r * n, x + r * n, weight, mean + r, rstd + r,
                                             dx + r * n, dweight, dbias, n);
  for (; r < rows; ++r)
    norm_backward_rows<centred, weighted, 1>(grad + r * n, x + r * n, weight, mean + r, rstd + r,
                                             dx + r * n, dweight, dbias, n);
}

template <class T>
static void layer_norm_backward(const T* grad, const T* x, const T* weight, const T* mean,
                                const T* rstd, T* dx, T* dweight, T* dbias, i64 rows, i64 n) {
  const auto body = weight ? norm_backward<true, true, T> : norm_backward<true, false, T>;
  body(grad, x, weight, mean, rstd, dx, dweight, dbias, rows, n);
}

template <class T>
static void rms_norm_backward(const T* grad, const T* x, const T* weight, const T* rstd, T* dx,
                              T* dweight, i64 rows, i64 n) {
  const auto body = weight ? norm_backward<false, true, T> : norm_backward<false, false, T>;
  body(grad, x, weight, nullptr, rstd, dx, dweight, nullptr, rows, n);
}

}  // namespace vectile::VECTILE_TIER

#include "kernels/register.h"
