// y = f(x) and y = f(a, b) with broadcasting: a thread does two 16-byte vectors at a time,
// or one of a broadcast result.
#include "elementwise.h"

#include "functions.h"
#include "ops/elementwise_args.h"
#include "reduce.h"
#include "rows.h"

namespace vectile::cuda {
namespace {

constexpr int kThreads = 256;

constexpr int kAtOnce = 2;  // vectors of a thread that are under way together

// Elements of a vector of the type that has more to one.
template <class Y, class X>
constexpr int kTogether = Vector<Y>::size > Vector<X>::size ? Vector<Y>::size : Vector<X>::size;

// y[i] = f(x[i]...), row-major
template <class F, class Y, class X, class... More>
__global__ void __launch_bounds__(kThreads) map_kernel(F f, Y* y, i64 n, const X* x, More... more) {
  using T = Computed<Y>;
  constexpr int N = kTogether<Y, X>, K = 1 + sizeof...(More), step = kThreads * N;
  for (i64 start = i64{blockIdx.x} * kAtOnce * step + threadIdx.x * N; start < n;
       start += i64{gridDim.x} * kAtOnce * step) {
    Packed<X, N> in[kAtOnce][K];
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      int at = 0;
      in[k][at++] = fetch<N>(x, start + k * step, n);
      ((in[k][at++] = fetch<N>(more, start + k * step, n)), ...);
    }
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      T v[K][N];
#pragma unroll
      for (int i = 0; i < K; ++i) in[k][i].widen(v[i]);
#pragma unroll
      for (int j = 0; j < N; ++j) {
        if constexpr (K == 1)
          v[0][j] = f(v[0][j]);
        else
          v[0][j] = f(v[0][j], v[1][j]);
      }
      store_elements<N>(y, start + k * step, n, v[0]);
    }
  }
}

template <class F, class Y, class X, class... More>
void map(F f, Y* y, i64 n, const X* x, More... more) {
  if (n)
    launch(map_kernel<F, Y, X, More...>,
           {blocks_for(n, kThreads * kAtOnce * kTogether<Y, X>), kThreads}, f, y, n, x, more...);
}

template <class F>
Array unary_with(const char* op, const TensorView& x, const TensorView* out, F f) {
  check_floating(op, "x", x);
  const Array in = contiguous(x);
  Output y(op, x.dtype, x.shape, out, {&x});
  dispatch_floating(x.dtype, [&](auto s) {
    using S = decltype(s);
    map(f, y.view().as<S>(), x.elements(), in.as<const S>());
  });
  return y.finish();
}
template <class F>
Array unary(const char* op, const TensorView& x, const TensorView* out) {
  return unary_with(op, x, out, F{});
}

template <class F>
Array gradient_with(const char* op, const TensorView& grad, const TensorView& v, const char* v_name,
                    F f) {
  ops::gradient_args(op, grad, v, v_name);
  const Array g = contiguous(grad), in = contiguous(v);
  Array dx = Array::empty(v.dtype, v.shape);
  dispatch_floating(v.dtype, [&](auto s) {
    using S = decltype(s);
    map(f, dx.as<S>(), v.elements(), g.as<const S>(), in.as<const S>());
  });
  return dx;
}
template <class F>
Array gradient(const char* op, const TensorView& grad, const TensorView& v, const char* v_name) {
  return gradient_with(op, grad, v, v_name, F{});
}

// One side of a binary op: elements that lie `step` apart in a line, or one number.
template <class S>
struct Side {
  const S* data;
  Computed<S> number;
  i64 stride[kMaxDims], step;
  template <int N>
  __device__ void load(i64 offset, i64 left, Computed<S>* v) const {
    if (step == 1) return load_elements<N>(data + offset, 0, left, Computed<S>(0), v);
#pragma unroll
    for (int j = 0; j < N; ++j)
      v[j] = !data      ? number
             : j < left ? Computed<S>(to_float(data[offset + j * step]))
                        : Computed<S>(0);
  }
};

// N adjacent elements of a line of the result for each thread: N divides lines, or there is one.
template <class F, class S, int N>
__global__ void __launch_bounds__(kThreads)
    broadcast_kernel(F f, Shape shape, Side<S> a, Side<S> b, S* y, i64 n) {
  using T = Computed<S>;
  for (i64 i = (i64{blockIdx.x} * kThreads + threadIdx.x) * N; i < n;
       i += i64{gridDim.x} * kThreads * N) {
    i64 rest = i, at_a = 0, at_b = 0;
    for (int k = shape.ndim - 1; k >= 0; --k) {
      i64 place = rest;
      if (k > 0) {
        const i64 size = shape.dim[k];
        // most indices fit 32 bits, which divide several times faster
        const i64 next = (rest | size) >> 32
                             ? rest / size
                             : static_cast<unsigned>(rest) / static_cast<unsigned>(size);
        place = rest - next * size;
        rest = next;
      }
      at_a += place * a.stride[k];
      at_b += place * b.stride[k];
    }
    T u[N], v[N];
    a.template load<N>(at_a, n - i, u);
    b.template load<N>(at_b, n - i, v);
#pragma unroll
    for (int j = 0; j < N; ++j) u[j] = f(u[j], v[j]);
    store_elements<N>(y, i, n, u);
  }
}

