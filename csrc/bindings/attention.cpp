#include "ops/attention.h"

#include <pybind11/stl.h>

#include "bindings/array.h"
#include "bindings/attention_options.h"

namespace vectile {
namespace {

using Window = AttentionWindow;
using BlockSize = AttentionBlockSize;
using Options = AttentionInputs<py::handle, py::object, OptionalInput>;
using Rotary = Options::Rotary;

}  // namespace

void bind_attention(py::module_& m) {
  define(
      m, "scaled_dot_product_attention",
      [](py::handle query, py::handle key, py::handle value, py::handle attn_mask, bool is_causal,
         const Window& window, py::handle block_mask, const BlockSize& block_size,
         py::handle key_lengths, py::handle cu_seqlens_q, py::handle cu_seqlens_k,
         py::handle document_ids, std::optional<double> scale, std::optional<double> softcap,
         py::handle alibi_slopes, py::handle sinks, const Rotary& rotary, bool rotary_interleaved,
         double dropout_p, std::uint64_t seed, bool return_lse, bool return_weights,
         bool return_column_sums, i64 return_top_k) -> py::object {
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
        ops::AttentionResult r = unlocked([&] {
          return ops::scaled_dot_product_attention(*q, *k, *v, mask.get(), options.value);
        });
        if (!(return_lse || return_weights || return_column_sums || return_top_k))
          return to_numpy(std::move(r.out));
        py::list results;
        for (Array* a : {&r.out, &r.lse, &r.weights, &r.column_sums, &r.top_weights, &r.top_keys})
          if (a->data) results.append(to_numpy(std::move(*a)));
        return py::tuple(results);
      },
      py::arg("query"), py::arg("key"), py::arg("value"), py::arg("attn_mask"),
      py::arg("is_causal"), py::arg("window"), py::arg("block_mask"), py::arg("block_size"),
      py::arg("key_lengths"), py::arg("cu_seqlens_q"), py::arg("cu_seqlens_k"),
      py::arg("document_ids"), py::arg("scale"), py::arg("softcap"), py::arg("alibi_slopes"),
      py::arg("sinks"), py::arg("rotary"), py::arg("rotary_interleaved"), py::arg("dropout_p"),
      py::arg("seed"), py::arg("return_lse"), py::arg("return_weights"),
      py::arg("return_column_sums"), py::arg("return_top_k"));
  define(
      m, "scaled_dot_product_attention_backward",
      [](py::handle grad, py::handle query, py::handle key, py::handle value, py::handle out,
         py::handle lse, py::handle attn_mask, bool is_causal, const Window& window,
         py::handle block_mask, const BlockSize& block_size, py::handle key_lengths,
         py::handle cu_seqlens_q, py::handle cu_seqlens_k, py::handle document_ids,
         std::optional<double> scale, std::optional<double> softcap, py::handle alibi_slopes,
         py::handle sinks, const Rotary& rotary, bool rotary_interleaved, double dropout_p,
         std::uint64_t seed) -> py::tuple {
        constexpr auto op = "scaled_dot_product_attention_backward";
        const Input g(grad, op, "grad"), q(query, op, "query"), k(key, op, "key"),
            v(value, op, "value"), o(out, op, "out"), l(lse, op, "lse");
        const OptionalInput mask(attn_mask, op, "attn_mask");
        const Options options(op, is_causal, window, block_mask, block_size, key_lengths,
                              cu_seqlens_q, cu_seqlens_k, document_ids, scale, softcap,
                              alibi_slopes, sinks, rotary, rotary_interleaved, dropout_p, seed);
        ops::AttentionGradients r = unlocked([&] {
          return ops::scaled_dot_product_attention_backward(*g, *q, *k, *v, *o, *l, mask.get(),
                                                            options.value);
        });
        py::object dq = to_numpy(std::move(r.dq)), dk = to_numpy(std::move(r.dk)),
                   dv = to_numpy(std::move(r.dv));
        if (!r.dsinks.data) return py::make_tuple(dq, dk, dv);
        return py::make_tuple(dq, dk, dv, to_numpy(std::move(r.dsinks)));
      },
      py::arg("grad"), py::arg("query"), py::arg("key"), py::arg("value"), py::arg("out"),
      py::arg("lse"), py::arg("attn_mask"), py::arg("is_causal"), py::arg("window"),
      py::arg("block_mask"), py::arg("block_size"), py::arg("key_lengths"), py::arg("cu_seqlens_q"),
      py::arg("cu_seqlens_k"), py::arg("document_ids"), py::arg("scale"), py::arg("softcap"),
      py::arg("alibi_slopes"), py::arg("sinks"), py::arg("rotary"), py::arg("rotary_interleaved"),
      py::arg("dropout_p"), py::arg("seed"));
}

}  // namespace vectile
