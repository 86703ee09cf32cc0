// embedding family: rows of a table by integer index.
#pragma once

#include "ops/common.h"

namespace vectile::ops {

// ids: any integer dtype and shape; weight: (num_embeddings, n). Result: ids.shape + (n,).
Array embedding(const TensorView& ids, const TensorView& weight);
// grad: ids.shape + (n,). Result: (num_embeddings, n), zero where an id does not occur.
Array embedding_backward(const TensorView& grad, const TensorView& ids, i64 num_embeddings);

}  // namespace vectile::ops
