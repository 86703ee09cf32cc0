// layer_norm: y = (x - mean) rstd weight + bias;  rms_norm: y = x rstd weight, row by row.
// Centred two-pass: 1. m = mean, rounded to T; 2. sums of d = x - m and of d²; 3. output. sum d / n
// is what rounding took from the mean, so x - mean = d - sum d / n holds even where |mean| is far
// above the spread, and variance = sum d² / n - (sum d / n)² loses nothing: its second term is
// tiny.
#include "kernels/rows.h"
#include "simd/math.h"

namespace vectile::VECTILE_TIER {

// y = (x - m) scale + offset, then weight and bias where there are any.
template <class T>
static void scale_row(const T* x, T m, T scale, T offset, const T* weight, const T* bias, T* y,
                      i64 n) {
  using V = Vec<T>;
  const V vm(m), vs(scale), vo(offset);
  const auto unit = [&](i64 j, auto... k)
                        VECTILE_LAMBDA { return fma(V::load(x + j, k...) - vm, vs, vo); };
  if (weight && bias)
    row_each<T>(n, [&](i64 j, auto... k) VECTILE_LAMBDA {
      fma(unit(j, k...), V::load(weight + j, k...), V::load(bias + j, k...)).store(y + j, k...);
    });
  else if (weight)
    row_each<T>(n, [&](i64 j, auto... k) VECTILE_LAMBDA {
      (unit(j, k...) * V::load(weight + j, k...)).store(y + j, k...);
    });
  else if (bias)
    row_each<T>(n, [&](i64 j, auto... k) VECTILE_LAMBDA {
      (unit(j, k...) + V::load(bias + j, k...)).store(y + j, k...);
    });
  else
    row_each<T>(n, [&](i64 j, auto... k) VECTILE_LAMBDA { unit(j, k...).store(y + j, k...); });
}

template <class T>
static void layer_norm(const T* x, const T* weight, const T* bias, double eps, T* y, T* mean,
                       T* rstd, i64 rows, i64 n) {
  using V = Vec<T>;
  const double count = static_cast<double>(n);
  for (i64 r = 0; r < rows; ++r, x += n, y += n) {
    double sum[1], s[2];
    row_sums<T>(n, sum,
                [&](V* a, i64 j, auto... k) VECTILE_LAMBDA { a[0] += V::load(x + j, k...); });
    const T m = static_cast<T>(sum[0] / count);
    const V vm(m);
    row_sums<T>(n, s, [&](V* a, i64 j, auto... k) VECTILE_LAMBDA {
      const V d = V::load(x + j, k...) - vm;
      a[0] += d;
      a[1] = fma(d, d, a[1]);
    });
    const double lost = s[0] / count, variance = s[1] / count - lost * lost;
    const double scale = 1 / __builtin_sqrt((variance < 0 ? 0 : variance) + eps);
    scale_row(x, m, static_cast<T>(scale), static_cast<T>(-lost * scale), weight, bias, y, n);
    if (mean) mean[r] = static_cast<T>(m + lost);
    if (rstd) rstd[r] = static_cast<T>(scale);
  }
}

template <class T>
static void rms_norm(const T* x, const T* weight, double eps, T* y, T* rstd, i64 rows, i64 n) {
  using V = Vec<T>;
  for (i64 r = 0; r < rows; ++r, x += n, y += n) {
    double s[1];
    row_sums<T>(n, s, [&](V* a, i64 j, auto... k) VECTILE_LAMBDA {
      const V v = V::load(x + j, k...);
      a[0] = fma(v, v, a[0]);
    });
    const T scale = static_cast<T>(1 / __builtin_sqrt(s[0] / static_cast<double>(n) + eps));
    scale_row(x, T(0), scale, T(0), weight, static_cast<const T*>(nullptr), y, n);
    if (rstd) rstd[r] = scale;
  }
}

// With u = (x - mean) rstd and g = grad·weight, per row:
//   dx = rstd (g - mean(g) - u mean(g u)),  dweight = sum of grad·u,  dbias = sum of grad.
// rms_norm is the same with mean = 0 and without the term mean(g). Pass 1 sums g, g·d and d = x -
// mean, whose sum is what the mean lost to rounding, as in the forward; pass 2 writes.
template <bool centred, bool weighted, class T>
static void norm_backward(const T* grad, const T* x, const T* weight, const T* mean, const T* rstd,
                          T* dx, T* dweight, T* dbias, i64 rows, i64 n) {
  using V = Vec<T>;
  const double count = static_cast<double>(n);
  const auto load_g = [&](i64 j, auto... k) VECTILE_LAMBDA {
    const V g = V::load(grad + j, k...);
    if constexpr (weighted)
      return g * V::load(weight + j, k...);
    else
      return g;
  };
  if constexpr (weighted)
    row_each<T>(n, [&](i64 j, auto... k) VECTILE_LAMBDA {
      V().store(dweight + j, k...);
      if constexpr (centred) V().store(dbias + j, k...);
    });
  for (i64 r = 0; r < rows; ++r, grad += n, x += n, dx += n) {
    const T m = centred ? mean[r] : T(0);
    const V vm(m);
    double s[centred ? 3 : 1];
    row_sums<T>(n, s, [&](V* a, i64 j, auto... k) VECTILE_LAMBDA {
      const V g = load_g(j, k...), d = V::load(x + j, k...) - vm;
      a[0] = fma(g, d, a[0]);
      if constexpr (centred) {
        a[1] += g;
        a[2] += d;
      }
    });
    const double scale = rstd[r], lost = centred ? s[2] / count : 0,
                 g_mean = centred ? s[1] / count : 0;
    const double gu = (s[0] / count - lost * g_mean) * scale;  // mean(g u)
    // u = d scale + u0;  dx = g scale + d c1 + c0
    const V vs(static_cast<T>(scale)), u0(static_cast<T>(-lost * scale));
    const V c1(static_cast<T>(-gu * scale * scale));
    const V c0(static_cast<T>((lost * scale * gu - g_mean) * scale));
    row_each<T>(n, [&](i64 j, auto... k) VECTILE_LAMBDA {
      const V d = V::load(x + j, k...) - vm;
      fma(load_g(j, k...), vs, fma(d, c1, c0)).store(dx + j, k...);
      if constexpr (weighted) {
        const V g = V::load(grad + j, k...);
        fma(g, fma(d, vs, u0), V::load(dweight + j, k...)).store(dweight + j, k...);
        if constexpr (centred) (V::load(dbias + j, k...) + g).store(dbias + j, k...);
      }
    });
  }
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

template <class T>
static void sum_partials(const T* x, i64 stride, i64 rows, T* y, i64 n) {
  using V = Vec<T>;
  row_each<T>(n, [&](i64 j, auto... k) VECTILE_LAMBDA {
    V a;
    for (i64 i = 0; i < rows; ++i) a += V::load(x + i * stride + j, k...);
    a.store(y + j, k...);
  });
}

}  // namespace vectile::VECTILE_TIER

#include "kernels/register.h"
