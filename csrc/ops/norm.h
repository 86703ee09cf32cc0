// norm family: normalisation over the last axis, float32 or float64.
#pragma once

#include "ops/common.h"

namespace vectile::ops {

// What a forward leaves for its backward: one value per row, of shape x.shape[:-1].
struct Normalised {
  Array y, mean, rstd;
};
struct NormGradient {
  Array dx, dweight, dbias;  // the latter two are empty (data == nullptr) without a weight
};

// weight, bias: (n,) or null. mean and rstd are filled when `stats` is set (rms_norm has no mean).
Normalised layer_norm(const TensorView& x, const TensorView* weight, const TensorView* bias,
                      double eps, bool stats);
Normalised rms_norm(const TensorView& x, const TensorView* weight, double eps, bool stats);

NormGradient layer_norm_backward(const TensorView& grad, const TensorView& x,
                                 const TensorView* weight, const TensorView& mean,
                                 const TensorView& rstd);
NormGradient rms_norm_backward(const TensorView& grad, const TensorView& x,
                               const TensorView* weight, const TensorView& rstd);

}  // namespace vectile::ops
