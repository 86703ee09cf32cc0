#include "hopper.h"

#include <ucontext.h>

#include <algorithm>
#include <cstdlib>
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

enum class State { ready, waiting, at_warp, at_block, at_cluster, ended };

struct Fiber {
  Thread thread;
  ucontext_t context;
  State state;
  Copies copies;
  Products products, bulk;
  void* fake_stack = nullptr;
};

// A box on its way.
struct Box {
  std::size_t block;  // to this one's place and barrier
  char* to;
  MapContents map;
  Coordinates from;
  Barrier* barrier;
};

struct Free {
  void operator()(char* p) const { std::free(p); }
};
using SharedMemory = std::unique_ptr<char[], Free>;

// One cluster at a time; its fibers' stacks are kept for the next one.
struct Scheduler {
  std::mutex mutex;
  std::vector<std::unique_ptr<char[]>> stacks;
  std::vector<Fiber> fibers;
  std::size_t threads;  // of a block
  std::vector<char> slots;
  std::vector<SharedMemory> memory;  // of each block
  std::vector<Box> boxes;
  bool moved = false;  // a thread has gone on since the last look
  const std::function<void()>* body = nullptr;
  Fiber* current = nullptr;
  ucontext_t main;
  void* main_fake_stack = nullptr;
  const void* main_stack = nullptr;
  std::size_t main_size = 0;
  std::exception_ptr error;

  void start(std::size_t i, dim3 at, dim3 grid, dim3 size);
  void cluster(dim3 at, dim3 grid, dim3 size);
  void resume(std::size_t i);
  void leave(State state);
  bool release_warp(std::size_t first, std::size_t end);
  bool release(std::size_t first, std::size_t end, State barrier);
  bool deliver(bool newest);
  std::size_t index() const { return static_cast<std::size_t>(current - fibers.data()); }
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
  const State before = current->state;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&main_fake_stack, stacks[i].get(), kStack);
#endif
  swapcontext(&main, &current->context);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(main_fake_stack, nullptr, nullptr);
#endif
  moved = moved || before != State::waiting || current->state != State::waiting;
  current = nullptr;
}

// Lets a warp go on whose lanes all are at its barrier.
bool Scheduler::release_warp(std::size_t first, std::size_t end) {
  for (std::size_t i = first; i < end; ++i)
    if (fibers[i].state != State::at_warp) return false;
  for (std::size_t i = first; i < end; ++i) fibers[i].state = State::ready;
  return true;
}

// The same of a block or cluster, of whose threads those that have ended are no more.
bool Scheduler::release(std::size_t first, std::size_t end, State barrier) {
  bool any = false;
  for (std::size_t i = first; i < end; ++i) {
    if (fibers[i].state != barrier && fibers[i].state != State::ended) return false;
    any = any || fibers[i].state == barrier;
  }
  for (std::size_t i = first; i < end; ++i)
    if (fibers[i].state == barrier) fibers[i].state = State::ready;
  return any;
}

// Ends the newest or oldest copy of a box.
bool Scheduler::deliver(bool newest) {
  if (boxes.empty()) return false;
  const Box box = newest ? boxes.back() : boxes.front();
  boxes.erase(newest ? boxes.end() - 1 : boxes.begin());
  const MapContents& map = box.map;
  char* const start = memory[box.block].get();
  for (int row = 0; row < kBoxRows; ++row)
    for (int byte = 0; byte < kBoxRowBytes; byte += map.item) {
      const i64 at[] = {box.from.at[0] + byte / map.item, box.from.at[1] + row, box.from.at[2],
                        box.from.at[3], box.from.at[4]};
      bool inside = true;
      i64 offset = at[0] * map.item;
      for (int d = 0; d < 5; ++d) {
        inside = inside && at[d] >= 0 && at[d] < map.size[d];
        if (d > 0) offset += at[d] * map.stride[d - 1];
      }
      const auto to = swizzled(static_cast<unsigned>(box.to - start + row * kBoxRowBytes + byte));
      const auto item = static_cast<std::size_t>(map.item);
      if (inside)
        std::memcpy(start + to, map.data + offset, item);
      else
        std::memset(start + to, 0, item);
    }
  change_barrier(box.barrier, 0, -kBoxBytes);
  return true;
}

// Has fiber i begin the kernel as its thread of block `at`.
void Scheduler::start(std::size_t i, dim3 at, dim3 grid, dim3 size) {
  Fiber& f = fibers[i];
  const auto t = static_cast<unsigned>(i % threads);
  f.thread = {dim3(t % size.x, t / size.x % size.y, t / size.x / size.y),
              at,
              grid,
              size,
              static_cast<int>(t % kWarp),
              static_cast<int>(i / threads)};
  f.state = State::ready;
  f.copies.count = f.copies.groups = 0;
  f.products = {};
  f.bulk = {};
  getcontext(&f.context);
  f.context.uc_stack.ss_sp = stacks[i].get();
  f.context.uc_stack.ss_size = kStack;
  f.context.uc_link = nullptr;
  makecontext(&f.context, entry, 0);
}

