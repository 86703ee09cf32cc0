// quantize family: ONNX QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear.
#pragma once

#include "ops/common.h"

namespace vectile::ops {

// saturate(round(x / scale) + zero_point); scale and zero_point are scalars, or 1-D along `axis`.
// The dtype of zero_point (int8 or uint8; uint8 when null) is the result's.
Array quantize_linear(const TensorView& x, const TensorView& scale, const TensorView* zero_point,
                      const i64* axis);

// (x - zero_point) scale in the dtype of scale; x int8, uint8 or int32.
Array dequantize_linear(const TensorView& x, const TensorView& scale, const TensorView* zero_point,
                        const i64* axis);

struct DynamicQuantized {
  Array y;         // uint8
  double scale;    // of the type x is computed in
  int zero_point;  // 0..255
};
DynamicQuantized dynamic_quantize_linear(const TensorView& x);

}  // namespace vectile::ops
