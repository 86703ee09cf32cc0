// gemm_s8 family: exact products of 8-bit integers, and weights quantised for linear.
#pragma once

#include <memory>

#include "kernels/gemm_types.h"
#include "ops/common.h"

namespace vectile::ops {

// A weight (out, in) as signed 8-bit integers with one scale per row: w[i, j] ~ scales[i] values[i,
// j]. Laid out for the kernels of the tier that was active when it was made.
class QuantizedMatrix {
 public:
  // values (out, in) int8, scales (out,) float32 or float64, positive and finite.
  QuantizedMatrix(const TensorView& values, const TensorView& scales);
  DType dtype() const { return scales_.dtype; }
  i64 rows() const { return n_; }     // out
  i64 columns() const { return k_; }  // in
  i64 bytes() const;
  const Kernels& kernels() const { return *kernels_; }
  const TensorView& scales() const { return scales_; }
  Array values() const;
  Array dequantize() const;  // (out, in) of dtype()
  const std::int32_t* strips() const { return strips_.get(); }
  const std::int32_t* column_sums() const { return column_sums_.get(); }

 private:
  i64 n_, k_;
  const Kernels* kernels_;
  Array scales_;
  Buffer<std::int32_t> strips_, column_sums_;
};

// Symmetric, per output row: scale = max |w| / 127 (1 for a row of zeros), so that
// |w - scale q| <= scale / 2.
std::unique_ptr<QuantizedMatrix> quantize_weight(const TensorView& weight);

// activation(x weight^T + bias) with the rows of x quantised to 8 bits on the way.
Array linear(const TensorView& x, const QuantizedMatrix& weight, const TensorView* bias,
             Activation activation);

// ONNX MatMulInteger: (a - a_zero_point) (b - b_zero_point) in int32, modulo 2^32. Zero points are
// one integer, or one per row of a, or per column of b; null for zero.
Array matmul_integer(const TensorView& a, const TensorView& b, const TensorView* a_zero_point,
                     const TensorView* b_zero_point);

// ONNX QLinearMatMul; the dtype of y_zero_point (int8 or uint8) is the result's.
Array qlinear_matmul(const TensorView& a, const TensorView& a_scale, const TensorView& a_zero_point,
                     const TensorView& b, const TensorView& b_scale, const TensorView& b_zero_point,
                     const TensorView& y_scale, const TensorView& y_zero_point);

}  // namespace vectile::ops
