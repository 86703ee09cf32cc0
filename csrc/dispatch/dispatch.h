// Which tier runs: the best this CPU supports, or the one VECTILE_ISA names; chosen once.
#pragma once

#include <string>
#include <vector>

#include "dispatch/table.h"

namespace vectile {

const Kernels& kernels();
template <class S>
const auto& kernels_of() {
  return kernels().of<S>();
}

const char* active_tier();
std::vector<std::string> built_tiers();      // in this binary, worst to best
std::vector<std::string> supported_tiers();  // of those, what this CPU runs
std::vector<std::string> emulated_tiers();   // of those, what it runs by emulation

// Reads VECTILE_ISA; throws ValueError that lists the supported tiers when it names none of them.
void initialise_dispatch();
// Switches the tier of every later call; for tests and benchmarks.
void set_tier(const std::string& name);

}  // namespace vectile
