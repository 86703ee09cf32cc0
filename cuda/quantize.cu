// Linear quantisation as ONNX defines it, one element at a time: reads and writes are all it costs.
// The range of dynamic_quantize_linear is taken by a grid, then by one block; the extremes are the
// same in any order.
#include "quantize.h"

#include "float8.h"
#include "ops/quantize_args.h"
#include "rows.h"

namespace vectile::cuda {
namespace {

using ops::ScaleLines;

constexpr int kThreads = 256;
constexpr int kAtOnce = 4;          // vectors of a thread that are under way together
constexpr i64 kMostPartials = 512;  // blocks that take the range

template <class S, class Q>
struct Quantize {
  using From = S;
  using To = Q;
  using Zero = Q;
  using T = Computed<S>;
  __device__ static Q apply(S x, T scale, T zero) {
    const T v = T(to_float(x)) / scale;
    if constexpr (std::is_integral_v<Q>) {
      return saturate<Q>(rint(v) + zero);
    } else {
      constexpr T most = Float8<Q>::largest;
      return Float8<Q>::from_float(v > most ? most : v < -most ? -most : v);
    }
  }
};

template <class Q, class S>
struct Dequantize {
  using From = Q;
  using To = S;
  using Zero = Q;
  using T = Computed<S>;
  __device__ static S apply(Q x, T scale, T zero) {
    if constexpr (std::is_integral_v<Q>)
      return from_float<S>((static_cast<T>(x) - zero) * scale);
    else
      return from_float<S>(T(Float8<Q>::to_float(x)) * scale);
  }
};

// Neighbours, 16 bytes of the larger type.
template <class S, int count>
struct alignas(count * sizeof(S)) Run {
  S at[count];
};
template <class X, class Y>
constexpr int run_length = kVectorBytes / (sizeof(X) > sizeof(Y) ? sizeof(X) : sizeof(Y));

template <class T, class Z>
__device__ __forceinline__ T zero_at(const Z* zero, i64 line) {
  if constexpr (std::is_integral_v<Z>)
    if (zero) return static_cast<T>(zero[line]);
  return T(0);
}

// y[i] = F of x[i] with the scale and the zero point (null for 0) of its line; y is aligned.
template <class F>
__global__ void __launch_bounds__(kThreads)
    map_kernel(const typename F::From* x, typename F::To* y, const typename F::T* scale,
               const typename F::Zero* zero, ScaleLines lines, i64 n) {
  using T = typename F::T;
  constexpr int count = run_length<typename F::From, typename F::To>, step = kThreads * count;
  using From = Run<typename F::From, count>;
  using To = Run<typename F::To, count>;
  const bool whole = reinterpret_cast<std::uintptr_t>(x) % alignof(From) == 0;
  for (i64 start = i64{blockIdx.x} * kAtOnce * step + threadIdx.x * count; start < n;
       start += i64{gridDim.x} * kAtOnce * step) {
    From from[kAtOnce];
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      const i64 first = start + k * step;
      if (whole && first + count <= n) {
        from[k] = *reinterpret_cast<const From*>(x + first);
      } else {
#pragma unroll
        for (int j = 0; j < count; ++j)
          from[k].at[j] = first + j < n ? x[first + j] : typename F::From{};
      }
    }
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      const i64 first = start + k * step;
      if (first >= n) break;
      i64 line = first / lines.inner, left = lines.inner - (first - line * lines.inner);
      line %= lines.count;
      T s = scale[line], z = zero_at<T>(zero, line);
      To to;
#pragma unroll
      for (int j = 0; j < count; ++j, --left) {
        if (left == 0) {
          left = lines.inner, line = line + 1 == lines.count ? 0 : line + 1;
          s = scale[line], z = zero_at<T>(zero, line);
        }
        to.at[j] = F::apply(from[k].at[j], s, z);
      }
      if (first + count <= n) {
        *reinterpret_cast<To*>(y + first) = to;
      } else {
#pragma unroll
        for (int j = 0; j < count; ++j)
          if (first + j < n) y[first + j] = to.at[j];
      }
    }
  }
}

template <class F>
void map(const TensorView& x, const TensorView& y, const TensorView& scale, const TensorView* zero,
         const ScaleLines& lines) {
  constexpr int count = run_length<typename F::From, typename F::To>;
  const i64 n = x.elements();
  if (n)
    launch(map_kernel<F>, {blocks_for(n, kThreads * kAtOnce * count), kThreads},
           x.as<typename F::From>(), y.as<typename F::To>(), scale.as<typename F::T>(),
           zero ? zero->as<typename F::Zero>() : nullptr, lines, n);
}

// f(Q{}) for the type that holds quantised numbers of a byte.
template <class F>
void dispatch_bytes(DType dtype, F&& f) {
  dtype == DType::i8       ? f(std::int8_t{})
  : dtype == DType::u8     ? f(std::uint8_t{})
  : dtype == DType::f8e4m3 ? f(Float8E4M3{})
                           : f(Float8E5M2{});
}

