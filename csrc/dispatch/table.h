// The kernel table: one pointer per line of kernels/*.inc, filled by the tier chosen at start-up.
//   VECTILE_KERNEL_T(name, args)  a kernel over T = float and double: kernels().of<T>().name
//   VECTILE_KERNEL(name, args)    one with fixed types:               kernels().name
#pragma once

#include "base/types.h"
#include "kernels/types.h"

namespace vectile {

template <class T>
struct FloatKernels {
#define VECTILE_KERNEL_T(name, args) void(*name) args;
#define VECTILE_KERNEL(name, args)
#include "kernels.inc"
#undef VECTILE_KERNEL_T
#undef VECTILE_KERNEL
};

struct Kernels {
  FloatKernels<float> f32;
  FloatKernels<double> f64;
#define VECTILE_KERNEL_T(name, args)
#define VECTILE_KERNEL(name, args) void(*name) args;
#include "kernels.inc"
#undef VECTILE_KERNEL_T
#undef VECTILE_KERNEL

  template <class T>
  const FloatKernels<T>& of() const {
    if constexpr (sizeof(T) == 4)
      return f32;
    else
      return f64;
  }
};

}  // namespace vectile
