// Optimiser steps, PyTorch's formulas. Coefficients arrive in double and are rounded once, so 1 -
// beta keeps its digits.
#include "kernels/rows.h"

namespace vectile::VECTILE_TIER {

// b = momentum b + (1 - dampening) g;  p -= lr b, or for Nesterov lr (g + momentum b)
template <class T>
static void sgd(T* p, const T* g, T* b, i64 n, double lr, double momentum, double dampening,
                double l2, bool nesterov) {
  using V = Vec<T>;
  const V rate = static_cast<T>(lr), mu = static_cast<T>(momentum), decay = static_cast<T>(l2);
  const V fresh = static_cast<T>(1 - dampening);
  const auto gradient = [&](i64 j, V w, auto... k)
                            VECTILE_LAMBDA { return fma(decay, w, V::load(g + j, k...)); };
  if (!b) {
    row_each<T>(n, [&](i64 j, auto... k) VECTILE_LAMBDA {
      const V w = V::load(p + j, k...);
      fnma(rate, gradient(j, w, k...), w).store(p + j, k...);
    });
    return;
  }
  const V ahead = nesterov ? mu : V(T(1)), now = nesterov ? V(T(1)) : V();
  row_each<T>(n, [&](i64 j, auto... k) VECTILE_LAMBDA {
    const V w = V::load(p + j, k...), grad = gradient(j, w, k...);
    const V velocity = fma(mu, V::load(b + j, k...), fresh * grad);
    velocity.store(b + j, k...);
    fnma(rate, fma(ahead, velocity, now * grad), w).store(p + j, k...);
  });
}

// m += (1 - beta1)(g - m);  v = beta2 v + (1 - beta2) g²;  p -= step_size m / (scale2 sqrt v + eps)
template <class T>
static void adam(T* p, const T* g, T* m, T* v, i64 n, double beta1, double beta2, double l2,
                 double decay, double step_size, double scale2, double eps) {
  using V = Vec<T>;
  const V c1 = static_cast<T>(1 - beta1), b2 = static_cast<T>(beta2),
          c2 = static_cast<T>(1 - beta2);
  const V keep = static_cast<T>(decay), weight = static_cast<T>(l2),
          size = static_cast<T>(step_size);
  const V unbias = static_cast<T>(scale2), floor = static_cast<T>(eps);
  row_each<T>(n, [&](i64 j, auto... k) VECTILE_LAMBDA {
    const V w = V::load(p + j, k...) * keep;
    const V grad = fma(weight, w, V::load(g + j, k...));
    const V first = V::load(m + j, k...), mean = fma(c1, grad - first, first);
    const V square = fma(b2, V::load(v + j, k...), c2 * grad * grad);
    mean.store(m + j, k...);
    square.store(v + j, k...);
    fnma(size, mean / fma(sqrt(square), unbias, floor), w).store(p + j, k...);
  });
}

// v = alpha v + (1 - alpha) g²;  u = g / (sqrt v + eps);  b = momentum b + u;  p -= lr b, or lr u
template <class T>
static void rmsprop(T* p, const T* g, T* v, T* b, i64 n, double lr, double alpha, double eps,
                    double l2, double momentum) {
  using V = Vec<T>;
  const V rate = static_cast<T>(lr), old = static_cast<T>(alpha), fresh = static_cast<T>(1 - alpha);
  const V floor = static_cast<T>(eps), decay = static_cast<T>(l2), mu = static_cast<T>(momentum);
  row_each<T>(n, [&](i64 j, auto... k) VECTILE_LAMBDA {
    const V w = V::load(p + j, k...), grad = fma(decay, w, V::load(g + j, k...));
    const V square = fma(old, V::load(v + j, k...), fresh * grad * grad);
    square.store(v + j, k...);
    V step = grad / (sqrt(square) + floor);
    if (b) {
      step = fma(mu, V::load(b + j, k...), step);
      step.store(b + j, k...);
    }
    fnma(rate, step, w).store(p + j, k...);
  });
}

template <class T>
static void scale(T* x, i64 n, double factor) {
  using V = Vec<T>;
  const V f = static_cast<T>(factor);
  row_each<T>(
      n, [&](i64 j, auto... k) VECTILE_LAMBDA { (V::load(x + j, k...) * f).store(x + j, k...); });
}

}  // namespace vectile::VECTILE_TIER

#include "kernels/register.h"
