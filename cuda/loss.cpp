#include "loss.h"

#include <nanobind/stl/string_view.h>

#include "array.h"

namespace vectile::cuda {

void bind_loss(nb::module_& m) {
  m.def(
      "cross_entropy",
      [](nb::handle logits, nb::handle targets, i64 ignore_index, double label_smoothing,
         std::string_view reduction, bool return_lse, std::uintptr_t stream) -> nb::object {
        constexpr const char* op = "cross_entropy";
        const auto o = ops::cross_entropy_options(op, ignore_index, label_smoothing, reduction);
        const Input x(logits, op, "logits"), t(targets, op, "targets");
        const OnDevice here(op, stream, x, t);
        auto r = unlocked([&] { return cross_entropy(*x, *t, o); });
        nb::object loss = to_python(std::move(r.loss));
        if (!return_lse) return loss;
        return nb::make_tuple(loss, to_python(std::move(r.lse)));
      },
      nb::arg("logits"), nb::arg("targets"), nb::arg("ignore_index") = -100,
      nb::arg("label_smoothing") = 0.0, nb::arg("reduction") = "mean",
      nb::arg("return_lse") = false, nb::arg("stream") = 0);
  m.def(
      "cross_entropy_backward",
      [](nb::handle grad, nb::handle logits, nb::handle targets, nb::handle lse, i64 ignore_index,
         double label_smoothing, std::string_view reduction, std::uintptr_t stream) {
        constexpr const char* op = "cross_entropy_backward";
        const auto o = ops::cross_entropy_options(op, ignore_index, label_smoothing, reduction);
        const Input g(grad, op, "grad"), x(logits, op, "logits"), t(targets, op, "targets");
        const Input l(lse, op, "lse");
        const OnDevice here(op, stream, g, x, t, l);
        return to_python(unlocked([&] { return cross_entropy_backward(*g, *x, *t, *l, o); }));
      },
      nb::arg("grad"), nb::arg("logits"), nb::arg("targets"), nb::arg("lse"),
      nb::arg("ignore_index") = -100, nb::arg("label_smoothing") = 0.0,
      nb::arg("reduction") = "mean", nb::arg("stream") = 0);
}

}  // namespace vectile::cuda
