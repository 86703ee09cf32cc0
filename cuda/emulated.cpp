#include "device.h"

#include <ucontext.h>

#include <algorithm>
#include <exception>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace vectile::cuda::emulated {
namespace {

constexpr std::size_t kStack = 256 << 10;

enum class State { ready, at_block, at_warp, ended };

struct Fiber {
  Thread thread;
  ucontext_t context;
  State state;
  Copies copies;
  void* fake_stack = nullptr;
};

// One block at a time; its fibers' stacks are kept for the next one.
struct Scheduler {
  std::mutex mutex;
  std::vector<std::unique_ptr<char[]>> stacks;
  std::vector<Fiber> fibers;
  std::vector<char> slots;
  std::unique_ptr<char[]> memory;
  const std::function<void()>* body = nullptr;
  Fiber* current = nullptr;
  ucontext_t main;
  void* main_fake_stack = nullptr;
  const void* main_stack = nullptr;
  std::size_t main_size = 0;
  std::exception_ptr error;

  void start(std::size_t i, dim3 at, dim3 grid, dim3 size);
  void block(dim3 at, dim3 grid, dim3 size);
  void resume(std::size_t i);
  void leave(State state);
  bool release_warp(std::size_t first, std::size_t end);
  bool release();
};
Scheduler scheduler;

void entry() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &scheduler.main_stack, &scheduler.main_size);
#endif
  try {
    (*scheduler.body)();
  } catch (...) {
    scheduler.error = std::current_exception();
  }
  scheduler.leave(State::ended);
}

void Scheduler::leave(State state) {
  Fiber& f = *current;
  f.state = state;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(state == State::ended ? nullptr : &f.fake_stack, main_stack,
                                 main_size);
#endif
  swapcontext(&f.context, &main);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(f.fake_stack, &main_stack, &main_size);
#endif
}

void Scheduler::resume(std::size_t i) {
  current = &fibers[i];
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&main_fake_stack, stacks[i].get(), kStack);
#endif
  swapcontext(&main, &current->context);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(main_fake_stack, nullptr, nullptr);
#endif
  current = nullptr;
}

// Lets a warp go on whose lanes all are at its barrier.
bool Scheduler::release_warp(std::size_t first, std::size_t end) {
  for (std::size_t i = first; i < end; ++i)
    if (fibers[i].state != State::at_warp) return false;
  for (std::size_t i = first; i < end; ++i) fibers[i].state = State::ready;
  return true;
}

// The same of the block, of whose threads those that have ended are no more.
bool Scheduler::release() {
  for (const Fiber& f : fibers)
    if (f.state != State::at_block && f.state != State::ended) return false;
  for (Fiber& f : fibers)
    if (f.state == State::at_block) f.state = State::ready;
  return true;
}

// Has fiber i begin the kernel as its thread of block `at`.
void Scheduler::start(std::size_t i, dim3 at, dim3 grid, dim3 size) {
  Fiber& f = fibers[i];
  const auto t = static_cast<unsigned>(i);
  f.thread = {dim3(t % size.x, t / size.x % size.y, t / size.x / size.y), at, grid, size,
              static_cast<int>(i % kWarp)};
  f.state = State::ready;
  f.copies.count = f.copies.groups = 0;
  getcontext(&f.context);
  f.context.uc_stack.ss_sp = stacks[i].get();
  f.context.uc_stack.ss_size = kStack;
  f.context.uc_link = nullptr;
  makecontext(&f.context, entry, 0);
}

void Scheduler::block(dim3 at, dim3 grid, dim3 size) {
  const std::size_t n = fibers.size();
  for (std::size_t i = 0; i < n; ++i) start(i, at, grid, size);
  for (bool up = true;; up = !up) {
    // Warp by warp to the next barrier of the block: no warp waits for another without one.
    const std::size_t warps = (n + kWarp - 1) / kWarp;
    for (std::size_t k = 0; k < warps; ++k) {
      const std::size_t first = (up ? k : warps - 1 - k) * kWarp, end = std::min(n, first + kWarp);
      for (bool lanes_up = up, again = true; again; lanes_up = !lanes_up) {
        for (std::size_t i = first; i < end; ++i) {
          const std::size_t j = lanes_up ? i : end - 1 - (i - first);
          if (fibers[j].state == State::ready) resume(j);
        }
        again = !error && release_warp(first, end);
      }
    }
    if (error) std::rethrow_exception(std::exchange(error, nullptr));
    if (std::all_of(fibers.begin(), fibers.end(),
                    [](const Fiber& f) { return f.state == State::ended; }))
      return;
    if (!release()) throw std::logic_error("emulated: threads wait at different barriers");
  }
}

}  // namespace

Copies& copies() { return scheduler.current->copies; }
const Thread& self() { return scheduler.current->thread; }
void block_barrier() { scheduler.leave(State::at_block); }
void warp_barrier() { scheduler.leave(State::at_warp); }
char* dynamic_memory() { return scheduler.memory.get(); }

void* slot(int lane) {
  const Fiber& f = *scheduler.current;
  const std::size_t warp = static_cast<std::size_t>(&f - scheduler.fibers.data()) / kWarp;
  return scheduler.slots.data() + (warp * kWarp + static_cast<std::size_t>(lane)) * kSlot;
}

void run(dim3 grid, dim3 block, std::size_t shared, const std::function<void()>& body) {
  Scheduler& s = scheduler;
  const std::lock_guard lock(s.mutex);
  const std::size_t threads = std::size_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > 1024 || shared > 227 << 10)
    throw std::logic_error("emulated: more threads or shared memory than a GPU has");
  while (s.stacks.size() < threads) s.stacks.push_back(std::make_unique<char[]>(kStack));
  s.fibers.resize(threads);
  s.slots.assign((threads + kWarp - 1) / kWarp * kWarp * kSlot, 0);
  s.body = &body;
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) {
        s.memory = std::make_unique<char[]>(shared);
        std::memset(s.memory.get(), 0xff, shared);
        s.block(dim3(x, y, z), grid, block);
      }
}

}  // namespace vectile::cuda::emulated
