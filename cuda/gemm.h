#pragma once

#include "ops/gemm_args.h"
#include "runtime.h"

namespace vectile::cuda {

// np.matmul's semantics: 1-D operands, batch dimensions broadcast. Error of an element, with eps of
// float32 or float64 and the magnitudes |a| @ |b|:
//   float32, float64: (k + 2) eps; a signalling NaN may count as an infinity;
//   float16, bfloat16: k eps, and one rounding to the type;
//   float32 with any `compute` but the standard: TF32 operands, 2^-10 + k eps.
Array matmul(const TensorView& a, const TensorView& b, const TensorView* out,
             ops::Compute compute = ops::Compute::standard);

// activation(x weight^T + bias) + residual: x (..., in), weight (out, in), bias (out,) or null,
// residual (..., out) or null -> (..., out).
Array linear(const TensorView& x, const TensorView& weight, const TensorView* bias,
             Activation activation, const TensorView* residual,
             ops::Compute compute = ops::Compute::standard);

}  // namespace vectile::cuda
