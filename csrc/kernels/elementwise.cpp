// elementwise: y = f(x), y = f(a, b) with broadcasting, and the gradients of the unary functions.
#include "kernels/elementwise_types.h"
#include "kernels/philox.h"
#include "kernels/rows.h"
#include "simd/activations.h"

namespace vectile::VECTILE_TIER {

// y[j] = f(j): in the caches a vector at a time, which leaves the order to the CPU.
template <class T, class F>
VECTILE_INLINE void write_row(Out<T> y, i64 n, F f) {
  if (streamed(y, n))
    row_stream(y.data, n, f);
  else
    row_each<T>(n, [&](i64 j, auto... k) VECTILE_LAMBDA { f(j, k...).store(y.data + j, k...); });
}

template <class T, class F>
static void map(const T* x, Out<T> y, i64 n, F f) {
  write_row(y, n, [&](i64 j, auto... k) VECTILE_LAMBDA { return f(Vec<T>::load(x + j, k...)); });
  finish(y);
}

template <class T, class F>
static void map(const T* a, const T* b, Out<T> y, i64 n, F f) {
  write_row(y, n, [&](i64 j, auto... k) VECTILE_LAMBDA {
    return f(Vec<T>::load(a + j, k...), Vec<T>::load(b + j, k...));
  });
  finish(y);
}

template <class T>
static void exp(const T* x, Out<T> y, i64 n) {
  map(x, y, n, [](Vec<T> v) { return exp(v); });
}
template <class T>
static void expm1(const T* x, Out<T> y, i64 n) {
  map(x, y, n, [](Vec<T> v) { return expm1(v); });
}
template <class T>
static void log(const T* x, Out<T> y, i64 n) {
  map(x, y, n, [](Vec<T> v) { return log(v); });
}
template <class T>
static void log1p(const T* x, Out<T> y, i64 n) {
  map(x, y, n, [](Vec<T> v) { return log1p(v); });
}
template <class T>
static void tanh(const T* x, Out<T> y, i64 n) {
  map(x, y, n, [](Vec<T> v) { return tanh(v); });
}
template <class T>
static void sigmoid(const T* x, Out<T> y, i64 n) {
  map(x, y, n, [](Vec<T> v) { return sigmoid(v); });
}
template <class T>
static void erf(const T* x, Out<T> y, i64 n) {
  map(x, y, n, [](Vec<T> v) { return erf(v); });
}
template <class T>
static void sqrt(const T* x, Out<T> y, i64 n) {
  map(x, y, n, [](Vec<T> v) { return sqrt(v); });
}
template <class T>
static void absolute(const T* x, Out<T> y, i64 n) {
  map(x, y, n, [](Vec<T> v) { return abs(v); });
}
template <class T>
static void negative(const T* x, Out<T> y, i64 n) {
  map(x, y, n, [](Vec<T> v) { return -v; });
}
template <class T>
static void relu(const T* x, Out<T> y, i64 n) {
  map(x, y, n, [](Vec<T> v) { return relu(v); });
}
template <class T>
static void silu(const T* x, Out<T> y, i64 n) {
  map(x, y, n, [](Vec<T> v) { return silu(v); });
}
template <class T>
static void softplus(const T* x, Out<T> y, i64 n) {
  map(x, y, n, [](Vec<T> v) { return softplus(v); });
}
template <class T>
static void gelu(const T* x, Out<T> y, i64 n) {
  map(x, y, n, [](Vec<T> v) { return gelu(v); });
}
template <class T>
static void gelu_tanh(const T* x, Out<T> y, i64 n) {
  map(x, y, n, [](Vec<T> v) { return gelu_tanh(v); });
}

template <class T>
static void tanh_backward(const T* grad, const T* y, Out<T> dx, i64 n) {
  map(grad, y, dx, n, [](Vec<T> g, Vec<T> v) { return g * fnma(v, v, Vec<T>(1)); });
}
template <class T>
static void sigmoid_backward(const T* grad, const T* y, Out<T> dx, i64 n) {
  map(grad, y, dx, n, [](Vec<T> g, Vec<T> v) { return g * v * (Vec<T>(1) - v); });
}
// 0 at 0; NaN in y propagates
template <class T>
static void relu_backward(const T* grad, const T* y, Out<T> dx, i64 n) {
  map(grad, y, dx, n, [](Vec<T> g, Vec<T> v) { return select(v > Vec<T>(), g, v - v); });
}
template <class T>
static void erf_backward(const T* grad, const T* x, Out<T> dx, i64 n) {  // 2 / sqrt(pi) e^(-x^2)
  const T scale = T(1.1283791670955125739);
  map(grad, x, dx, n, [=](Vec<T> g, Vec<T> v) { return g * Vec<T>(scale) * exp(-v * v); });
}
template <class T>
static void silu_backward(const T* grad, const T* x, Out<T> dx, i64 n) {
  map(grad, x, dx, n, [](Vec<T> g, Vec<T> v) { return g * silu_derivative(v); });
}
template <class T>
static void softplus_backward(const T* grad, const T* x, Out<T> dx, i64 n) {
  map(grad, x, dx, n, [](Vec<T> g, Vec<T> v) { return g * sigmoid(v); });
}
template <class T>
static void gelu_backward(const T* grad, const T* x, Out<T> dx, i64 n) {
  map(grad, x, dx, n, [](Vec<T> g, Vec<T> v) { return g * gelu_derivative(v); });
}
template <class T>
static void gelu_tanh_backward(const T* grad, const T* x, Out<T> dx, i64 n) {
  map(grad, x, dx, n, [](Vec<T> g, Vec<T> v) { return g * gelu_tanh_derivative(v); });
}

template <class T>
static void leaky_relu(const T* x, T slope, Out<T> y, i64 n) {
  const Vec<T> s(slope);
  map(x, y, n, [=](Vec<T> v) { return select(v > Vec<T>(), v, v * s); });
}
template <class T>
static void leaky_relu_backward(const T* grad, const T* x, T slope, Out<T> dx, i64 n) {
  const Vec<T> s(slope);
  map(grad, x, dx, n, [=](Vec<T> g, Vec<T> v) { return select(v > Vec<T>(), g, g * s); });
}

// One line of an operand: loaded when its step is 1, or one value in every lane when it is 0.
template <class T, int step>
struct Line {
  const T* p;
  Vec<T> value;
  VECTILE_INLINE Line(Lines<T> x, i64 r) : p(x.data + r * x.row), value(*p) {}
  VECTILE_INLINE Vec<T> at(i64 j) const { return step ? Vec<T>::load(p + j) : value; }
  VECTILE_INLINE Vec<T> at(i64 j, int n) const { return step ? Vec<T>::load(p + j, n) : value; }
};

template <int a_step, int b_step, class T, class F>
static void broadcast_lines(Lines<T> a, Lines<T> b, Out<T> y, i64 rows, i64 n, F f) {
  for (i64 r = 0; r < rows; ++r, y = y.at(n)) {
    const Line<T, a_step> u(a, r);
    const Line<T, b_step> v(b, r);
    write_row(y, n,
              [&](i64 j, auto... k) VECTILE_LAMBDA { return f(u.at(j, k...), v.at(j, k...)); });
  }
  finish(y);
}

template <class T, class F>
static void broadcast(Lines<T> a, Lines<T> b, Out<T> y, i64 rows, i64 n, F f) {
  if (n == 0) return;
  if (a.step && b.step) return broadcast_lines<1, 1>(a, b, y, rows, n, f);
  if (a.step) return broadcast_lines<1, 0>(a, b, y, rows, n, f);
  if (b.step) return broadcast_lines<0, 1>(a, b, y, rows, n, f);
  broadcast_lines<0, 0>(a, b, y, rows, n, f);
}

template <class T>
static void add(Lines<T> a, Lines<T> b, Out<T> y, i64 rows, i64 n) {
  broadcast(a, b, y, rows, n, [](Vec<T> u, Vec<T> v) { return u + v; });
}
template <class T>
static void subtract(Lines<T> a, Lines<T> b, Out<T> y, i64 rows, i64 n) {
  broadcast(a, b, y, rows, n, [](Vec<T> u, Vec<T> v) { return u - v; });
}
template <class T>
static void multiply(Lines<T> a, Lines<T> b, Out<T> y, i64 rows, i64 n) {
  broadcast(a, b, y, rows, n, [](Vec<T> u, Vec<T> v) { return u * v; });
}
template <class T>
static void divide(Lines<T> a, Lines<T> b, Out<T> y, i64 rows, i64 n) {
  broadcast(a, b, y, rows, n, [](Vec<T> u, Vec<T> v) { return u / v; });
}
template <class T>
static void maximum(Lines<T> a, Lines<T> b, Out<T> y, i64 rows, i64 n) {
  broadcast(a, b, y, rows, n, [](Vec<T> u, Vec<T> v) { return max(u, v); });
}
template <class T>
static void minimum(Lines<T> a, Lines<T> b, Out<T> y, i64 rows, i64 n) {
  broadcast(a, b, y, rows, n, [](Vec<T> u, Vec<T> v) { return min(u, v); });
}

template <class T>
static void prelu(Lines<T> x, Lines<T> slope, Out<T> y, i64 rows, i64 n) {
  broadcast(x, slope, y, rows, n,
            [](Vec<T> v, Vec<T> s) { return select(v > Vec<T>(), v, v * s); });
}

template <int slope_step, class T>
static void prelu_backward_lines(const T* grad, const T* x, Lines<T> slope, T* dx, T* dslope,
                                 i64 rows, i64 n) {
  using V = Vec<T>;
  for (i64 r = 0; r < rows; ++r, grad += n, x += n, dx += n) {
    const Line<T, slope_step> s(slope, r);
    V total = T(0);
    // dx; `share` becomes what the slope gets
    const auto both = [](V g, V v, V a, V& share) {
      const auto positive = v > V();
      share = select(positive, V(), g * v);
      return select(positive, g, g * a);
    };
    for (i64 j = 0; j < n; j += V::lanes) {
      const int m = n - j < V::lanes ? static_cast<int>(n - j) : V::lanes;
      V share;
      if (m == V::lanes) {
        both(V::load(grad + j), V::load(x + j), s.at(j), share).store(dx + j);
        if (slope_step) (V::load(dslope + j) + share).store(dslope + j);
      } else {
        both(V::load(grad + j, m), V::load(x + j, m), s.at(j, m), share).store(dx + j, m);
        if (slope_step) (V::load(dslope + j, m) + share).store(dslope + j, m);
      }
      if (!slope_step) total = total + share;
    }
    if (!slope_step) dslope[r] += reduce_add(total);
  }
}

template <class T>
static void prelu_backward(const T* grad, const T* x, Lines<T> slope, T* dx, T* dslope, i64 rows,
                           i64 n) {
  if (n == 0) return;
  if (slope.step) return prelu_backward_lines<1>(grad, x, slope, dx, dslope, rows, n);
  prelu_backward_lines<0>(grad, x, slope, dx, dslope, rows, n);
}

template <class T>
static void dropout(const T* x, T* y, i64 first, i64 n, uint64_t seed, uint32_t threshold,
                    T scale) {
  constexpr i64 size = kPhiloxBlock;
  uint32_t words[4][kCounters];
  const uint32_t* random = &words[0][0];
  for (i64 i = 0; i < n; i += size) {
    philox_block(static_cast<uint64_t>((first + i) / size), seed, words);
    const i64 m = n - i < size ? n - i : size;
    for (i64 j = 0; j < m; ++j) y[i + j] = random[j] >= threshold ? x[i + j] * scale : T(0);
  }
}

}  // namespace vectile::VECTILE_TIER

#include "kernels/register.h"
