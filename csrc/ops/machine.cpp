#include "ops/machine.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <mutex>

#include "ops/common.h"

namespace vectile::ops {
namespace {

// The best rate of many short runs: interference only ever slows a run down.
template <class F>
double best_rate(int runs, F&& work) {
  using clock = std::chrono::steady_clock;
  double best = 0;
  for (int i = 0; i < runs; ++i) {
    const auto start = clock::now();
    const double amount = work();
    const std::chrono::duration<double> seconds = clock::now() - start;
    best = std::max(best, amount / seconds.count());
  }
  return best;
}

// Runs one kernel on all threads, in chunks of a tenth of a millisecond or so.
template <class Result>
double chain_rate(void (*kernel)(i64, Result*, double*)) {
  constexpr i64 chunks_per_thread = 8;
  Result result;
  double amount = 0;
  i64 steps = 1000;
  best_rate(3, [&] { return kernel(steps, &result, &amount), amount; });  // wake the clock up
  const double rate = best_rate(3, [&] { return kernel(steps, &result, &amount), amount; });
  steps = std::max<i64>(1, static_cast<i64>(1e-4 * rate / (amount / static_cast<double>(steps))));
  const i64 chunks = chunks_per_thread * num_threads();
  Buffer<double> done(chunks);
  return best_rate(20, [&] {
    parallel_for(chunks, [&](i64 c) {
      Result r;
      kernel(steps, &r, &done[c]);
    });
    double sum = 0;
    for (i64 c = 0; c < chunks; ++c) sum += done[c];
    return sum;
  });
}

}  // namespace

double fma_rate() { return chain_rate(kernels().fma_chains); }
double dot_s8_rate() { return chain_rate(kernels().dot_s8_chains); }

bool faster_than_fma(void (*chains)(i64, float*, double*)) {
  static std::mutex mutex;
  static std::map<void (*)(i64, float*, double*), bool> known;
  const std::lock_guard lock(mutex);
  const auto found = known.find(chains);
  if (found != known.end()) return found->second;
  const auto rate = [](void (*kernel)(i64, float*, double*)) {
    return best_rate(1, [&] {
      float result;
      double amount;
      kernel(512, &result, &amount);
      return amount;
    });
  };
  // The median over neighbouring runs: what slows the CPU down slows both of most pairs.
  double ratios[31];
  for (double& ratio : ratios) {
    const double fma = rate(kernels().fma_chains);
    ratio = rate(chains) / fma;
  }
  double* const median = ratios + 15;
  std::nth_element(ratios, median, ratios + 31);
  return known[chains] = *median > 1;
}

double read_rate(i64 n_bytes) {
  check(n_bytes >= 4096, "read_rate", "n_bytes", "value", "at least 4096", n_bytes);
  const i64 n = n_bytes / static_cast<i64>(sizeof(float));
  Buffer<float> x(n);
  std::fill_n(x.get(), n, 1.f);
  const auto kernel = kernels().read_all;
  const i64 parts = num_threads(), part = ceil_div(n, parts);
  const i64 passes = std::max<i64>(1, (i64{1} << 22) / n);  // at least 16 MB a run
  return best_rate(10, [&] {
    parallel_ranges(n, part, [&](i64 begin, i64 end) {
      float sum;
      for (i64 p = 0; p < passes; ++p) kernel(x.get() + begin, end - begin, &sum);
    });
    return static_cast<double>(passes * n) * sizeof(float);
  });
}

double copy_rate(i64 n_bytes, bool stream) {
  check(n_bytes >= 4096, "copy_rate", "n_bytes", "value", "at least 4096", n_bytes);
  constexpr i64 unit = 16;
  const i64 n = n_bytes / static_cast<i64>(2 * sizeof(float)) / unit * unit;
  Buffer<float> x(n), y(n);
  std::fill_n(x.get(), n, 1.f);
  std::fill_n(y.get(), n, 1.f);
  const auto kernel = kernels().copy_all;
  const i64 part = round_up(ceil_div(n, num_threads()), unit);
  const i64 passes = std::max<i64>(1, (i64{1} << 21) / n);  // at least 16 MB a run
  return best_rate(10, [&] {
    parallel_ranges(n, part, [&](i64 begin, i64 end) {
      for (i64 p = 0; p < passes; ++p)
        kernel(x.get() + begin, y.get() + begin, end - begin, stream);
    });
    return static_cast<double>(passes * n * 2) * sizeof(float);
  });
}

}  // namespace vectile::ops
