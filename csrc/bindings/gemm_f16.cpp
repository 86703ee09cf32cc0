#include "bindings/array.h"
#include "ops/gemm_16.h"

namespace vectile {

// matmul, linear and pack are bound in gemm.cpp.
void bind_gemm_f16(py::module_& m) {
  define(m, "uses_f16", [] { return bool(unit_16(kernels(), ops::Compute::f16, DType::f32)); });
}

}  // namespace vectile
