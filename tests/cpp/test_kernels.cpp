// Every family of kernels on every tier: a family in csrc/kernels/ without a sweep does not link.
#include <gtest/gtest.h>

#define VECTILE_EACH_FAMILY(family)           \
  namespace vectile::sweep {                  \
  void sweep_##family();                      \
  TEST(Kernels, family) { sweep_##family(); } \
  }
#include "each_family.inc"
