#pragma once

#include "runtime.h"

namespace vectile::cuda {

// As on the CPU, but that an id out of range is no error, since to find one would wait for the
// device: its row of the result is NaN, and the backward leaves it out.
Array embedding(const TensorView& ids, const TensorView& weight);
// Every row is summed in the order of the ids, those of an id that occurs more than 64 times by
// pieces: the bits do not depend on the run. Beside grad once and the result once, the ids are read
// twice for every 1024 rows of the result.
Array embedding_backward(const TensorView& grad, const TensorView& ids, i64 num_embeddings);

}  // namespace vectile::cuda
