#include "ops/gemm_s8.h"

#include "bindings/array.h"
#include "bindings/initialised.h"

namespace vectile {
namespace {

using ops::QuantizedMatrix;

std::unique_ptr<QuantizedMatrix> from_parts(py::handle values, py::handle scales,
                                            py::handle zero_points) {
  constexpr const char* op = "QuantizedMatrix";
  const Input v(values, op, "values"), s(scales, op, "scales");
  const OptionalInput z(zero_points, op, "zero_points");
  return unlocked([&] { return std::make_unique<QuantizedMatrix>(*v, *s, z.get()); });
}

py::object copied(const TensorView& x) {
  Array copy = Array::empty(x.dtype, x.shape);
  copy_strided(x, copy);
  return to_numpy(std::move(copy));
}

}  // namespace

void bind_gemm_s8(py::module_& m) {
  py::class_<QuantizedMatrix>(
      m, "QuantizedMatrix",
      "A weight (out, in) as int8, with scales and zero points, laid out for linear.")
      .def(py::init(&from_parts), py::arg("values"), py::arg("scales"),
           py::arg("zero_points") = py::none())
      .def_property_readonly(
          "shape", [](const QuantizedMatrix& q) { return py::make_tuple(q.rows(), q.columns()); })
      .def_property_readonly("dtype",
                             [](const QuantizedMatrix& q) { return dtype_to_numpy(q.dtype()); })
      .def_property_readonly("nbytes", &QuantizedMatrix::bytes)
      .def_property_readonly(
          "values", [](const QuantizedMatrix& q) { return to_numpy(q.values()); },
          "int8 (out, in); a copy.")
      .def_property_readonly(
          "scales", [](const QuantizedMatrix& q) { return copied(q.scales()); },
          "() or (out,); a copy.")
      .def_property_readonly(
          "zero_points",
          [](const QuantizedMatrix& q) -> py::object {
            if (!q.zero_points()) return py::none();
            return copied(*q.zero_points());
          },
          "int8, of the shape of scales; a copy. None for a symmetric weight.")
      .def(
          "dequantize", [](const QuantizedMatrix& q) { return to_numpy(q.dequantize()); },
          "scales * (values - zero_points) by rows, in the dtype of the scales.")
      .def(py::pickle(
          [](py::object q) {
            return py::make_tuple(q.attr("values"), q.attr("scales"), q.attr("zero_points"));
          },
          [](const py::tuple& t) { return from_parts(t[0], t[1], t[2]); }))
      .def("__repr__", [](const QuantizedMatrix& q) {
        return text("QuantizedMatrix(shape=(", q.rows(), ", ", q.columns(), "), dtype=", q.dtype(),
                    ")");
      });
  define(
      m, "quantize_weight",
      [](py::handle weight, bool symmetric, bool per_channel) {
        const Input w(weight, "quantize_weight", "weight");
        return unlocked([&] { return ops::quantize_weight(*w, symmetric, per_channel); });
      },
      py::arg("weight"), py::kw_only(), py::arg("symmetric") = true, py::arg("per_channel") = true);
  define(
      m, "quantized_linear",
      [](py::handle x, const QuantizedMatrix& weight, py::handle bias, const char* activation,
         py::handle x_scale, py::handle x_zero_point, bool symmetric) {
        constexpr const char* op = "quantized_linear";
        const Input in(x, op, "x");
        const OptionalInput b(bias, op, "bias"), scale(x_scale, op, "x_scale"),
            zero(x_zero_point, op, "x_zero_point");
        const Activation a = ops::parse_activation(op, activation);
        return to_numpy(unlocked([&] {
          const auto how = ops::activation_range(op, symmetric, scale.get(), zero.get());
          return ops::linear(*in, weight, b.get(), a, nullptr, how, op);
        }));
      },
      py::arg("x"), py::arg("weight"), py::arg("bias") = py::none(), py::kw_only(),
      py::arg("activation").none(true) = py::none(), py::arg("x_scale") = py::none(),
      py::arg("x_zero_point") = py::none(), py::arg("symmetric") = false);
  define(
      m, "matmul_integer",
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
  define(
      m, "qlinear_matmul",
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
