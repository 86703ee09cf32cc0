// Where a kernel writes its result.
#pragma once

#include "base/types.h"

namespace vectile {

// `stream`: around the caches, for a result that is too large to be found in one later. Every cache
// line that is written whole then costs no read.
template <class T>
struct Out {
  T* data;
  bool stream;

  Out(T* p, bool around_caches = false) : data(p), stream(around_caches) {}
  Out at(i64 i) const { return {data + i, stream}; }
};

}  // namespace vectile
