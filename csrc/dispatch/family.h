// One family's part of the kernel table, a struct for the kernels over T and one for those with
// fixed types. Included once per family, with VECTILE_FAMILY and VECTILE_FAMILY_INC defined.
#include "base/types.h"

#ifndef VECTILE_JOIN
#define VECTILE_JOIN_(a, b) a##b
#define VECTILE_JOIN(a, b) VECTILE_JOIN_(a, b)
#endif

namespace vectile {

template <class T>
struct VECTILE_JOIN(VECTILE_FAMILY, _of) {
#define VECTILE_KERNEL_T(name, args) void(*name) args;
#define VECTILE_KERNEL(name, args)
#include VECTILE_FAMILY_INC
#undef VECTILE_KERNEL_T
#undef VECTILE_KERNEL
};

struct VECTILE_JOIN(VECTILE_FAMILY, _fixed) {
#define VECTILE_KERNEL_T(name, args)
#define VECTILE_KERNEL(name, args) void(*name) args;
#include VECTILE_FAMILY_INC
#undef VECTILE_KERNEL_T
#undef VECTILE_KERNEL
};

struct VECTILE_JOIN(VECTILE_FAMILY, _part) {  // of one table
  VECTILE_JOIN(VECTILE_FAMILY, _of)<float>& f32;
  VECTILE_JOIN(VECTILE_FAMILY, _of)<double>& f64;
  VECTILE_JOIN(VECTILE_FAMILY, _fixed) & fixed;
};

}  // namespace vectile
