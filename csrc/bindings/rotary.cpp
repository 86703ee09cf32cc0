#include "ops/rotary.h"

#include "bindings/array.h"

namespace vectile {

void bind_rotary(py::module_& m) {
  define(
      m, "rotary_embedding",
      [](py::handle x, py::handle cosine, py::handle sine, bool interleaved, bool inverse) {
        constexpr auto op = "rotary_embedding";
        const Input a(x, op, "x"), c(cosine, op, "cosine"), s(sine, op, "sine");
        return to_numpy(
            unlocked([&] { return ops::rotary_embedding(*a, *c, *s, interleaved, inverse); }));
      },
      py::arg("x"), py::arg("cosine"), py::arg("sine"), py::arg("interleaved") = false,
      py::arg("inverse") = false);
}

}  // namespace vectile
