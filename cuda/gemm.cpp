#include "gemm.h"

#include <nanobind/stl/optional.h>

#include "array.h"

namespace vectile::cuda {

using Name = std::optional<const char*>;

void bind_gemm(nb::module_& m) {
  m.def(
      "matmul",
      [](nb::handle a, nb::handle b, nb::handle out, Name compute, std::uintptr_t stream) {
        const ops::Compute how = ops::parse_compute("matmul", compute.value_or(nullptr), true);
        const Input left(a, "matmul", "a"), right(b, "matmul", "b");
        const OptionalInput c(out, "matmul", "out");
        const OnDevice here("matmul", stream, left, right, c);
        return to_python(unlocked([&] { return matmul(*left, *right, c.get(), how); }), out);
      },
      nb::arg("a"), nb::arg("b"), nb::arg("out") = nb::none(), nb::arg("compute") = nb::none(),
      nb::arg("stream") = 0);
  m.def(
      "linear",
      [](nb::handle x, nb::handle weight, nb::handle bias, Name activation, nb::handle residual,
         Name compute, std::uintptr_t stream) {
        const Activation f = ops::parse_activation("linear", activation.value_or(nullptr));
        const ops::Compute how = ops::parse_compute("linear", compute.value_or(nullptr), true);
        const Input in(x, "linear", "x"), w(weight, "linear", "weight");
        const OptionalInput b(bias, "linear", "bias"), r(residual, "linear", "residual");
        const OnDevice here("linear", stream, in, w, b, r);
        return to_python(unlocked([&] { return linear(*in, *w, b.get(), f, r.get(), how); }));
      },
      nb::arg("x"), nb::arg("weight"), nb::arg("bias") = nb::none(),
      nb::arg("activation") = nb::none(), nb::arg("residual") = nb::none(),
      nb::arg("compute") = nb::none(), nb::arg("stream") = 0);
}

}  // namespace vectile::cuda
