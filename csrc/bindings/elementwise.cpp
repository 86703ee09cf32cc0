#include "ops/elementwise.h"

#include "bindings/array.h"
#include "ops/gemm.h"

namespace vectile {
namespace {

// A Python number or NumPy scalar, which takes the dtype of the array beside it.
bool is_scalar(py::handle value) {
  if (PyFloat_Check(value.ptr()) || PyLong_Check(value.ptr())) return true;
  if (py::detail::npy_api::get().PyArray_Check_(value.ptr())) return false;
  PYBIND11_CONSTINIT static py::gil_safe_call_once_and_store<py::object> storage;
  const py::object& generic =
      storage
          .call_once_and_store_result([] { return py::module_::import("numpy").attr("generic"); })
          .get_stored();
  return PyObject_IsInstance(value.ptr(), generic.ptr()) == 1;
}

// A scalar as a 0-d view of its own memory.
class Scalar {
 public:
  Scalar(py::handle value, DType dtype) {
    const double v = PyFloat_AsDouble(value.ptr());
    if (v == -1 && PyErr_Occurred()) throw py::error_already_set();
    const bool half = is_half(dtype), single = half || dtype == DType::f32;
    if (single)
      f32_ = static_cast<float>(v);
    else
      f64_ = v;
    view_.data = &f32_;
    view_.dtype = single ? DType::f32 : DType::f64;
    if (half) view_.origin = dtype;  // not rounded to it
  }
  Scalar(const Scalar&) = delete;
  const TensorView& operator*() const { return view_; }

