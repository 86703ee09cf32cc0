#include "ops/softmax.h"

#include "bindings/array.h"

namespace vectile {

void bind_softmax(py::module_& m) {
  const auto forward = [&m](const char* name, auto op) {
    define(
        m, name,
        [name, op](py::handle x, i64 axis, py::handle out) {
          const Input in(x, name, "x");
          const OutInput y(out, name);
          return y.result(unlocked([&] { return op(*in, axis, y.get()); }));
        },
        py::arg("x"), py::arg("axis") = -1, py::arg("out") = py::none());
  };
  const auto backward = [&m](const char* name, auto op) {
    define(
        m, name,
        [name, op](py::handle grad, py::handle y, i64 axis) {
          const Input g(grad, name, "grad"), v(y, name, "y");
          return to_numpy(unlocked([&] { return op(*g, *v, axis); }));
        },
        py::arg("grad"), py::arg("y"), py::arg("axis") = -1);
  };
  forward("softmax", &ops::softmax);
  forward("log_softmax", &ops::log_softmax);
  backward("softmax_backward", &ops::softmax_backward);
  backward("log_softmax_backward", &ops::log_softmax_backward);
}

}  // namespace vectile
