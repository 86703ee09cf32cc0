#include <benchmark/benchmark.h>

#include <cstdlib>
#include <memory>
#include <random>

#include "bench.h"

namespace vectile::bench {
namespace {

// One thread, timed by its CPU time, unless the environment asks for more: then the wall clock.
bool threads_given() { return std::getenv("VECTILE_NUM_THREADS") != nullptr; }

}  // namespace

void add(const std::string& name, const char* unit, double work,
         std::function<std::function<void()>()> setup) {
  for (const std::string& tier : supported_tiers()) {
    auto* registered =
        benchmark::RegisterBenchmark((name + "/" + tier).c_str(), [=](benchmark::State& state) {
          set_tier(tier);
          const auto call = setup();
          for (auto _ : state) call();
          state.counters[unit] =
              benchmark::Counter(work, benchmark::Counter::kIsIterationInvariantRate);
        });
    if (threads_given()) registered->UseRealTime();
  }
}

Array normal(const Shape& shape) {
  std::mt19937 engine(1);
  std::normal_distribution<float> draw;
  Array a = Array::empty(DType::f32, shape);
  for (i64 i = 0; i < a.elements(); ++i) a.as<float>()[i] = draw(engine);
  return a;
}

Array integers(DType dtype, const Shape& shape, int low, int high) {
  std::mt19937 engine(1);
  std::uniform_int_distribution<int> draw(low, high);
  Array a = Array::empty(dtype, shape);
  for (i64 i = 0; i < a.elements(); ++i) {
    const int value = draw(engine);
    if (item_size(dtype) == 1)
      a.as<std::uint8_t>()[i] = static_cast<std::uint8_t>(value);
    else
      a.as<i64>()[i] = value;
  }
  return a;
}

}  // namespace vectile::bench

int main(int argc, char** argv) {
  if (!vectile::bench::threads_given()) vectile::set_num_threads(1);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::AddCustomContext("threads", std::to_string(vectile::num_threads()));
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
