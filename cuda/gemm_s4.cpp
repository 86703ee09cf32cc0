#include "gemm_s4.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include "array.h"
#include "ops/gemm_args.h"

namespace vectile::cuda {

void bind_gemm_s4(nb::module_& m) {
  m.def(
      "quantize_weight_4bit",
      [](nb::handle weight, i64 group_size, bool symmetric, std::uintptr_t stream) {
        constexpr const char* op = "quantize_weight";
        const Input w(weight, op, "weight");
        const OnDevice here(op, stream, w);
        auto q = unlocked([&] { return quantize_weight_4bit(*w, group_size, symmetric); });
        return nb::make_tuple(to_python(std::move(q.packed)), to_python(std::move(q.scales)),
                              symmetric ? nb::none() : to_python(std::move(q.zero_points)));
      },
      nb::arg("weight"), nb::arg("group_size"), nb::arg("symmetric"), nb::arg("stream") = 0);
  m.def(
      "linear_4bit",
      [](nb::handle x, nb::handle packed, nb::handle scales, nb::handle zero_points,
         nb::handle bias, i64 group_size, std::optional<std::string> activation,
         std::uintptr_t stream) {
        constexpr const char* op = "linear_4bit";
        const Input in(x, op, "x"), q(packed, op, "packed"), s(scales, op, "scales");
        const OptionalInput z(zero_points, op, "zero_points"), b(bias, op, "bias");
        const Activation a = ops::parse_activation(op, activation ? activation->c_str() : nullptr);
        const OnDevice here(op, stream, in, q, s, z, b);
        return to_python(
            unlocked([&] { return linear_4bit(*in, *q, *s, z.get(), b.get(), group_size, a); }));
      },
      nb::arg("x"), nb::arg("packed"), nb::arg("scales"), nb::arg("zero_points") = nb::none(),
      nb::arg("bias") = nb::none(), nb::kw_only(), nb::arg("group_size") = 128,
      nb::arg("activation") = nb::none(), nb::arg("stream") = 0);
}

}  // namespace vectile::cuda
