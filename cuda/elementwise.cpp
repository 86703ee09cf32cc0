#include "elementwise.h"

#include <nanobind/stl/optional.h>

#include "array.h"
#include "ops/gemm_args.h"

namespace vectile::cuda {
namespace {

using Name = std::optional<const char*>;

// A Python number or NumPy scalar, which takes the dtype of the array beside it.
bool is_number(nb::handle value) {
  return PyFloat_Check(value.ptr()) || PyLong_Check(value.ptr()) ||
         (nb::hasattr(value, "__float__") && !nb::hasattr(value, "__dlpack__"));
}

double to_number(nb::handle value) {
  const double v = PyFloat_AsDouble(value.ptr());
  if (v == -1 && PyErr_Occurred()) throw nb::python_error();
  return v;
}

nb::object binary(const BinaryOp& op, nb::handle a, nb::handle b, nb::handle out,
                  std::uintptr_t stream) {
  const OptionalInput y(out, op.name, "out");
  const auto run = [&](const Operand& u, const Operand& v) {
    return to_python(unlocked([&] { return op.run(op.name, u, v, y.get()); }), out);
  };
  if (is_number(b)) {
    const Input in(a, op.name, "a");
    const OnDevice here(op.name, stream, in, y);
    return run({&*in}, {nullptr, to_number(b)});
  }
  const Input in(b, op.name, "b");
  if (is_number(a)) {
    const OnDevice here(op.name, stream, in, y);
    return run({nullptr, to_number(a)}, {&*in});
  }
  const Input first(a, op.name, "a");
  const OnDevice here(op.name, stream, first, in, y);
  return run({&*first}, {&*in});
}

std::uint64_t checked_seed(const char* op, nb::handle seed) {
  const nb::object index = nb::steal(PyNumber_Index(seed.ptr()));
  if (!index) throw nb::python_error();
  const std::uint64_t value = PyLong_AsUnsignedLongLong(index.ptr());
  if (value == ~std::uint64_t{0} && PyErr_Occurred()) {
    PyErr_Clear();
    fail(op, "seed", "value", "0 to 2**64 - 1", nb::str(index).c_str());
  }
  return value;
}

void bind_slopes(nb::module_& m) {
  m.def(
      "leaky_relu",
      [](nb::handle x, double negative_slope, nb::handle out, std::uintptr_t stream) {
        const Input in(x, "leaky_relu", "x");
        const OptionalInput y(out, "leaky_relu", "out");
        const OnDevice here("leaky_relu", stream, in, y);
        return to_python(unlocked([&] { return leaky_relu(*in, negative_slope, y.get()); }), out);
      },
      nb::arg("x"), nb::arg("negative_slope") = 0.01, nb::arg("out") = nb::none(),
      nb::arg("stream") = 0);
  m.def(
      "leaky_relu_backward",
      [](nb::handle grad, nb::handle x, double negative_slope, std::uintptr_t stream) {
        constexpr const char* op = "leaky_relu_backward";
        const Input g(grad, op, "grad"), in(x, op, "x");
        const OnDevice here(op, stream, g, in);
        return to_python(unlocked([&] { return leaky_relu_backward(*g, *in, negative_slope); }));
      },
      nb::arg("grad"), nb::arg("x"), nb::arg("negative_slope") = 0.01, nb::arg("stream") = 0);
  m.def(
      "prelu",
      [](nb::handle x, nb::handle weight, nb::handle out, std::uintptr_t stream) {
        const Input in(x, "prelu", "x"), w(weight, "prelu", "weight");
        const OptionalInput y(out, "prelu", "out");
        const OnDevice here("prelu", stream, in, w, y);
        return to_python(unlocked([&] { return prelu(*in, *w, y.get()); }), out);
      },
      nb::arg("x"), nb::arg("weight"), nb::arg("out") = nb::none(), nb::arg("stream") = 0);
  m.def(
      "prelu_backward",
      [](nb::handle grad, nb::handle x, nb::handle weight, std::uintptr_t stream) {
        constexpr const char* op = "prelu_backward";
        const Input g(grad, op, "grad"), in(x, op, "x"), w(weight, op, "weight");
        const OnDevice here(op, stream, g, in, w);
        auto r = unlocked([&] { return prelu_backward(*g, *in, *w); });
        return nb::make_tuple(to_python(std::move(r.dx)), to_python(std::move(r.dweight)));
      },
      nb::arg("grad"), nb::arg("x"), nb::arg("weight"), nb::arg("stream") = 0);
}

}  // namespace

void bind_elementwise(nb::module_& m) {
  for (const UnaryOp& op : kUnary)
    m.def(
        op.name,
        [&op](nb::handle x, nb::handle out, std::uintptr_t stream) {
          const Input in(x, op.name, "x");
          const OptionalInput y(out, op.name, "out");
          const OnDevice here(op.name, stream, in, y);
          return to_python(unlocked([&] { return op.run(op.name, *in, y.get()); }), out);
        },
        nb::arg("x"), nb::arg("out") = nb::none(), nb::arg("stream") = 0);
  for (const GradientOp& op : kGradient)
    m.def(
        op.name,
        [&op](nb::handle grad, nb::handle v, std::uintptr_t stream) {
          const Input g(grad, op.name, "grad"), in(v, op.name, op.v_name);
          const OnDevice here(op.name, stream, g, in);
          return to_python(unlocked([&] { return op.run(op.name, *g, *in, op.v_name); }));
        },
        nb::arg("grad"), nb::arg(op.v_name), nb::arg("stream") = 0);
  for (const BinaryOp& op : kBinary)
    m.def(
        op.name,
        [&op](nb::handle a, nb::handle b, nb::handle out, std::uintptr_t stream) {
          return binary(op, a, b, out, stream);
        },
        nb::arg("a"), nb::arg("b"), nb::arg("out") = nb::none(), nb::arg("stream") = 0);
  bind_slopes(m);
  m.def(
      "dropout",
      [](nb::handle x, double p, nb::handle seed, std::uintptr_t stream) {
        const Input in(x, "dropout", "x");
        const OnDevice here("dropout", stream, in);
        const std::uint64_t s = checked_seed("dropout", seed);
        return to_python(unlocked([&] { return dropout(*in, p, s); }));
      },
      nb::arg("x"), nb::arg("p"), nb::arg("seed"), nb::arg("stream") = 0);
  m.def(
      "bias_activation_dropout",
      [](nb::handle x, nb::handle bias, Name activation, double p, nb::handle seed,
         std::uintptr_t stream) {
        constexpr const char* op = "bias_activation_dropout";
        const Input in(x, op, "x");
        const OptionalInput b(bias, op, "bias");
        const OnDevice here(op, stream, in, b);
        const Activation f = ops::parse_activation(op, activation.value_or(nullptr));
        const std::uint64_t s = checked_seed(op, seed);
        return to_python(unlocked([&] { return bias_activation_dropout(*in, b.get(), f, p, s); }));
      },
      nb::arg("x"), nb::arg("bias").none(), nb::arg("activation").none(), nb::arg("p"),
      nb::arg("seed"), nb::arg("stream") = 0);
  m.def(
      "bias_activation_dropout_backward",
      [](nb::handle grad, nb::handle x, nb::handle bias, Name activation, double p, nb::handle seed,
         std::uintptr_t stream) {
        constexpr const char* op = "bias_activation_dropout_backward";
        const Input g(grad, op, "grad"), in(x, op, "x");
        const OptionalInput b(bias, op, "bias");
        const OnDevice here(op, stream, g, in, b);
        const Activation f = ops::parse_activation(op, activation.value_or(nullptr));
        const std::uint64_t s = checked_seed(op, seed);
        auto r =
            unlocked([&] { return bias_activation_dropout_backward(*g, *in, b.get(), f, p, s); });
        const nb::object dx = to_python(std::move(r.dx));
        return nb::make_tuple(dx, r.dbias.data ? to_python(std::move(r.dbias)) : nb::none());
      },
      nb::arg("grad"), nb::arg("x"), nb::arg("bias").none(), nb::arg("activation").none(),
      nb::arg("p"), nb::arg("seed"), nb::arg("stream") = 0);
}

}  // namespace vectile::cuda
