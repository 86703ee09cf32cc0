#include "softmax.h"

#include "array.h"

namespace vectile::cuda {

void bind_softmax(nb::module_& m) {
  const auto forward = [&](const char* name, auto function) {
    m.def(
        name,
        [name, function](nb::handle x, i64 axis, nb::handle out, std::uintptr_t stream) {
          const Input in(x, name, "x");
          const OptionalInput y(out, name, "out");
          const OnDevice here(name, stream, in, y);
          return to_python(unlocked([&] { return function(*in, axis, y.get()); }), out);
        },
        nb::arg("x"), nb::arg("axis") = -1, nb::arg("out") = nb::none(), nb::arg("stream") = 0);
  };
  forward("softmax", &softmax);
  forward("log_softmax", &log_softmax);
  const auto backward = [&](const char* name, auto function) {
    m.def(
        name,
        [name, function](nb::handle grad, nb::handle y, i64 axis, std::uintptr_t stream) {
          const Input g(grad, name, "grad"), in(y, name, "y");
          const OnDevice here(name, stream, g, in);
          return to_python(unlocked([&] { return function(*g, *in, axis); }));
        },
        nb::arg("grad"), nb::arg("y"), nb::arg("axis") = -1, nb::arg("stream") = 0);
  };
  backward("softmax_backward", &softmax_backward);
  backward("log_softmax_backward", &log_softmax_backward);
}

}  // namespace vectile::cuda
