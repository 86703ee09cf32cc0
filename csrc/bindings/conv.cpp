#include "ops/conv.h"

#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "bindings/array.h"
#include "ops/gemm.h"

namespace vectile {
namespace {

using Sizes = std::vector<i64>;

// stride and dilation: one number per axis; padding: before and after each axis.
ops::ConvSettings settings_of(const char* op, int axes, const Sizes& stride, const Sizes& padding,
                              const Sizes& dilation, i64 groups) {
  const auto count = [&](const char* name, const Sizes& values, int expected) {
    const auto got = static_cast<int>(values.size());
    check(got == expected, op, name, "length", expected, got);
  };
  count("stride", stride, axes);
  count("padding", padding, 2 * axes);
  count("dilation", dilation, axes);
  ops::ConvSettings s{};
  s.groups = groups;
  for (int i = 0; i < axes; ++i) {
    const int axis = i + 2 - axes;
    s.stride[axis] = stride[i];
    s.pad_begin[axis] = padding[2 * i];
    s.pad_end[axis] = padding[2 * i + 1];
    s.dilation[axis] = dilation[i];
  }
  return s;
}

Shape shape_of(const char* op, const char* name, const Sizes& sizes) {
  const auto ndim = static_cast<i64>(sizes.size());
  check(ndim <= kMaxDims, op, name, "ndim", text("at most ", kMaxDims), ndim);
  Shape s;
  for (const i64 size : sizes) {
    check(size >= 0, op, name, "size", "at least 0", size);
    s.push(size);
  }
  return s;
}

void check_axes(const char* op, int axes) {
  check(axes == 1 || axes == 2, op, "axes", "value", "1 or 2", axes);
}

}  // namespace

// `op` names the caller in errors; `axes` counts spatial axes.
void bind_conv(py::module_& m) {
  define(
      m, "conv",
      [](const std::string& op, int axes, py::handle x, py::handle weight, py::handle bias,
         const Sizes& stride, const Sizes& padding, const Sizes& dilation, i64 groups,
         const char* activation) {
        const char* name = op.c_str();
        check_axes(name, axes);
        const auto settings = settings_of(name, axes, stride, padding, dilation, groups);
        const Activation f = ops::parse_activation(name, activation);
        const Input in(x, name, "x"), w(weight, name, "weight");
        const OptionalInput b(bias, name, "bias");
        return to_numpy(
            unlocked([&] { return ops::conv(name, axes, *in, *w, b.get(), settings, f); }));
      },
      py::arg("op"), py::arg("axes"), py::arg("x"), py::arg("weight"), py::arg("bias"),
      py::arg("stride"), py::arg("padding"), py::arg("dilation"), py::arg("groups"),
      py::arg("activation").none(true) = py::none());
  define(
      m, "conv_input_grad",
      [](const std::string& op, int axes, py::handle grad, py::handle weight, py::handle bias,
         const Sizes& input_shape, const Sizes& stride, const Sizes& padding, const Sizes& dilation,
         i64 groups, const char* activation) {
        const char* name = op.c_str();
        check_axes(name, axes);
        const auto settings = settings_of(name, axes, stride, padding, dilation, groups);
        const Shape shape = shape_of(name, "input_shape", input_shape);
        const Activation f = ops::parse_activation(name, activation);
        const Input g(grad, name, "grad"), w(weight, name, "weight");
        const OptionalInput b(bias, name, "bias");
        return to_numpy(unlocked(
            [&] { return ops::conv_input_grad(name, axes, *g, *w, b.get(), shape, settings, f); }));
      },
      py::arg("op"), py::arg("axes"), py::arg("grad"), py::arg("weight"), py::arg("bias"),
      py::arg("input_shape"), py::arg("stride"), py::arg("padding"), py::arg("dilation"),
      py::arg("groups"), py::arg("activation").none(true) = py::none());
  define(
      m, "conv_weight_grad",
      [](const std::string& op, int axes, py::handle grad, py::handle x, const Sizes& weight_shape,
         const Sizes& stride, const Sizes& padding, const Sizes& dilation, i64 groups) {
        const char* name = op.c_str();
        check_axes(name, axes);
        const auto settings = settings_of(name, axes, stride, padding, dilation, groups);
        const Shape shape = shape_of(name, "weight_shape", weight_shape);
        const Input g(grad, name, "grad"), in(x, name, "x");
        return to_numpy(
            unlocked([&] { return ops::conv_weight_grad(name, axes, *g, *in, shape, settings); }));
      },
      py::arg("op"), py::arg("axes"), py::arg("grad"), py::arg("x"), py::arg("weight_shape"),
      py::arg("stride"), py::arg("padding"), py::arg("dilation"), py::arg("groups"));
}

}  // namespace vectile
