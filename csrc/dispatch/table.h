// The kernel table: one pointer per line of kernels/*.inc, filled by the tier chosen at start-up.
//   VECTILE_KERNEL_T(name, args)  a kernel over T = float and double: kernels().of<T>().name
//   VECTILE_KERNEL_S(name, args)  one over what memory holds, S = float, double, Float16, BFloat16,
//                                 with T = Computed<S>:               kernels().of<S>().name
//   VECTILE_KERNEL(name, args)    one with fixed types:               kernels().name
#pragma once

#include <type_traits>

#include "base/types.h"
#include "families.inc"

namespace vectile {

struct NoKernels {};  // what the lists below begin with

template <class T>
struct FloatKernels : NoKernels
#define VECTILE_EACH_FAMILY(family) , family##_of<T>, family##_from<T>
#include "each_family.inc"
#undef VECTILE_EACH_FAMILY
{
};

template <class S>
struct HalfKernels : NoKernels
#define VECTILE_EACH_FAMILY(family) , family##_from<S>
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
  HalfKernels<Float16> f16;
  HalfKernels<BFloat16> bf16;

  template <class S>
  const auto& of() const {
    if constexpr (std::is_same_v<S, Float16>)
      return f16;
    else if constexpr (std::is_same_v<S, BFloat16>)
      return bf16;
    else if constexpr (sizeof(S) == 4)
      return f32;
    else
      return f64;
  }
};

}  // namespace vectile