template <class F>
Array binary(const char* op, const Operand& a, const Operand& b, const TensorView* out) {
  const Shape shape = a.array && b.array ? ops::binary_args(op, *a.array, *b.array)
                                         : (a.array ? a : b).array->shape;
  const TensorView& typed = *(a.array ? a : b).array;
  check_floating(op, a.array ? "a" : "b", typed);
  Output y(op, typed.dtype, shape, out, {a.array, b.array});
  const i64 n = y.view().elements();
  if (n == 0) return y.finish();
  const TensorView number{};  // of shape (): broadcasts with everything
  const ops::Broadcast plan(shape, a.array ? *a.array : number, b.array ? *b.array : number);
  dispatch_floating(typed.dtype, [&](auto s) {
    using S = decltype(s);
    const auto side = [&](const Operand& x, const i64* strides) {
      Side<S> side{};
      side.data = x.array ? x.array->template as<S>() : nullptr;
      side.number = static_cast<Computed<S>>(x.number);
      for (int i = 0; i < plan.shape.ndim; ++i) side.stride[i] = strides[i];
      side.step = plan.shape.ndim ? strides[plan.shape.ndim - 1] : 0;
      return side;
    };
    constexpr int size = Vector<S>::size;
    const bool whole = plan.shape.ndim < 2 || plan.shape.back() % size == 0;
    launch(whole ? broadcast_kernel<F, S, size> : broadcast_kernel<F, S, 1>,
           {blocks_for(n, whole ? kThreads * size : kThreads), kThreads}, F{}, plan.shape,
           side(a, plan.a), side(b, plan.b), y.view().as<S>(), n);
  });
  return y.finish();
}

}  // namespace

const UnaryOp kUnary[15] = {
    {"exp", &unary<Exp>},           {"log", &unary<Log>},           {"tanh", &unary<Tanh>},
    {"sigmoid", &unary<Sigmoid>},   {"erf", &unary<Erf>},           {"sqrt", &unary<Sqrt>},
    {"absolute", &unary<Absolute>}, {"negative", &unary<Negative>}, {"relu", &unary<Relu>},
    {"silu", &unary<Silu>},         {"softplus", &unary<Softplus>}, {"expm1", &unary<Expm1>},
    {"log1p", &unary<Log1p>},       {"gelu", &unary<Gelu>},         {"gelu_tanh", &unary<GeluTanh>},
};
const GradientOp kGradient[8] = {
    {"tanh_backward", "y", &gradient<TanhGradient>},
    {"sigmoid_backward", "y", &gradient<SigmoidGradient>},
    {"relu_backward", "y", &gradient<ReluGradient>},
    {"erf_backward", "x", &gradient<ErfGradient>},
    {"silu_backward", "x", &gradient<SiluGradient>},
    {"softplus_backward", "x", &gradient<SoftplusGradient>},
    {"gelu_backward", "x", &gradient<GeluGradient>},
    {"gelu_tanh_backward", "x", &gradient<GeluTanhGradient>},
};
const BinaryOp kBinary[6] = {
    {"add", &binary<Add>},       {"subtract", &binary<Subtract>}, {"multiply", &binary<Multiply>},
    {"divide", &binary<Divide>}, {"maximum", &binary<Max>},       {"minimum", &binary<Min>},
};

Array leaky_relu(const TensorView& x, double slope, const TensorView* out) {
  return unary_with("leaky_relu", x, out, LeakyRelu{slope});
}
Array leaky_relu_backward(const TensorView& grad, const TensorView& x, double slope) {
  return gradient_with("leaky_relu_backward", grad, x, "x", LeakyReluGradient{slope});
}

Array prelu(const TensorView& x, const TensorView& weight, const TensorView* out) {
  ops::check_slopes("prelu", x, weight);
  const TensorView slopes = ops::slopes_along(x, weight);
  return binary<Prelu>("prelu", {&x}, {&slopes}, out);
}

PreluGradient prelu_backward(const TensorView& grad, const TensorView& x,
                             const TensorView& weight) {
  constexpr const char* op = "prelu_backward";
  ops::check_slopes(op, x, weight);
  check_same_dtype(op, "grad", grad, x);
  check_shape(op, "grad", grad, x.shape);
  const TensorView slopes = ops::slopes_along(x, weight);
  const Array factor = binary<PreluSlope>(op, {&x}, {&slopes}, nullptr);  // 1 or the slope: exact
  PreluGradient r{binary<Multiply>(op, {&grad}, {&factor}, nullptr),
                  Array::zeros(x.dtype, weight.shape)};
  if (x.elements() == 0) return r;
  const DType compute = compute_dtype(x.dtype);
  const Array g = contiguous(grad), in = contiguous(x), share = Array::empty(compute, x.shape);
  dispatch_floating(x.dtype, [&](auto s) {
    using S = decltype(s);
    map(PreluShare{}, share.as<Computed<S>>(), x.elements(), g.as<const S>(), in.as<const S>());
  });
  const i64 channels = weight.elements(), samples = channels == 1 ? 1 : x.shape[0];
  const i64 length = x.elements() / (samples * channels);
  const Array sums = length == 1 ? Array(static_cast<const TensorView&>(share))
                                 : Array::empty(compute, Shape(samples, channels));
  if (length > 1) kReductions[0].run(share, samples * channels, length, 1, 1, sums);
  sum_columns(sums, samples, r.dweight);
  return r;
}

}  // namespace vectile::cuda
