#include "dispatch/dispatch.h"

#include <atomic>
#include <cstdlib>
#include <cstring>

#include "base/error.h"
#include "dispatch/cpu.h"

#define VECTILE_REGISTRY(tier, family)               \
  namespace vectile::tier {                          \
  void register_##family(const family##_part& part); \
  }
#include "registry.inc"
#undef VECTILE_REGISTRY

namespace vectile {
namespace {

constexpr const char* kTiers[] = {
#define VECTILE_TIER_NAME(tier) #tier,
#include "tiers.inc"
#undef VECTILE_TIER_NAME
};
constexpr int kTierCount = sizeof kTiers / sizeof *kTiers;

struct Registration {
  const char* tier;
  void (*fill)(Kernels&);
};
constexpr Registration kRegistry[] = {
#define VECTILE_REGISTRY(tier, family) \
  {#tier, [](Kernels& k) { tier::register_##family({k.f32, k.f64, k}); }},
#include "registry.inc"
#undef VECTILE_REGISTRY
};

// Every tier's table: the one before it, then its own kernels on top.
const Kernels* tables() {
  static const auto* all = [] {
    auto* t = new Kernels[kTierCount]{};
    for (int i = 0; i < kTierCount; ++i) {
      if (i) t[i] = t[i - 1];
      for (const Registration& r : kRegistry)
        if (std::strcmp(r.tier, kTiers[i]) == 0) r.fill(t[i]);
    }
    return t;
  }();
  return all;
}

std::atomic<int> active{-1};

int tier_index() {
  const int i = active.load(std::memory_order_acquire);
  if (i >= 0) [[likely]]
    return i;
  initialise_dispatch();
  return active.load();
}

}  // namespace

const Kernels& kernels() {
  static const Kernels* all = tables();
  return all[tier_index()];
}

const char* active_tier() { return kTiers[tier_index()]; }

std::vector<std::string> built_tiers() { return {kTiers, kTiers + kTierCount}; }

std::vector<std::string> supported_tiers() {
  std::vector<std::string> names;
  for (const char* tier : kTiers)
    if (cpu_supports(tier)) names.push_back(tier);
  return names;
}

std::vector<std::string> emulated_tiers() {
  std::vector<std::string> names;
  for (const std::string& tier : supported_tiers())
    if (is_emulated(tier.c_str())) names.push_back(tier);
  return names;
}

void set_tier(const std::string& name) {
  std::string names;
  for (int i = 0; i < kTierCount; ++i) {
    if (!cpu_supports(kTiers[i])) continue;
    if (name == kTiers[i]) return active.store(i, std::memory_order_release);
    names += (names.empty() ? "" : ", ") + std::string(kTiers[i]);
  }
  throw ValueError(text("VECTILE_ISA: value: expected one of ", names, ", got ", name));
}

void initialise_dispatch() {
  const char* forced = std::getenv("VECTILE_ISA");
  set_tier(forced && *forced ? std::string(forced) : supported_tiers().back());
}

}  // namespace vectile
