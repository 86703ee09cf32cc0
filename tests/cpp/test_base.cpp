// The allocator and the thread pool.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <limits>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/memory.h"
#include "base/parallel.h"

namespace vectile {
namespace {

TEST(Memory, BlocksAreAlignedDisjointAndWritable) {
  std::vector<std::pair<char*, std::size_t>> blocks;
  for (std::size_t size :
       {0ul, 1ul, 63ul, 64ul, 65ul, 80ul, 81ul, 4096ul, 100'000ul, 5'000'000ul}) {
    auto* p = static_cast<char*>(allocate(size));
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(p) % kAlignment, 0u);
    std::memset(p, static_cast<int>(blocks.size()), size);
    blocks.emplace_back(p, size);
  }
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    for (std::size_t j = 0; j < blocks[i].second; j += 61)
      EXPECT_EQ(blocks[i].first[j], static_cast<char>(i));
    deallocate(blocks[i].first);
  }
}

TEST(Memory, AReturnedBlockIsReusedForAnySizeOfItsClass) {
  void* p = allocate(100'000);
  deallocate(p);
  const MemoryStats before = memory_stats();
  void* q = allocate(99'999);
  EXPECT_EQ(p, q);
  EXPECT_EQ(memory_stats().hits, before.hits + 1);
  deallocate(q);
  empty_cache();
  EXPECT_EQ(memory_stats().cached, 0u);
}

TEST(Memory, CacheNeverExceedsItsLimit) {
  std::vector<void*> blocks;
  for (int i = 0; i < 200; ++i) blocks.push_back(allocate(std::size_t{1} << (i % 20)));
  for (void* p : blocks) {
    deallocate(p);
    EXPECT_LE(memory_stats().cached, memory_stats().limit);
  }
}

TEST(Memory, ImpossibleSizesAreRefused) {
  EXPECT_THROW(allocate(std::size_t{1} << 63), std::bad_alloc);
  EXPECT_THROW(allocate(std::size_t{1} << 55), std::bad_alloc);
  const i64 big = std::numeric_limits<i64>::max() / 2;
  EXPECT_THROW(checked_bytes(Shape(big, 3), DType::u8), std::overflow_error);
  EXPECT_THROW(checked_bytes(Shape(big), DType::f32), std::overflow_error);
  EXPECT_EQ(checked_bytes(Shape(big, 0, 8), DType::f32), 0u);
}

class Parallel : public testing::TestWithParam<int> {
 protected:
  void SetUp() override { set_num_threads(GetParam()); }
  void TearDown() override { set_num_threads(2); }
};

TEST_P(Parallel, EveryChunkRunsOnce) {
  for (i64 chunks : {0, 1, 2, 3, 17, 1000}) {
    std::vector<std::atomic<int>> seen(chunks);
    parallel_for(chunks, [&](i64 i) { seen[i].fetch_add(1); });
    for (auto& s : seen) EXPECT_EQ(s.load(), 1);
  }
}

TEST_P(Parallel, RangesCoverTheirInterval) {
  std::atomic<i64> sum{0};
  parallel_ranges(1001, 10, [&](i64 b, i64 e) {
    EXPECT_LE(e - b, 10);
    for (i64 i = b; i < e; ++i) sum += i;
  });
  EXPECT_EQ(sum.load(), 1001 * 1000 / 2);
}

TEST_P(Parallel, AnExceptionReachesTheCallerAndThePoolSurvives) {
  for (int round = 0; round < 50; ++round) {
    EXPECT_THROW(parallel_for(64,
                              [](i64 i) {
                                if (i == 13) throw ValueError("thirteen");
                              }),
                 ValueError);
  }
  std::atomic<int> n{0};
  parallel_for(64, [&](i64) { ++n; });
  EXPECT_EQ(n.load(), 64);
}

TEST_P(Parallel, NestedCallsRunInTheirThread) {
  std::atomic<int> n{0};
  parallel_for(8, [&](i64) {
    const auto id = std::this_thread::get_id();
    parallel_for(8, [&](i64) {
      EXPECT_EQ(std::this_thread::get_id(), id);
      ++n;
    });
  });
  EXPECT_EQ(n.load(), 64);
}

TEST_P(Parallel, SeveralCallersAtOnce) {
  std::atomic<i64> total{0};
  std::vector<std::thread> callers;
  for (int t = 0; t < 4; ++t)
    callers.emplace_back([&] {
      for (int round = 0; round < 200; ++round) parallel_for(7, [&](i64 i) { total += i; });
    });
  for (auto& c : callers) c.join();
  EXPECT_EQ(total.load(), 4 * 200 * 21);
}

TEST_P(Parallel, WorksInAForkedChild) {
  std::atomic<int> n{0};
  parallel_for(64, [&](i64) { ++n; });
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    std::atomic<int> m{0};
    parallel_for(64, [&](i64) { deallocate(allocate(1000)), ++m; });
    _exit(m.load() == 64 ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
}

TEST_P(Parallel, TheInterruptHookStopsALongCall) {
  set_interrupt_hook([] { return true; });
  std::atomic<int> n{0};
  EXPECT_THROW(parallel_for(10'000,
                            [&](i64) {
                              ++n;
                              std::this_thread::sleep_for(std::chrono::milliseconds(1));
                            }),
               Interrupted);
  set_interrupt_hook(nullptr);
  EXPECT_LT(n.load(), 10'000);
}

INSTANTIATE_TEST_SUITE_P(Threads, Parallel, testing::Values(1, 2, 5));

TEST(Threads, CountIsChecked) {
  EXPECT_THROW(set_num_threads(0), ValueError);
  EXPECT_THROW(set_num_threads(-3), ValueError);
}

}  // namespace
}  // namespace vectile
