#include "ops/quantize.h"

#include <pybind11/stl.h>

#include "bindings/array.h"

namespace vectile {

void bind_quantize(py::module_& m) {
  const auto linear = [&m](const char* name, auto op) {
    define(
        m, name,
        [name, op](py::handle x, py::handle scale, py::handle zero_point, std::optional<i64> axis) {
          const Input in(x, name, "x"), s(scale, name, "scale");
          const OptionalInput z(zero_point, name, "zero_point");
          return to_numpy(unlocked([&] { return op(*in, *s, z.get(), axis ? &*axis : nullptr); }));
        },
        py::arg("x"), py::arg("scale"), py::arg("zero_point") = py::none(),
        py::arg("axis") = py::none());
  };
  linear("quantize_linear", &ops::quantize_linear);
  linear("dequantize_linear", &ops::dequantize_linear);
  define(
      m, "dynamic_quantize_linear",
      [](py::handle x) {
        const Input in(x, "dynamic_quantize_linear", "x");
        auto r = unlocked([&] { return ops::dynamic_quantize_linear(*in); });
        return py::make_tuple(to_numpy(std::move(r.y)), r.scale, r.zero_point);
      },
      py::arg("x"));
}

}  // namespace vectile
