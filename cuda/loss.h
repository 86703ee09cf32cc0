#pragma once

#include "ops/loss_args.h"
#include "runtime.h"

namespace vectile::cuda {

struct CrossEntropy {
  Array loss;  // 0-D, or targets.shape for LossReduction::none
  Array lse;   // log sum exp of each row, targets.shape; float32 for logits of a half type
};

// As on the CPU, but that a target out of range is no error, since to find one would wait for the
// device: the loss of its row is NaN, and so with it a sum or mean, and its row of the gradient.
CrossEntropy cross_entropy(const TensorView& logits, const TensorView& targets,
                           const ops::CrossEntropyOptions& options);
Array cross_entropy_backward(const TensorView& grad, const TensorView& logits,
                             const TensorView& targets, const TensorView& lse,
                             const ops::CrossEntropyOptions& options);

}  // namespace vectile::cuda
