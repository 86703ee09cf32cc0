#include "ops/norm.h"

#include "bindings/array.h"

namespace vectile {
namespace {

py::object optional(Array&& a) { return a.data ? to_numpy(std::move(a)) : py::none(); }

}  // namespace

void bind_norm(py::module_& m) {
  m.def(
      "layer_norm",
      [](py::handle x, py::handle weight, py::handle bias, double eps,
         bool return_stats) -> py::object {
        constexpr const char* op = "layer_norm";
        const Input in(x, op, "x");
        const OptionalInput w(weight, op, "weight"), b(bias, op, "bias");
        auto r =
            unlocked([&] { return ops::layer_norm(*in, w.get(), b.get(), eps, return_stats); });
        py::object y = to_numpy(std::move(r.y));
        if (!return_stats) return y;
        return py::make_tuple(y, to_numpy(std::move(r.mean)), to_numpy(std::move(r.rstd)));
      },
      py::arg("x"), py::arg("weight") = py::none(), py::arg("bias") = py::none(),
      py::arg("eps") = 1e-5, py::arg("return_stats") = false);
  m.def(
      "rms_norm",
      [](py::handle x, py::handle weight, double eps, bool return_stats) -> py::object {
        const Input in(x, "rms_norm", "x");
        const OptionalInput w(weight, "rms_norm", "weight");
        auto r = unlocked([&] { return ops::rms_norm(*in, w.get(), eps, return_stats); });
        py::object y = to_numpy(std::move(r.y));
        if (!return_stats) return y;
        return py::make_tuple(y, to_numpy(std::move(r.rstd)));
      },
      py::arg("x"), py::arg("weight") = py::none(), py::arg("eps") = 1e-6,
      py::arg("return_stats") = false);
  m.def(
      "layer_norm_backward",
      [](py::handle grad, py::handle x, py::handle weight, py::handle mean, py::handle rstd) {
        constexpr const char* op = "layer_norm_backward";
        const Input g(grad, op, "grad"), in(x, op, "x"), mu(mean, op, "mean"), s(rstd, op, "rstd");
        const OptionalInput w(weight, op, "weight");
        auto r = unlocked([&] { return ops::layer_norm_backward(*g, *in, w.get(), *mu, *s); });
        return py::make_tuple(to_numpy(std::move(r.dx)), optional(std::move(r.dweight)),
                              optional(std::move(r.dbias)));
      },
      py::arg("grad"), py::arg("x"), py::arg("weight"), py::arg("mean"), py::arg("rstd"));
  m.def(
      "rms_norm_backward",
      [](py::handle grad, py::handle x, py::handle weight, py::handle rstd) {
        constexpr const char* op = "rms_norm_backward";
        const Input g(grad, op, "grad"), in(x, op, "x"), s(rstd, op, "rstd");
        const OptionalInput w(weight, op, "weight");
        auto r = unlocked([&] { return ops::rms_norm_backward(*g, *in, w.get(), *s); });
        return py::make_tuple(to_numpy(std::move(r.dx)), optional(std::move(r.dweight)));
      },
      py::arg("grad"), py::arg("x"), py::arg("weight"), py::arg("rstd"));
}

}  // namespace vectile
