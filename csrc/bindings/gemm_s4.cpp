#include "ops/gemm_s4.h"

#include "bindings/array.h"
#include "bindings/initialised.h"

namespace vectile {
namespace {

using ops::Int4Matrix;

std::unique_ptr<Int4Matrix> make(py::handle values, py::handle scales, py::handle zero_points,
                                 i64 group_size) {
  constexpr const char* op = "Int4Matrix";
  const Input v(values, op, "values"), s(scales, op, "scales");
  const OptionalInput z(zero_points, op, "zero_points");
  return unlocked([&] { return std::make_unique<Int4Matrix>(*v, *s, z.get(), group_size); });
}

py::object zero_points(const Int4Matrix& q) {
  return q.symmetric() ? py::none() : to_numpy(q.zero_points());
}

}  // namespace

void bind_gemm_s4(py::module_& m) {
  py::class_<Int4Matrix>(
      m, "Int4Matrix",
      "A weight (out, in) in 4 bits with a scale per group along in, laid out for linear.")
      .def(py::init(&make), py::arg("values"), py::arg("scales"),
           py::arg("zero_points") = py::none(), py::arg("group_size") = 32)
      .def_property_readonly(
          "shape", [](const Int4Matrix& q) { return py::make_tuple(q.rows(), q.columns()); })
      .def_property_readonly("dtype", [](const Int4Matrix& q) { return dtype_to_numpy(q.dtype()); })
      .def_property_readonly("bits", [](const Int4Matrix&) { return 4; })
      .def_property_readonly("group_size", &Int4Matrix::group)
      .def_property_readonly("nbytes", &Int4Matrix::bytes)
      .def_property_readonly(
          "values", [](const Int4Matrix& q) { return to_numpy(q.values()); },
          "(out, in), one value a byte: int8 in -8..7, with zero points uint8 in 0..15; a copy.")
      .def_property_readonly(
          "scales", [](const Int4Matrix& q) { return to_numpy(q.scales()); },
          "(out, groups); a copy.")
      .def_property_readonly("zero_points", &zero_points, "uint8 (out, groups), a copy, or None.")
      .def(
          "dequantize", [](const Int4Matrix& q) { return to_numpy(q.dequantize()); },
          "scales * (values - zero_points), in the dtype of the scales.")
      .def(py::pickle(
          [](py::object q) {
            return py::make_tuple(q.attr("values"), q.attr("scales"), q.attr("zero_points"),
                                  q.attr("group_size"));
          },
          [](const py::tuple& t) { return make(t[0], t[1], t[2], t[3].cast<i64>()); }))
      .def("__repr__", [](const Int4Matrix& q) {
        return text("Int4Matrix(shape=(", q.rows(), ", ", q.columns(), "), dtype=", q.dtype(),
                    ", group_size=", q.group(), ", symmetric=", q.symmetric() ? "True" : "False",
                    ")");
      });
  define(
      m, "quantize_weight_4bit",
      [](py::handle weight, i64 group_size, bool symmetric) {
        const Input w(weight, "quantize_weight", "weight");
        return unlocked([&] { return ops::quantize_weight_4bit(*w, group_size, symmetric); });
      },
      py::arg("weight"), py::arg("group_size"), py::arg("symmetric"));
}

}  // namespace vectile
