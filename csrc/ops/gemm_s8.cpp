#include "ops/gemm_s8.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

#include "ops/gemm_quantized.h"
#include "ops/gemm_s8_args.h"

namespace vectile::ops {
namespace {

using std::int32_t;
using std::uint32_t;

struct Format : GemmS8Format {
  explicit Format(const Kernels& kernels) { kernels.gemm_s8_format(this); }
  i64 groups(i64 k) const { return round_up(ceil_div(k, 4), step); }
  // Elements of one stored row of A; off the powers of two, so that rows fall into different L1
  // sets.
  i64 row(i64 k) const { return round_up(groups(k) * left_elements, 16) + 16; }
  i64 strips(i64 k, i64 n) const { return groups(k) * round_up(n, nr); }
};

GemmBlocks blocks_of(const Format& f, i64 m, i64 k) {
  constexpr i64 kCacheBytes = 3 << 17;
  const i64 fit = std::clamp<i64>(kCacheBytes / (4 * f.row(k)), 2 * f.mr, 32 * f.mr);
  return {round_up(even_rows(m, fit), f.mr), 8 * f.nr, i64{1} << 24};
}

struct PackedRight {
  Buffer<int32_t> strips, terms;
};

// `b` is (k, n) of int8 or uint8.
PackedRight pack_right(const Kernels& kernels, const TensorView& b) {
  const Format f(kernels);
  const i64 k = b.shape[0], n = b.shape[1], chunk = round_up(64, f.nr);
  PackedRight p{Buffer<int32_t>(f.strips(k, n)), Buffer<int32_t>(n)};
  parallel_ranges(ceil_div(n, chunk), std::max<i64>(1, kGrain / std::max<i64>(1, k * chunk)),
                  [&](i64 begin, i64 end) {
                    const i64 j = begin * chunk;
                    kernels.gemm_s8_pack(b.as<char>() + j * b.strides[1], b.dtype == DType::i8,
                                         b.strides[0], b.strides[1], k,
                                         std::min(n, end * chunk) - j,
                                         p.strips.get() + j * f.groups(k), p.terms.get() + j);
                  });
  return p;
}

// Rows of A in stored form, with room for whole tiles.
struct Left {
  Left(const Format& f, i64 m, i64 k, bool with_sums)
      : row(f.row(k)), rows(round_up(m, f.mr) * row), terms(m), sums(with_sums ? m : 0) {}
  i64 row;
  Buffer<int32_t> rows, terms, sums;
};

// Calls f with every element of a scalar or 1-D array of integers.
template <class F>
void each_integer(const TensorView& v, F&& f) {
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
    default:
      return read(i64{});
  }
}

// Zero points of `count` lines of `x`, plus `offset`; empty when all are zero.
Buffer<int32_t> zero_points(const char* op, const char* argument, const TensorView* given,
                            DType dtype, i64 count, int32_t offset) {
  if (!given && offset == 0) return {};
  Buffer<int32_t> zeros(count);
  std::fill_n(zeros.get(), count, offset);
  if (!given) return zeros;
  const i64 low = dtype == DType::i8 ? -128 : 0;
  const bool one = given->elements() == 1;
  bool any = false;
  each_integer(*given, [&](i64 i, i64 z) {
    if (z < low || z > low + 255) [[unlikely]]
      fail(op, argument, "value", text("one of ", dtype), z);
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

// One product (m, k) (k, n), ready for a kernel that finishes its tiles.
struct Product {
  Product(const Kernels& kernels, const TensorView& a, const PackedRight& right, i64 n,
          const int32_t* a_zero, const int32_t* b_zero)
      : format(kernels), left(format, a.shape[0], a.shape[1], b_zero != nullptr) {
    const i64 m = a.shape[0], k = a.shape[1];
    parallel_ranges(m, rows_grain(k), [&](i64 begin, i64 end) {
      kernels.gemm_s8_rows(a.as<char>() + begin * a.strides[0], a.dtype == DType::i8, a.strides[0],
                           a.strides[1], end - begin, k, a_zero ? a_zero + begin : nullptr,
                           left.rows.get() + begin * left.row, left.row, left.terms.get() + begin,
                           b_zero ? left.sums.get() + begin : nullptr);
    });
    g = {m,
         n,
         k,
         left.rows.get(),
         left.row,
         right.strips.get(),
         left.terms.get(),
         right.terms.get(),
         b_zero,
         left.sums.get()};
  }
  Format format;
  Left left;
  GemmS8 g;
};

// run(product, offset of its result) for every product of the batch. Zero points of `a` are per row
// of one matrix.
template <class F>
void each_product(const char* op, const MatmulShape& shape, const TensorView& c,
                  const TensorView* a_zero_point, const TensorView* b_zero_point, F&& run) {
  const Kernels& k = kernels();
  const TensorView &a = shape.a, &b = shape.b;
  const TensorView matrix = shape.matrix(c);
  const auto a_zero = zero_points(op, "a_zero_point", a_zero_point, a.dtype, a.shape[-2], 0);
  const auto b_zero = zero_points(op, "b_zero_point", b_zero_point, b.dtype, b.shape[-1],
                                  b.dtype == DType::u8 ? -128 : 0);
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
  PackedRight right;
  i64 packed = 0;
  for (i64 i = 0; i < batch.count(); ++i) {
    const auto at = batch.at(i);
    if (!right.terms.get() || at.b != packed) {  // a broadcast B is packed once
      packed = at.b;
      right = pack_right(k, last_two(b, at.b));
    }
    run(k, Product(k, last_two(a, at.a), right, b.shape[-1], a_zero.get(), b_zero.get()), at.c);
  }
}

// A scalar or 1-D array of positive floats, as `count` floats.
Buffer<float> scales_of(const TensorView& v, i64 count) {
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
  const MatmulShape shape = matmul_integer_args(op, a, b, a_zero_point, b_zero_point);
  Array c = Array::empty(DType::i32, shape.result);
  each_product(op, shape, c, a_zero_point, b_zero_point,
               [&](const Kernels& k, const Product& p, i64 offset) {
                 over_blocks(p.g.m, p.g.n, p.g.k, p.format.nr, blocks_of(p.format, p.g.m, p.g.k),
                             [&](const GemmBlock& block) {
                               k.gemm_s8_exact(p.g, block, c.as<int32_t>() + offset, p.g.n);
                             });
               });
  return c;
}

Array qlinear_matmul(const TensorView& a, const TensorView& a_scale, const TensorView& a_zero_point,
                     const TensorView& b, const TensorView& b_scale, const TensorView& b_zero_point,
                     const TensorView& y_scale, const TensorView& y_zero_point) {
  constexpr const char* op = "qlinear_matmul";
  const MatmulShape shape = qlinear_matmul_args(op, a, a_scale, a_zero_point, b, b_scale,
                                                b_zero_point, y_scale, y_zero_point);
  const auto rows = scales_of(a_scale, shape.a.shape[-2]);
  const auto columns = scales_of(b_scale, shape.b.shape[-1]);
  const float scale = scales_of(y_scale, 1)[0];
  for (i64 j = 0; j < shape.b.shape[-1]; ++j) columns[j] /= scale;
  float zero = 0;
  each_integer(y_zero_point, [&](i64, i64 z) { zero = static_cast<float>(z); });
  Array y = Array::empty(y_zero_point.dtype, shape.result);
  each_product(op, shape, y, &a_zero_point, &b_zero_point,
               [&](const Kernels& k, const Product& p, i64 offset) {
                 over_blocks(p.g.m, p.g.n, p.g.k, p.format.nr, blocks_of(p.format, p.g.m, p.g.k),
                             [&](const GemmBlock& block) {
                               k.gemm_s8_requantize(p.g, block, rows.get(), columns.get(), zero,
                                                    y.dtype == DType::i8, y.as<char>() + offset,
                                                    p.g.n);
                             });
               });
  return y;
}

QuantizedMatrix::QuantizedMatrix(const TensorView& values, const TensorView& scales,
                                 const TensorView* zero_points)
    : kernels_(&vectile::kernels()) {
  constexpr const char* op = "QuantizedMatrix";
  quantized_matrix_args(op, values, scales, zero_points);
  n_ = values.shape[0], k_ = values.shape[1];
  scales_ = Array::empty(scales.dtype, scales.shape);
  copy_strided(scales, scales_);
  line_scales_ = Array::empty(scales.dtype, Shape(n_));
  const i64 step = scales.ndim();
  dispatch_float(scales.dtype, [&](auto t) {
    using T = decltype(t);
    for (i64 i = 0; i < scales.elements(); ++i) {
      const T s = scales_.as<T>()[i];
      check(s > 0 && std::isfinite(s), op, "scales", "value", "positive and finite", s);
    }
    for (i64 i = 0; i < n_; ++i) line_scales_.as<T>()[i] = scales_.as<T>()[i * step];
  });
  if (zero_points) {
    zero_points_ = Array::empty(DType::i8, scales.shape);
    copy_strided(*zero_points, zero_points_);
    if (n_ > 0) line_zeros_ = ops::zero_points(op, "zero_points", zero_points, DType::i8, n_, 0);
  }
  constexpr int order[] = {1, 0};
  PackedRight p = pack_right(*kernels_, permuted(values, order));
  strips_ = std::move(p.strips);
  column_terms_ = std::move(p.terms);
}

i64 QuantizedMatrix::bytes() const {
  const i64 words = Format(*kernels_).strips(k_, n_) + n_ * (line_zeros_.get() ? 2 : 1);
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
    for (i64 i = 0; i < n_; ++i) {
      const T zero = line_zeros_.get() ? static_cast<T>(line_zeros_[i]) : T(0);
      kernels_->of<T>().dequantize_s8(v.as<std::int8_t>() + i * k_, line_scales_.as<T>() + i, &zero,
                                      0, k_, w.as<T>() + i * k_);
    }
  });
  return w;
}

std::unique_ptr<QuantizedMatrix> quantize_weight(const TensorView& weight, bool symmetric,
                                                 bool per_channel) {
  constexpr const char* op = "quantize_weight";
  quantize_weight_args(op, weight);
  const Array w = contiguous(weight);
  const i64 n = w.shape[0], k = w.shape[1], step = per_channel ? 1 : 0;
  const Shape lines = per_channel ? Shape(n) : Shape();
  const Array values = Array::empty(DType::i8, w.shape);
  const Array scales = Array::empty(w.dtype, lines), zeros = Array::empty(DType::i8, lines);
  dispatch_float(w.dtype, [&](auto t) {
    using T = decltype(t);
    const auto& kernel = kernels_of<T>();
    const auto extent = [&](const T* x, i64 count, T& low, T& high) {
      T least = 0, most = 0;
      if (count > 0) kernel.row_min(x, &least, 1, count), kernel.row_max(x, &most, 1, count);
      check(std::isfinite(least) && std::isfinite(most), op, "weight", "values", "finite numbers",
            std::isnan(least) ? "nan" : "inf");
      low = std::min(low, least), high = std::max(high, most);
    };
    const auto choose = [&](i64 i, T low, T high) {
      T scale = symmetric ? std::max(-low, high) / 127 : high / 255 - low / 255;
      if (!(scale > 0)) scale = 1;
      scales.as<T>()[i] = scale;
      const T zero = symmetric ? T(0) : std::nearbyint(-low / scale) - 128;
      zeros.as<std::int8_t>()[i] = static_cast<std::int8_t>(std::clamp(zero, T(-128), T(127)));
    };
    if (!per_channel) {
      T low = 0, high = 0;
      for (i64 i = 0; i < n; ++i) extent(w.as<T>() + i * k, k, low, high);
      choose(0, low, high);
    }
    parallel_ranges(n, rows_grain(k), [&](i64 begin, i64 end) {
      for (i64 i = begin; i < end; ++i) {
        T low = 0, high = 0;
        if (per_channel) extent(w.as<T>() + i * k, k, low, high), choose(i, low, high);
        const T zero = zeros.as<std::int8_t>()[i * step];
        kernel.quantize_s8(w.as<T>() + i * k, scales.as<T>() + i * step, &zero, 0, k,
                           values.as<std::int8_t>() + i * k);
      }
    });
  });
  return std::make_unique<QuantizedMatrix>(values, scales, symmetric ? nullptr : &zeros);
}

QuantizeRows activation_range(const char* op, bool symmetric, const TensorView* scale,
                              const TensorView* zero_point) {
  activation_range_args(op, scale, zero_point);
  QuantizeRows how;
  if (!scale) {
    how.range = symmetric ? QuantizeRows::symmetric : QuantizeRows::asymmetric;
    return how;
  }
  dispatch_float(scale->dtype,
                 [&](auto t) { how.scale = static_cast<double>(*scale->as<decltype(t)>()); });
  check(how.scale > 0 && std::isfinite(how.scale), op, "x_scale", "value", "positive and finite",
        how.scale);
  how.range = QuantizeRows::fixed;
  how.zero = 128;
  if (zero_point) {
    each_integer(*zero_point, [&](i64, i64 z) {
      how.zero = static_cast<int>(z) + (zero_point->dtype == DType::i8 ? 128 : 0);
    });
  }
  check(!symmetric || how.zero == 128, op, "x_zero_point", "value",
        "the middle of its range for symmetric=True", how.zero);
  return how;
}

Array linear(const TensorView& x, const QuantizedMatrix& weight, const TensorView* bias,
             Activation activation, const TensorView* residual, const QuantizeRows& how,
             const char* op) {
  return linear_on(op, x, weight, bias, residual, [&]<class T>(const LinearOperands<T>& o) {
    const i64 m = o.m, n = o.n, k = o.k;
    const Kernels& kernels = weight.kernels();
    const Format f(kernels);
    const Left left(f, m, k, weight.zeros() != nullptr);
    const auto& kernel = kernels.of<T>();
    const Buffer<T> scales(m);
    parallel_ranges(m, rows_grain(k), [&](i64 begin, i64 end) {
      kernel.gemm_s8_quantize_rows(o.x + begin * k, k, end - begin, k, how,
                                   left.rows.get() + begin * left.row, left.row,
                                   scales.get() + begin, left.terms.get() + begin,
                                   weight.zeros() ? left.sums.get() + begin : nullptr);
    });
    const GemmS8 g{m,
                   n,
                   k,
                   left.rows.get(),
                   left.row,
                   weight.strips(),
                   left.terms.get(),
                   weight.column_terms(),
                   weight.zeros(),
                   left.sums.get()};
    over_blocks(m, n, k, f.nr, blocks_of(f, m, k), [&](const GemmBlock& block) {
      kernel.gemm_s8_linear(g, block, scales.get(), weight.line_scales().as<T>(), o.bias,
                            activation, o.residual, o.y, n);
    });
  });
}

}  // namespace vectile::ops
