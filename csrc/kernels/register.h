// Last line of every kernels/<family>.cpp: puts this tier's kernels of the family into a table.
// The build defines VECTILE_TIER, VECTILE_FAMILY and VECTILE_FAMILY_INC for each object.
#include "dispatch/table.h"

#define VECTILE_JOIN_(a, b) a##b
#define VECTILE_JOIN(a, b) VECTILE_JOIN_(a, b)

namespace vectile::VECTILE_TIER {

void VECTILE_JOIN(register_, VECTILE_FAMILY)(Kernels& table) {
#define VECTILE_KERNEL_T(name, args) \
  table.f32.name = &name<float>;     \
  table.f64.name = &name<double>;
#define VECTILE_KERNEL(name, args) table.name = &name;
#include VECTILE_FAMILY_INC
#undef VECTILE_KERNEL_T
#undef VECTILE_KERNEL
}

}  // namespace vectile::VECTILE_TIER
