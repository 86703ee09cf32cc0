#include "base/parallel.h"

#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>
#ifdef __linux__
#include <sched.h>
#endif

#include "base/error.h"

namespace vectile {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kHookInterval = std::chrono::milliseconds(50);
constexpr int kSpins = 2000;  // some ten microseconds: bridges the gap between ops of one step

thread_local bool in_parallel = false;
std::atomic<bool (*)()> interrupt_hook{nullptr};

inline void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Shared by the caller and the workers that joined; lives until the last of them lets go, so a
// worker that wakes late finds no chunk left instead of freed memory.
struct Job {
  void (*fn)(void*, i64);
  void* context;
  i64 chunks;
  std::atomic<i64> next{0};
  std::atomic<i64> finished{0};
  std::atomic<bool> cancelled{false};
  std::atomic<int> references{1};
  std::exception_ptr error;  // written once, by whoever sets `cancelled`
  std::mutex mutex;
  std::condition_variable all_finished;

  Job(void (*f)(void*, i64), void* c, i64 n) : fn(f), context(c), chunks(n) {}
  void cancel(std::exception_ptr e) {
    if (!cancelled.exchange(true)) error = std::move(e);
  }
  void drop() {
    if (references.fetch_sub(1) == 1) delete this;
  }
  // Takes and runs one chunk; false when none is left.
  bool step() {
    const i64 i = next.fetch_add(1);
    if (i >= chunks) return false;
    if (!cancelled.load(std::memory_order_relaxed)) {
      try {
        fn(context, i);
      } catch (...) {
        cancel(std::current_exception());
      }
    }
    if (finished.fetch_add(1) + 1 == chunks) {
      std::lock_guard lock(mutex);
      all_finished.notify_all();
    }
    return true;
  }
  void wait() {
    for (int i = 0; i < kSpins; ++i, pause_cpu())
      if (finished.load() == chunks) return;
    std::unique_lock lock(mutex);
    all_finished.wait(lock, [&] { return finished.load() == chunks; });
  }
};

struct Pool {
  std::mutex mutex;
  std::condition_variable wake;
  std::vector<Job*> jobs;
  std::atomic<i64> posted{0};
  int workers = 0;

