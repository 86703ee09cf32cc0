// The arguments of the embedding family but for the values of ids, checked the same way for every
// device.
#pragma once

#include "base/memory.h"
#include "ops/check.h"

namespace vectile::ops {

inline void embedding_args(const char* op, const TensorView& ids, const TensorView& weight) {
  check_floating(op, "weight", weight);
  check(weight.ndim() == 2, op, "weight", "ndim", 2, weight.ndim());
  check(ids.ndim() < kMaxDims, op, "ids", "ndim", kMaxDims - 1, ids.ndim());
}

inline void embedding_backward_args(const char* op, const TensorView& grad, const TensorView& ids,
                                    i64 num_embeddings) {
  check_floating(op, "grad", grad);
  check(num_embeddings >= 0, op, "num_embeddings", "value", "at least 0", num_embeddings);
  Shape expected = ids.shape;
  const bool fits = ids.ndim() < kMaxDims && grad.ndim() == ids.ndim() + 1;
  if (fits) expected.push(grad.shape.back());
  if (!fits || !(grad.shape == expected))
    fail(op, "grad", "shape", text("ids.shape ", ids.shape, " + (n,)"), grad.shape);
  checked_bytes(Shape(num_embeddings, grad.shape.back()), grad.dtype);
  checked_bytes(Shape(num_embeddings), DType::i64);  // of offsets, also where n is 0
}

}  // namespace vectile::ops
