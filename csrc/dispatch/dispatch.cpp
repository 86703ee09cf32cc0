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

constexpr struct Tier {
  const char *name, *base;  // the tier whose kernels it inherits, or ""
} kTiers[] = {
#define VECTILE_TIER_ROW(tier, base) {#tier, base},
#include "tiers.inc"
#undef VECTILE_TIER_ROW
};
constexpr int kTierCount = sizeof kTiers / sizeof *kTiers;

struct Registration {
  const char* tier;
  void (*fill)(Kernels&);
};
constexpr Registration kRegistry[] = {
#define VECTILE_REGISTRY(tier, family) \
  {#tier,                              \
   [](Kernels& k) { tier::register_##family({k.f32, k.f64, k, k.f32, k.f64, k.f16, k.bf16}); }},
#include "registry.inc"
#undef VECTILE_REGISTRY
};

// Every tier's table: that of its base, an earlier row, then its own kernels on top.
const Kernels* tables() {
  static const auto* all = [] {
    auto* t = new Kernels[kTierCount]{};
    for (int i = 0; i < kTierCount; ++i) {
      for (int b = 0; b < i; ++b)
        if (std::strcmp(kTiers[b].name, kTiers[i].base) == 0) t[i] = t[b];
      for (const Registration& r : kRegistry)
        if (std::strcmp(r.tier, kTiers[i].name) == 0) r.fill(t[i]);
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

const char* active_tier() { return kTiers[tier_index()].name; }

std::vector<std::string> built_tiers() {
  std::vector<std::string> names;
  for (const Tier& tier : kTiers) names.push_back(tier.name);
  return names;
}

std::vector<std::string> supported_tiers() {
  std::vector<std::string> names;
  for (const Tier& tier : kTiers)
    if (cpu_supports(tier.name)) names.push_back(tier.name);
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
    if (!cpu_supports(kTiers[i].name)) continue;
    if (name == kTiers[i].name) return active.store(i, std::memory_order_release);
    names += (names.empty() ? "" : ", ") + std::string(kTiers[i].name);
  }
  throw ValueError(text("VECTILE_ISA: value: expected one of ", names, ", got ", name));
}

void initialise_dispatch() {
  const char* forced = std::getenv("VECTILE_ISA");
  set_tier(forced && *forced ? std::string(forced) : supported_tiers().back());
}

}  // namespace vectile
