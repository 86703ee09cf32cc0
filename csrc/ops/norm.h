// norm family: layer_norm and rms_norm over the last axis (norm.cpp), batch_norm and group_norm
// over channels (norm_groups.cpp); float32 or float64.
#pragma once

#include <tuple>

#include "ops/common.h"

namespace vectile::ops {

// What a forward leaves for its backward: one value per row, of shape x.shape[:-1].
// Statistics are float32 where x is of a half type, and so may parameters be.
struct Normalised {
  Array y, mean, rstd;
  auto results() { return std::tie(y); }
};
struct NormGradient {
  Array dx, dweight, dbias;  // the latter two are empty (data == nullptr) without a weight
  auto results() { return std::tie(dx); }
};

// weight, bias: (n,) or null. mean and rstd are filled when `stats` is set (rms_norm has no mean).
Normalised layer_norm(const TensorView& x, const TensorView* weight, const TensorView* bias,
                      double eps, bool stats);
Normalised rms_norm(const TensorView& x, const TensorView* weight, double eps, bool stats);

// sum = x + residual, of one shape and dtype, and its norm: what pre-norm blocks pass on.
struct AddNormalised {
  Array y, sum, mean, rstd;
};
AddNormalised add_layer_norm(const TensorView& x, const TensorView& residual,
                             const TensorView* weight, const TensorView* bias, double eps,
                             bool stats);
AddNormalised add_rms_norm(const TensorView& x, const TensorView& residual,
                           const TensorView* weight, double eps, bool stats);

NormGradient layer_norm_backward(const TensorView& grad, const TensorView& x,
                                 const TensorView* weight, const TensorView& mean,
                                 const TensorView& rstd);
NormGradient rms_norm_backward(const TensorView& grad, const TensorView& x,
                               const TensorView* weight, const TensorView& rstd);

// x: (batch, channels, ...); weight, bias, running_mean, running_var: (channels,) or null.
// `training` normalises with the batch's own statistics and moves the running ones, in place, by
// `momentum` towards them (towards the unbiased variance); else the running ones are used and
// required. The result's mean and rstd: (channels,).
Normalised batch_norm(const TensorView& x, const TensorView* running_mean,
                      const TensorView* running_var, const TensorView* weight,
                      const TensorView* bias, bool training, double momentum, double eps);
NormGradient batch_norm_backward(const TensorView& grad, const TensorView& x,
                                 const TensorView* weight, const TensorView& mean,
                                 const TensorView& rstd, bool training);

// Statistics of each sample over `groups` groups of adjacent channels: mean and rstd (batch,
// groups).
Normalised group_norm(const TensorView& x, i64 groups, const TensorView* weight,
                      const TensorView* bias, double eps);
NormGradient group_norm_backward(const TensorView& grad, const TensorView& x, i64 groups,
                                 const TensorView* weight, const TensorView& mean,
                                 const TensorView& rstd);

}  // namespace vectile::ops
