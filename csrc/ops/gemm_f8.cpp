#include "ops/gemm_f8.h"

#include <algorithm>
#include <cmath>

#include "kernels/gemm_f8_types.h"
#include "ops/gemm_quantized.h"

namespace vectile::ops {

using std::uint8_t;

Float8Matrix::Float8Matrix(const TensorView& values, const TensorView& scales)
    : format_(values.dtype), kernels_(&vectile::kernels()) {
  constexpr const char* op = "Float8Matrix";
  check<TypeError>(is_float8(format_), op, "values", "dtype", "float8_e4m3fn or float8_e5m2",
                   values.dtype);
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
  const Array codes = contiguous(values);
  const int largest = format_ == DType::f8e4m3 ? 0x7e : 0x7b;
  for (i64 i = 0; i < codes.elements(); ++i)
    check((codes.as<uint8_t>()[i] & 0x7f) <= largest, op, "values", "value", "finite numbers",
          "nan or inf");
  kernels_->gemm_f8_columns(&nr_);
  const i64 padded = round_up(n_, nr_);
  strips_ = Buffer<uint8_t>(static_cast<i64>(checked_bytes(Shape(padded, k_), DType::u8)));
  parallel_ranges(padded / nr_, std::max<i64>(1, kGrain / std::max<i64>(1, k_ * nr_)),
                  [&](i64 begin, i64 end) {
                    const i64 j = begin * nr_;
                    kernels_->gemm_f8_pack(codes.as<uint8_t>() + j * k_,
                                           std::min(n_, end * nr_) - j, k_, strips_.get() + j * k_);
                  });
}

i64 Float8Matrix::bytes() const {
  return round_up(n_, nr_) * k_ + n_ * static_cast<i64>(item_size(dtype()));
}

Array Float8Matrix::values() const {
  Array v = Array::empty(format_, Shape(n_, k_));
  kernels_->gemm_f8_unpack(strips_.get(), n_, k_, v.as<uint8_t>());
  return v;
}

Array linear(const TensorView& x, const Float8Matrix& weight, const TensorView* bias,
             Activation activation, const TensorView* residual) {
  return linear_on("linear", x, weight, bias, residual, [&]<class T>(const LinearOperands<T>& o) {
    int nr;
    weight.kernels().gemm_f8_columns(&nr);
    const auto kernel = weight.kernels().of<T>().gemm_f8_linear;
    const GemmF8<T> g{o.n,
                      o.k,
                      o.x,
                      o.k,
                      weight.strips(),
                      weight.format(),
                      weight.scales().as<T>(),
                      o.bias,
                      activation,
                      o.residual,
                      o.y,
                      o.n};
    const GemmBlocks blocks{even_rows(o.m, kF8Rows), 4 * nr, i64{1} << 20};
    over_blocks(o.m, o.n, o.k, nr, blocks, [&](const GemmBlock& block) { kernel(g, block); });
  });
}

}  // namespace vectile::ops
