// One family's part of the kernel table: a struct for the kernels over T, one for those over the
// storage type S, one for those with fixed types. Included once per family, with VECTILE_FAMILY and
// VECTILE_FAMILY_INC defined.
#include "base/types.h"

#ifndef VECTILE_JOIN
#define VECTILE_JOIN_(a, b) a##b
#define VECTILE_JOIN(a, b) VECTILE_JOIN_(a, b)
#endif

namespace vectile {

#define VECTILE_MEMBER(name, args) void(*name) args;
#define VECTILE_NONE(name, args)

template <class T>
struct VECTILE_JOIN(VECTILE_FAMILY, _of) {
#define VECTILE_KERNEL_T VECTILE_MEMBER
#define VECTILE_KERNEL_S VECTILE_NONE
#define VECTILE_KERNEL VECTILE_NONE
#include VECTILE_FAMILY_INC
#undef VECTILE_KERNEL_T
#undef VECTILE_KERNEL_S
#undef VECTILE_KERNEL
};

template <class S>
struct VECTILE_JOIN(VECTILE_FAMILY, _from) {
  using T = Computed<S>;
#define VECTILE_KERNEL_T VECTILE_NONE
#define VECTILE_KERNEL_S VECTILE_MEMBER
#define VECTILE_KERNEL VECTILE_NONE
#include VECTILE_FAMILY_INC
#undef VECTILE_KERNEL_T
#undef VECTILE_KERNEL_S
#undef VECTILE_KERNEL
};

struct VECTILE_JOIN(VECTILE_FAMILY, _fixed) {
#define VECTILE_KERNEL_T VECTILE_NONE
#define VECTILE_KERNEL_S VECTILE_NONE
#define VECTILE_KERNEL VECTILE_MEMBER
#include VECTILE_FAMILY_INC
#undef VECTILE_KERNEL_T
#undef VECTILE_KERNEL_S
#undef VECTILE_KERNEL
};

#undef VECTILE_MEMBER
#undef VECTILE_NONE

struct VECTILE_JOIN(VECTILE_FAMILY, _part) {  // of one table
  VECTILE_JOIN(VECTILE_FAMILY, _of)<float>& f32;
  VECTILE_JOIN(VECTILE_FAMILY, _of)<double>& f64;
  VECTILE_JOIN(VECTILE_FAMILY, _fixed) & fixed;
  VECTILE_JOIN(VECTILE_FAMILY, _from)<float>& from_f32;
  VECTILE_JOIN(VECTILE_FAMILY, _from)<double>& from_f64;
  VECTILE_JOIN(VECTILE_FAMILY, _from)<Float16>& from_f16;
  VECTILE_JOIN(VECTILE_FAMILY, _from)<BFloat16>& from_bf16;
};

}  // namespace vectile
