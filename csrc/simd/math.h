// Elementary functions on Vec<T>, one body for every tier. For Vec<float> each states its bound
// over all 2^32 inputs, NaN, infinities, zeros and subnormals included (tests/cpp/ulp_sweep.cpp
// measures it); Vec<double> calls libm. Polynomials are minimax fits (Remez) of the expression
// named beside them, written as c0, c1, ... of c0 + c1 x + ....
#pragma once

#include "simd/vec.h"

namespace vectile::VECTILE_TIER {

// c0 + c1 x + c2 x^2 + ... by Horner's rule.
template <class T>
VECTILE_INLINE Vec<T> polynomial(Vec<T>, T c0) {
  return c0;
}
template <class T, class... C>
VECTILE_INLINE Vec<T> polynomial(Vec<T> x, T c0, C... c) {
  return fma(x, polynomial(x, c...), Vec<T>(c0));
}

// c0 + c2 z + c4 z^2 + ...
template <class T>
VECTILE_INLINE Vec<T> every_other(Vec<T>, T c0) {
  return c0;
}
template <class T>
VECTILE_INLINE Vec<T> every_other(Vec<T>, T c0, T) {
  return c0;
}
template <class T, class... C>
VECTILE_INLINE Vec<T> every_other(Vec<T> z, T c0, T, C... c) {
  return fma(z, every_other(z, c...), Vec<T>(c0));
}
// The same polynomial from its even and its odd powers: half the latency for one multiplication.
template <class T, class... C>
VECTILE_INLINE Vec<T> split_polynomial(Vec<T> x, T c0, C... c) {
  const Vec<T> z = x * x;
  return fma(x, every_other(z, c...), every_other(z, c0, c...));
}

inline constexpr float kLog2E = 1.44269504f, kLn2High = 0x1.62e4p-1f, kLn2Low = 1.4286068e-06f;
inline constexpr float kInf = __builtin_inff();

// A number above 2^23 has no fraction bits, so x + kShift - kShift is the integer n nearest to x,
// cheaper than round(); and the representation of x + kShift ends in the bits of n + 127, as
// times_power_of_two takes them.
inline constexpr float kShift = 0x1.8p23f + 127.f;

// x = n ln 2 + r with |r| <= ln(2)/2 (Cody and Waite: n * kLn2High is exact); returns e^r - 1.
// shifted is n + kShift.
VECTILE_INLINE Vec<float> exp_reduced(Vec<float> x, Vec<float>& n, Vec<float>& shifted) {
  shifted = fma(x, Vec<float>(kLog2E), Vec<float>(kShift));
  n = shifted - Vec<float>(kShift);
  const Vec<float> r = fnma(n, Vec<float>(kLn2Low), fnma(n, Vec<float>(kLn2High), x));
  // (e^r - 1 - r) / r^2
  const Vec<float> q = polynomial(r, 5.e-01f, 1.6666666e-01f, 4.166636e-02f, 8.33339e-03f,
                                  1.3940668e-03f, 1.9845882e-04f);
  return fma(r * r, q, r);
}
VECTILE_INLINE Vec<float> exp_reduced(Vec<float> x, Vec<float>& n) {
  Vec<float> shifted;
  return exp_reduced(x, n, shifted);
}

// 2^y for -127 <= y <= 126, relative error about 2 ulp: for use where the result is a small part of
// the answer.
VECTILE_INLINE Vec<float> exp2_small(Vec<float> y) {
  const Vec<float> shifted = y + Vec<float>(kShift), r = y - (shifted - Vec<float>(kShift));
  // (2^r - 1) / r
  const Vec<float> q = polynomial(r, 6.931472e-01f, 2.4022648e-01f, 5.5503324e-02f, 9.618438e-03f,
                                  1.3398901e-03f, 1.5353342e-04f);
  return times_power_of_two(fma(r, q, Vec<float>(1.f)), shifted);
}

// log(m) for m = 1 + t, t in [-0.25, 0.5], plus e ln 2.
VECTILE_INLINE Vec<float> log_reduced(Vec<float> t, Vec<float> e) {
  // (log(1 + t) - t) / t^2
  const Vec<float> q = polynomial(t, -4.9999997e-01f, 3.3333343e-01f, -2.500029e-01f,
                                  1.9999623e-01f, -1.6652292e-01f, 1.4272043e-01f, -1.2750037e-01f,
                                  1.17554165e-01f, -9.12682e-02f, 3.731935e-02f);
  const Vec<float> tail = fma(e, Vec<float>(kLn2Low), t * t * q);
  return fma(e, Vec<float>(kLn2High), t + tail);
}

template <class T>
VECTILE_INLINE Vec<T> exp(Vec<T> x) {  // <= 1 ulp
  if constexpr (sizeof(T) == 8) {
    return __builtin_exp(x.v);
  } else {
    Vec<T> n, shifted;
    if ((abs(x) < Vec<T>(87.f)).all()) [[likely]] {  // no subnormals, no infinity, no NaN
      const Vec<T> p = exp_reduced(x, n, shifted);
      return times_power_of_two(p + Vec<T>(1.f), shifted);
    }
    const Vec<T> p = exp_reduced(clamp(x, Vec<T>(-104.f), Vec<T>(89.f)), n, shifted);
    return ldexp(p + Vec<T>(1.f), n);
  }
}

// e^x for x <= 0 (-inf and NaN too), <= 2 ulp down to 2^-126; smaller results may be flushed to
// zero, and are from e^-88 on.
template <class T>
VECTILE_INLINE Vec<T> exp_nonpositive(Vec<T> x) {
  if constexpr (sizeof(T) == 8) {
    return __builtin_exp(x.v);
  } else {
    Vec<T> n, shifted;
    const Vec<T> p = exp_reduced(max_number(x, Vec<T>(-88.1f)), n, shifted);  // n >= -127
    return times_power_of_two(p + Vec<T>(1.f), shifted);
  }
}

template <class T>
VECTILE_INLINE Vec<T> expm1(Vec<T> x) {  // <= 2 ulp
  if constexpr (sizeof(T) == 8) {
    return __builtin_expm1(x.v);
  } else {
    Vec<T> n;
    const Vec<T> p = exp_reduced(clamp(x, Vec<T>(-20.f), Vec<T>(89.f)), n);
    const Vec<T> half = ldexp(Vec<T>(0.5f), n);  // 2^n / 2, so that n = 128 does not overflow early
    const Vec<T> y = fma(p, half, half - Vec<T>(0.5f));
    return select(x == Vec<T>(), x, y + y);  // keeps -0
  }
}

template <class T>
VECTILE_INLINE Vec<T> log(Vec<T> x) {  // <= 2 ulp
  if constexpr (sizeof(T) == 8) {
    return __builtin_log(x.v);
  } else {
    Vec<T> m, e;
    split_exponent(x, m, e);
    Vec<T> y = log_reduced(m - Vec<T>(1.f), e);
    y = select(x > Vec<T>(), y, select(x == Vec<T>(), Vec<T>(-kInf), Vec<T>(__builtin_nanf(""))));
    return select(x < Vec<T>(kInf), y, x);  // inf and NaN stay
  }
}

template <class T>
VECTILE_INLINE Vec<T> log1p(Vec<T> x) {  // <= 2 ulp
  if constexpr (sizeof(T) == 8) {
    return __builtin_log1p(x.v);
  } else {
    // u = 1 + x rounded, c what rounding lost: 1 + x = u + c = (m + c / 2^e) 2^e.
    const Vec<T> one = 1.f, u = one + x, c = x - (u - one);
    Vec<T> m, e;
    split_exponent(u, m, e);
    Vec<T> y = log_reduced((m - one) + ldexp(c, -e), e);
    y = select(x > Vec<T>(-1.f), y,
               select(x == Vec<T>(-1.f), Vec<T>(-kInf), Vec<T>(__builtin_nanf(""))));
    y = select(x == Vec<T>(), x, y);  // keeps -0
    return select(x < Vec<T>(kInf), y, x);
  }
}

// 1 / (1 + e^-x), <= 2 ulp. With e^-x = 2^n (1 + p) and t = 2^-|n| it is
//   1 / (1 + t + t p) for n <= 0 and t / (1 + t + p) for n > 0: neither overflows, and small
//   results keep their digits.
template <class T>
VECTILE_INLINE Vec<T> sigmoid(Vec<T> x) {
  const Vec<T> one = T(1);
  if constexpr (sizeof(T) == 8) {
    const Vec<T> e = exp(-abs(x));
    return select(x < Vec<T>(), e, one) / (one + e);
  } else {
    Vec<T> n;
    const Vec<T> p = exp_reduced(clamp(-x, Vec<T>(-104.f), Vec<T>(104.f)), n),
                 t = ldexp(one, -abs(n));
    const auto positive = n > Vec<T>();
    const Vec<T> sum = one + t, lost = t - (sum - one);
    return select(positive, t, one) / (sum + fma(select(positive, one, t), p, lost));
  }
}

template <class T>
VECTILE_INLINE Vec<T> tanh(Vec<T> x) {  // <= 2 ulp
  if constexpr (sizeof(T) == 8) {
    return __builtin_tanh(x.v);
  } else {
    const Vec<T> one = 1.f, a = abs(x), z = x * x;
    // (tanh(x) / x - 1) / x^2 in x^2, for |x| < 0.625
    const Vec<T> p = polynomial(z, -3.333333e-01f, 1.3333206e-01f, -5.3946763e-02f, 2.1700703e-02f,
                                -8.177399e-03f, 2.1429618e-03f);
    const Vec<T> small = fma(a * z, p, a);
    // 1 - 2 / (e^2a + 1); beyond 9.1 it rounds to 1
    const Vec<T> e = exp2_small(clamp(a, Vec<T>(), Vec<T>(9.1f)) * Vec<T>(2 * kLog2E));
    const Vec<T> large = one - Vec<T>(2.f) / (e + one);
    return copysign(select(a < Vec<T>(0.625f), small, large), x);  // keeps -0
  }
}

template <class T>
VECTILE_INLINE Vec<T> erf(Vec<T> x) {  // <= 2 ulp
  if constexpr (sizeof(T) == 8) {
    return __builtin_erf(x.v);
  } else {
    const Vec<T> one = 1.f, a = clamp(abs(x), Vec<T>(), Vec<T>(3.93f)), z = x * x;
    // erf(x) / x - 1 in x^2, for |x| < 1
    const Vec<T> p = polynomial(z, 1.2837917e-01f, -3.7612626e-01f, 1.12835854e-01f,
                                -2.6853811e-02f, 5.1883277e-03f, -8.0101937e-04f, 7.853861e-05f);
    const Vec<T> small = fma(x, p, x);
    // -log2(1 - erf(a)), for 1 <= a <= 3.93; beyond that erf rounds to 1
    const Vec<T> q = polynomial(a, 4.927144e-04f, 1.626046e+00f, 9.206484e-01f, 1.487516e-01f,
                                -3.1505663e-02f, 4.2525716e-03f, -2.6888828e-04f);
    const Vec<T> large = one - exp2_small(-q);
    return select(a < one, small, copysign(large, x));
  }
}

}  // namespace vectile::VECTILE_TIER
