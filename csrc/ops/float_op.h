// A kernel that exists for float and double, as data: tables of these drive ops and bindings.
#pragma once

#include "dispatch/dispatch.h"

namespace vectile::ops {

// The public name of a kernel and its place in the tables of the two types.
template <template <class> class Kernel>
struct FloatOp {
  const char* name;
  Kernel<float> FloatKernels<float>::* f32;
  Kernel<double> FloatKernels<double>::* f64;

  template <class T>
  Kernel<T> kernel() const {
    if constexpr (sizeof(T) == 4)
      return kernels_of<T>().*f32;
    else
      return kernels_of<T>().*f64;
  }
};

#define VECTILE_FLOAT_OP(name, kernel) \
  {#name, &FloatKernels<float>::kernel, &FloatKernels<double>::kernel}

}  // namespace vectile::ops
