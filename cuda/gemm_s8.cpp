#include "gemm_s8.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include "array.h"
#include "ops/gemm_args.h"

namespace vectile::cuda {

void bind_gemm_s8(nb::module_& m) {
  m.def(
      "matmul_integer",
      [](nb::handle a, nb::handle b, nb::handle a_zero_point, nb::handle b_zero_point,
         std::uintptr_t stream) {
        constexpr const char* op = "matmul_integer";
        const Input left(a, op, "a"), right(b, op, "b");
        const OptionalInput za(a_zero_point, op, "a_zero_point"),
            zb(b_zero_point, op, "b_zero_point");
        const OnDevice here(op, stream, left, right, za, zb);
        return to_python(
            unlocked([&] { return matmul_integer(*left, *right, za.get(), zb.get()); }));
      },
      nb::arg("a"), nb::arg("b"), nb::arg("a_zero_point") = nb::none(),
      nb::arg("b_zero_point") = nb::none(), nb::arg("stream") = 0);
  m.def(
      "qlinear_matmul",
      [](nb::handle a, nb::handle a_scale, nb::handle a_zero_point, nb::handle b,
         nb::handle b_scale, nb::handle b_zero_point, nb::handle y_scale, nb::handle y_zero_point,
         std::uintptr_t stream) {
        constexpr const char* op = "qlinear_matmul";
        const Input left(a, op, "a"), sa(a_scale, op, "a_scale"),
            za(a_zero_point, op, "a_zero_point");
        const Input right(b, op, "b"), sb(b_scale, op, "b_scale"),
            zb(b_zero_point, op, "b_zero_point");
        const Input sy(y_scale, op, "y_scale"), zy(y_zero_point, op, "y_zero_point");
        const OnDevice here(op, stream, left, sa, za, right, sb, zb, sy, zy);
        return to_python(
            unlocked([&] { return qlinear_matmul(*left, *sa, *za, *right, *sb, *zb, *sy, *zy); }));
      },
      nb::arg("a"), nb::arg("a_scale"), nb::arg("a_zero_point"), nb::arg("b"), nb::arg("b_scale"),
      nb::arg("b_zero_point"), nb::arg("y_scale"), nb::arg("y_zero_point"), nb::arg("stream") = 0);
  m.def(
      "quantize_weight",
      [](nb::handle weight, bool symmetric, bool per_channel, std::uintptr_t stream) {
        constexpr const char* op = "quantize_weight";
        const Input w(weight, op, "weight");
        const OnDevice here(op, stream, w);
        auto q = unlocked([&] { return quantize_weight(*w, symmetric, per_channel); });
        return nb::make_tuple(to_python(std::move(q.values)), to_python(std::move(q.scales)),
                              symmetric ? nb::none() : to_python(std::move(q.zero_points)));
      },
      nb::arg("weight"), nb::kw_only(), nb::arg("symmetric") = true, nb::arg("per_channel") = true,
      nb::arg("stream") = 0);
  m.def(
      "quantized_linear",
      [](nb::handle x, nb::handle values, nb::handle scales, nb::handle zero_points,
         nb::handle bias, std::optional<std::string> activation, nb::handle x_scale,
         nb::handle x_zero_point, bool symmetric, std::uintptr_t stream) {
        constexpr const char* op = "quantized_linear";
        const Input in(x, op, "x"), v(values, op, "values"), s(scales, op, "scales");
        const OptionalInput z(zero_points, op, "zero_points"), b(bias, op, "bias"),
            step(x_scale, op, "x_scale"), zero(x_zero_point, op, "x_zero_point");
        const Activation a = ops::parse_activation(op, activation ? activation->c_str() : nullptr);
        const OnDevice here(op, stream, in, v, s, z, b, step, zero);
        return to_python(unlocked([&] {
          return quantized_linear(*in, *v, *s, z.get(), b.get(), a, step.get(), zero.get(),
                                  symmetric);
        }));
      },
      nb::arg("x"), nb::arg("values"), nb::arg("scales"), nb::arg("zero_points") = nb::none(),
      nb::arg("bias") = nb::none(), nb::kw_only(), nb::arg("activation") = nb::none(),
      nb::arg("x_scale") = nb::none(), nb::arg("x_zero_point") = nb::none(),
      nb::arg("symmetric") = false, nb::arg("stream") = 0);
}

}  // namespace vectile::cuda
