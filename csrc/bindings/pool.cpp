#include "ops/pool.h"

#include <pybind11/stl.h>

#include <string>

#include "bindings/array.h"

namespace vectile {
namespace {

using ops::Sizes;

py::object pooled(ops::Pooled&& r) {
  py::object y = to_numpy(std::move(r.y));
  if (!r.index.data) return y;
  return py::make_tuple(y, to_numpy(std::move(r.index)));
}

ops::Interpolating interpolating(const char* op, const std::string& mode, bool align_corners,
                                 std::vector<double> scale) {
  using ops::Interpolation;
  constexpr std::pair<const char*, Interpolation> kModes[] = {
      {"nearest", Interpolation::nearest},
      {"nearest-exact", Interpolation::nearest_exact},
      {"linear", Interpolation::linear},
      {"cubic", Interpolation::cubic}};
  for (const auto& [name, value] : kModes)
    if (mode == name) return {value, align_corners, std::move(scale)};
  fail(op, "mode", "value", "'nearest', 'nearest-exact', 'linear' or 'cubic'", "'" + mode + "'");
}

}  // namespace

void bind_pool(py::module_& m) {
  define(
      m, "max_pool",
      [](py::handle x, Sizes kernel_size, Sizes stride, Sizes padding, Sizes dilation,
         bool ceil_mode, bool return_indices) {
        const Input in(x, "max_pool", "x");
        const ops::Pooling p{std::move(kernel_size), std::move(stride), std::move(padding),
                             std::move(dilation), ceil_mode};
        return pooled(unlocked([&] { return ops::max_pool(*in, p, return_indices); }));
      },
      py::arg("x"), py::arg("kernel_size"), py::arg("stride"), py::arg("padding"),
      py::arg("dilation"), py::arg("ceil_mode"), py::arg("return_indices"));
  define(
      m, "adaptive_max_pool",
      [](py::handle x, const Sizes& output_size, bool return_indices) {
        const Input in(x, "adaptive_max_pool", "x");
        return pooled(
            unlocked([&] { return ops::adaptive_max_pool(*in, output_size, return_indices); }));
      },
      py::arg("x"), py::arg("output_size"), py::arg("return_indices"));
  define(
      m, "max_pool_backward",
      [](py::handle grad, py::handle index, const Sizes& input_size) {
        const Input g(grad, "max_pool_backward", "grad"), i(index, "max_pool_backward", "index");
        return to_numpy(unlocked([&] { return ops::max_pool_backward(*g, *i, input_size); }));
      },
      py::arg("grad"), py::arg("index"), py::arg("input_size"));

  const auto averaging = [](Sizes& kernel, Sizes& stride, Sizes& padding, bool ceil_mode,
                            bool include_pad, std::optional<i64> divisor, const char* op) {
    check(!divisor || *divisor != 0, op, "divisor_override", "value", "another than 0", 0);
    Sizes ones(kernel.size(), 1);
    return ops::Averaging{
        {std::move(kernel), std::move(stride), std::move(padding), std::move(ones), ceil_mode},
        include_pad,
        divisor.value_or(0)};
  };
  define(
      m, "avg_pool",
      [averaging](py::handle x, Sizes kernel_size, Sizes stride, Sizes padding, bool ceil_mode,
                  bool count_include_pad, std::optional<i64> divisor_override) {
        const Input in(x, "avg_pool", "x");
        const auto a = averaging(kernel_size, stride, padding, ceil_mode, count_include_pad,
                                 divisor_override, "avg_pool");
        return to_numpy(unlocked([&] { return ops::avg_pool(*in, a); }));
      },
      py::arg("x"), py::arg("kernel_size"), py::arg("stride"), py::arg("padding"),
      py::arg("ceil_mode"), py::arg("count_include_pad"), py::arg("divisor_override"));
  define(
      m, "avg_pool_backward",
      [averaging](py::handle grad, const Sizes& input_size, Sizes kernel_size, Sizes stride,
                  Sizes padding, bool ceil_mode, bool count_include_pad,
                  std::optional<i64> divisor_override) {
        const Input g(grad, "avg_pool_backward", "grad");
        const auto a = averaging(kernel_size, stride, padding, ceil_mode, count_include_pad,
                                 divisor_override, "avg_pool_backward");
        return to_numpy(unlocked([&] { return ops::avg_pool_adjoint(*g, input_size, a); }));
      },
      py::arg("grad"), py::arg("input_size"), py::arg("kernel_size"), py::arg("stride"),
      py::arg("padding"), py::arg("ceil_mode"), py::arg("count_include_pad"),
      py::arg("divisor_override"));

  define(
      m, "adaptive_avg_pool",
      [](py::handle x, const Sizes& output_size) {
        const Input in(x, "adaptive_avg_pool", "x");
        return to_numpy(unlocked([&] { return ops::adaptive_avg_pool(*in, output_size); }));
      },
      py::arg("x"), py::arg("output_size"));
  define(
      m, "adaptive_avg_pool_backward",
      [](py::handle grad, const Sizes& input_size) {
        const Input g(grad, "adaptive_avg_pool_backward", "grad");
        return to_numpy(unlocked([&] { return ops::adaptive_avg_pool_adjoint(*g, input_size); }));
      },
      py::arg("grad"), py::arg("input_size"));

  define(
      m, "interpolate",
      [](py::handle x, const Sizes& size, const std::string& mode, bool align_corners,
         std::vector<double> scale) {
        const Input in(x, "interpolate", "x");
        const auto how = interpolating("interpolate", mode, align_corners, std::move(scale));
        return to_numpy(unlocked([&] { return ops::interpolate(*in, size, how); }));
      },
      py::arg("x"), py::arg("size"), py::arg("mode"), py::arg("align_corners"), py::arg("scale"));
  define(
      m, "interpolate_backward",
      [](py::handle grad, const Sizes& input_size, const std::string& mode, bool align_corners,
         std::vector<double> scale) {
        constexpr const char* op = "interpolate_backward";
        const Input g(grad, op, "grad");
        const auto how = interpolating(op, mode, align_corners, std::move(scale));
        return to_numpy(unlocked([&] { return ops::interpolate_adjoint(*g, input_size, how); }));
      },
      py::arg("grad"), py::arg("input_size"), py::arg("mode"), py::arg("align_corners"),
      py::arg("scale"));
}

}  // namespace vectile
