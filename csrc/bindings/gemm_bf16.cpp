#include "bindings/array.h"
#include "ops/gemm_16.h"

namespace vectile {

// matmul, linear and pack are bound in gemm.cpp.
void bind_gemm_bf16(py::module_& m) {
  m.def("uses_bf16", [] { return bool(unit_16(kernels(), ops::Compute::bf16, DType::f32)); });
  m.def("set_always_16", &ops::set_always_16, py::arg("always"));  // for tests
}

}  // namespace vectile
