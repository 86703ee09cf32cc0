#pragma once

#include "runtime.h"

namespace vectile::cuda {

// As on the CPU; `inverse` turns the other way, and is the gradient.
Array rotary_embedding(const TensorView& x, const TensorView& cosine, const TensorView& sine,
                       bool interleaved, bool inverse);

}  // namespace vectile::cuda
