#include "reduce.h"

#include "array.h"

namespace vectile::cuda {
namespace {

i64 to_index(nb::handle value) {
  const auto v = static_cast<i64>(PyNumber_AsSsize_t(value.ptr(), PyExc_OverflowError));
  if (v == -1 && PyErr_Occurred()) throw nb::python_error();
  return v;
}

// None (all axes), an axis, or a tuple of distinct axes, as a bit mask.
unsigned axes_of(const char* op, nb::handle axis, int ndim) {
  if (axis.is_none()) return (1u << ndim) - 1;
  if (!PyTuple_Check(axis.ptr())) return 1u << check_axis(op, to_index(axis), ndim);
  unsigned mask = 0;
  for (const nb::handle item : nb::borrow<nb::tuple>(axis)) {
    const unsigned bit = 1u << check_axis(op, to_index(item), ndim);
    if (mask & bit) fail(op, "axis", "value", "distinct axes", nb::repr(axis).c_str());
    mask |= bit;
  }
  return mask;
}

Shape to_shape(const char* op, nb::handle shape) {
  Shape s;
  const nb::tuple items(nb::borrow(shape));
  if (items.size() > static_cast<std::size_t>(kMaxDims))
    fail(op, "shape", "length", text("at most ", kMaxDims), items.size());
  for (const nb::handle item : items) s.push(to_index(item));
  return s;
}

}  // namespace

void bind_reduce(nb::module_& m) {
  for (const Reduction& op : kReductions)
    m.def(
        op.name,
        [&op](nb::handle x, nb::handle axis, bool keepdims, nb::handle out, std::uintptr_t stream) {
          const Input in(x, op.name, "x");
          const OptionalInput y(out, op.name, "out");
          const OnDevice here(op.name, stream, in, y);
          const unsigned axes = axes_of(op.name, axis, in->ndim());
          return to_python(unlocked([&] { return reduce(op, *in, axes, keepdims, y.get()); }), out);
        },
        nb::arg("x"), nb::arg("axis") = nb::none(), nb::arg("keepdims") = false,
        nb::arg("out") = nb::none(), nb::arg("stream") = 0);
  m.def(
      "sum_to",
      [](nb::handle x, nb::handle shape, std::uintptr_t stream) {
        const Input in(x, "sum_to", "x");
        const OnDevice here("sum_to", stream, in);
        const Shape target = to_shape("sum_to", shape);
        return to_python(unlocked([&] { return sum_to(*in, target); }));
      },
      nb::arg("x"), nb::arg("shape"), nb::arg("stream") = 0);
  m.def(
      "global_norm",
      [](nb::object arrays, std::uintptr_t stream) {
        std::vector<Input> inputs;
        std::vector<TensorView> views;
        for (const nb::handle a : arrays) {
          inputs.emplace_back(a, "global_norm", "arrays");
          views.push_back(*inputs.back());
          check(inputs.back().device() == inputs[0].device(), "global_norm", "arrays", "device",
                text("all on ", inputs[0].device()), inputs.back().device());
        }
        const Call here(inputs.empty() ? 0 : inputs[0].device(), reinterpret_cast<Stream>(stream));
        return to_python(unlocked([&] { return global_norm(views); }));
      },
      nb::arg("arrays"), nb::arg("stream") = 0);
}

}  // namespace vectile::cuda
