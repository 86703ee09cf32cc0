#pragma once

#include "kernels/gemm_types.h"
#include "runtime.h"

namespace vectile::cuda {

// A weight (out, in) in 4 bits, two to a byte along `in`, the first in the lower half; `group`
// neighbours along `in` share a scale and a zero point: w ~ scale (q - zero), q and zero in 0..15.
// Symmetric, every zero is 8 and not stored.
struct Int4Weight {
  Array packed;               // uint8 (out, ceil(in / 2))
  Array scales, zero_points;  // (out, ceil(in / group)), zeros uint8
};

// As on the CPU; NaN or infinity in a group makes its scale NaN.
Int4Weight quantize_weight_4bit(const TensorView& weight, i64 group, bool symmetric);

// activation(x W^T + bias) with W = scale (q - zero) as it is and x not quantised, for few rows:
// each eight read the weight once. Summed in what x is computed in; error (in + 4) eps |x| @ |W|^T.
Array linear_4bit(const TensorView& x, const TensorView& packed, const TensorView& scales,
                  const TensorView* zero_points, const TensorView* bias, i64 group,
                  Activation activation);

}  // namespace vectile::cuda
