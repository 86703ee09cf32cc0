// loss family: cross entropy of logits against class indices.
#pragma once

#include "ops/common.h"
#include "ops/loss_args.h"

namespace vectile::ops {

struct CrossEntropy {
  Array loss;  // 0-D, or targets.shape for LossReduction::none
  Array lse;   // log sum exp of each row, targets.shape; float32 for logits of a half type
};

// logits: (..., C); targets: (...), any integer dtype. The mean is over the targets that are not
// ignored, and NaN when there are none, as in PyTorch.
CrossEntropy cross_entropy(const TensorView& logits, const TensorView& targets,
                           const CrossEntropyOptions& options);
// grad: 0-D, or targets.shape for LossReduction::none.
Array cross_entropy_backward(const TensorView& grad, const TensorView& logits,
                             const TensorView& targets, const TensorView& lse,
                             const CrossEntropyOptions& options);

}  // namespace vectile::ops
