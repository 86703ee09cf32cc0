// Values of one floating-point type as another.
#pragma once

#include "ops/common.h"

namespace vectile {

// y[i] = x[i] elementwise; same shape, any strides, any two floating-point types.
void cast_strided(const TensorView& x, const TensorView& y);

// A row-major copy of `x` in another type.
Array cast_to(const TensorView& x, DType dtype);

namespace ops {

// The same, for any dtype a caller can name.
Array cast(const TensorView& x, DType dtype);

}  // namespace ops
}  // namespace vectile
