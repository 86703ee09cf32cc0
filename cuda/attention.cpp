#include "attention.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>

#include "array.h"
#include "bindings/attention_options.h"

namespace vectile::cuda {
namespace {

using Window = AttentionWindow;
using BlockSize = AttentionBlockSize;
using Options = AttentionInputs<nb::handle, nb::object, OptionalInput>;
using Rotary = Options::Rotary;

// The call's place, where all its arrays must be.
template <class... In>
OnDevice meet(const char* op, std::uintptr_t stream, const Options& options, const In&... in) {
  return options.arrays([&](const auto&... more) { return OnDevice(op, stream, in..., more...); });
}

}  // namespace

void bind_attention(nb::module_& m) {
  m.def(
      "scaled_dot_product_attention",
      [](nb::handle query, nb::handle key, nb::handle value, nb::handle attn_mask, bool is_causal,
         const Window& window, nb::handle block_mask, const BlockSize& block_size,
         nb::handle key_lengths, nb::handle cu_seqlens_q, nb::handle cu_seqlens_k,
         nb::handle document_ids, std::optional<double> scale, std::optional<double> softcap,
         nb::handle alibi_slopes, nb::handle sinks, const Rotary& rotary, bool rotary_interleaved,
         double dropout_p, std::uint64_t seed, bool return_lse, bool return_weights,
         bool return_column_sums, i64 return_top_k, std::uintptr_t stream) -> nb::object {
        constexpr auto op = "scaled_dot_product_attention";
        const Input q(query, op, "query"), k(key, op, "key"), v(value, op, "value");
        const OptionalInput mask(attn_mask, op, "attn_mask");
        Options options(op, is_causal, window, block_mask, block_size, key_lengths, cu_seqlens_q,
                        cu_seqlens_k, document_ids, scale, softcap, alibi_slopes, sinks, rotary,
                        rotary_interleaved, dropout_p, seed);
        options.value.return_lse = return_lse;
        options.value.return_weights = return_weights;
        options.value.return_column_sums = return_column_sums;
        options.value.return_top_k = return_top_k;
        const OnDevice here = meet(op, stream, options, q, k, v, mask);
        AttentionResult r = unlocked(
            [&] { return scaled_dot_product_attention(*q, *k, *v, mask.get(), options.value); });
        nb::object out = to_python(std::move(r.out));
        if (!(return_lse || return_weights || return_column_sums || return_top_k)) return out;
        nb::list results;
        results.append(out);
        const auto add = [&](bool asked, Array& x) {
          if (asked) results.append(to_python(std::move(x)));
        };
        add(return_lse, r.lse);
        add(return_weights, r.weights);
        add(return_column_sums, r.column_sums);
        add(return_top_k, r.top_weights);
        add(return_top_k, r.top_keys);
        return nb::tuple(results);
      },
      nb::arg("query"), nb::arg("key"), nb::arg("value"), nb::arg("attn_mask") = nb::none(),
      nb::arg("is_causal") = false, nb::arg("window") = nb::none(),
      nb::arg("block_mask") = nb::none(), nb::arg("block_size") = nb::none(),
      nb::arg("key_lengths") = nb::none(), nb::arg("cu_seqlens_q") = nb::none(),
      nb::arg("cu_seqlens_k") = nb::none(), nb::arg("document_ids") = nb::none(),
      nb::arg("scale") = nb::none(), nb::arg("softcap") = nb::none(),
      nb::arg("alibi_slopes") = nb::none(), nb::arg("sinks") = nb::none(),
      nb::arg("rotary") = nb::none(), nb::arg("rotary_interleaved") = false,
      nb::arg("dropout_p") = 0.0, nb::arg("seed") = 0, nb::arg("return_lse") = false,
      nb::arg("return_weights") = false, nb::arg("return_column_sums") = false,
      nb::arg("return_top_k") = 0, nb::arg("stream") = 0);
  m.def(
      "scaled_dot_product_attention_backward",
      [](nb::handle grad, nb::handle query, nb::handle key, nb::handle value, nb::handle out,
         nb::handle lse, nb::handle attn_mask, bool is_causal, const Window& window,
         nb::handle block_mask, const BlockSize& block_size, nb::handle key_lengths,
         nb::handle cu_seqlens_q, nb::handle cu_seqlens_k, nb::handle document_ids,
         std::optional<double> scale, std::optional<double> softcap, nb::handle alibi_slopes,
         nb::handle sinks, const Rotary& rotary, bool rotary_interleaved, double dropout_p,
         std::uint64_t seed, std::uintptr_t stream) {
        constexpr auto op = "scaled_dot_product_attention_backward";
        const Input g(grad, op, "grad"), q(query, op, "query"), k(key, op, "key"),
            v(value, op, "value"), o(out, op, "out"), l(lse, op, "lse");
        const OptionalInput mask(attn_mask, op, "attn_mask");
        const Options options(op, is_causal, window, block_mask, block_size, key_lengths,
                              cu_seqlens_q, cu_seqlens_k, document_ids, scale, softcap,
                              alibi_slopes, sinks, rotary, rotary_interleaved, dropout_p, seed);
        const OnDevice here = meet(op, stream, options, q, g, k, v, o, l, mask);
        AttentionGradients r = unlocked([&] {
          return scaled_dot_product_attention_backward(*g, *q, *k, *v, *o, *l, mask.get(),
                                                       options.value);
        });
        nb::object dq = to_python(std::move(r.dq)), dk = to_python(std::move(r.dk)),
                   dv = to_python(std::move(r.dv));
        if (!options.value.sinks) return nb::make_tuple(dq, dk, dv);
        return nb::make_tuple(dq, dk, dv, to_python(std::move(r.dsinks)));
      },
      nb::arg("grad"), nb::arg("query"), nb::arg("key"), nb::arg("value"), nb::arg("out"),
      nb::arg("lse"), nb::arg("attn_mask") = nb::none(), nb::arg("is_causal") = false,
      nb::arg("window") = nb::none(), nb::arg("block_mask") = nb::none(),
      nb::arg("block_size") = nb::none(), nb::arg("key_lengths") = nb::none(),
      nb::arg("cu_seqlens_q") = nb::none(), nb::arg("cu_seqlens_k") = nb::none(),
      nb::arg("document_ids") = nb::none(), nb::arg("scale") = nb::none(),
      nb::arg("softcap") = nb::none(), nb::arg("alibi_slopes") = nb::none(),
      nb::arg("sinks") = nb::none(), nb::arg("rotary") = nb::none(),
      nb::arg("rotary_interleaved") = false, nb::arg("dropout_p") = 0.0, nb::arg("seed") = 0,
      nb::arg("stream") = 0);
}

}  // namespace vectile::cuda
