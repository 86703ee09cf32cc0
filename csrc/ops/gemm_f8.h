// gemm_f8 family: weights stored in 8-bit floating point, for linear.
#pragma once

#include <memory>

#include "kernels/gemm_types.h"
#include "ops/common.h"

namespace vectile::ops {

// A weight (out, in) as float8_e4m3fn or float8_e5m2 with one scale per row: w[i, j] ~ scales[i]
// values[i, j]. Laid out for the kernels of the tier that was active when it was made.
class Float8Matrix {
 public:
  // values (out, in) of either format without NaN or infinity; scales (out,) float32 or float64,
  // positive and finite.
  Float8Matrix(const TensorView& values, const TensorView& scales);
  DType dtype() const { return scales_.dtype; }
  DType format() const { return format_; }
  i64 rows() const { return n_; }     // out
  i64 columns() const { return k_; }  // in
  i64 bytes() const;
  const Kernels& kernels() const { return *kernels_; }
  const TensorView& scales() const { return scales_; }
  Array values() const;
  const std::uint8_t* strips() const { return strips_.get(); }

 private:
  DType format_;
  i64 n_, k_;
  int nr_;
  const Kernels* kernels_;
  Array scales_;
  Buffer<std::uint8_t> strips_;
};

// activation(x weight^T + bias) + residual, the weight widened on the way and summed in the dtype
// of x.
Array linear(const TensorView& x, const Float8Matrix& weight, const TensorView* bias,
             Activation activation, const TensorView* residual = nullptr);

}  // namespace vectile::ops
