// The norm family on a device; see csrc/ops/norm.h, whose names, checks and results these have.
#pragma once

#include "runtime.h"

namespace vectile::cuda {

struct Normalised {
  Array y, sum, mean, rstd;  // `sum` of the add_ ops alone, `mean` not of rms_norm's
};
struct NormGradient {
  Array dx, dweight, dbias;  // the latter two are empty (data == nullptr) without a weight
};

Normalised layer_norm(const TensorView& x, const TensorView* weight, const TensorView* bias,
                      double eps, bool stats);
Normalised rms_norm(const TensorView& x, const TensorView* weight, double eps, bool stats);
// The norm of x + residual, which is `sum` rounded: y is of what was not.
Normalised add_layer_norm(const TensorView& x, const TensorView& residual, const TensorView* weight,
                          const TensorView* bias, double eps, bool stats);
Normalised add_rms_norm(const TensorView& x, const TensorView& residual, const TensorView* weight,
                        double eps, bool stats);
// dweight and dbias are summed in an order that follows from the shape.
NormGradient layer_norm_backward(const TensorView& grad, const TensorView& x,
                                 const TensorView* weight, const TensorView& mean,
                                 const TensorView& rstd);
NormGradient rms_norm_backward(const TensorView& grad, const TensorView& x,
                               const TensorView* weight, const TensorView& rstd);

// The running statistics move in place, on the stream. Per-run sums are merged in float64.
Normalised batch_norm(const TensorView& x, const TensorView* running_mean,
                      const TensorView* running_var, const TensorView* weight,
                      const TensorView* bias, bool training, double momentum, double eps);
NormGradient batch_norm_backward(const TensorView& grad, const TensorView& x,
                                 const TensorView* weight, const TensorView& mean,
                                 const TensorView& rstd, bool training);
Normalised group_norm(const TensorView& x, i64 groups, const TensorView* weight,
                      const TensorView* bias, double eps);
NormGradient group_norm_backward(const TensorView& grad, const TensorView& x, i64 groups,
                                 const TensorView* weight, const TensorView& mean,
                                 const TensorView& rstd);

}  // namespace vectile::cuda
