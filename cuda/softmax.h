#pragma once

#include "runtime.h"

namespace vectile::cuda {

Array softmax(const TensorView& x, i64 axis, const TensorView* out);
Array log_softmax(const TensorView& x, i64 axis, const TensorView* out);
Array softmax_backward(const TensorView& grad, const TensorView& y, i64 axis);
Array log_softmax_backward(const TensorView& grad, const TensorView& y, i64 axis);

}  // namespace vectile::cuda
