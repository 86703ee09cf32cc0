// Fused attention (FlashAttention-2, arXiv 2307.08691): out = softmax(scale Q K^T + mask) V without
// the (lq, lk) matrix, and its gradients from the log-sum-exp of each row.
//
// Forward, for each block of keys and each group of MR queries: 1. scores from packed keys; 2.
// mask, running maximum, exponentials, while the MR rows are in L1; 3. rescale and add P V. Causal
// groups stop at their last visible key.
//
// A masked key may hold anything, NaN included. Products run as if all were finite; when a result
// is not, the rows are computed again by a product that skips zero weights.
#include "kernels/attention_backward.h"
#include "kernels/attention_forward.h"

namespace vectile::VECTILE_TIER {

template <class T>
static void attention_scratch(const AttentionHead<T>& head, i64 rows, i64* forward, i64* backward) {
  *forward = ForwardScratch<T>(head, rows, nullptr).size;
  *backward = BackwardScratch<T>(head, nullptr).size;
}

template <class T>
static void attention_forward(const AttentionHead<T>& head, i64 begin, i64 end, T* out, T* lse,
                              T* weights, T* scratch) {
  Forward<T> pass(head, begin, end, scratch);
  if (!pass.run(false, out)) pass.run(true, out);
  if (lse) pass.write_lse(lse);
  if (weights) pass.write_weights(weights);
}

template <class T>
static void attention_backward(const AttentionHead<T>& head, const AttentionGrad<T>& grad,
                               i64 begin, i64 end, T* dq, T* dk, T* dv, T* scratch) {
  Backward<T> pass(head, grad, scratch);
  if (!pass.run(begin, end, false, dq, dk, dv)) pass.run(begin, end, true, dq, dk, dv);
}

}  // namespace vectile::VECTILE_TIER

#include "kernels/register.h"
