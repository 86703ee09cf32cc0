// optimizer family: one step on every parameter in one call, in place.
#pragma once

#include "ops/common.h"
#include "ops/optimizer_args.h"

namespace vectile::ops {

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
