#include "ops/machine.h"

#include "bindings/array.h"

namespace vectile {

void bind_machine(py::module_& m) {
  m.def("fma_rate", [] { return unlocked(&ops::fma_rate); });
  m.def("dot_s8_rate", [] { return unlocked(&ops::dot_s8_rate); });
  m.def(
      "read_rate", [](i64 n_bytes) { return unlocked([=] { return ops::read_rate(n_bytes); }); },
      py::arg("n_bytes"));
  m.def(
      "copy_rate",
      [](i64 n_bytes, bool stream) {
        return unlocked([=] { return ops::copy_rate(n_bytes, stream); });
      },
      py::arg("n_bytes"), py::arg("stream"));
}

}  // namespace vectile
