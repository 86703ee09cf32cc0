// softmax family: float32 or float64 of any shape, normalised over one axis.
#pragma once

#include "ops/common.h"

namespace vectile::ops {

Array softmax(const TensorView& x, i64 axis, const TensorView* out = nullptr);
Array log_softmax(const TensorView& x, i64 axis, const TensorView* out = nullptr);
// grad and y (the forward's result) have one shape; so has the gradient.
Array softmax_backward(const TensorView& grad, const TensorView& y, i64 axis);
Array log_softmax_backward(const TensorView& grad, const TensorView& y, i64 axis);

}  // namespace vectile::ops
