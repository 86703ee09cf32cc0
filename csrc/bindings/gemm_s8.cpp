#include "ops/gemm_s8.h"

#include "bindings/array.h"
#include "bindings/initialised.h"

namespace vectile {

void bind_gemm_s8(py::module_& m) {
  using ops::QuantizedMatrix;
  py::class_<QuantizedMatrix>(
      m, "QuantizedMatrix",
      "A weight (out, in) as int8 with one scale per row, laid out for linear.")
      .def(py::init([](py::handle values, py::handle scales) {
             const Input v(values, "QuantizedMatrix", "values"),
                 s(scales, "QuantizedMatrix", "scales");
             return unlocked([&] { return std::make_unique<QuantizedMatrix>(*v, *s); });
           }),
           py::arg("values"), py::arg("scales"))
      .def_property_readonly(
          "shape", [](const QuantizedMatrix& q) { return py::make_tuple(q.rows(), q.columns()); })
      .def_property_readonly("dtype",
                             [](const QuantizedMatrix& q) { return dtype_to_numpy(q.dtype()); })
      .def_property_readonly("nbytes", &QuantizedMatrix::bytes)
      .def_property_readonly(
          "values", [](const QuantizedMatrix& q) { return to_numpy(q.values()); },
          "int8 (out, in); a copy.")
      .def_property_readonly(
          "scales",
          [](const QuantizedMatrix& q) {
            Array copy = Array::empty(q.dtype(), q.scales().shape);
            copy_strided(q.scales(), copy);
            return to_numpy(std::move(copy));
          },
          "(out,); a copy.")
      .def(
          "dequantize", [](const QuantizedMatrix& q) { return to_numpy(q.dequantize()); },
          "scales[:, None] * values, in the dtype of the scales.")
      .def(py::pickle(
          [](py::object q) { return py::make_tuple(q.attr("values"), q.attr("scales")); },
          [](const py::tuple& t) {
            const Input v(t[0], "QuantizedMatrix", "values"), s(t[1], "QuantizedMatrix", "scales");
            return std::make_unique<QuantizedMatrix>(*v, *s);
          }))
      .def("__repr__", [](const QuantizedMatrix& q) {
        return text("QuantizedMatrix(shape=(", q.rows(), ", ", q.columns(), "), dtype=", q.dtype(),
                    ")");
      });
  m.def(
      "quantize_weight",
      [](py::handle weight) {
        const Input w(weight, "quantize_weight", "weight");
        return unlocked([&] { return ops::quantize_weight(*w); });
      },
      py::arg("weight"));
  m.def(
      "matmul_integer",
      [](py::handle a, py::handle b, py::handle a_zero_point, py::handle b_zero_point) {
        constexpr const char* op = "matmul_integer";
        const Input left(a, op, "a"), right(b, op, "b");
        const OptionalInput za(a_zero_point, op, "a_zero_point"),
            zb(b_zero_point, op, "b_zero_point");
        return to_numpy(
            unlocked([&] { return ops::matmul_integer(*left, *right, za.get(), zb.get()); }));
      },
      py::arg("a"), py::arg("b"), py::arg("a_zero_point") = py::none(),
      py::arg("b_zero_point") = py::none());
  m.def(
      "qlinear_matmul",
      [](py::handle a, py::handle a_scale, py::handle a_zero_point, py::handle b,
         py::handle b_scale, py::handle b_zero_point, py::handle y_scale, py::handle y_zero_point) {
        constexpr const char* op = "qlinear_matmul";
        const Input left(a, op, "a"), sa(a_scale, op, "a_scale"),
            za(a_zero_point, op, "a_zero_point");
        const Input right(b, op, "b"), sb(b_scale, op, "b_scale"),
            zb(b_zero_point, op, "b_zero_point");
        const Input sy(y_scale, op, "y_scale"), zy(y_zero_point, op, "y_zero_point");
        return to_numpy(unlocked(
            [&] { return ops::qlinear_matmul(*left, *sa, *za, *right, *sb, *zb, *sy, *zy); }));
      },
      py::arg("a"), py::arg("a_scale"), py::arg("a_zero_point"), py::arg("b"), py::arg("b_scale"),
      py::arg("b_zero_point"), py::arg("y_scale"), py::arg("y_zero_point"));
}

}  // namespace vectile
