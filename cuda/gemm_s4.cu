// Products with weights in 4 bits for few rows of x: what counts is that the weight is read once, 4
// bytes a lane and many loads under way. A warp has some columns, its lanes neighbouring eights
// along k, whose sums it adds up at the end in the same order each time.
#include "gemm_s4.h"

#include "epilogue.h"
#include "ops/gemm_s4_args.h"
#include "ops/gemm_s8_args.h"

namespace vectile::cuda {
namespace {

using std::uint8_t;

constexpr int kThreads = 128, kWarps = kThreads / kWarp;
constexpr int kColumns = 2;             // of a warp
constexpr int kRows = 8;                // of x, the most that share a read of the weight
constexpr int kEight = 8;               // values along k in a register
constexpr int kAhead = 8;               // registers of a column that are under way
constexpr int kLanes = kWarp * kEight;  // values along k of a warp's load

template <class T>
struct Int4 {
  const uint8_t* packed;  // (n, row)
  const T* scales;        // (n, groups)
  const uint8_t* zeros;   // the same, or null for 8
  i64 n, k, row, groups;
  int group;

  // The eight values of column j from `first` on, a multiple of 8; what lies past k is 0.
  __device__ unsigned load(i64 j, i64 first) const {
    const uint8_t* const p = packed + j * row + first / 2;
    if (first + kEight <= k && reinterpret_cast<std::uintptr_t>(p) % 4 == 0)
      return *reinterpret_cast<const unsigned*>(p);
    unsigned x = 0;
    for (int i = 0; i < 4; ++i)
      if (first / 2 + i < row) x |= static_cast<unsigned>(p[i]) << 8 * i;
    return x;
  }
};

// q - zero: a float32 of 2^23 + q has q for its last bits.
__device__ __forceinline__ float centred(unsigned q, float zero) {
  return __uint_as_float(0x4b000000u | q) - (8388608.f + zero);
}
__device__ __forceinline__ double centred(unsigned q, double zero) { return q - zero; }

// y = activation(x W^T + bias) for the ROWS rows of x that a block row has, as far as there are.
template <class S, int ROWS>
__global__ void __launch_bounds__(kThreads)
    linear_kernel(const S* x, Int4<Computed<S>> w, const Computed<S>* bias, Activation activation,
                  S* y, i64 m) {
  using T = Computed<S>;
  constexpr int size = Vector<S>::size;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const i64 j0 = (i64{blockIdx.x} * kWarps + threadIdx.x / kWarp) * kColumns;
  if (j0 >= w.n) return;
  for (i64 r0 = i64{blockIdx.y} * ROWS; r0 < m; r0 += i64{gridDim.y} * ROWS) {
    T sums[ROWS][kColumns] = {};
    for (i64 step = lane * kEight; step < w.k; step += kAhead * kLanes) {
      unsigned q[kAhead][kColumns];
#pragma unroll
      for (int a = 0; a < kAhead; ++a)
#pragma unroll
        for (int c = 0; c < kColumns; ++c) {
          const i64 first = step + a * kLanes;
          q[a][c] = first < w.k && j0 + c < w.n ? w.load(j0 + c, first) : 0;
        }
#pragma unroll
      for (int a = 0; a < kAhead; ++a) {
        const i64 first = step + a * kLanes;
        if (first >= w.k) break;
        const int count = static_cast<int>(w.k - first < kEight ? w.k - first : kEight);
        T scale[kColumns], value[kColumns][kEight];
#pragma unroll
        for (int c = 0; c < kColumns; ++c) {
          const i64 at = (j0 + c < w.n ? j0 + c : j0) * w.groups + first / w.group;
          scale[c] = w.scales[at];
          const T zero = w.zeros ? T(w.zeros[at]) : T(8);
#pragma unroll
          for (int e = 0; e < kEight; ++e) value[c][e] = centred(q[a][c] >> 4 * e & 15, zero);
        }
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
          if (r0 + r >= m) break;
          const S* const from = x + (r0 + r) * w.k + first;
          T part[kColumns] = {};
#pragma unroll
          for (int e = 0; e < kEight; e += size) {
            const int left = count - e;
            const Vector<S> v = load_vector(from + e, left < 0 ? 0 : left < size ? left : size);
#pragma unroll
            for (int i = 0; i < size; ++i)
#pragma unroll
              for (int c = 0; c < kColumns; ++c)
                part[c] = fma(T(to_float(v.at[i])), value[c][e + i], part[c]);
          }
#pragma unroll
          for (int c = 0; c < kColumns; ++c) sums[r][c] = fma(scale[c], part[c], sums[r][c]);
        }
      }
    }
#pragma unroll
    for (int r = 0; r < ROWS; ++r)
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        const T sum = warp_reduce(sums[r][c], Sum{});
        if (lane != 0 || r0 + r >= m || j0 + c >= w.n) continue;
        y[(r0 + r) * w.n + j0 + c] =
            from_float<S>(activate(activation, bias ? sum + bias[j0 + c] : sum));
      }
  }
}

