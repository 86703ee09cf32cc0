#include "ops/gemm_s8.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

#include "ops/gemm.h"
#include "ops/matmul_shape.h"

namespace vectile::ops {
namespace {

using std::int32_t;
using std::uint32_t;

struct Format : GemmS8Format {
  explicit Format(const Kernels& kernels) { kernels.gemm_s8_format(this); }
  i64 groups(i64 k) const { return ceil_div(k, group); }
  // Elements of one stored row of A; off the powers of two, so that rows fall into different L1
  // sets.
  i64 row(i64 k) const { return round_up(groups(k), 16) + 16; }
  i64 strips(i64 k, i64 n) const { return groups(k) * round_up(n, nr); }
};

// Runs kernel(block) over the blocks of an m x n result.
template <class F>
void over_blocks(const Format& f, i64 m, i64 n, i64 k, F&& kernel) {
  constexpr i64 kCacheBytes = 1 << 19, kChunkWork = i64{1} << 24, kMaxTasks = 64;
  const i64 fit = std::clamp<i64>(kCacheBytes / std::max<i64>(1, k), 2 * f.mr, 32 * f.mr);
  const i64 mt = round_up(ceil_div(m, ceil_div(m, fit)), f.mr), row_blocks = ceil_div(m, mt);
  const i64 wanted = std::clamp<i64>(m * n * k / kChunkWork, 1, kMaxTasks);
  const i64 nt = std::max<i64>(8 * f.nr, round_up(ceil_div(n, ceil_div(wanted, row_blocks)), f.nr));
  parallel_for(row_blocks * ceil_div(n, nt), [&](i64 i) {
    const i64 m0 = i % row_blocks * mt, n0 = i / row_blocks * nt;
    kernel(GemmBlock{m0, std::min(m, m0 + mt), n0, std::min(n, n0 + nt)});
  });
}

struct PackedRight {
  Buffer<int32_t> strips, sums;
};

// `b` is (k, n) of int8 or uint8.
PackedRight pack_right(const Kernels& kernels, const TensorView& b) {
  const Format f(kernels);
  const i64 k = b.shape[0], n = b.shape[1], chunk = 4 * f.nr;
  PackedRight p{Buffer<int32_t>(f.strips(k, n)), Buffer<int32_t>(n)};
  parallel_ranges(ceil_div(n, chunk), std::max<i64>(1, kGrain / std::max<i64>(1, k * chunk)),
                  [&](i64 begin, i64 end) {
                    const i64 j = begin * chunk;
                    kernels.gemm_s8_pack(b.as<char>() + j * b.strides[1], b.dtype == DType::i8,
                                         b.strides[0], b.strides[1], k,
                                         std::min(n, end * chunk) - j,
                                         p.strips.get() + j * f.groups(k), p.sums.get() + j);
                  });
  return p;
}

void check_integers(const char* op, const char* argument, const TensorView& x) {
  check<TypeError>(x.dtype == DType::i8 || x.dtype == DType::u8, op, argument, "dtype",
                   "int8 or uint8", x.dtype);
}

// Calls f with every element of a scalar or 1-D array of integers.
template <class F>
void each_integer(const char* op, const char* argument, const TensorView& v, F&& f) {
  const auto read = [&](auto t) {
    for (i64 i = 0; i < v.elements(); ++i)
      f(i, static_cast<i64>(v.as<decltype(t)>()[v.ndim() ? i * v.strides[0] : 0]));
  };
  switch (v.dtype) {
    case DType::i8:
      return read(std::int8_t{});
    case DType::u8:
      return read(std::uint8_t{});
    case DType::i32:
      return read(int32_t{});
    case DType::i64:
      return read(i64{});
    default:
      fail<TypeError>(op, argument, "dtype", "an integer type", v.dtype);
  }
}

void check_per_line(const char* op, const char* argument, const TensorView& v, i64 count) {
  const bool ok = v.ndim() == 0 || (v.ndim() == 1 && (v.shape[0] == 1 || v.shape[0] == count));
  if (!ok) [[unlikely]]
    fail(op, argument, "shape", text("() or (", count, ",)"), v.shape);
}

// Zero points of `count` lines of `x`, counted from the stored values; empty when all are zero.
Buffer<int32_t> zero_points(const char* op, const char* argument, const TensorView* given,
                            const TensorView& x, i64 count, int32_t offset) {
  if (!given && offset == 0) return {};
  Buffer<int32_t> zeros(count);
  std::fill_n(zeros.get(), count, offset);
  if (!given) return zeros;
  check_per_line(op, argument, *given, count);
  const i64 low = x.dtype == DType::i8 ? -128 : 0;
  const bool one = given->elements() == 1;
  bool any = false;
  each_integer(op, argument, *given, [&](i64 i, i64 z) {
    if (z < low || z > low + 255) [[unlikely]]
      fail(op, argument, "value", text("one of ", x.dtype), z);
    const auto stored = static_cast<int32_t>(z) + offset;
    any = any || stored != 0;
    if (one)
      std::fill_n(zeros.get(), count, stored);
    else
      zeros[i] = stored;
  });
  if (!any) return {};
  return zeros;
}

// Offset of the stored values from those of x.
int32_t stored_offset(const Format& f, const TensorView& x, bool left) {
  if (left) return x.dtype == DType::i8 ? f.a_offset : 0;
  return x.dtype == DType::u8 ? f.b_offset : 0;
}

// One product (m, k) (k, n), ready for a kernel that finishes its tiles.
struct Product {
  Product(const Kernels& kernels, const TensorView& a, const PackedRight& right, i64 n,
          const int32_t* a_zero, const int32_t* b_zero)
      : format(kernels) {
    const i64 m = a.shape[0], k = a.shape[1], row = format.row(k);
    rows = Buffer<int32_t>(m * row);
    if (b_zero) row_sums = Buffer<int32_t>(m);
    parallel_ranges(m, rows_grain(k), [&](i64 begin, i64 end) {
      kernels.gemm_s8_rows(a.as<char>() + begin * a.strides[0], a.dtype == DType::i8, a.strides[0],
                           a.strides[1], end - begin, k, rows.get() + begin * row, row,
                           b_zero ? row_sums.get() + begin : nullptr);
    });
    g = {m,      n,
         k,      rows.get(),
         row,    right.strips.get(),
         a_zero, right.sums.get(),
         b_zero, row_sums.get()};
  }
  Format format;
  Buffer<int32_t> rows, row_sums;
  GemmS8 g;
};

// run(product, offset of its result) for every product of the batch. Zero points of `a` are per row
// of one matrix.
template <class F>
void each_product(const char* op, const MatmulShape& shape, const TensorView& c,
                  const TensorView* a_zero_point, const TensorView* b_zero_point, F&& run) {
  const Kernels& k = kernels();
  const Format f(k);
  const TensorView &a = shape.a, &b = shape.b;
  const TensorView matrix = shape.matrix(c);
  const auto a_zero =
      zero_points(op, "a_zero_point", a_zero_point, a, a.shape[-2], stored_offset(f, a, true));
  const auto b_zero =
      zero_points(op, "b_zero_point", b_zero_point, b, b.shape[-1], stored_offset(f, b, false));
  const Batch batch(a, b, matrix);
  const auto last_two = [](const TensorView& v, i64 offset) {
    TensorView matrix;
    matrix.data = v.as<char>() + offset;
    matrix.dtype = v.dtype;
    matrix.shape = Shape(v.shape[-2], v.shape[-1]);
    matrix.strides[0] = v.stride(-2), matrix.strides[1] = v.stride(-1);
    return matrix;
  };
  if (c.elements() == 0) return;
  const i64 depth = a.shape[-1], columns = b.shape[-1];
  PackedRight right;
  i64 packed = 0;
  for (i64 i = 0; i < batch.count(); ++i) {
    const auto at = batch.at(i);
    if (!right.sums.get() || at.b != packed) {  // a broadcast B is packed once
      packed = at.b;
      right = pack_right(k, last_two(b, at.b));
      for (i64 j = 0; a_zero.get() && b_zero.get() && j < columns; ++j)
        right.sums[j] =
            static_cast<int32_t>(static_cast<uint32_t>(right.sums[j]) -
                                 static_cast<uint32_t>(depth) * static_cast<uint32_t>(b_zero[j]));
    }
    run(k, Product(k, last_two(a, at.a), right, columns, a_zero.get(), b_zero.get()), at.c);
  }
}

// A scalar or 1-D array of positive floats, as `count` floats.
Buffer<float> scales_of(const char* op, const char* argument, const TensorView& v, i64 count) {
  check_float(op, argument, v);
  check_per_line(op, argument, v, count);
  Buffer<float> scales(count);
  dispatch_float(v.dtype, [&](auto t) {
    for (i64 i = 0; i < count; ++i)
      scales[i] = static_cast<float>(v.as<decltype(t)>()[v.elements() == 1 ? 0 : i * v.strides[0]]);
  });
  return scales;
}

}  // namespace

Array matmul_integer(const TensorView& a, const TensorView& b, const TensorView* a_zero_point,
                     const TensorView* b_zero_point) {
  constexpr const char* op = "matmul_integer";
  check_integers(op, "a", a);
  check_integers(op, "b", b);
  const MatmulShape shape(op, a, b);
  Array c = Array::empty(DType::i32, shape.result);
  each_product(op, shape, c, a_zero_point, b_zero_point,
               [&](const Kernels& k, const Product& p, i64 offset) {
                 over_blocks(p.format, p.g.m, p.g.n, p.g.k, [&](const GemmBlock& block) {
                   k.gemm_s8_exact(p.g, block, c.as<int32_t>() + offset, p.g.n);
                 });
               });
  return c;
}

Array qlinear_matmul(const TensorView& a, const TensorView& a_scale, const TensorView& a_zero_point,
                     const TensorView& b, const TensorView& b_scale, const TensorView& b_zero_point,
                     const TensorView& y_scale, const TensorView& y_zero_point) {
  constexpr const char* op = "qlinear_matmul";
  check_integers(op, "a", a);
  check_integers(op, "b", b);
  check_integers(op, "y_zero_point", y_zero_point);
  const MatmulShape shape(op, a, b);
  const auto rows = scales_of(op, "a_scale", a_scale, shape.a.shape[-2]);
  const auto columns = scales_of(op, "b_scale", b_scale, shape.b.shape[-1]);
  check(y_scale.elements() == 1, op, "y_scale", "shape", "()", y_scale.shape);
  check(y_zero_point.elements() == 1, op, "y_zero_point", "shape", "()", y_zero_point.shape);
  const float scale = scales_of(op, "y_scale", y_scale, 1)[0];
  for (i64 j = 0; j < shape.b.shape[-1]; ++j) columns[j] /= scale;
  float zero = 0;
  each_integer(op, "y_zero_point", y_zero_point, [&](i64, i64 z) { zero = static_cast<float>(z); });
  Array y = Array::empty(y_zero_point.dtype, shape.result);
  each_product(op, shape, y, &a_zero_point, &b_zero_point,
               [&](const Kernels& k, const Product& p, i64 offset) {
                 over_blocks(p.format, p.g.m, p.g.n, p.g.k, [&](const GemmBlock& block) {
                   k.gemm_s8_requantize(p.g, block, rows.get(), columns.get(), zero,
                                        y.dtype == DType::i8, y.as<char>() + offset, p.g.n);
                 });
               });
  return y;
}

QuantizedMatrix::QuantizedMatrix(const TensorView& values, const TensorView& scales)
    : kernels_(&vectile::kernels()) {
  constexpr const char* op = "QuantizedMatrix";
  check<TypeError>(values.dtype == DType::i8, op, "values", "dtype", DType::i8, values.dtype);
  check(values.ndim() == 2, op, "values", "ndim", 2, values.ndim());
  check_float(op, "scales", scales);
  n_ = values.shape[0], k_ = values.shape[1];
  check_shape(op, "scales", scales, Shape(n_));
  scales_ = Array::empty(scales.dtype, scales.shape);
  copy_strided(scales, scales_);
  dispatch_float(scales.dtype, [&](auto t) {
    for (i64 i = 0; i < n_; ++i) {
      const auto s = scales_.as<decltype(t)>()[i];
      check(s > 0 && std::isfinite(s), op, "scales", "value", "positive and finite", s);
    }
  });
  constexpr int order[] = {1, 0};
  PackedRight p = pack_right(*kernels_, permuted(values, order));
  strips_ = std::move(p.strips);
  column_sums_ = std::move(p.sums);
}

i64 QuantizedMatrix::bytes() const {
  const i64 words = Format(*kernels_).strips(k_, n_) + n_;
  return words * 4 + n_ * static_cast<i64>(item_size(dtype()));
}

Array QuantizedMatrix::values() const {
  Array v = Array::empty(DType::i8, Shape(n_, k_));
  kernels_->gemm_s8_unpack(strips_.get(), k_, n_, v.as<std::int8_t>());
  return v;
}

Array QuantizedMatrix::dequantize() const {
  const Array v = values();
  Array w = Array::empty(dtype(), v.shape);
  dispatch_float(dtype(), [&](auto t) {
    using T = decltype(t);
    const T zero = 0;
    for (i64 i = 0; i < n_; ++i)
      kernels_->of<T>().dequantize_s8(v.as<std::int8_t>() + i * k_, scales_.as<T>() + i, &zero, 0,
                                      k_, w.as<T>() + i * k_);
  });
  return w;
}

std::unique_ptr<QuantizedMatrix> quantize_weight(const TensorView& weight) {
  constexpr const char* op = "quantize_weight";
  check_float(op, "weight", weight);
  check(weight.ndim() == 2, op, "weight", "ndim", 2, weight.ndim());
  const Array w = contiguous(weight);
  const i64 n = w.shape[0], k = w.shape[1];
  const Array values = Array::empty(DType::i8, w.shape);
  const Array scales = Array::empty(w.dtype, Shape(n));
  dispatch_float(w.dtype, [&](auto t) {
    using T = decltype(t);
    const auto& kernel = kernels_of<T>();
    parallel_ranges(n, rows_grain(k), [&](i64 begin, i64 end) {
      for (i64 i = begin; i < end; ++i) {
        const T* row = w.as<T>() + i * k;
        T low = 0, high = 0;
        if (k > 0) kernel.row_min(row, &low, 1, k), kernel.row_max(row, &high, 1, k);
        const T top = std::max(-low, high), zero = 0;
        check(std::isfinite(low) && std::isfinite(high), op, "weight", "values", "finite numbers",
              std::isnan(top) ? "nan" : "inf");
        T& scale = scales.as<T>()[i];
        scale = top / 127 > 0 ? top / 127 : T(1);
        kernel.quantize_s8(row, &scale, &zero, 0, k, values.as<std::int8_t>() + i * k);
      }
    });
  });
  return std::make_unique<QuantizedMatrix>(values, scales);
}

Array linear(const TensorView& x, const QuantizedMatrix& weight, const TensorView* bias,
             Activation activation) {
  check_float("linear", "x", x);
  check<TypeError>(x.dtype == weight.dtype(), "linear", "weight", "dtype", x.dtype, weight.dtype());
  Array y = Array::empty(x.dtype, check_linear(x, weight.rows(), weight.columns(), bias));
  const i64 n = weight.rows(), k = weight.columns(), m = n ? y.elements() / n : 0;
  if (y.elements() == 0) return y;
  const Array in = contiguous(x), dense = bias ? contiguous(*bias) : Array();
  const Kernels& kernels = weight.kernels();
  const Format f(kernels);
  const i64 row = f.row(k);
  const Buffer<int32_t> rows(m * row), zeros(m);
  dispatch_float(x.dtype, [&](auto t) {
    using T = decltype(t);
    const auto& kernel = kernels.of<T>();
    const Buffer<T> scales(m);
    parallel_ranges(m, rows_grain(k), [&](i64 begin, i64 end) {
      kernel.gemm_s8_quantize_rows(in.as<T>() + begin * k, k, end - begin, k,
                                   rows.get() + begin * row, row, scales.get() + begin,
                                   zeros.get() + begin);
    });
    const GemmS8 g{
        m,       n,      k, rows.get(), row, weight.strips(), zeros.get(), weight.column_sums(),
        nullptr, nullptr};
    over_blocks(f, m, n, k, [&](const GemmBlock& block) {
      kernel.gemm_s8_linear(g, block, scales.get(), weight.scales().as<T>(),
                            bias ? dense.as<T>() : nullptr, activation, y.as<T>(), n);
    });
  });
  return y;
}

}  // namespace vectile::ops
