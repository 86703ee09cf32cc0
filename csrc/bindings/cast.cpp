#include "ops/cast.h"

#include "bindings/array.h"

namespace vectile {

void bind_cast(py::module_& m) {
  define(
      m, "cast",
      [](py::handle x, const py::dtype& dtype) {
        const Input in(x, "cast", "x");
        const DType to = dtype_from_numpy(dtype.ptr());
        return to_numpy(unlocked([&] { return ops::cast(*in, to); }));
      },
      py::arg("x"), py::arg("dtype"));
}

}  // namespace vectile
