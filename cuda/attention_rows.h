// Attention pair by pair, a warp a row: slow, and for what tiles cannot do. The products of tiles
// take 0 times NaN from keys and queries that do not count for a row; here they are left out.
#pragma once

#include "attention_problem.h"

namespace vectile::cuda::attention {

// Make those rows again that are not finite. lse (..., heads, lq) is of the type that calls compute
// in, grad has even rows, statistics are those of the backward pass.
void mend_rows(const Arguments& a, const Array& lse, const Array& out);
void mend_gradients(const Arguments& a, const Array& grad, const Array& lse,
                    const Array& statistics, const AttentionGradients& gradients);

// The weights, their sums over queries and the largest ones, as the options ask.
void take_weights(const Arguments& a, const ops::AttentionOptions& options, const Array& lse,
                  AttentionResult& result);

}  // namespace vectile::cuda::attention
