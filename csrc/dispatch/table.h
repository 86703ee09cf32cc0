// The kernel table: one pointer per line of kernels/*.inc, filled by the tier chosen at start-up.
//   VECTILE_KERNEL_T(name, args)  a kernel over T = float and double: kernels().of<T>().name
//   VECTILE_KERNEL(name, args)    one with fixed types:               kernels().name
#pragma once

#include "base/types.h"
#include "families.inc"

namespace vectile {

struct NoKernels {};  // what the lists below begin with

template <class T>
struct FloatKernels : NoKernels
#define VECTILE_EACH_FAMILY(family) , family##_of<T>
#include "each_family.inc"
#undef VECTILE_EACH_FAMILY
{
};

struct Kernels : NoKernels
#define VECTILE_EACH_FAMILY(family) , family##_fixed
#include "each_family.inc"
#undef VECTILE_EACH_FAMILY
{
  FloatKernels<float> f32;
  FloatKernels<double> f64;

  template <class T>
  const FloatKernels<T>& of() const {
    if constexpr (sizeof(T) == 4)
      return f32;
    else
      return f64;
  }
};

}  // namespace vectile
