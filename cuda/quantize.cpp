#include "quantize.h"

#include <nanobind/stl/optional.h>

#include "array.h"

namespace vectile::cuda {

void bind_quantize(nb::module_& m) {
  const auto linear = [&](const char* name, auto function) {
    m.def(
        name,
        [name, function](nb::handle x, nb::handle scale, nb::handle zero_point,
                         std::optional<i64> axis, std::uintptr_t stream) {
          const Input in(x, name, "x"), s(scale, name, "scale");
          const OptionalInput z(zero_point, name, "zero_point");
          const OnDevice here(name, stream, in, s, z);
          return to_python(
              unlocked([&] { return function(*in, *s, z.get(), axis ? &*axis : nullptr); }));
        },
        nb::arg("x"), nb::arg("scale"), nb::arg("zero_point") = nb::none(),
        nb::arg("axis") = nb::none(), nb::arg("stream") = 0);
  };
  linear("quantize_linear", &quantize_linear);
  linear("dequantize_linear", &dequantize_linear);
  m.def(
      "dynamic_quantize_linear",
      [](nb::handle x, std::uintptr_t stream) {
        constexpr const char* op = "dynamic_quantize_linear";
        const Input in(x, op, "x");
        const OnDevice here(op, stream, in);
        auto r = unlocked([&] { return dynamic_quantize_linear(*in); });
        return nb::make_tuple(to_python(std::move(r.y)), to_python(std::move(r.scale)),
                              to_python(std::move(r.zero_point)));
      },
      nb::arg("x"), nb::arg("stream") = 0);
}

}  // namespace vectile::cuda
