// Products of bytes, exact in int32: operands as they are where they lie in lines of whole chunks
// along k, else packed so; zero points taken out of the finished sums; then what the op makes of
// them. linear quantises the rows of x on the way.
#include "gemm_s8.h"

#include <algorithm>

#include "epilogue.h"
#include "gemm_s8_hopper.h"
#include "gemm_s8_tile.h"
#include "kernels/gemm_s8_types.h"
#include "ops/gemm_s8_args.h"
#include "quantize.h"

namespace vectile::cuda {
namespace {

using std::int8_t;
using std::uint8_t;

// ---- operands -----------------------------------------------------------------------------------

constexpr int kPackTile = 64, kPackThreads = 256;

// Matrices of lines of k bytes, any strides.
struct Bytes {
  const uint8_t* data;
  i64 matrices, lines, k, matrix, line, depth;
};

// Packs them, rows padded with zeros to multiples of 16 bytes.
__global__ void __launch_bounds__(kPackThreads) pack_kernel(Bytes x, uint8_t* y) {
  constexpr int each = kPackTile * kPackTile / kPackThreads;
  constexpr int words = kPackTile / 4, pitch = words + 1;  // no bank twice down a column
  __shared__ unsigned tile[kPackTile * pitch];
  const i64 row = round_up(x.k, kVectorBytes);
  const i64 tiles_k = ceil_div(row, kPackTile), tiles = ceil_div(x.lines, kPackTile) * tiles_k;
  const int thread = static_cast<int>(threadIdx.x);
  // Reads go along k or along the lines; a thread's are `apart` lines of reads from each other.
  constexpr int apart = kPackThreads / kPackTile;
  const bool along_k = x.depth == 1;
  const int along = thread % kPackTile, across = thread / kPackTile;
  const int first_line = along_k ? across : along, first_k = along_k ? along : across;
  const i64 hop = apart * (along_k ? x.line : x.depth);
  uint8_t* const to = reinterpret_cast<uint8_t*>(tile) + first_line * 4 * pitch + first_k;
  const int to_hop = apart * (along_k ? 4 * pitch : 1);
  for (i64 t = blockIdx.x; t < x.matrices * tiles; t += gridDim.x) {
    const i64 matrix = t / tiles, line0 = t % tiles / tiles_k * kPackTile;
    const i64 k0 = t % tiles_k * kPackTile;
    const i64 lines = x.lines - line0 - first_line, depth = x.k - k0 - first_k;  // inside
    const i64 left = lines > 0 && depth > 0 ? (along_k ? lines : depth) : 0;
    const uint8_t* const from =
        x.data + matrix * x.matrix + (line0 + first_line) * x.line + (k0 + first_k) * x.depth;
    uint8_t held[each];
#pragma unroll
    for (int i = 0; i < each; ++i) held[i] = i * apart < left ? from[i * hop] : uint8_t{0};
#pragma unroll
    for (int i = 0; i < each; ++i) to[i * to_hop] = held[i];
    __syncthreads();
    const int line = thread / 4, chunk = thread % 4;
    const unsigned* const w = tile + line * pitch + chunk * 4;
    if (line0 + line < x.lines && k0 + chunk * kVectorBytes < row)
      *reinterpret_cast<uint4*>(y + (matrix * x.lines + line0 + line) * row + k0 +
                                chunk * kVectorBytes) = make_uint4(w[0], w[1], w[2], w[3]);
    __syncthreads();
  }
}

// (..., lines, k) as the product reads it: `x` itself, or packed.
Array as_lines(const TensorView& x) {
  const auto whole = [](i64 bytes) { return bytes % kVectorBytes == 0; };
  const i64 k = x.shape[-1];
  bool ready = whole(reinterpret_cast<i64>(x.data)) && x.stride(-1) == 1 && whole(k);
  for (int i = 0; i < x.ndim() - 1; ++i) ready = ready && (x.shape[i] == 1 || whole(x.strides[i]));
  if (ready) return Array(x);
  Bytes from{x.as<uint8_t>(), 1, x.shape[-2], k, 0, x.stride(-2), x.stride(-1)};
  bool even = true;  // one stride from matrix to matrix
  for (int i = x.ndim() - 3; i >= 0; --i) {
    if (x.shape[i] == 1) continue;
    even = even && (from.matrices == 1 || x.strides[i] == from.matrices * from.matrix);
    if (from.matrices == 1) from.matrix = x.strides[i];
    from.matrices *= x.shape[i];
  }
  if (!even) return as_lines(contiguous(x));
  Array packed = Array::empty(x.dtype, with_last(x.shape, round_up(k, kVectorBytes)));
  const i64 tiles = ceil_div(from.lines, kPackTile) * ceil_div(packed.shape[-1], kPackTile);
  if (packed.elements())
    launch(pack_kernel, {blocks_for(from.matrices * tiles, 1), kPackThreads}, from,
           packed.as<uint8_t>());
  packed.shape[-1] = k;
  return packed;
}

TensorView transposed(const TensorView& x) {
  TensorView y = x;
  std::swap(y.shape[-1], y.shape[-2]);
  std::swap(y.strides[x.ndim() - 1], y.strides[x.ndim() - 2]);
  return y;
}

// ---- what becomes of the sums -------------------------------------------------------------------

struct Exact {
  using Y = int;
  using Value = int;
  struct Row {};
  struct Column {};
  Y* y;
  __device__ Row row(i64) const { return {}; }
  __device__ Column column(i64) const { return {}; }
  __device__ Value value(int c, Row, Column) const { return c; }
  __device__ Y result(Value v) const { return v; }
};

// saturate(round(a_scale (b_scale / y_scale) c) + zero)
template <class Q>
struct Requantize {
  using Y = Q;
  using Value = float;
  using Row = float;
  struct Column {
    float scale, zero;
  };
  Numbers<float> a_scale, b_scale, y_scale, y_zero;
  Y* y;
  __device__ Row row(i64 i) const { return a_scale[i]; }
  __device__ Column column(i64 j) const { return {b_scale[j] / y_scale[0], y_zero[0]}; }
  __device__ Value value(int c, Row row, const Column& column) const {
    return rint(static_cast<float>(c) * (row * column.scale)) + column.zero;
  }
  __device__ Y result(Value v) const { return saturate<Y>(v); }
};

// activation(a_scale b_scale c + bias)
template <class S>
struct Linear {
  using Y = S;
  using Value = Computed<S>;
  using Row = Value;
  struct Column {
    Value scale, bias;
  };
  const Value* a_scale;
  Numbers<Value> b_scale, bias;
  Activation activation;
  Y* y;
  __device__ Row row(i64 i) const { return a_scale[i]; }
  __device__ Column column(i64 j) const { return {b_scale[j], bias[j]}; }
  __device__ Value value(int c, Row row, const Column& column) const {
    return static_cast<Value>(c) * (row * column.scale) + column.bias;
  }
  __device__ Y result(Value v) const { return from_float<Y>(activate(activation, v)); }
};

// ---- launches -----------------------------------------------------------------------------------

constexpr i64 kMostBatches = 65535;  // of a grid; kernels stride over what is beyond

template <class F>
void with_bool(bool value, F&& f) {
  value ? f(std::true_type{}) : f(std::false_type{});
}
template <class F>
void dispatch_byte(DType dtype, F&& f) {
  dtype == DType::i8 ? f(int8_t{}) : f(uint8_t{});
}

template <class A, class B, class Finish>
void multiply(const ProductS8& p, const Finish& f) {
  if (hopper::multiply_s8<A, B>(p, f)) return;
  const auto blocks_of = [&](auto tile) {
    return ceil_div(p.a.count, tile.m) * ceil_div(p.b.count, tile.n);
  };
  const auto run = [&](auto tile) {
    const i64 blocks = blocks_of(tile);
    check(blocks < i64{1} << 31, "matmul", "result", "blocks", "fewer than 2^31", blocks);
    with_bool(p.b_zero.data != nullptr, [&](auto row_sums) {
      launch(gemm_s8_kernel<A, B, decltype(tile), row_sums.value, Finish>,
             {dim3(static_cast<unsigned>(blocks), 1,
                   static_cast<unsigned>(std::min(p.batches, kMostBatches))),
              dim3(static_cast<unsigned>(tile.threads)), static_cast<std::size_t>(tile.bytes)},
             p, f);
    });
  };
  const bool fills = 2 * blocks_of(LargeS8{}) * p.batches >= multiprocessors();
  if (p.a.count > SmallS8::m && fills) return run(LargeS8{});
  // A product cut along k is a batch of equal shorter ones.
  const i64 m = p.a.count, n = p.b.count, chunks = p.k / kVectorBytes;
  i64 parts =
      p.batches > 1 || p.k % kVectorBytes ? 1 : parts_of<uint8_t>(m, n, p.k, blocks_of(SmallS8{}));
  while (chunks % parts) --parts;
  if (parts <= 1) return run(SmallS8{});
  const Array sums = Array::empty(DType::i32, Shape(parts, m, n));
  ProductS8 cut = p;
  cut.k = cut.a.batch[0] = cut.b.batch[0] = p.k / parts;
  cut.axes = 1;
  cut.batches = cut.size[0] = parts;
  multiply<A, B>(cut, Exact{sums.as<int>()});
  launch(add_parts_s8_kernel<Finish>, {blocks_for(m * n, kAddThreads8), kAddThreads8},
         sums.as<int>(), static_cast<int>(parts), m, n, f);
}

// a (..., m, k) and b (..., n, k) of as_lines, c (..., m, n).
ProductS8 product_of(const TensorView& a, const TensorView& b, const TensorView& c,
                     const TensorView* a_zero, const TensorView* b_zero) {
  const ops::Batch batch(a, b, c);
  ProductS8 p{};
  p.a = {a.as<char>(), a.shape[-2], a.stride(-2), {}};
  p.b = {b.as<char>(), b.shape[-2], b.stride(-2), {}};
  p.k = a.shape[-1];
  p.batches = batch.count();
  p.axes = batch.shape.ndim;
  for (int d = 0; d < p.axes; ++d) {
    const int from = p.axes - 1 - d;
    p.size[d] = batch.shape[from];
    p.a.batch[d] = batch.a[from], p.b.batch[d] = batch.b[from];
  }
  if (a_zero) p.a_zero = Numbers<int>(*a_zero);
  if (b_zero) p.b_zero = Numbers<int>(*b_zero);
  return p;
}

// run(product, A{}, B{}) for the batch of products, c where their results go.
template <class F>
void each_type(const ops::MatmulShape& shape, const TensorView& c, const TensorView* a_zero,
               const TensorView* b_zero, F&& run) {
  if (c.elements() == 0) return;
  const Array a = as_lines(shape.a), b = as_lines(transposed(shape.b));
  const ProductS8 p = product_of(a, b, shape.matrix(c), a_zero, b_zero);
  dispatch_byte(a.dtype, [&](auto left) {
    dispatch_byte(b.dtype, [&](auto right) { run(p, left, right); });
  });
}

// ---- quantisation by rows -----------------------------------------------------------------------

constexpr int kKeep = 4;

// The largest x and -x of a row, and 0, by its block; NaN if there is one. The row stays in `piece`
// where it fits.
template <int THREADS, class P, class S, class T>
__device__ void row_range(const S* x, i64 k, P& piece, T* scratch, T& above, T& below) {
  above = below = T(0);
  over_pieces<P>(k, [&](i64 first, int count) {
    piece.load(x + first, count, T(0));
#pragma unroll
    for (int i = 0; i < P::count; ++i)
      above = Max{}(above, piece.at[i]), below = Max{}(below, -piece.at[i]);
  });
  above = block_reduce<THREADS>(above, Max{}, scratch);
  below = block_reduce<THREADS>(below, Max{}, scratch);
}

struct ActivationRange {
  QuantizeRows::Range range;
  Numbers<double> scale;  // if fixed
  Numbers<int> zero;
  int offset;  // of the zero point, from that of unsigned bytes
};

// q = saturate(round(x / scale) + zero) in rows of whole chunks, zeros past k. A range below 255
// (127) times the least normal number is taken for zeros, with scale 0; NaN or infinity in a row
// makes its scale NaN.
template <class S, int THREADS>
__global__ void __launch_bounds__(THREADS)
    quantize_rows_kernel(const S* x, i64 rows, i64 k, ActivationRange how, uint8_t* q,
                         Computed<S>* scales, int* zeros) {
  using T = Computed<S>;
  using P = Piece<S, THREADS, kKeep>;
  constexpr T tiny = sizeof(T) == 4 ? T(0x1p-126) : T(0x1p-1022);
  struct alignas(P::size) Quantized {
    uint8_t at[P::size];
  };
  __shared__ T scratch[THREADS / kWarp];
  const i64 padded = round_up(k, kVectorBytes);
  for (i64 r = blockIdx.x; r < rows; r += gridDim.x) {
    P piece;
    T above, below;
    row_range<THREADS>(x + r * k, k, piece, scratch, above, below);
    T scale, zero(128);
    if (how.range == QuantizeRows::fixed) {
      scale = static_cast<T>(how.scale[0]), zero = static_cast<T>(how.zero[0] + how.offset);
    } else {
      scale = how.range == QuantizeRows::symmetric ? Max{}(above, below) / T(127)
                                                   : above / T(255) + below / T(255);
      if (how.range == QuantizeRows::asymmetric) zero = scale < tiny ? T(0) : rint(below / scale);
      if (scale < tiny) scale = T(0);
      const T none = (above - above) + (below - below);  // 0, or NaN of what is not finite
      if (none != T(0)) scale = none, zero = T(0);
    }
    const T inverse = scale > T(0) ? T(1) / scale : T(0);
    over_pieces<P>(k, [&](i64 first, int count) {
      if (k > P::capacity) piece.load(x + r * k + first, count, T(0));
      uint8_t* const to = q + r * padded + first;
#pragma unroll
      for (int v = 0; v < kKeep; ++v) {
        const int at = P::index(v * P::size);
        if (first + at >= padded) continue;
        Quantized bytes;
#pragma unroll
        for (int j = 0; j < P::size; ++j)
          bytes.at[j] = at + j < count
                            ? saturate<uint8_t>(rint(fma(piece.at[v * P::size + j], inverse, zero)))
                            : uint8_t{0};
        *reinterpret_cast<Quantized*>(to + at) = bytes;
      }
    });
    if (threadIdx.x == 0) scales[r] = scale, zeros[r] = static_cast<int>(zero);
  }
}

template <class T, int THREADS>
__global__ void __launch_bounds__(THREADS)
    weight_range_kernel(const T* w, i64 rows, i64 k, bool symmetric, T* scales, int8_t* zeros) {
  using P = Piece<T, THREADS, kKeep>;
  __shared__ T scratch[THREADS / kWarp];
  for (i64 r = blockIdx.x; r < rows; r += gridDim.x) {
    P piece;
    T above, below;
    row_range<THREADS>(w + r * k, k, piece, scratch, above, below);
    if (threadIdx.x) continue;
    T scale = symmetric ? Max{}(above, below) / T(127) : above / T(255) + below / T(255);
    if (scale == T(0)) scale = T(1);
    scale += (above - above) + (below - below);  // NaN of what is not finite
    scales[r] = scale;
    zeros[r] = symmetric ? int8_t{0} : saturate<int8_t>(rint(below / scale) - T(128));
  }
}

}  // namespace

Array matmul_integer(const TensorView& a, const TensorView& b, const TensorView* a_zero_point,
                     const TensorView* b_zero_point) {
  const ops::MatmulShape shape =
      ops::matmul_integer_args("matmul_integer", a, b, a_zero_point, b_zero_point);
  Array c = Array::empty(DType::i32, shape.result);
  each_type(shape, c, a_zero_point, b_zero_point, [&](const ProductS8& p, auto left, auto right) {
    multiply<decltype(left), decltype(right)>(p, Exact{c.as<int>()});
  });
  return c;
}

Array qlinear_matmul(const TensorView& a, const TensorView& a_scale, const TensorView& a_zero_point,
                     const TensorView& b, const TensorView& b_scale, const TensorView& b_zero_point,
                     const TensorView& y_scale, const TensorView& y_zero_point) {
  const ops::MatmulShape shape = ops::qlinear_matmul_args(
      "qlinear_matmul", a, a_scale, a_zero_point, b, b_scale, b_zero_point, y_scale, y_zero_point);
  Array y = Array::empty(y_zero_point.dtype, shape.result);
  const auto run = [&](const ProductS8& p, auto left, auto right) {
    dispatch_byte(y.dtype, [&](auto out) {
      using Y = decltype(out);
      multiply<decltype(left), decltype(right)>(
          p, Requantize<Y>{Numbers<float>(a_scale), Numbers<float>(b_scale),
                           Numbers<float>(y_scale), Numbers<float>(y_zero_point), y.as<Y>()});
    });
  };
  each_type(shape, y, &a_zero_point, &b_zero_point, run);
  return y;
}

QuantizedWeight quantize_weight(const TensorView& weight, bool symmetric, bool per_channel) {
  ops::quantize_weight_args("quantize_weight", weight);
  const Array w = contiguous(weight);
  const Shape lines = per_channel ? Shape(w.shape[0]) : Shape();
  const i64 rows = lines.elements(), k = per_channel ? w.shape[1] : w.elements(), axis = 0;
  Array scales = Array::empty(w.dtype, lines), zeros = Array::empty(DType::i8, lines);
  if (rows)
    dispatch_float(w.dtype, [&](auto t) {
      using T = decltype(t);
      with_threads<T, kKeep>(k, [&](auto threads) {
        launch(weight_range_kernel<T, threads.value>, {blocks_for(rows, 1), threads.value},
               w.as<T>(), rows, k, symmetric, scales.as<T>(), zeros.as<int8_t>());
      });
    });
  Array values = quantize_linear(w, scales, &zeros, &axis);
  return {std::move(values), std::move(scales), symmetric ? Array() : std::move(zeros)};
}

Array quantized_linear(const TensorView& x, const TensorView& values, const TensorView& scales,
                       const TensorView* zero_points, const TensorView* bias, Activation activation,
                       const TensorView* x_scale, const TensorView* x_zero_point, bool symmetric) {
  constexpr const char* op = "quantized_linear";
  ops::quantized_matrix_args(op, values, scales, zero_points);
  ops::activation_range_args(op, x_scale, x_zero_point);
  const i64 n = values.shape[0], k = values.shape[1];
  Array y = Array::empty(x.dtype, ops::quantized_linear_args(op, x, n, k, scales.dtype, bias));
  if (y.elements() == 0) return y;
  const i64 m = y.elements() / n;
  ActivationRange how{symmetric ? QuantizeRows::symmetric : QuantizeRows::asymmetric, {}, {}, 128};
  if (x_scale) how.range = QuantizeRows::fixed, how.scale = Numbers<double>(*x_scale);
  if (x_zero_point) {
    how.zero = Numbers<int>(*x_zero_point);
    how.offset = x_zero_point->dtype == DType::i8 ? 128 : 0;
  }
  const Array in = contiguous(x), weight = as_lines(values);
  Array q = Array::empty(DType::u8, Shape(m, round_up(k, kVectorBytes)));
  const Array row_scales = Array::empty(scales.dtype, Shape(m)),
              zeros = Array::empty(DType::i32, Shape(m));
  dispatch_floating(x.dtype, [&](auto s) {
    using S = decltype(s);
    using T = Computed<S>;
    with_threads<S, kKeep>(k, [&](auto threads) {
      launch(quantize_rows_kernel<S, threads.value>, {blocks_for(m, 1), threads.value}, in.as<S>(),
             m, k, how, q.as<uint8_t>(), row_scales.as<T>(), zeros.as<int>());
    });
    q.shape[-1] = k;
    TensorView matrix = y;
    matrix.shape = Shape(m, n);
    multiply<uint8_t, int8_t>(
        product_of(q, weight, matrix, &zeros, zero_points),
        Linear<S>{row_scales.as<T>(), Numbers<T>(scales), bias ? Numbers<T>(*bias) : Numbers<T>(),
                  activation, y.as<S>()});
  });
  return y;
}

}  // namespace vectile::cuda
