#include "ops/attention.h"

#include <pybind11/stl.h>

#include "bindings/array.h"

namespace vectile {

void bind_attention(py::module_& m) {
  m.def(
      "scaled_dot_product_attention",
      [](py::handle query, py::handle key, py::handle value, py::handle attn_mask, bool is_causal,
         std::optional<double> scale, bool return_lse, bool return_weights) -> py::object {
        constexpr auto op = "scaled_dot_product_attention";
        const Input q(query, op, "query"), k(key, op, "key"), v(value, op, "value");
        const OptionalInput mask(attn_mask, op, "attn_mask");
        ops::AttentionResult r = unlocked([&] {
          return ops::scaled_dot_product_attention(*q, *k, *v, mask.get(),
                                                   {is_causal, scale, return_lse, return_weights});
        });
        py::object out = to_numpy(std::move(r.out));
        if (return_lse && return_weights)
          return py::make_tuple(out, to_numpy(std::move(r.lse)), to_numpy(std::move(r.weights)));
        if (return_lse) return py::make_tuple(out, to_numpy(std::move(r.lse)));
        if (return_weights) return py::make_tuple(out, to_numpy(std::move(r.weights)));
        return out;
      },
      py::arg("query"), py::arg("key"), py::arg("value"), py::arg("attn_mask") = py::none(),
      py::arg("is_causal") = false, py::arg("scale") = py::none(), py::arg("return_lse") = false,
      py::arg("return_weights") = false);
  m.def(
      "scaled_dot_product_attention_backward",
      [](py::handle grad, py::handle query, py::handle key, py::handle value, py::handle out,
         py::handle lse, py::handle attn_mask, bool is_causal, std::optional<double> scale) {
        constexpr auto op = "scaled_dot_product_attention_backward";
        const Input g(grad, op, "grad"), q(query, op, "query"), k(key, op, "key"),
            v(value, op, "value"), o(out, op, "out"), l(lse, op, "lse");
        const OptionalInput mask(attn_mask, op, "attn_mask");
        ops::AttentionGradients r = unlocked([&] {
          return ops::scaled_dot_product_attention_backward(*g, *q, *k, *v, *o, *l, mask.get(),
                                                            {is_causal, scale, false, false});
        });
        return py::make_tuple(to_numpy(std::move(r.dq)), to_numpy(std::move(r.dk)),
                              to_numpy(std::move(r.dv)));
      },
      py::arg("grad"), py::arg("query"), py::arg("key"), py::arg("value"), py::arg("out"),
      py::arg("lse"), py::arg("attn_mask") = py::none(), py::arg("is_causal") = false,
      py::arg("scale") = py::none());
}

}  // namespace vectile
