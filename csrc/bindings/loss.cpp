#include "ops/loss.h"

#include <string_view>

#include "bindings/array.h"

namespace vectile {
void bind_loss(py::module_& m) {
  define(
      m, "cross_entropy",
      [](py::handle logits, py::handle targets, i64 ignore_index, double label_smoothing,
         std::string_view reduction, bool return_lse) -> py::object {
        constexpr const char* op = "cross_entropy";
        const auto o = ops::cross_entropy_options(op, ignore_index, label_smoothing, reduction);
        const Input x(logits, op, "logits"), t(targets, op, "targets");
        auto r = unlocked([&] { return ops::cross_entropy(*x, *t, o); });
        py::object loss = to_numpy(std::move(r.loss));
        if (!return_lse) return loss;
        return py::make_tuple(loss, to_numpy(std::move(r.lse)));
      },
      py::arg("logits"), py::arg("targets"), py::arg("ignore_index") = -100,
      py::arg("label_smoothing") = 0.0, py::arg("reduction") = "mean",
      py::arg("return_lse") = false);
  define(
      m, "cross_entropy_backward",
      [](py::handle grad, py::handle logits, py::handle targets, py::handle lse, i64 ignore_index,
         double label_smoothing, std::string_view reduction) {
        constexpr const char* op = "cross_entropy_backward";
        const auto o = ops::cross_entropy_options(op, ignore_index, label_smoothing, reduction);
        const Input g(grad, op, "grad"), x(logits, op, "logits"), t(targets, op, "targets");
        const Input l(lse, op, "lse");
        return to_numpy(unlocked([&] { return ops::cross_entropy_backward(*g, *x, *t, *l, o); }));
      },
      py::arg("grad"), py::arg("logits"), py::arg("targets"), py::arg("lse"),
      py::arg("ignore_index") = -100, py::arg("label_smoothing") = 0.0,
      py::arg("reduction") = "mean");
}

}  // namespace vectile
