// The tier table: complete on every tier, and chosen by name.
#include <gtest/gtest.h>

#include <cstring>

#include "base/error.h"
#include "dispatch/cpu.h"
#include "dispatch/dispatch.h"

namespace vectile {
namespace {

// Any pointers but null.
template <class Part>
Part everything() {
  Part part;
  std::memset(static_cast<void*>(&part), 1, sizeof part);
  return part;
}

TEST(Dispatch, EverySupportedTierFillsEveryKernelAndOverridesSome) {
  const std::string before = active_tier();
  Kernels previous{};
  for (const std::string& tier : supported_tiers()) {
    set_tier(tier);
    EXPECT_STREQ(active_tier(), tier.c_str());
    const Kernels& k = kernels();
    Kernels complete = k;  // but for what only some tiers have
    if (!k.gemm_f16_block) static_cast<gemm_f16_fixed&>(complete) = everything<gemm_f16_fixed>();
    if (!k.gemm_bf16_block) static_cast<gemm_bf16_fixed&>(complete) = everything<gemm_bf16_fixed>();
    void* pointers[sizeof(Kernels) / sizeof(void*)];
    std::memcpy(pointers, &complete, sizeof complete);
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
