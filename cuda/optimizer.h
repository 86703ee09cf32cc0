#pragma once

#include "ops/optimizer_args.h"
#include "runtime.h"

namespace vectile::cuda {

// As on the CPU: one step on every parameter, in place.
void sgd(const ops::TensorList& params, const ops::TensorList& grads,
         const ops::TensorList* momentum_buffers, const ops::SgdOptions& options);
void adam(const char* op, const ops::TensorList& params, const ops::TensorList& grads,
          const ops::TensorList& exp_avgs, const ops::TensorList& exp_avg_sqs,
          const ops::AdamOptions& options);
void rmsprop(const ops::TensorList& params, const ops::TensorList& grads,
             const ops::TensorList& square_avgs, const ops::TensorList* momentum_buffers,
             const ops::RmspropOptions& options);

// x *= factor for every array.
void scale(const ops::TensorList& arrays, double factor);

// Scales all arrays together so that their joint 2-norm is at most max_norm, as
// nn.clip_grad_norm_ does; a norm that is not finite spreads. Returns the norm before, 0-D, float64
// for float64 and else float32: nothing waits for it. At least one array.
Array clip_grad_norm(const ops::TensorList& grads, double max_norm);

}  // namespace vectile::cuda
