// gemm_s8 family: exact products of 8-bit integers, and weights quantised for linear.
#pragma once

#include <memory>

#include "kernels/gemm_s8_types.h"
#include "ops/common.h"

namespace vectile::ops {

// A weight (out, in) as signed 8-bit integers, w[i, j] ~ scale (values[i, j] - zero point) with one
// of each for the matrix or per row. Laid out for the kernels of the tier that was active when it
// was made.
class QuantizedMatrix {
 public:
  // values (out, in) int8; scales () or (out,) float32 or float64, positive and finite; zero_points
  // int8 of the shape of scales, or null for zeros.
  QuantizedMatrix(const TensorView& values, const TensorView& scales,
                  const TensorView* zero_points = nullptr);
  DType dtype() const { return scales_.dtype; }
  i64 rows() const { return n_; }     // out
  i64 columns() const { return k_; }  // in
  i64 bytes() const;
  const Kernels& kernels() const { return *kernels_; }
  const TensorView& scales() const { return scales_; }
  const TensorView* zero_points() const { return zero_points_.data ? &zero_points_ : nullptr; }
  Array values() const;
  Array dequantize() const;  // (out, in) of dtype()
  // As the kernels read them: one scale and zero point per row, null where all of these are zero.
  const std::int32_t* strips() const { return strips_.get(); }
  const std::int32_t* column_terms() const { return column_terms_.get(); }
  const std::int32_t* zeros() const { return line_zeros_.get(); }
  const TensorView& line_scales() const { return line_scales_; }

 private:
  i64 n_, k_;
  const Kernels* kernels_;
  Array scales_, zero_points_, line_scales_;
  Buffer<std::int32_t> strips_, column_terms_, line_zeros_;
};

// One scale per output row or for the whole matrix. Symmetric: max |w| / 127; else the range of the
// weights and zero over 255; 1 where there are only zeros. |w - scale (q - zero)| <= scale / 2.
std::unique_ptr<QuantizedMatrix> quantize_weight(const TensorView& weight, bool symmetric = true,
                                                 bool per_channel = true);

// How linear quantises x: row by row, or with one given scale and zero point (null for the middle).
QuantizeRows activation_range(const char* op, bool symmetric, const TensorView* scale,
                              const TensorView* zero_point);

// activation(x weight^T + bias) + residual with the rows of x quantised to 8 bits on the way.
Array linear(const TensorView& x, const QuantizedMatrix& weight, const TensorView* bias,
             Activation activation, const TensorView* residual = nullptr,
             const QuantizeRows& how = {}, const char* op = "linear");

// ONNX MatMulInteger: (a - a_zero_point) (b - b_zero_point) in int32, modulo 2^32. Zero points are
// one integer, or one per row of a, or per column of b; null for zero.
Array matmul_integer(const TensorView& a, const TensorView& b, const TensorView* a_zero_point,
                     const TensorView* b_zero_point);

// ONNX QLinearMatMul; the dtype of y_zero_point (int8 or uint8) is the result's.
Array qlinear_matmul(const TensorView& a, const TensorView& a_scale, const TensorView& a_zero_point,
                     const TensorView& b, const TensorView& b_scale, const TensorView& b_zero_point,
                     const TensorView& y_scale, const TensorView& y_zero_point);

}  // namespace vectile::ops
