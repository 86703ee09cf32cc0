#include "attention_extras.h"

namespace vectile::cuda::attention {

Spread::Spread(Array x, const Shape& full, int last)
    : given(std::move(x)), view(ops::broadcast_to(given, full)) {
  if (full.ndim == last) return;
  const int heads = full.ndim - last - 1;  // that axis
  // Whether one step goes from each batch to the next.
  const auto even = [&] {
    i64 batches = 1;
    batch = 0;
    for (int i = heads - 1; i >= 0; batches *= full[i--]) {
      if (full[i] == 1) continue;
      if (batches == 1) batch = view.strides[i];
      if (view.strides[i] != batch * batches) return false;
    }
    return true;
  };
  if (!even()) {
    Shape own = full;
    for (int i = heads; i < full.ndim; ++i) own[i] = given.shape[i - full.ndim];
    given = contiguous(ops::broadcast_to(given, own));
    view = ops::broadcast_to(given, full);
    even();
  }
  head = view.strides[heads];
}

Extras::Extras(const char* op, const TensorView* attn_mask, const ops::AttentionOptions& o,
               const ops::AttentionSizes& s, DType dtype)
    : dropout_p(o.dropout_p), seed(o.seed) {
  const DType compute = compute_dtype(dtype);
  if (attn_mask) {
    const Shape scores = ops::with_axes(s.heads, s.lq, s.lk);
    ops::attention_mask_args(op, *attn_mask, dtype, scores);
    mask = Spread(Array(*attn_mask), scores, 2);
  }
  ops::attention_term_args(op, o, s);
  if (o.alibi_slopes) slopes = Spread(converted(*o.alibi_slopes, compute), s.heads, 0);
  if (o.sinks) sinks = converted(*o.sinks, compute);
  if (o.block_mask) {
    const TensorView& m = *o.block_mask;
    block = ops::block_mask_args(op, o, s.heads, s.lq, s.lk);
    blocks = Spread(Array(m), ops::with_axes(s.heads, m.shape[-2], m.shape[-1]), 2);
  } else {
    check(!o.block_rows, op, "block_mask", "value", "an array beside block_size", "None");
  }
}

}  // namespace vectile::cuda::attention
