#include "ops/gemm_s4.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/gemm_s4_types.h"
#include "ops/gemm_quantized.h"
#include "ops/gemm_s4_args.h"

namespace vectile::ops {
namespace {

using std::int8_t;
using std::uint8_t;

// Rows of (n, groups) into strips of nr columns, zeros behind the last, and back.
template <class T>
void into_strips(const T* rows, i64 n, i64 groups, int nr, T* strips) {
  for (i64 j = 0; j < round_up(n, nr); ++j)
    for (i64 q = 0; q < groups; ++q)
      strips[(j / nr * groups + q) * nr + j % nr] = j < n ? rows[j * groups + q] : T(0);
}
template <class T>
void from_strips(const T* strips, i64 n, i64 groups, int nr, T* rows) {
  for (i64 j = 0; j < n; ++j)
    for (i64 q = 0; q < groups; ++q)
      rows[j * groups + q] = strips[(j / nr * groups + q) * nr + j % nr];
}

}  // namespace

Int4Matrix::Int4Matrix(const TensorView& values, const TensorView& scales,
                       const TensorView* zero_points, i64 group)
    : group_(group), kernels_(&vectile::kernels()) {
  constexpr const char* op = "Int4Matrix";
  check_group(op, group);
  const DType stored = zero_points ? DType::u8 : DType::i8;
  check<TypeError>(values.dtype == stored, op, "values", "dtype", stored, values.dtype);
  check(values.ndim() == 2, op, "values", "ndim", 2, values.ndim());
  check_float(op, "scales", scales);
  n_ = values.shape[0], k_ = values.shape[1];
  const Shape per_group(n_, groups());
  check_shape(op, "scales", scales, per_group);
  const Array rows = contiguous(scales);
  kernels_->gemm_s4_columns(&nr_);
  const i64 padded = round_up(n_, nr_);
  scales_ = Array::empty(scales.dtype, Shape(padded, groups()));
  dispatch_float(scales.dtype, [&](auto t) {
    using T = decltype(t);
    for (i64 i = 0; i < rows.elements(); ++i) {
      const T s = rows.as<T>()[i];
      check(s > 0 && std::isfinite(s), op, "scales", "value", "positive and finite", s);
    }
    into_strips(rows.as<T>(), n_, groups(), nr_, scales_.as<T>());
  });
  const auto check_codes = [&](const char* argument, const TensorView& v) {
    for (i64 i = 0; i < v.elements(); ++i)
      check(v.as<uint8_t>()[i] < 16, op, argument, "value", "0 to 15", int{v.as<uint8_t>()[i]});
  };
  if (zero_points) {
    check<TypeError>(zero_points->dtype == DType::u8, op, "zero_points", "dtype", DType::u8,
                     zero_points->dtype);
    check_shape(op, "zero_points", *zero_points, per_group);
    const Array zeros = contiguous(*zero_points);
    check_codes("zero_points", zeros);
    zeros_ = Buffer<uint8_t>(std::max<i64>(1, padded * groups()));
    into_strips(zeros.as<uint8_t>(), n_, groups(), nr_, zeros_.get());
  }
  Array codes = contiguous(values);
  if (zero_points) {
    check_codes("values", codes);
  } else {
    const Array shifted = std::move(codes);
    codes = Array::empty(DType::u8, values.shape);
    for (i64 i = 0; i < codes.elements(); ++i) {
      const int v = shifted.as<int8_t>()[i];
      check(-8 <= v && v < 8, op, "values", "value", "-8 to 7", v);
      codes.as<uint8_t>()[i] = static_cast<uint8_t>(v + 8);
    }
  }
  const i64 row = s4_depth(k_) / 2;
  strips_ = Buffer<uint8_t>(static_cast<i64>(checked_bytes(Shape(padded, row), DType::u8)));
  parallel_ranges(
      padded / nr_, std::max<i64>(1, kGrain / std::max<i64>(1, k_ * nr_)), [&](i64 begin, i64 end) {
        const i64 j = begin * nr_;
        kernels_->gemm_s4_pack(codes.as<uint8_t>() + j * k_, std::min(n_, end * nr_) - j, k_,
                               strips_.get() + j * row);
      });
}

i64 Int4Matrix::bytes() const {
  const i64 padded = round_up(n_, nr_), per_group = static_cast<i64>(item_size(dtype()));
  return padded * (s4_depth(k_) / 2 + groups() * (per_group + (symmetric() ? 0 : 1)));
}

Array Int4Matrix::values() const {
  Array v = Array::empty(symmetric() ? DType::i8 : DType::u8, Shape(n_, k_));
  kernels_->gemm_s4_unpack(strips_.get(), n_, k_, v.as<uint8_t>());
  if (symmetric())
    for (i64 i = 0; i < v.elements(); ++i)
      v.as<int8_t>()[i] = static_cast<int8_t>(v.as<int8_t>()[i] - 8);
  return v;
}

Array Int4Matrix::scales() const {
  Array s = Array::empty(dtype(), Shape(n_, groups()));
  dispatch_float(dtype(), [&](auto t) {
    using T = decltype(t);
    from_strips(scales_.as<T>(), n_, groups(), nr_, s.as<T>());
  });
  return s;
}

Array Int4Matrix::zero_points() const {
  Array z = Array::empty(DType::u8, Shape(n_, groups()));
  from_strips(zeros_.get(), n_, groups(), nr_, z.as<uint8_t>());
  return z;
}

Array Int4Matrix::dequantize() const {
  const Array q = Array::empty(DType::u8, Shape(n_, k_));
  kernels_->gemm_s4_unpack(strips_.get(), n_, k_, q.as<uint8_t>());
  const Array s = scales(), z = symmetric() ? Array() : zero_points();
  Array w = Array::empty(dtype(), q.shape);
  dispatch_float(dtype(), [&](auto t) {
    using T = decltype(t);
    kernels_->of<T>().gemm_s4_dequantize(q.as<uint8_t>(), s.as<T>(), z.as<uint8_t>(), n_, k_,
                                         group_, w.as<T>());
  });
  return w;
}

std::unique_ptr<Int4Matrix> quantize_weight_4bit(const TensorView& weight, i64 group,
                                                 bool symmetric) {
  constexpr const char* op = "quantize_weight";
  quantize_weight_4bit_args(op, weight, group);
  const Array w = contiguous(weight);
  const i64 n = w.shape[0], k = w.shape[1], groups = ceil_div(k, group);
  Array values = Array::empty(DType::u8, w.shape);
  const Array scales = Array::empty(w.dtype, Shape(n, groups));
  const Array zeros = Array::empty(DType::u8, Shape(n, groups));
  dispatch_float(w.dtype, [&](auto t) {
    using T = decltype(t);
    parallel_ranges(n, rows_grain(k), [&](i64 begin, i64 end) {
      kernels_of<T>().gemm_s4_quantize(
          w.as<T>() + begin * k, end - begin, k, group, symmetric, values.as<uint8_t>() + begin * k,
          scales.as<T>() + begin * groups, zeros.as<uint8_t>() + begin * groups);
    });
    for (i64 i = 0; i < scales.elements(); ++i) {
      const T s = scales.as<T>()[i];
      check(std::isfinite(s), op, "weight", "values", "finite numbers",
            std::isnan(s) ? "nan" : "inf");
    }
  });
  if (!symmetric) return std::make_unique<Int4Matrix>(values, scales, &zeros, group);
  values.dtype = DType::i8;
  for (i64 i = 0; i < values.elements(); ++i)
    values.as<int8_t>()[i] = static_cast<int8_t>(values.as<int8_t>()[i] - 8);
  return std::make_unique<Int4Matrix>(values, scales, nullptr, group);
}

Array linear(const TensorView& x, const Int4Matrix& weight, const TensorView* bias,
             Activation activation, const TensorView* residual) {
  return linear_on("linear", x, weight, bias, residual, [&]<class T>(const LinearOperands<T>& o) {
    const i64 m = o.m, n = o.n, k = o.k;
    const i64 group = weight.group(), groups = ceil_div(k, group);
    const i64 row =
        s4_depth(k) + 64;  // off the powers of two: rows in different sets of the L1 cache
    const Buffer<int8_t> q(m * row);
    int nr;
    weight.kernels().gemm_s4_columns(&nr);
    const auto& kernel = weight.kernels().of<T>();
    const Buffer<T> scales(m * groups);
    const Buffer<std::int32_t> minus_sums(m * groups);
    parallel_ranges(m, rows_grain(k), [&](i64 begin, i64 end) {
      kernel.gemm_s4_quantize_rows(o.x + begin * k, end - begin, k, group, q.get() + begin * row,
                                   row, scales.get() + begin, minus_sums.get() + begin, m);
    });
    const GemmS4<T> g{m,
                      n,
                      k,
                      group,
                      q.get(),
                      row,
                      scales.get(),
                      minus_sums.get(),
                      weight.strips(),
                      weight.strip_scales<T>(),
                      weight.strip_zeros(),
                      o.bias,
                      activation,
                      o.residual,
                      o.y,
                      n};
    const GemmBlocks blocks{even_rows(m, kS4Rows), 4 * nr, i64{1} << 20};
    over_blocks(m, n, k, nr, blocks,
                [&](const GemmBlock& block) { kernel.gemm_s4_linear(g, block); });
  });
}

}  // namespace vectile::ops
