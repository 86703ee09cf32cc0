// The tier table: complete on every tier, and chosen by name.
#include <gtest/gtest.h>

#include <cstring>

#include "base/error.h"
#include "dispatch/cpu.h"
#include "dispatch/dispatch.h"

namespace vectile {
namespace {

TEST(Dispatch, EverySupportedTierFillsEveryKernelAndOverridesSome) {
  const std::string before = active_tier();
  Kernels previous{};
  for (const std::string& tier : supported_tiers()) {
    set_tier(tier);
    EXPECT_STREQ(active_tier(), tier.c_str());
    const Kernels& k = kernels();
    void* pointers[sizeof(Kernels) / sizeof(void*)];
    std::memcpy(pointers, &k, sizeof k);
    for (void* p : pointers) EXPECT_NE(p, nullptr) << tier;
    EXPECT_NE(std::memcmp(&k, &previous, sizeof k), 0) << tier << " is the tier before it";
    previous = k;
  }
  set_tier(before);
}

TEST(Dispatch, ScalarIsAlwaysThereAndUnknownNamesAreRefused) {
  EXPECT_EQ(supported_tiers().front(), "scalar");
  EXPECT_THROW(set_tier("avx9000"), ValueError);
  EXPECT_FALSE(cpu_supports("avx9000"));
  EXPECT_STRNE(cpu_name(), "");
}

}  // namespace
}  // namespace vectile
