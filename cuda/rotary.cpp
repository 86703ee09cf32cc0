#include "rotary.h"

#include "array.h"

namespace vectile::cuda {

void bind_rotary(nb::module_& m) {
  m.def(
      "rotary_embedding",
      [](nb::handle x, nb::handle cosine, nb::handle sine, bool interleaved, bool inverse,
         std::uintptr_t stream) {
        constexpr const char* op = "rotary_embedding";
        const Input a(x, op, "x"), c(cosine, op, "cosine"), s(sine, op, "sine");
        const OnDevice here(op, stream, a, c, s);
        return to_python(
            unlocked([&] { return rotary_embedding(*a, *c, *s, interleaved, inverse); }));
      },
      nb::arg("x"), nb::arg("cosine"), nb::arg("sine"), nb::arg("interleaved") = false,
      nb::arg("inverse") = false, nb::arg("stream") = 0);
}

}  // namespace vectile::cuda
