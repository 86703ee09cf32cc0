#pragma once

#include "runtime.h"

namespace vectile::cuda {

// As on the CPU, but that the zeros of a float8 zero point are taken for zeros unread.
Array quantize_linear(const TensorView& x, const TensorView& scale, const TensorView* zero_point,
                      const i64* axis);
Array dequantize_linear(const TensorView& x, const TensorView& scale, const TensorView* zero_point,
                        const i64* axis);

// The scale, () of the type x is computed in, and the zero point, () uint8, stay on the device. NaN
// or infinity in x gives a NaN for the scale, and zeros.
struct DynamicQuantized {
  Array y, scale, zero_point;
};
DynamicQuantized dynamic_quantize_linear(const TensorView& x);

}  // namespace vectile::cuda
