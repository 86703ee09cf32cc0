#include <pybind11/stl.h>

#include "bindings/array.h"
#include "ops/gemm_16.h"

namespace vectile {

// matmul, linear and pack are bound in gemm.cpp.
void bind_gemm_bf16(py::module_& m) {
  define(m, "uses_bf16", [] { return bool(unit_16(kernels(), ops::Compute::bf16, DType::f32)); });
  define(
      m, "set_always_16",
      [](std::optional<bool> always) {  // for tests; None: what is faster
        ops::set_use_16(!always   ? ops::Use16::faster
                        : *always ? ops::Use16::always
                                  : ops::Use16::never);
      },
      py::arg("always"));
}

}  // namespace vectile
