// Last line of every kernels/<family>.cpp: puts this tier's kernels of the family into its part of
// a table. The build defines VECTILE_TIER, VECTILE_FAMILY and VECTILE_FAMILY_INC for each object,
// and a kernel object sees no other family's part.
#include "dispatch/family.h"

namespace vectile::VECTILE_TIER {

void VECTILE_JOIN(register_, VECTILE_FAMILY)(const VECTILE_JOIN(VECTILE_FAMILY, _part) & part) {
#define VECTILE_KERNEL_T(name, args) \
  part.f32.name = &name<float>;      \
  part.f64.name = &name<double>;
#define VECTILE_KERNEL_S(name, args)   \
  part.from_f32.name = &name<float>;   \
  part.from_f64.name = &name<double>;  \
  part.from_f16.name = &name<Float16>; \
  part.from_bf16.name = &name<BFloat16>;
#define VECTILE_KERNEL(name, args) part.fixed.name = &name;
#include VECTILE_FAMILY_INC
#undef VECTILE_KERNEL_T
#undef VECTILE_KERNEL_S
#undef VECTILE_KERNEL
}

}  // namespace vectile::VECTILE_TIER
