// dropout, alone and after bias and activation, in one pass; the backward computes the sum, the
// activation's argument, and the mask again.
#include "elementwise.h"
#include "functions.h"
#include "ops/elementwise_args.h"
#include "philox.h"
#include "reduce.h"
#include "rows.h"

namespace vectile::cuda {
namespace {

constexpr int kThreads = 256;

template <class S>
struct Arguments {
  const S *grad, *x, *bias;  // grad null in the forward; bias (width,) or null
  S* y;
  i64 n, width;
  std::uint64_t seed, threshold;  // words below it drop their elements: 2^32 drops all
  Computed<S> scale;
};

// bias[(first + i) % width], i < N; first < width
template <int N, class S, class T>
__device__ void load_around(const S* bias, i64 first, i64 width, T* at) {
  if (first + N <= width) return load_elements<N>(bias, first, width, T(0), at);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    at[i] = to_float(bias[first]);
    first = first + 1 == width ? 0 : first + 1;
  }
}

// A thread has N adjacent counters of a block, whose words are those of four vectors of elements.
template <class S, class F>
__global__ void __launch_bounds__(kThreads) fused_kernel(Arguments<S> p) {
  using T = Computed<S>;
  constexpr int N = Vector<S>::size, parts = kCounters / N;
  const i64 groups = ceil_div(p.n, kPhiloxBlock) * parts;
  for (i64 group = i64{blockIdx.x} * kThreads + threadIdx.x; group < groups;
       group += i64{gridDim.x} * kThreads) {
    const i64 counter = group / parts * kCounters + group % parts * N;
    const i64 first = group / parts * kPhiloxBlock + group % parts * N;
    unsigned words[4][N];
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const uint4 r = p.threshold ? philox(static_cast<std::uint64_t>(counter + j), p.seed)
                                  : make_uint4(0, 0, 0, 0);
      words[0][j] = r.x;
      words[1][j] = r.y;
      words[2][j] = r.z;
      words[3][j] = r.w;
    }
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      const i64 at = first + w * kCounters;
      if (at >= p.n) break;
      T x[N], g[N];
      load_elements<N>(p.x, at, p.n, T(0), x);
      if (p.bias) {
        T b[N];
        load_around<N>(p.bias, at % p.width, p.width, b);
#pragma unroll
        for (int j = 0; j < N; ++j) x[j] += b[j];
      }
      if (p.grad) load_elements<N>(p.grad, at, p.n, T(0), g);
#pragma unroll
      for (int j = 0; j < N; ++j) {
        const bool kept = words[w][j] >= p.threshold;
        if (p.grad)
          x[j] = F{}.gradient(kept ? g[j] * p.scale : T(0), x[j]);
        else
          x[j] = kept ? F{}(x[j]) * p.scale : T(0);
      }
      store_elements<N>(p.y, at, p.n, x);
    }
  }
}

// F of fused_kernel for each Activation.
template <class F>
void with_activation(Activation activation, F&& f) {
  switch (activation) {
    case Activation::relu:
      return f(Differentiable<Relu, ReluGradient, true>{});
    case Activation::gelu:
      return f(Differentiable<Gelu, GeluGradient, false>{});
    case Activation::gelu_tanh:
      return f(Differentiable<GeluTanh, GeluTanhGradient, false>{});
    case Activation::silu:
      return f(Differentiable<Silu, SiluGradient, false>{});
    case Activation::tanh:
      return f(Differentiable<Tanh, TanhGradient, true>{});
    case Activation::sigmoid:
      return f(Differentiable<Sigmoid, SigmoidGradient, true>{});
    case Activation::none:
      return f(Differentiable<Identity, First, false>{});
  }
}

Array run(const TensorView* grad, const TensorView& x, const TensorView* bias,
          Activation activation, double p, std::uint64_t seed) {
  const Array g = given(grad), in = contiguous(x), b = given(bias);
  Array y = Array::empty(x.dtype, x.shape);
  const i64 n = x.elements();
  if (n == 0) return y;
  dispatch_floating(x.dtype, [&](auto s) {
    using S = decltype(s);
    using T = Computed<S>;
    const Arguments<S> arguments{g.as<S>(),
                                 in.as<S>(),
                                 b.as<S>(),
                                 y.as<S>(),
                                 n,
                                 x.ndim() ? x.shape.back() : 1,
                                 seed,
                                 static_cast<std::uint64_t>(p * 0x1p32),
                                 static_cast<T>(p < 1 ? 1 / (1 - p) : 0)};
    const i64 groups = ceil_div(n, kPhiloxBlock) * (kCounters / Vector<S>::size);
    with_activation(activation, [&](auto f) {
      launch(fused_kernel<S, decltype(f)>, {blocks_for(groups, kThreads), kThreads}, arguments);
    });
  });
  return y;
}

}  // namespace

Array dropout(const TensorView& x, double p, std::uint64_t seed) {
  check_floating("dropout", "x", x);
  ops::check_rate("dropout", p);
  return run(nullptr, x, nullptr, Activation::none, p, seed);
}

Array bias_activation_dropout(const TensorView& x, const TensorView* bias, Activation activation,
                              double p, std::uint64_t seed) {
  ops::fused_args("bias_activation_dropout", x, bias, p);
  return run(nullptr, x, bias, activation, p, seed);
}

BiasActivationDropoutGradient bias_activation_dropout_backward(const TensorView& grad,
                                                               const TensorView& x,
                                                               const TensorView* bias,
                                                               Activation activation, double p,
                                                               std::uint64_t seed) {
  constexpr const char* op = "bias_activation_dropout_backward";
  ops::fused_args(op, x, bias, p);
  check_same_dtype(op, "grad", grad, x);
  check_shape(op, "grad", grad, x.shape);
  BiasActivationDropoutGradient r;
  r.dx = run(&grad, x, bias, activation, p, seed);
  if (bias) r.dbias = sum_to(r.dx, bias->shape);
  return r;
}

}  // namespace vectile::cuda
