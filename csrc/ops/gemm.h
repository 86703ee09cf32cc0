// gemm family: matrix products of floating-point operands with any strides, and weights packed for
// them; in the CPU's own 16-bit arithmetic where that is allowed and faster (ops/gemm_16.h).
#pragma once

#include "ops/common.h"
#include "ops/gemm_16.h"
#include "ops/gemm_args.h"

namespace vectile::ops {

// A weight (out, in) laid out for the kernels of the tier that was active when it was packed.
class PackedMatrix {
 public:
  explicit PackedMatrix(const TensorView& weight, Compute compute = Compute::standard);
  DType dtype() const { return dtype_; }
  Compute compute() const { return compute_; }  // what it was packed for
  const Unit16& unit() const { return unit_; }  // whose operands it holds, if any's
  i64 rows() const { return n_; }               // out
  i64 columns() const { return k_; }            // in
  i64 bytes() const { return bytes_; }
  const Kernels& kernels() const { return *kernels_; }
  i64 kc() const { return kc_; }
  template <class T>
  const T* data() const {  // uint16_t for the unit, else what kernels compute in
    return reinterpret_cast<const T*>(data_.get());
  }

 private:
  DType dtype_;
  Compute compute_;
  Unit16 unit_;
  i64 n_, k_, kc_ = 1, bytes_;
  const Kernels* kernels_;
  Buffer<char> data_;
};

// np.matmul's semantics: 1-D operands, batch dimensions broadcast.
Array matmul(const TensorView& a, const TensorView& b, const TensorView* out = nullptr,
             Compute compute = Compute::standard);

// activation(x weight^T + bias) + residual: x (..., in), weight (out, in), bias (out,) or null,
// residual (..., out) or null -> (..., out).
Array linear(const TensorView& x, const TensorView& weight, const TensorView* bias,
             Activation activation, const TensorView* residual = nullptr,
             Compute compute = Compute::standard);
// As the weight was packed; `compute` may only say the same again.
Array linear(const TensorView& x, const PackedMatrix& weight, const TensorView* bias,
             Activation activation, const TensorView* residual = nullptr,
             Compute compute = Compute::standard);

}  // namespace vectile::ops