// Scale and zero point as the kernel reads them.
struct Parameters {
  Array scale, zero;
  Parameters(const TensorView& s, const TensorView* z, DType dtype)
      : scale(converted(s, dtype)), zero(given(z)) {}
  const TensorView* zeros() const { return zero.data ? &zero : nullptr; }
};

// The largest x and -x of a block's share, and 0; NaN if there is one.
template <class S>
__global__ void __launch_bounds__(kThreads) range_kernel(const S* x, Computed<S>* ends, i64 n) {
  using T = Computed<S>;
  using P = Piece<S, kThreads, kAtOnce>;
  __shared__ T scratch[kThreads / kWarp];
  T above(0), below(0);
  P piece;
  for (i64 first = i64{blockIdx.x} * P::capacity; first < n;
       first += i64{gridDim.x} * P::capacity) {
    piece.load(x + first, static_cast<int>(n - first < P::capacity ? n - first : P::capacity),
               T(0));
#pragma unroll
    for (int i = 0; i < P::count; ++i)
      above = Max{}(above, piece.at[i]), below = Max{}(below, -piece.at[i]);
  }
  above = block_reduce<kThreads>(above, Max{}, scratch);
  below = block_reduce<kThreads>(below, Max{}, scratch);
  if (threadIdx.x == 0) ends[2 * blockIdx.x] = above, ends[2 * blockIdx.x + 1] = below;
}

// Scale and zero point of the range that `count` blocks found.
template <class T>
__global__ void __launch_bounds__(kThreads)
    parameters_kernel(const T* ends, int count, T* scale, std::uint8_t* zero) {
  __shared__ T scratch[kThreads / kWarp];
  T above(0), below(0);
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads)
    above = Max{}(above, ends[2 * i]), below = Max{}(below, ends[2 * i + 1]);
  above = block_reduce<kThreads>(above, Max{}, scratch);
  below = block_reduce<kThreads>(below, Max{}, scratch);
  if (threadIdx.x) return;
  T s = above / T(255) + below / T(255);
  if (s == T(0)) s = T(1);
  if (isinf(s)) s = s - s;
  *scale = s;
  *zero = saturate<std::uint8_t>(rint(below / s));
}

}  // namespace

Array quantize_linear(const TensorView& x, const TensorView& scale, const TensorView* zero_point,
                      const i64* axis) {
  const ScaleLines lines = ops::quantize_linear_args("quantize_linear", x, scale, zero_point, axis);
  const Array in = contiguous(x);
  const Parameters p(scale, zero_point, compute_dtype(x.dtype));
  Array y = Array::empty(zero_point ? zero_point->dtype : DType::u8, x.shape);
  dispatch_floating(x.dtype, [&](auto s) {
    dispatch_bytes(y.dtype, [&](auto q) {
      map<Quantize<decltype(s), decltype(q)>>(in, y, p.scale, p.zeros(), lines);
    });
  });
  return y;
}

Array dequantize_linear(const TensorView& x, const TensorView& scale, const TensorView* zero_point,
                        const i64* axis) {
  const ScaleLines lines =
      ops::dequantize_linear_args("dequantize_linear", x, scale, zero_point, axis);
  const Array in = contiguous(x);
  const Parameters p(scale, zero_point, compute_dtype(scale.dtype));
  Array y = Array::empty(scale.dtype, x.shape);
  dispatch_floating(scale.dtype, [&](auto s) {
    const auto run = [&](auto q) {
      map<Dequantize<decltype(q), decltype(s)>>(in, y, p.scale, p.zeros(), lines);
    };
    if (x.dtype == DType::i32)
      run(std::int32_t{});
    else
      dispatch_bytes(x.dtype, run);
  });
  return y;
}

DynamicQuantized dynamic_quantize_linear(const TensorView& x) {
  check_floating("dynamic_quantize_linear", "x", x);
  const Array in = contiguous(x);
  const i64 n = x.elements();
  const DType computed = compute_dtype(x.dtype);
  DynamicQuantized r{Array::empty(DType::u8, x.shape), Array::empty(computed, Shape()),
                     Array::empty(DType::u8, Shape())};
  const Array ends = Array::empty(computed, Shape(kMostPartials, 2));
  dispatch_floating(x.dtype, [&](auto s) {
    using S = decltype(s);
    using T = Computed<S>;
    const i64 pieces = ceil_div(n, Piece<S, kThreads, kAtOnce>::capacity);
    const int blocks = static_cast<int>(pieces < kMostPartials ? pieces : kMostPartials);
    if (n)
      launch(range_kernel<S>, {static_cast<unsigned>(blocks), kThreads}, in.as<S>(), ends.as<T>(),
             n);
    launch(parameters_kernel<T>, {1, kThreads}, ends.as<T>(), blocks, r.scale.as<T>(),
           r.zero_point.as<std::uint8_t>());
    map<Quantize<S, std::uint8_t>>(in, r.y, r.scale, &r.zero_point, ScaleLines{1, n});
  });
  return r;
}

}  // namespace vectile::cuda