 private:
  union {
    float f32_;
    double f64_;
  };
  TensorView view_;
};

py::object binary(const ops::FloatOp<ops::BinaryKernel>& op, py::handle a, py::handle b,
                  py::handle out) {
  const OutInput y(out, op.name);
  const auto run = [&](const TensorView& u, const TensorView& v) {
    return y.result(unlocked([&] { return ops::binary(op, u, v, y.get()); }));
  };
  const bool scalar_a = is_scalar(a), scalar_b = is_scalar(b);
  if (scalar_a && scalar_b) {
    const DType dtype = y.get() ? y.get()->dtype : DType::f64;
    return run(*Scalar(a, dtype), *Scalar(b, dtype));
  }
  if (scalar_b) {
    const Input in(a, op.name, "a");
    return run(*in, *Scalar(b, in->dtype));
  }
  const Input in(b, op.name, "b");
  if (scalar_a) return run(*Scalar(a, in->dtype), *in);
  return run(*Input(a, op.name, "a"), *in);
}

std::uint64_t checked_seed(const char* op, py::handle seed) {
  const py::object index = py::reinterpret_steal<py::object>(PyNumber_Index(seed.ptr()));
  if (!index) throw py::error_already_set();
  const std::uint64_t value = PyLong_AsUnsignedLongLong(index.ptr());
  if (value == ~std::uint64_t{0} && PyErr_Occurred()) {
    PyErr_Clear();
    fail(op, "seed", "value", "0 to 2**64 - 1", py::str(index).cast<std::string>());
  }
  return value;
}

}  // namespace

void bind_elementwise(py::module_& m) {
  const auto bind_unary = [&m](const char* name, const auto& op) {
    define(
        m, name,
        [&op](py::handle x, py::handle out) {
          const Input in(x, op.name, "x");
          const OutInput y(out, op.name);
          return y.result(unlocked([&] { return ops::unary(op, *in, y.get()); }));
        },
        py::arg("x"), py::arg("out") = py::none());
  };
  const auto bind_gradient = [&m](const char* name, const auto& op, const char* v_name) {
    define(
        m, name,
        [&op, v_name](py::handle grad, py::handle v) {
          const Input g(grad, op.name, "grad"), in(v, op.name, v_name);
          return to_numpy(unlocked([&] { return ops::gradient(op, *g, *in, v_name); }));
        },
        py::arg("grad"), py::arg(v_name));
  };
  for (const auto& op : ops::kUnary) bind_unary(op.name, op);
  bind_unary("gelu", ops::kGelu[0]);
  bind_unary("gelu_tanh", ops::kGelu[1]);
  for (const auto& op : ops::kGradientFromY) bind_gradient(op.name, op, "y");
  for (const auto& op : ops::kGradientFromX) bind_gradient(op.name, op, "x");
  bind_gradient("gelu_backward", ops::kGeluGradient[0], "x");
  bind_gradient("gelu_tanh_backward", ops::kGeluGradient[1], "x");
  define(
      m, "leaky_relu",
      [](py::handle x, double negative_slope, py::handle out) {
        const Input in(x, "leaky_relu", "x");
        const OutInput y(out, "leaky_relu");
        return y.result(unlocked([&] { return ops::leaky_relu(*in, negative_slope, y.get()); }));
      },
      py::arg("x"), py::arg("negative_slope") = 0.01, py::arg("out") = py::none());
  define(
      m, "leaky_relu_backward",
      [](py::handle grad, py::handle x, double negative_slope) {
        const Input g(grad, "leaky_relu_backward", "grad"), in(x, "leaky_relu_backward", "x");
        return to_numpy(
            unlocked([&] { return ops::leaky_relu_backward(*g, *in, negative_slope); }));
      },
      py::arg("grad"), py::arg("x"), py::arg("negative_slope") = 0.01);
  define(
      m, "prelu",
      [](py::handle x, py::handle weight, py::handle out) {
        const Input in(x, "prelu", "x"), w(weight, "prelu", "weight");
        const OutInput y(out, "prelu");
        return y.result(unlocked([&] { return ops::prelu(*in, *w, y.get()); }));
      },
      py::arg("x"), py::arg("weight"), py::arg("out") = py::none());
  define(
      m, "prelu_backward",
      [](py::handle grad, py::handle x, py::handle weight) {
        const Input g(grad, "prelu_backward", "grad"), in(x, "prelu_backward", "x"),
            w(weight, "prelu_backward", "weight");
        auto r = unlocked([&] { return ops::prelu_backward(*g, *in, *w); });
        return py::make_tuple(to_numpy(std::move(r.dx)), to_numpy(std::move(r.dweight)));
      },
      py::arg("grad"), py::arg("x"), py::arg("weight"));
  for (const auto& op : ops::kBinary)
    define(
        m, op.name,
        [&op](py::handle a, py::handle b, py::handle out) { return binary(op, a, b, out); },
        py::arg("a"), py::arg("b"), py::arg("out") = py::none());
  define(
      m, "dropout",
      [](py::handle x, double p, py::handle seed) {
        const Input in(x, "dropout", "x");
        const std::uint64_t s = checked_seed("dropout", seed);
        return to_numpy(unlocked([&] { return ops::dropout(*in, p, s); }));
      },
      py::arg("x"), py::arg("p"), py::arg("seed"));
  define(
      m, "bias_activation_dropout",
      [](py::handle x, py::handle bias, const char* activation, double p, py::handle seed) {
        constexpr const char* op = "bias_activation_dropout";
        const Input in(x, op, "x");
        const OptionalInput b(bias, op, "bias");
        const Activation f = ops::parse_activation(op, activation);
        const std::uint64_t s = checked_seed(op, seed);
        return to_numpy(
            unlocked([&] { return ops::bias_activation_dropout(*in, b.get(), f, p, s); }));
      },
      py::arg("x"), py::arg("bias"), py::arg("activation").none(true), py::arg("p"),
      py::arg("seed"));
  define(
      m, "bias_activation_dropout_backward",
      [](py::handle grad, py::handle x, py::handle bias, const char* activation, double p,
         py::handle seed) {
        constexpr const char* op = "bias_activation_dropout_backward";
        const Input g(grad, op, "grad"), in(x, op, "x");
        const OptionalInput b(bias, op, "bias");
        const Activation f = ops::parse_activation(op, activation);
        const std::uint64_t s = checked_seed(op, seed);
        auto r = unlocked(
            [&] { return ops::bias_activation_dropout_backward(*g, *in, b.get(), f, p, s); });
        py::object dbias = py::none();
        if (r.dbias.data) dbias = to_numpy(std::move(r.dbias));
        return py::make_tuple(to_numpy(std::move(r.dx)), dbias);
      },
      py::arg("grad"), py::arg("x"), py::arg("bias"), py::arg("activation").none(true),
      py::arg("p"), py::arg("seed"));
}

}  // namespace vectile
