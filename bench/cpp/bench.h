// Benchmarks of ops without Python: one registration runs on every tier of this CPU.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "ops/common.h"

namespace vectile::bench {

// Registers op/size/tier. `setup` runs once per tier, makes the operands and returns the timed
// call. `work` is what a call does in `unit`: "FLOP/s", "OP/s" or "B/s".
void add(const std::string& name, const char* unit, double work,
         std::function<std::function<void()>()> setup);

// Normally distributed float32 with a fixed seed.
Array normal(const Shape& shape);
// Uniform in [low, high].
Array integers(DType dtype, const Shape& shape, int low, int high);

// A copyable handle, so that a call can own its operands.
template <class T>
std::shared_ptr<T> share(T&& value) {
  return std::make_shared<T>(std::move(value));
}

// Runs `f` while the program starts: `const bool registered = at_start([] { add(...); });`
inline bool at_start(void (*f)()) {
  f();
  return true;
}

}  // namespace vectile::bench
