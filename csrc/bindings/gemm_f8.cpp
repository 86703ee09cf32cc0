#include "ops/gemm_f8.h"

#include "bindings/array.h"
#include "bindings/initialised.h"
#include "ops/quantize.h"

namespace vectile {
namespace {

using ops::Float8Matrix;

std::unique_ptr<Float8Matrix> make(py::handle values, py::handle scales) {
  const Input v(values, "Float8Matrix", "values"), s(scales, "Float8Matrix", "scales");
  return unlocked([&] { return std::make_unique<Float8Matrix>(*v, *s); });
}

}  // namespace

void bind_gemm_f8(py::module_& m) {
  py::class_<Float8Matrix>(
      m, "Float8Matrix",
      "A weight (out, in) in 8-bit floating point with one scale per row, laid out for linear.")
      .def(py::init(&make), py::arg("values"), py::arg("scales"))
      .def_property_readonly(
          "shape", [](const Float8Matrix& q) { return py::make_tuple(q.rows(), q.columns()); })
      .def_property_readonly("dtype",
                             [](const Float8Matrix& q) { return dtype_to_numpy(q.dtype()); })
      .def_property_readonly("bits", [](const Float8Matrix&) { return 8; })
      .def_property_readonly("format", [](const Float8Matrix& q) { return dtype_name(q.format()); })
      .def_property_readonly("zero_points", [](const Float8Matrix&) { return py::none(); })
      .def_property_readonly("nbytes", &Float8Matrix::bytes)
      .def_property_readonly(
          "values", [](const Float8Matrix& q) { return to_numpy(q.values()); },
          "float8_e4m3fn or float8_e5m2 (out, in); a copy.")
      .def_property_readonly(
          "scales",
          [](const Float8Matrix& q) {
            Array copy = Array::empty(q.dtype(), q.scales().shape);
            copy_strided(q.scales(), copy);
            return to_numpy(std::move(copy));
          },
          "(out,); a copy.")
      .def(
          "dequantize",
          [](const Float8Matrix& q) {
            const i64 rows = 0;
            return to_numpy(unlocked(
                [&] { return ops::dequantize_linear(q.values(), q.scales(), nullptr, &rows); }));
          },
          "scales[:, None] * values, in the dtype of the scales.")
      .def(py::pickle(
          [](py::object q) { return py::make_tuple(q.attr("values"), q.attr("scales")); },
          [](const py::tuple& t) { return make(t[0], t[1]); }))
      .def("__repr__", [](const Float8Matrix& q) {
        return text("Float8Matrix(shape=(", q.rows(), ", ", q.columns(), "), dtype=", q.dtype(),
                    ", values=", q.format(), ")");
      });
}

}  // namespace vectile
