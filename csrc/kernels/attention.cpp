// Fused attention (FlashAttention-2, arXiv 2307.08691): out = softmax(scale Q K^T + mask) V without
// the (lq, lk) matrix, and its gradients from the log-sum-exp of each row.
//
// Forward, for each block of keys and each group of MR queries: 1. scores from packed keys; 2.
// terms (softcap, bias, masks), running maximum, exponentials, while the MR rows are in L1; 3.
// rescale and add P V. Groups take the keys of their AttentionMap only.
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
static void attention_forward(const AttentionHead<T>& head, i64 begin, i64 end, void* out,
                              const AttentionExtras<T>& extras, T* scratch) {
  Forward<T> pass(head, begin, end, scratch);
  if (!pass.run(false, out)) pass.run(true, out);
  pass.write(extras);
}

template <class T>
static void attention_delta(const AttentionHead<T>& head, const AttentionGrad<T>& grad, i64 begin,
                            i64 end, T* delta) {
  using V = Vec<T>;
  as_stored<T>(head.dtype, grad.grad, [&](const auto* grads) {
    const auto* outs = static_cast<decltype(grads)>(grad.out);
    for (i64 r = begin; r < end; ++r) {
      const i64 g = r / head.lq, i = r % head.lq;
      const auto* x = grads + g * grad.grad_head + i * grad.grad_row;
      const auto* y = outs + g * grad.out_head + i * grad.out_row;
      V sum(T(0));
      over_rows<T>(head.dv, [&](i64 j, int m) VECTILE_LAMBDA {
        const V o = load_as<V>(y + j, m);
        sum += select(o == V(T(0)), V(T(0)), load_as<V>(x + j, m) * o);
      });
      delta[r] = reduce_add(sum);
    }
  });
}

template <class T>
static void attention_backward(const AttentionHead<T>& head, const AttentionGrad<T>& grad,
                               i64 begin, i64 end, T* dq, void* dk, void* dv, T* scratch) {
  Backward<T> pass(head, grad, scratch);
  if (!pass.run(begin, end, false, dq, dk, dv)) pass.run(begin, end, true, dq, dk, dv);
}

}  // namespace vectile::VECTILE_TIER

#include "kernels/register.h"
