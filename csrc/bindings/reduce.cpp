#include "ops/reduce.h"

#include <vector>

#include "bindings/array.h"

namespace vectile {
namespace {

i64 to_index(py::handle value) {
  const auto v = static_cast<i64>(PyNumber_AsSsize_t(value.ptr(), PyExc_OverflowError));
  if (v == -1 && PyErr_Occurred()) throw py::error_already_set();
  return v;
}

// None (all axes), an axis, or a tuple of distinct axes, as a bit mask.
unsigned axes_of(const char* op, py::handle axis, int ndim) {
  if (axis.is_none()) return (1u << ndim) - 1;
  if (!PyTuple_Check(axis.ptr())) return 1u << check_axis(op, to_index(axis), ndim);
  unsigned mask = 0;
  for (const py::handle item : py::reinterpret_borrow<py::tuple>(axis)) {
    const unsigned bit = 1u << check_axis(op, to_index(item), ndim);
    if (mask & bit) fail(op, "axis", "value", "distinct axes", py::repr(axis).cast<std::string>());
    mask |= bit;
  }
  return mask;
}

Shape to_shape(const char* op, py::handle shape) {
  Shape s;
  const auto items = py::tuple(py::reinterpret_borrow<py::object>(shape));
  if (items.size() > static_cast<std::size_t>(kMaxDims))
    fail(op, "shape", "length", text("at most ", kMaxDims), items.size());
  for (const py::handle item : items) s.push(to_index(item));
  return s;
}

}  // namespace

void bind_reduce(py::module_& m) {
  for (const auto& op : ops::kReductions)
    define(
        m, op.rows.name,
        [&op](py::handle x, py::handle axis, bool keepdims, py::handle out) {
          const char* name = op.rows.name;
          const Input in(x, name, "x");
          const OutInput y(out, name);
          const unsigned axes = axes_of(name, axis, in->ndim());
          return y.result(unlocked([&] { return ops::reduce(op, *in, axes, keepdims, y.get()); }));
        },
        py::arg("x"), py::arg("axis") = py::none(), py::arg("keepdims") = false,
        py::arg("out") = py::none());
  define(
      m, "sum_to",
      [](py::handle x, py::handle shape) {
        const Input in(x, "sum_to", "x");
        const Shape target = to_shape("sum_to", shape);
        return to_numpy(unlocked([&] { return ops::sum_to(*in, target); }));
      },
      py::arg("x"), py::arg("shape"));
  define(
      m, "global_norm",
      [](py::object arrays) {
        std::vector<Input> inputs;
        std::vector<TensorView> views;
        for (const py::handle a : py::iter(arrays)) {
          inputs.emplace_back(a, "global_norm", "arrays");
          views.push_back(*inputs.back());
        }
        return unlocked([&] { return ops::global_norm(views.data(), views.size()); });
      },
      py::arg("arrays"));
}

}  // namespace vectile
