// Values of one floating-point type as another.
#pragma once

#include "ops/common.h"

namespace vectile {

// y[i] = x[i] elementwise; same shape, any strides, any two floating-point types.
void cast_strided(const TensorView& x, const TensorView& y);

// A row-major copy of `x` in another type.
Array cast_to(const TensorView& x, DType dtype);
// `x` row-major in that type; x itself where it is that.
inline Array converted(const TensorView& x, DType dtype) {
  return x.dtype == dtype ? contiguous(x) : cast_to(x, dtype);
}

namespace ops {

// The same, for any dtype a caller can name.
Array cast(const TensorView& x, DType dtype);

}  // namespace ops
}  // namespace vectile
