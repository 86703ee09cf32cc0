// Own thread pool. Work is cut into chunks whose boundaries depend on the problem only; threads
// take chunks one at a time, the caller works too and waits only for chunks somebody has begun.
// Results are therefore the same for any number of threads, and a busy neighbour costs its share.
#pragma once

#include <memory>
#include <type_traits>

#include "base/types.h"

namespace vectile {

int num_threads();
void set_num_threads(int n);       // n >= 1, else ValueError
const char* num_threads_source();  // "affinity", "cgroup", "VECTILE_NUM_THREADS", ...

// Runs fn(context, chunk) for chunk in [0, chunks). Nested calls run in the calling thread. The
// first exception thrown by a chunk is rethrown here; chunks not yet begun are dropped.
void run_chunks(i64 chunks, void (*fn)(void* context, i64 chunk), void* context);

template <class F>
void parallel_for(i64 chunks, F&& fn) {
  using Fn = std::remove_reference_t<F>;
  if (chunks == 1) return fn(i64{0});
  run_chunks(chunks, [](void* c, i64 i) { (*static_cast<Fn*>(c))(i); }, std::addressof(fn));
}

// Cuts [0, n) into pieces of `grain` and runs fn(begin, end) on each.
template <class F>
void parallel_ranges(i64 n, i64 grain, F&& fn) {
  if (n <= 0) return;
  grain = grain < 1 ? 1 : grain;
  parallel_for((n + grain - 1) / grain, [&](i64 c) {
    const i64 begin = c * grain;
    fn(begin, begin + grain < n ? begin + grain : n);
  });
}

// Asked now and then by the calling thread of a long call; true means stop (Ctrl-C).
void set_interrupt_hook(bool (*hook)());

}  // namespace vectile
