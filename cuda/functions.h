// The functions that elementwise kernels apply: of x, of two operands, and gradients from grad and
// from x or the forward's result y. NaN propagates through every one; each is finite wherever its
// limit is. Formulas as in csrc/simd/activations.h.
#pragma once

#include "device.h"

namespace vectile::cuda {

#define VECTILE_FUNCTION(name, parameters, value) \
  struct name {                                   \
    template <class T>                            \
    __device__ T operator() parameters const {    \
      return value;                               \
    }                                             \
  };

template <class T>
__device__ T clamp(T x, T low, T high) {
  return x < low ? low : x > high ? high : x;
}

VECTILE_FUNCTION(Identity, (T x), x)
VECTILE_FUNCTION(First, (T a, T), a)
VECTILE_FUNCTION(Exp, (T x), exp(x))
VECTILE_FUNCTION(Log, (T x), log(x))
VECTILE_FUNCTION(Tanh, (T x), tanh(x))
VECTILE_FUNCTION(Erf, (T x), erf(x))
VECTILE_FUNCTION(Sqrt, (T x), sqrt(x))
VECTILE_FUNCTION(Absolute, (T x), abs(x))
VECTILE_FUNCTION(Negative, (T x), -x)
VECTILE_FUNCTION(Expm1, (T x), expm1(x))
VECTILE_FUNCTION(Log1p, (T x), log1p(x))
VECTILE_FUNCTION(Relu, (T x), x <= T(0) ? T(0) : x)
VECTILE_FUNCTION(Softplus, (T x), (x <= T(0) ? T(0) : x) + log1p(exp(-abs(x))))
// The lower bound turns -inf / inf into -0.
VECTILE_FUNCTION(Silu, (T x), quotient(x < T(-1000) ? T(-1000) : x, T(1) + exp(-x)))

struct Sigmoid {
  template <class T>
  __device__ T operator()(T x) const {
    const T e = exp(-abs(x));
    return quotient(x < T(0) ? e : T(1), T(1) + e);
  }
};

// s + c s (1 - s) with s = sigmoid(u); s (1 - s) = e^-|u| / (1 + e^-|u|)^2 cancels nothing.
template <class T>
__device__ T logistic_blend(T u, T c) {
  const T e = exp(-abs(u)), r = quotient(T(1), T(1) + e), er = e * r;
  return c * (er * r) + (u < T(0) ? er : r);
}

// Of a standard normal X, for 0 <= a <= 40: P(X > a), and e^(-a^2 / 2).
template <class T>
struct Normal {
  T tail, bell;
};
__device__ inline Normal<double> normal(double a) {
  return {0.5 * erfc(a * 0.70710678118654752440), exp(-0.5 * a * a)};
}
// The tail is the bell times a polynomial in t = 1 / (1 + 0.33 a) (the form of Abramowitz and
// Stegun's 7.1.26), fitted to the least error times the bell: off by 2^-23 absolutely, by 2^-13 of
// itself up to a = 10. erfc costs four times as much, more than memory leaves time for.
__device__ inline Normal<float> normal(float a) {
  const float t = reciprocal_flushed(fma(a, 0.33f, 1.f));
  const float bell = exp2_flushed(a * -0.721347520f * a);
  float y = 0.0445116634f;
  y = fma(y, t, -0.215721814f);
  y = fma(y, t, 0.321807573f);
  y = fma(y, t, -0.0796590692f);
  y = fma(y, t, 0.175558532f);
  y = fma(y, t, 0.121085662f);
  y = fma(y, t, 0.132417455f);
  return {t * y * bell, bell};
}

// As far as the tail of the normal distribution is above 0.
template <class T>
__device__ T normal_argument(T x) {
  const T a = abs(x);
  return a > T(40) ? T(40) : a;
}
// x P(X <= x) = max(x, 0) - |x| P(X > |x|). The bound, past which the probability is nothing, turns
// inf * 0 into 0.
struct Gelu {
  template <class T>
  __device__ T operator()(T x) const {
    const T a = normal_argument(x);
    return (x <= T(0) ? T(0) : x) - a * normal(a).tail;
  }
};
struct GeluGradient {  // P(X <= x) + x e^(-x^2 / 2) / sqrt(2 pi)
  template <class T>
  __device__ T operator()(T g, T x) const {
    const T a = normal_argument(x);
    const auto [tail, bell] = normal(a);
    const T slope = a * T(0.39894228040143267794) * bell;
    return g * (x < T(0) ? tail - slope : (T(1) - tail) + slope);
  }
};

// 0.5 x (1 + tanh(u / 2)) = x sigmoid(u), u = 2 sqrt(2 / pi) (x + 0.044715 x^3) (arXiv 1606.08415)
constexpr double kGeluTanh = 1.5957691216057307118, kGeluTanhCubic = 0.044715 * kGeluTanh;
struct GeluTanh {
  template <class T>
  __device__ T operator()(T x) const {
    const T a = clamp(x, T(-20), T(20)), u = a * (T(kGeluTanh) + T(kGeluTanhCubic) * (a * a));
    return quotient(x < T(-20) ? T(-20) : x, T(1) + exp(-u));
  }
};
struct GeluTanhGradient {
  template <class T>
  __device__ T operator()(T g, T x) const {
    const T a = clamp(x, T(-20), T(20)), z = a * a;
    const T u = a * (T(kGeluTanh) + T(kGeluTanhCubic) * z);
    return g * logistic_blend(u, a * (T(kGeluTanh) + T(3 * kGeluTanhCubic) * z));
  }
};
struct SiluGradient {
  template <class T>
  __device__ T operator()(T g, T x) const {
    const T a = clamp(x, T(-1000), T(1000));
    return g * logistic_blend(a, a);
  }
};

// From the result y; relu's is 0 at 0.
VECTILE_FUNCTION(TanhGradient, (T g, T y), g*(T(1) - y * y))
VECTILE_FUNCTION(SigmoidGradient, (T g, T y), g * y * (T(1) - y))
VECTILE_FUNCTION(ReluGradient, (T g, T y), y > T(0) ? g : y - y)
// From x.
VECTILE_FUNCTION(ErfGradient, (T g, T x), g* T(1.1283791670955125739) * exp(-x * x))
VECTILE_FUNCTION(SoftplusGradient, (T g, T x), g* Sigmoid{}(x))

VECTILE_FUNCTION(Add, (T a, T b), a + b)
VECTILE_FUNCTION(Subtract, (T a, T b), a - b)
VECTILE_FUNCTION(Multiply, (T a, T b), a* b)
VECTILE_FUNCTION(Divide, (T a, T b), a / b)
VECTILE_FUNCTION(Prelu, (T x, T slope), x > T(0) ? x : x * slope)
VECTILE_FUNCTION(PreluSlope, (T x, T slope), x > T(0) ? T(1) : slope)
VECTILE_FUNCTION(PreluShare, (T g, T x), x > T(0) ? T(0) : g * x)

struct LeakyRelu {
  double slope;
  template <class T>
  __device__ T operator()(T x) const {
    return x > T(0) ? x : x * T(slope);
  }
};
struct LeakyReluGradient {
  double slope;
  template <class T>
  __device__ T operator()(T g, T x) const {
    return x > T(0) ? g : g * T(slope);
  }
};

// An activation and its gradient, from x or from the result.
template <class F, class G, bool from_result>
struct Differentiable {
  template <class T>
  __device__ T operator()(T x) const {
    return F{}(x);
  }
  template <class T>
  __device__ T gradient(T g, T x) const {
    return G{}(g, from_result ? F{}(x) : x);
  }
};

}  // namespace vectile::cuda
