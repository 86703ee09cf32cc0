// Activations on Vec<T>, for elementwise kernels and the epilogues of matrix products.
// NaN propagates through every one; each is finite wherever its limit is. eps is half the spacing
// of T at 1.
#pragma once

#include "simd/math.h"
#include "simd/normal_tail.h"

namespace vectile::VECTILE_TIER {

template <class T>
VECTILE_INLINE Vec<T> relu(Vec<T> x) {
  return max_number(x, Vec<T>());
}

// x / (1 + e^-x), <= 4 ulp where sigmoid(x) is not subnormal. The lower bound turns -inf / inf into
// -0.
template <class T>
VECTILE_INLINE Vec<T> silu(Vec<T> x) {
  return max_number(x, Vec<T>(-1000)) / (Vec<T>(1) + exp(-x));
}

// s + c s (1 - s) with s = sigmoid(u); s (1 - s) = e^-|u| / (1 + e^-|u|)^2 cancels nothing.
template <class T>
VECTILE_INLINE Vec<T> logistic_blend(Vec<T> u, Vec<T> c) {
  const Vec<T> one = T(1), e = exp(-abs(u)), r = one / (one + e), er = e * r;
  return fma(c, er * r, select(u < Vec<T>(), er, r));
}

template <class T>
VECTILE_INLINE Vec<T> silu_derivative(Vec<T> x) {
  const Vec<T> a = clamp(x, Vec<T>(-1000), Vec<T>(1000));
  return logistic_blend(a, a);
}

// log(1 + e^x) = max(x, 0) + log1p(e^-|x|), <= 3 ulp
template <class T>
VECTILE_INLINE Vec<T> softplus(Vec<T> x) {
  return relu(x) + log1p(exp(-abs(x)));
}

// Where P(X > a) for a standard normal X is nothing beside 1: the end of normal_tail's domain.
template <class T>
inline constexpr T kNormalTailEnd = sizeof(T) == 8       ? T(40)
                                    : Vec<T>::has_lookup ? T(31.4375f * kNormalTailStep)
                                                         : T(9);

// P(X > a) for 0 <= a <= kNormalTailEnd; absolute error <= eps / 2.
template <class T>
VECTILE_INLINE Vec<T> normal_tail(Vec<T> a) {
  if constexpr (sizeof(T) == 8) {
    return 0.5 * __builtin_erfc(a.v * 0.70710678118654752);
  } else if constexpr (Vec<T>::has_lookup) {
    const Vec<T> shifted = fma(a, Vec<T>(1 / kNormalTailStep), Vec<T>(0x1.8p23f));  // low bits: i
    const Vec<T> d = fnma(shifted - Vec<T>(0x1.8p23f), Vec<T>(kNormalTailStep), a);
    Vec<T> y = lookup(kNormalTail[4], shifted);
    for (int k = 3; k >= 0; --k) y = fma(y, d, lookup(kNormalTail[k], shifted));
    return y;
  } else {
    // log2 P(X > a)
    return exp2_small(split_polynomial(a, -1.f, -1.1511058f, -4.5920491e-01f, -5.2505028e-02f,
                                       7.0754713e-03f, -1.4586990e-04f, -1.8254772e-04f,
                                       3.8620779e-05f, -2.7720523e-06f));
  }
}

// x P(X <= x) = max(x, 0) - |x| P(X > |x|); absolute error <= 2 eps |x|. The bound turns inf * 0
// into 0.
template <class T>
VECTILE_INLINE Vec<T> gelu(Vec<T> x) {
  const Vec<T> a = min_number(abs(x), Vec<T>(kNormalTailEnd<T>));
  return fnma(a, normal_tail(a), relu(x));
}

// P(X <= x) + x e^(-x^2 / 2) / sqrt(2 pi). The second term vanishes later than the tail, at 40 in
// any T.
template <class T>
VECTILE_INLINE Vec<T> gelu_derivative(Vec<T> x) {
  const Vec<T> a = min_number(abs(x), Vec<T>(40));
  const Vec<T> tail = normal_tail(min_number(a, Vec<T>(kNormalTailEnd<T>)));
  const Vec<T> slope = a * Vec<T>(0.398942280401432678) * exp(a * a * Vec<T>(-0.5));
  return select(x < Vec<T>(), tail - slope, (Vec<T>(1) - tail) + slope);
}

// 2 sqrt(2 / pi) (x + 0.044715 x^3): tanh-GELU is x sigmoid of it, since (1 + tanh u) / 2 =
// sigmoid(2u).
inline constexpr double kGeluTanh = 1.5957691216057307118, kGeluTanhCubic = 0.044715 * kGeluTanh;

// 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) (Hendrycks and Gimpel, arXiv 1606.08415);
// absolute error <= 4 eps |x|
template <class T>
VECTILE_INLINE Vec<T> gelu_tanh(Vec<T> x) {
  const Vec<T> a = clamp(x, Vec<T>(-20), Vec<T>(20));
  const Vec<T> u = a * fma(a * a, Vec<T>(-kGeluTanhCubic), Vec<T>(-kGeluTanh));
  return max_number(x, Vec<T>(-20)) / (Vec<T>(1) + exp(u));
}

// s + x u' s (1 - s) with s = sigmoid(u)
template <class T>
VECTILE_INLINE Vec<T> gelu_tanh_derivative(Vec<T> x) {
  const Vec<T> a = clamp(x, Vec<T>(-20), Vec<T>(20)), z = a * a;
  const Vec<T> u = a * fma(z, Vec<T>(kGeluTanhCubic), Vec<T>(kGeluTanh));
  return logistic_blend(u, a * fma(z, Vec<T>(3 * kGeluTanhCubic), Vec<T>(kGeluTanh)));
}

}  // namespace vectile::VECTILE_TIER
