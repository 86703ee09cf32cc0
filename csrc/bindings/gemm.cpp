#include "ops/gemm.h"

#include "bindings/array.h"
#include "bindings/initialised.h"
#include "ops/gemm_f8.h"
#include "ops/gemm_s4.h"
#include "ops/gemm_s8.h"

namespace vectile {

void bind_gemm(py::module_& m) {
  py::class_<ops::PackedMatrix>(m, "PackedMatrix",
                                "A weight (out, in) laid out for linear; made by vectile.ops.pack.")
      .def_property_readonly(
          "shape", [](const ops::PackedMatrix& p) { return py::make_tuple(p.rows(), p.columns()); })
      .def_property_readonly("dtype",
                             [](const ops::PackedMatrix& p) { return dtype_to_numpy(p.dtype()); })
      .def_property_readonly("nbytes", &ops::PackedMatrix::bytes)
      .def("__repr__", [](const ops::PackedMatrix& p) {
        return text("PackedMatrix(shape=(", p.rows(), ", ", p.columns(), "), dtype=", p.dtype(),
                    ")");
      });
  m.def(
      "pack",
      [](py::handle weight) {
        const Input w(weight, "pack", "weight");
        return unlocked([&] { return std::make_unique<ops::PackedMatrix>(*w); });
      },
      py::arg("weight"));
  m.def(
      "matmul",
      [](py::handle a, py::handle b, py::handle out) {
        const Input left(a, "matmul", "a"), right(b, "matmul", "b");
        const OutInput c(out, "matmul");
        return c.result(unlocked([&] { return ops::matmul(*left, *right, c.get()); }));
      },
      py::arg("a"), py::arg("b"), py::arg("out") = py::none());
  m.def(
      "linear",
      [](py::handle x, py::handle weight, py::handle bias, const char* activation,
         py::handle residual) {
        const Activation f = ops::parse_activation("linear", activation);
        const Input in(x, "linear", "x");
        const OptionalInput b(bias, "linear", "bias"), r(residual, "linear", "residual");
        const auto dense = [&] {
          const Input w(weight, "linear", "weight");
          return to_numpy(unlocked([&] { return ops::linear(*in, *w, b.get(), f, r.get()); }));
        };
        if (py::isinstance<py::array>(weight)) return dense();
        if (py::isinstance<ops::PackedMatrix>(weight)) {
          const auto& packed = weight.cast<const ops::PackedMatrix&>();
          return to_numpy(unlocked([&] { return ops::linear(*in, packed, b.get(), f, r.get()); }));
        }
        const auto quantized = [&](const auto& matrix) {
          return to_numpy(unlocked([&] { return ops::linear(*in, matrix, b.get(), f, r.get()); }));
        };
        if (py::isinstance<ops::QuantizedMatrix>(weight))
          return quantized(weight.cast<const ops::QuantizedMatrix&>());
        if (py::isinstance<ops::Int4Matrix>(weight))
          return quantized(weight.cast<const ops::Int4Matrix&>());
        if (py::isinstance<ops::Float8Matrix>(weight))
          return quantized(weight.cast<const ops::Float8Matrix&>());
        return dense();
      },
      py::arg("x"), py::arg("weight"), py::arg("bias") = py::none(),
      py::arg("activation").none(true) = py::none(), py::arg("residual") = py::none());
}

}  // namespace vectile