// A group a warp, two neighbours a lane.
template <class T>
__global__ void __launch_bounds__(kThreads)
    quantize_kernel(const T* w, Int4<T> to, uint8_t* packed, T* scales, uint8_t* zeros,
                    bool symmetric) {
  constexpr T tiny = sizeof(T) == 4 ? T(0x1p-126) : T(0x1p-1022);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (i64 g = i64{blockIdx.x} * kWarps + threadIdx.x / kWarp; g < to.n * to.groups;
       g += i64{gridDim.x} * kWarps) {
    const i64 j = g / to.groups, first = g % to.groups * to.group;
    const int count = static_cast<int>(to.k - first < to.group ? to.k - first : to.group);
    const T* const from = w + j * to.k + first;
    T above(0), below(0);
    for (int i = lane; i < count; i += kWarp)
      above = Max{}(above, from[i]), below = Max{}(below, -from[i]);
    above = warp_reduce(above, Max{}), below = warp_reduce(below, Max{});
    T scale = symmetric ? Max{}(above / T(7), below / T(8)) : above / T(15) + below / T(15);
    if (scale < tiny) scale = T(1);
    scale += (above - above) + (below - below);  // NaN of what is not finite
    const auto code = [](T v) { return v > T(0) ? (v < T(15) ? v : T(15)) : T(0); };
    const T zero = symmetric ? T(8) : code(rint(below / scale));
    if (lane == 0) scales[g] = scale, zeros[g] = static_cast<uint8_t>(zero);
    for (int i = 2 * lane; i < count; i += 2 * kWarp) {
      unsigned both = 0;
      for (int e = 0; e < 2; ++e)
        if (i + e < count)
          both |= static_cast<unsigned>(code(rint(from[i + e] / scale) + zero)) << 4 * e;
      packed[j * to.row + (first + i) / 2] = static_cast<uint8_t>(both);
    }
  }
}

}  // namespace

Int4Weight quantize_weight_4bit(const TensorView& weight, i64 group, bool symmetric) {
  ops::quantize_weight_4bit_args("quantize_weight", weight, group);
  const Array w = contiguous(weight);
  const i64 n = w.shape[0], k = w.shape[1], groups = ceil_div(k, group);
  Int4Weight q{Array::empty(DType::u8, Shape(n, ceil_div(k, 2))),
               Array::empty(w.dtype, Shape(n, groups)), Array::empty(DType::u8, Shape(n, groups))};
  if (w.elements())
    dispatch_float(w.dtype, [&](auto t) {
      using T = decltype(t);
      const Int4<T> to{nullptr, nullptr,           nullptr, n,
                       k,       q.packed.shape[1], groups,  static_cast<int>(group)};
      launch(quantize_kernel<T>, {blocks_for(n * groups, kWarps), kThreads}, w.as<T>(), to,
             q.packed.as<uint8_t>(), q.scales.as<T>(), q.zero_points.as<uint8_t>(), symmetric);
    });
  if (symmetric) q.zero_points = Array();
  return q;
}

Array linear_4bit(const TensorView& x, const TensorView& packed, const TensorView& scales,
                  const TensorView* zero_points, const TensorView* bias, i64 group,
                  Activation activation) {
  constexpr const char* op = "linear_4bit";
  check_floating(op, "x", x);
  check(x.ndim() > 0, op, "x", "ndim", "at least 1", 0);
  check<TypeError>(packed.dtype == DType::u8, op, "packed", "dtype", DType::u8, packed.dtype);
  check(packed.ndim() == 2, op, "packed", "ndim", 2, packed.ndim());
  ops::check_group(op, group);
  check_float(op, "scales", scales);
  const i64 k = x.shape.back(), n = packed.shape[0], groups = ceil_div(k, group);
  check_shape(op, "packed", packed, Shape(n, ceil_div(k, 2)));
  check_shape(op, "scales", scales, Shape(n, groups));
  if (zero_points) {
    check<TypeError>(zero_points->dtype == DType::u8, op, "zero_points", "dtype", DType::u8,
                     zero_points->dtype);
    check_shape(op, "zero_points", *zero_points, scales.shape);
  }
  Array y = Array::empty(x.dtype, ops::quantized_linear_args(op, x, n, k, scales.dtype, bias));
  if (y.elements() == 0) return y;
  const Array in = contiguous(x), q = contiguous(packed), s = contiguous(scales);
  const Array zeros = given(zero_points);
  const Array added = bias ? converted(*bias, scales.dtype) : Array();
  const i64 m = y.elements() / n;
  dispatch_floating(x.dtype, [&](auto stored) {
    using S = decltype(stored);
    using T = Computed<S>;
    const Int4<T> w{q.as<uint8_t>(), s.as<T>(), zeros.as<uint8_t>(),    n, k,
                    q.shape[1],      groups,    static_cast<int>(group)};
    const auto run = [&](auto rows) {
      const i64 blocks = ceil_div(n, kWarps * kColumns), passes = ceil_div(m, rows.value);
      check(blocks < i64{1} << 31, op, "packed", "rows", "fewer than 2^34", n);
      launch(linear_kernel<S, rows.value>,
             {dim3(static_cast<unsigned>(blocks),
                   static_cast<unsigned>(passes < 65535 ? passes : 65535)),
              dim3(kThreads)},
             in.as<S>(), w, added.as<T>(), activation, y.as<S>(), m);
    };
    if (m == 1) return run(std::integral_constant<int, 1>{});
    if (m <= 4) return run(std::integral_constant<int, 4>{});
    run(std::integral_constant<int, kRows>{});
  });
  return y;
}

}  // namespace vectile::cuda
