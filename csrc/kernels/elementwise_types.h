// What the elementwise kernels and the ops above them agree on.
#pragma once

#include "base/out.h"

namespace vectile {

// An operand read line by line: line r starts at data + r * row, its elements are `step` (0 or 1)
// apart.
template <class T>
struct Lines {
  const T* data;
  i64 row, step;
};

}  // namespace vectile
