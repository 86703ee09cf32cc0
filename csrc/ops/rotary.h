// rotary family: turns pairs of elements of the last axis by an angle of each position.
#pragma once

#include "ops/common.h"

namespace vectile::ops {

// x (..., length, n); cosine and sine (..., length, pairs) of x's dtype, or float32 beside a half
// type, leading axes broadcast; 2 * pairs <= n. `inverse` turns the other way: the gradient.
Array rotary_embedding(const TensorView& x, const TensorView& cosine, const TensorView& sine,
                       bool interleaved, bool inverse);

}  // namespace vectile::ops
