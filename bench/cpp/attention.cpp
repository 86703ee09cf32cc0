#include "ops/attention.h"

#include "bench.h"

namespace vectile::bench {
namespace {

// (1, heads, length, dim) throughout; `queries` of them at the end.
void register_attention(i64 heads, i64 queries, i64 length, i64 dim, bool causal) {
  const std::string size =
      text(heads, 'x', queries, 'x', length, 'x', dim, causal ? "/causal" : "");
  const i64 pairs = queries * length - (causal ? queries * (queries - 1) / 2 : 0);
  const double product = 2. * static_cast<double>(heads * pairs * dim);
  ops::AttentionOptions options;
  options.is_causal = causal;
  const Shape q_shape(1, heads, queries, dim), k_shape(1, heads, length, dim);
  add("scaled_dot_product_attention/" + size, "FLOP/s", 2 * product, [=] {
    return [=, q = share(normal(q_shape)), k = share(normal(k_shape)), v = share(normal(k_shape))] {
      ops::scaled_dot_product_attention(*q, *k, *v, nullptr, options);
    };
  });
  if (queries != length) return;
  add("scaled_dot_product_attention_backward/" + size, "FLOP/s", 5 * product, [=] {
    auto x = share(normal(q_shape));
    ops::AttentionOptions with_lse = options;
    with_lse.return_lse = true;
    auto f = share(ops::scaled_dot_product_attention(*x, *x, *x, nullptr, with_lse));
    return [=] {
      ops::scaled_dot_product_attention_backward(*x, *x, *x, *x, f->out, f->lse, nullptr, options);
    };
  });
}

const bool registered = at_start([] {
  register_attention(12, 128, 128, 64, false);
  register_attention(12, 512, 512, 64, false);
  register_attention(12, 512, 512, 64, true);
  register_attention(12, 1, 1024, 64, false);
});

}  // namespace
}  // namespace vectile::bench
