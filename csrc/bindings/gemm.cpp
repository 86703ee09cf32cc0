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
      .def_property_readonly(
          "compute", [](const ops::PackedMatrix& p) { return ops::compute_name(p.compute()); })
      .def("__repr__", [](const ops::PackedMatrix& p) {
        return text("PackedMatrix(shape=(", p.rows(), ", ", p.columns(), "), dtype=", p.dtype(),
                    ")");
      });
  define(
      m, "pack",
      [](py::handle weight, const char* compute) {
        const ops::Compute c = ops::parse_compute("pack", compute);
        const Input w(weight, "pack", "weight");
        return unlocked([&] { return std::make_unique<ops::PackedMatrix>(*w, c); });
      },
      py::arg("weight"), py::arg("compute").none(true) = py::none());
  define(
      m, "matmul",
      [](py::handle a, py::handle b, py::handle out, const char* compute) {
        const Input left(a, "matmul", "a"), right(b, "matmul", "b");
        const ops::Compute how = ops::parse_compute("matmul", compute);
        const OutInput c(out, "matmul");
        return c.result(unlocked([&] { return ops::matmul(*left, *right, c.get(), how); }));
      },
      py::arg("a"), py::arg("b"), py::arg("out") = py::none(),
      py::arg("compute").none(true) = py::none());
  define(
      m, "linear",
      [](py::handle x, py::handle weight, py::handle bias, const char* activation,
         py::handle residual, const char* compute) {
        const Input in(x, "linear", "x");
        const Activation f = ops::parse_activation("linear", activation);
        const ops::Compute how = ops::parse_compute("linear", compute);
        const OptionalInput b(bias, "linear", "bias"), r(residual, "linear", "residual");
        const auto dense = [&] {
          const Input w(weight, "linear", "weight");
          return to_numpy(unlocked([&] { return ops::linear(*in, *w, b.get(), f, r.get(), how); }));
        };
        if (py::isinstance<py::array>(weight)) return dense();
        if (py::isinstance<ops::PackedMatrix>(weight)) {
          const auto& packed = weight.cast<const ops::PackedMatrix&>();
          return to_numpy(
              unlocked([&] { return ops::linear(*in, packed, b.get(), f, r.get(), how); }));
        }
        const auto quantized = [&](const auto& matrix) {
          check(how == ops::Compute::standard, "linear", "compute", "value",
                "None beside a quantised weight", text("'", compute, "'"));
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
      py::arg("activation").none(true) = py::none(), py::arg("residual") = py::none(),
      py::arg("compute").none(true) = py::none());
}

}  // namespace vectile