void Scheduler::cluster(dim3 at, dim3 grid, dim3 size) {
  const std::size_t n = fibers.size();
  boxes.clear();
  for (std::size_t i = 0; i < n; ++i)
    start(i, dim3(at.x + static_cast<unsigned>(i / threads), at.y, at.z), grid, size);
  for (bool up = true;; up = !up) {
    // Warp by warp to the next barrier of more than one.
    const std::size_t warps = (n + kWarp - 1) / kWarp;
    moved = false;
    for (std::size_t k = 0; k < warps; ++k) {
      const std::size_t first = (up ? k : warps - 1 - k) * kWarp, end = std::min(n, first + kWarp);
      for (bool lanes_up = up, again = true; again; lanes_up = !lanes_up) {
        for (std::size_t i = first; i < end; ++i) {
          const std::size_t j = lanes_up ? i : end - 1 - (i - first);
          if (fibers[j].state <= State::waiting) resume(j);
        }
        again = !error && release_warp(first, end);
      }
    }
    if (error) std::rethrow_exception(std::exchange(error, nullptr));
    if (std::all_of(fibers.begin(), fibers.end(),
                    [](const Fiber& f) { return f.state == State::ended; })) {
      if (!boxes.empty()) throw std::logic_error("emulated: copies outlive their cluster");
      return;
    }
    bool released = release(0, n, State::at_cluster);
    for (std::size_t first = 0; first < n; first += threads)
      released = release(first, first + threads, State::at_block) || released;
    if (!released && !moved && !deliver(up))
      throw std::logic_error("emulated: threads wait at different barriers");
  }
}

}  // namespace

Copies& copies() { return scheduler.current->copies; }
Products& products() { return scheduler.current->products; }
Products& bulk() { return scheduler.current->bulk; }
const Thread& self() { return scheduler.current->thread; }
void block_barrier() { scheduler.leave(State::at_block); }
void warp_barrier() { scheduler.leave(State::at_warp); }
void cluster_barrier() { scheduler.leave(State::at_cluster); }

void wait_until(const std::function<bool()>& done) {
  while (!done()) scheduler.leave(State::waiting);
  scheduler.moved = true;
}

char* dynamic_memory() { return scheduler.memory[scheduler.index() / scheduler.threads].get(); }

void* in_block(void* shared, int block) {
  return scheduler.memory[static_cast<std::size_t>(block)].get() +
         (static_cast<char*>(shared) - dynamic_memory());
}

void* slot(int lane) {
  const std::size_t warp = scheduler.index() / kWarp;
  return scheduler.slots.data() + (warp * kWarp + static_cast<std::size_t>(lane)) * kSlot;
}

void change_barrier(Barrier* b, int arrived, int bytes) {
  BarrierContents c;
  std::memcpy(&c, b, sizeof c);
  if (c.pending < arrived) throw std::logic_error("emulated: more arrivals than a barrier takes");
  c.pending = static_cast<std::uint16_t>(c.pending - arrived);
  c.bytes = c.bytes + bytes;
  if (c.pending == 0 && c.bytes == 0) {
    c.pending = c.arrivals;
    ++c.phase;
  }
  std::memcpy(b, &c, sizeof c);
  scheduler.moved = true;
}

void start_box(void* to, const TensorMap& map, const Coordinates& from, Barrier* b,
               unsigned blocks) {
  if ((static_cast<char*>(to) - dynamic_memory()) % 1024)
    throw std::logic_error("emulated: a box begins at a multiple of 1024");
  MapContents contents;
  std::memcpy(&contents, map.bytes, sizeof contents);
  for (int i = 0; i < 32; ++i) {
    if (!(blocks >> i & 1)) continue;
    auto* place = static_cast<char*>(in_block(to, i));
    std::memset(place, 0xff, kBoxBytes);
    scheduler.boxes.push_back({static_cast<std::size_t>(i), place, contents, from,
                               static_cast<Barrier*>(in_block(b, i))});
  }
}

void run(dim3 grid, dim3 block, std::size_t shared, unsigned cluster,
         const std::function<void()>& body) {
  Scheduler& s = scheduler;
  const std::lock_guard lock(s.mutex);
  s.threads = std::size_t{block.x} * block.y * block.z;
  if (s.threads == 0 || s.threads > 1024 || shared > 227 << 10)
    throw std::logic_error("emulated: more threads or shared memory than a GPU has");
  if (cluster > 8 || grid.x % cluster || (cluster > 1 && s.threads % kWarp))
    throw std::logic_error("emulated: a grid of whole clusters of at most 8 blocks of whole warps");
  const std::size_t fibers = s.threads * cluster;
  while (s.stacks.size() < fibers) s.stacks.push_back(std::make_unique<char[]>(kStack));
  s.fibers.resize(fibers);
  s.slots.assign((fibers + kWarp - 1) / kWarp * kWarp * kSlot, 0);
  s.body = &body;
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; x += cluster) {
        s.memory.clear();
        for (unsigned i = 0; i < cluster; ++i) {
          void* p = nullptr;
          if (posix_memalign(&p, 1024, shared ? shared : 1)) throw std::bad_alloc();
          s.memory.emplace_back(static_cast<char*>(std::memset(p, 0xff, shared)));
        }
        s.cluster(dim3(x, y, z), grid, block);
      }
}

}  // namespace vectile::cuda::emulated
