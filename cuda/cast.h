#pragma once

#include "runtime.h"

namespace vectile::cuda {

// As on the CPU: a row-major copy in another floating-point type, each number rounded once.
Array cast(const TensorView& x, DType dtype);

}  // namespace vectile::cuda
