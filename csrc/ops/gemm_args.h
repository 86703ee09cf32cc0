// The arguments of the gemm family, checked the same way for every device.
#pragma once

#include "kernels/gemm_types.h"
#include "ops/check.h"

namespace vectile::ops {

// What a caller lets products be computed in, besides the arithmetic that is always right: of
// bfloat16 its own for bfloat16, else float32. tf32, float32 operands of 11 bits, is a GPU's.
enum class Compute { standard, f16, bf16, tf32 };

// The permission of that name; null is the standard. ValueError lists the names, those of a GPU if
// `device`.
Compute parse_compute(const char* op, const char* name, bool device = false);
const char* compute_name(Compute compute);  // null for the standard
void check_compute(const char* op, const char* argument, const TensorView& x, Compute compute);

// The activation of that name; ValueError lists the names.
Activation parse_activation(const char* op, const char* name);

// (..., in) -> (..., out) after checking x and bias against a weight of (out, in).
Shape check_linear(const TensorView& x, i64 out, i64 in, const TensorView* bias,
                   const char* op = "linear");
// The same of a dense weight, its dtype and `compute` included.
Shape linear_args(const TensorView& x, const TensorView& weight, const TensorView* bias,
                  Compute compute);
void check_residual(const TensorView& residual, const TensorView& y);

}  // namespace vectile::ops
