// Indices of any integer type, as the kernels read them.
#pragma once

#include "runtime.h"

namespace vectile::cuda {

// Row-major int64; TypeError for what is not an integer array. A uint64 beyond int64 becomes the
// lowest one. Nothing is checked against a range: whoever reads an index does so.
Array integers(const char* op, const char* argument, const TensorView& values);

}  // namespace vectile::cuda
