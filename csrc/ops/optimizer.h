// optimizer family: one step on every parameter in one call, in place.
#pragma once

#include <vector>

#include "ops/common.h"

namespace vectile::ops {

// One argument of a step: a list of arrays, parallel to the list of parameters.
using TensorList = std::vector<TensorView>;

struct SgdOptions {
  double lr, momentum = 0, dampening = 0, weight_decay = 0;
  bool nesterov = false;
};
struct AdamOptions {
  double lr, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0;
  i64 step = 1;            // of this update, from 1
  bool decoupled = false;  // AdamW
};
struct RmspropOptions {
  double lr, alpha = 0.99, eps = 1e-8, weight_decay = 0, momentum = 0;
};

// Lists are of one length; all arrays of a call share a dtype, and those of one index a shape.
// Arrays but gradients are written. Momentum buffers may be null only where momentum is 0.
// Gradients have the dtype of their parameters, and so has state, or float32 beside a half type.
void sgd(const TensorList& params, const TensorList& grads, const TensorList* momentum_buffers,
         const SgdOptions& options);
void adam(const char* op, const TensorList& params, const TensorList& grads,
          const TensorList& exp_avgs, const TensorList& exp_avg_sqs, const AdamOptions& options);
void rmsprop(const TensorList& params, const TensorList& grads, const TensorList& square_avgs,
             const TensorList* momentum_buffers, const RmspropOptions& options);

// x *= factor for every array.
void scale(const TensorList& arrays, double factor);

}  // namespace vectile::ops
