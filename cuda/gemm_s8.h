#pragma once

#include "kernels/gemm_types.h"
#include "runtime.h"

namespace vectile::cuda {

// As on the CPU, but that no value is checked: zero points out of range count modulo 2^32. Operands
// whose rows (columns of b) are not contiguous along k, or not multiples of 16 bytes, are copied.
Array matmul_integer(const TensorView& a, const TensorView& b, const TensorView* a_zero_point,
                     const TensorView* b_zero_point);
Array qlinear_matmul(const TensorView& a, const TensorView& a_scale, const TensorView& a_zero_point,
                     const TensorView& b, const TensorView& b_scale, const TensorView& b_zero_point,
                     const TensorView& y_scale, const TensorView& y_zero_point);

// A weight (out, in) as int8, w ~ scales (values - zero_points), with one of each for the matrix or
// per row; no zero points if symmetric. NaN or infinity in what shares a scale makes it NaN.
struct QuantizedWeight {
  Array values, scales, zero_points;
};
QuantizedWeight quantize_weight(const TensorView& weight, bool symmetric, bool per_channel);

// activation(x W^T + bias) with the rows of x quantised as on the CPU: by the range of each row (if
// symmetric, by its largest magnitude), or all with x_scale and x_zero_point (null: the middle).
Array quantized_linear(const TensorView& x, const TensorView& values, const TensorView& scales,
                       const TensorView* zero_points, const TensorView* bias, Activation activation,
                       const TensorView* x_scale, const TensorView* x_zero_point, bool symmetric);

}  // namespace vectile::cuda