  void post(Job* job, int wanted) {
    bool alone;  // one worker: a single wake-up cannot go to one above a lowered thread count
    {
      std::lock_guard lock(mutex);
      jobs.push_back(job);
      for (; workers < wanted; ++workers) {
        try {
          std::thread([this, id = workers] { work(id); }).detach();
        } catch (const std::system_error&) {
          break;  // the caller does the work alone
        }
      }
      alone = workers == 1;
      posted.fetch_add(1);
    }
    if (alone)
      wake.notify_one();
    else
      wake.notify_all();
  }
  void retire(Job* job) {
    std::lock_guard lock(mutex);
    jobs.erase(std::find(jobs.begin(), jobs.end(), job));
  }
  // The oldest job that still has a chunk, with a reference taken.
  Job* join() {
    for (Job* job : jobs) {
      if (job->next.load() < job->chunks) {
        job->references.fetch_add(1);
        return job;
      }
    }
    return nullptr;
  }
  [[noreturn]] void work(int id);
};

std::atomic<Pool*> pool{nullptr};
std::mutex config_mutex;
std::atomic<int> thread_count{0};
const char* thread_source = "";

[[noreturn]] void Pool::work(int id) {
  in_parallel = true;
  i64 seen = posted.load();
  std::unique_lock lock(mutex);
  for (;;) {
    // A lowered thread count leaves the workers above it asleep.
    Job* job = id + 1 < thread_count.load() ? join() : nullptr;
    if (job) {
      lock.unlock();
      while (job->step()) {
      }
      job->drop();
      for (int i = 0; i < kSpins && posted.load() == seen; ++i) pause_cpu();
      lock.lock();
      seen = posted.load();
      continue;
    }
    wake.wait(lock, [&] { return posted.load() != seen; });
    seen = posted.load();
  }
}

Pool& get_pool() {
  Pool* p = pool.load();
  if (p) return *p;
  std::lock_guard lock(config_mutex);
  if (!pool.load()) {
    static bool registered = false;
    if (!registered) {
      // The child has none of the parent's workers: it leaks their pool and starts its own.
      pthread_atfork([] { config_mutex.lock(); }, [] { config_mutex.unlock(); },
                     [] {
                       pool.store(nullptr);
                       in_parallel = false;
                       config_mutex.unlock();
                     });
      registered = true;
    }
    pool.store(new Pool);
  }
  return *pool.load();
}

int affinity_count() {
#ifdef __linux__
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max(1u, std::thread::hardware_concurrency());
}

// CPUs granted by the cgroup's quota (v2, then v1), rounded up; a large number when unlimited.
int quota_count() {
  double quota = -1, period = -1;
  if (std::FILE* f = std::fopen("/sys/fs/cgroup/cpu.max", "r")) {
    if (std::fscanf(f, "%lf %lf", &quota, &period) != 2) quota = -1;
    std::fclose(f);
  } else {
    const auto read = [](const char* path, double& v) {
      if (std::FILE* g = std::fopen(path, "r")) {
        if (std::fscanf(g, "%lf", &v) != 1) v = -1;
        std::fclose(g);
      }
    };
    read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", quota);
    read("/sys/fs/cgroup/cpu/cpu.cfs_period_us", period);
  }
  if (quota <= 0 || period <= 0) return 1 << 20;
  return std::max(1, static_cast<int>(quota / period + 0.999));
}

int env_count(const char* name) {
  const char* value = std::getenv(name);
  if (!value) return 0;
  char* end = nullptr;
  const long n = std::strtol(value, &end, 10);
  return end != value && n >= 1 && n <= 4096 ? static_cast<int>(n) : 0;
}

void choose_count() {
  std::lock_guard lock(config_mutex);
  if (thread_count.load()) return;
  for (const char* name : {"VECTILE_NUM_THREADS", "OMP_NUM_THREADS"}) {
    if (const int n = env_count(name)) {
      thread_source = name;
      thread_count.store(n);
      return;
    }
  }
  const int affinity = affinity_count(), quota = quota_count();
  thread_source = quota < affinity ? "cgroup" : "affinity";
  thread_count.store(std::min(affinity, quota));
}

// Chunks of a call that stays in this thread, or the caller's share of one that does not.
template <class Step>
void run_here(Step step, Job* job) {
  auto asked = Clock::now();
  while (step()) {
    const auto hook = interrupt_hook.load(std::memory_order_relaxed);
    if (!hook) continue;
    const auto now = Clock::now();
    if (now - asked < kHookInterval) continue;
    asked = now;
    if (!hook()) continue;
    if (!job) throw Interrupted();
    job->cancel(std::make_exception_ptr(Interrupted()));
  }
}

struct InParallel {
  bool before = std::exchange(in_parallel, true);
  ~InParallel() { in_parallel = before; }
};

}  // namespace

int num_threads() {
  if (const int n = thread_count.load()) return n;
  choose_count();
  return thread_count.load();
}

void set_num_threads(int n) {
  if (n < 1 || n > 4096) fail("set_num_threads", "n", "value", "1 to 4096", n);
  std::lock_guard lock(config_mutex);
  thread_source = "set_num_threads";
  thread_count.store(n);
}

const char* num_threads_source() {
  num_threads();
  std::lock_guard lock(config_mutex);
  return thread_source;
}

void set_interrupt_hook(bool (*hook)()) { interrupt_hook.store(hook); }

void run_chunks(i64 chunks, void (*fn)(void*, i64), void* context) {
  if (chunks <= 0) return;
  const auto helpers = static_cast<int>(std::min<i64>(num_threads(), chunks)) - 1;
  if (in_parallel || helpers == 0) {
    i64 i = 0;
    const auto step = [&] {
      fn(context, i);
      return ++i < chunks;
    };
    // Only the outermost call may raise: a worker's chunk must not enter Python.
    if (in_parallel) {
      while (step()) {
      }
      return;
    }
    InParallel scope;
    return run_here(step, nullptr);
  }
  InParallel scope;
  Pool& p = get_pool();
  Job* job = new Job(fn, context, chunks);
  p.post(job, helpers);
  run_here([&] { return job->step(); }, job);
  job->wait();
  p.retire(job);
  const std::exception_ptr error = job->cancelled.load() ? job->error : nullptr;
  job->drop();
  if (error) std::rethrow_exception(error);
}

}  // namespace vectile
