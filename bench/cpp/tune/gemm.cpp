// Finds the block sizes of GEMM that are the fastest on this machine's tier (VECTILE_ISA chooses
// it) and prints their row of csrc/kernels/gemm_tuning.h: build/bench/cpp/tune_gemm [--quick]
#include <time.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <random>
#include <string>
#include <vector>

#include "base/memory.h"
#include "base/parallel.h"
#include "dispatch/cpu.h"
#include "dispatch/dispatch.h"
#include "ops/gemm_plan.h"

namespace vectile::bench {
namespace {

// One row a size that is swept; the values are tried around the best of the others.
struct Parameter {
  const char* name;
  i64 GemmTuning::* member;
  std::vector<i64> values;
};

std::vector<Parameter> parameters(i64 mr) {
  std::vector<i64> rows, few;
  for (const i64 mc : {72, 120, 180, 240, 300, 360, 420, 480, 600, 720, 960, 1200})
    rows.push_back(mc / mr * mr);
  for (const i64 panels : {1, 2, 3, 4, 6, 8}) few.push_back(panels * mr);
  const std::vector<i64> strips{1, 2, 3, 5, 8, 16, 32, 64, 128};
  return {{"kc", &GemmTuning::kc, {128, 192, 256, 320, 384, 448, 512, 640, 768, 1024}},
          {"mc", &GemmTuning::mc, rows},
          {"mc_alone", &GemmTuning::mc_alone, rows},
          {"kc_in_place", &GemmTuning::kc_in_place, {16, 32, 48, 64, 96, 128, 256, 512}},
          {"rows_in_place", &GemmTuning::rows_in_place, few},
          {"strips_in_place", &GemmTuning::strips_in_place, strips},
          {"strips_paged", &GemmTuning::strips_paged, strips}};
}

struct Shape {
  i64 m, n, k;
  bool a_transposed, b_transposed;
};

constexpr Shape kShapes[] = {
    {512, 512, 512, false, false},  {1024, 1024, 1024, false, false},
    {768, 768, 768, false, true},   {768, 768, 768, true, false},
    {128, 768, 3072, false, true},  {128, 3072, 768, false, true},
    {1000, 333, 777, false, false}, {2048, 256, 1024, true, true},
    {9, 1000, 1000, false, false},  {16, 4096, 2048, false, false},
    {32, 768, 3072, false, false},  {48, 1000, 1000, false, false},
    {96, 2000, 512, false, true},   {384, 2048, 1024, false, false},
};
constexpr Shape kQuickShapes[] = {{96, 96, 800, false, false}, {384, 64, 300, true, true}};

// The sizes as the table has them.
std::string row(const GemmTuning& sizes) {
  std::string text;
  for (const Parameter& p : parameters(1))
    text += (text.empty() ? "{" : ", ") + std::to_string(sizes.*p.member);
  return text + "}";
}

double cpu_seconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

GemmTiles swept;  // what the kernel table answers while a candidate is measured

class Product {
 public:
  explicit Product(const Shape& s) : a_(s.m * s.k), b_(s.k * s.n), c_(s.m * s.n) {
    std::mt19937 engine(1);
    std::normal_distribution<float> draw;
    for (float& x : a_) x = draw(engine);
    for (float& x : b_) x = draw(engine);
    g_.m = s.m, g_.n = s.n, g_.k = s.k;
    g_.a = a_.data(), g_.b = b_.data(), g_.c = c_.data();
    g_.a_row = s.a_transposed ? 1 : s.k, g_.a_col = s.a_transposed ? s.m : 1;
    g_.b_row = s.b_transposed ? 1 : s.n, g_.b_col = s.b_transposed ? s.k : 1;
    g_.c_row = s.n, g_.c_col = 1;
    first_ = c_;
  }

  // Seconds of one product with the swept sizes; its first result is what all others must be near.
  double run(const Kernels& table) {
    const ops::GemmPlan<float> plan = ops::plan_gemm(table, g_, 1);
    if (plan.kernel != plan.tile || plan.k_parts != 1) return 0;  // no blocks of these sizes
    const Buffer<float> workspace(ops::scratch_of(table, plan));
    const double start = cpu_seconds();
    for (i64 i = 0; i < plan.blocks(); ++i) table.f32.gemm(plan.g, plan.block(i), workspace.get());
    const double seconds = cpu_seconds() - start;
    if (first_[0] == 0) first_ = c_;
    for (std::size_t i = 0; i < c_.size(); ++i) {
      if (!(std::abs(c_[i] - first_[i]) <= 1e-3f * std::sqrt(static_cast<float>(g_.k)))) {
        std::fprintf(stderr, "%s: wrong product\n", row(swept).c_str());
        std::exit(1);
      }
    }
    return seconds;
  }

 private:
  std::vector<float> a_, b_, c_, first_;
  Gemm<float> g_{};
};

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

class Tuner {
 public:
  explicit Tuner(bool quick) : table_(kernels()), rounds_(quick ? 1 : 5) {
    table_.f32.gemm_tiles(&now_);
    table_.f32.gemm_tiles = [](GemmTiles* tiles) { *tiles = swept; };
    if (quick)
      for (const Shape& s : kQuickShapes) products_.emplace_back(s);
    else
      for (const Shape& s : kShapes) products_.emplace_back(s);
  }

  const GemmTiles& now() const { return now_; }

  // Geometric mean over the shapes of each candidate's time over that of the sizes in the table:
  // all take turns, a ratio is of one round.
  std::vector<double> times(const std::vector<GemmTiles>& candidates, int rounds) {
    std::vector<double> logs(candidates.size());
    for (Product& p : products_) {
      std::vector<std::vector<double>> ratios(candidates.size());
      for (int round = 0; round <= rounds; ++round) {
        const double base = seconds(p, now_);
        for (std::size_t i = 0; i < candidates.size(); ++i) {
          const double taken = seconds(p, candidates[i]);
          if (round > 0 || rounds == 1) ratios[i].push_back(base > 0 ? taken / base : 1);
        }
      }
      for (std::size_t i = 0; i < candidates.size(); ++i) logs[i] += std::log(median(ratios[i]));
    }
    for (double& x : logs) x = std::exp(x / static_cast<double>(products_.size()));
    return logs;
  }

  // Each parameter in turn at its best, twice; then the best against the table once more.
  GemmTiles best() {
    GemmTiles best = now_;
    for (int pass = 0; pass < 2; ++pass) {
      for (const Parameter& p : parameters(now_.mr)) {
        std::vector<GemmTiles> candidates;
        for (const i64 value : p.values) {
          candidates.push_back(best);
          candidates.back().*p.member = value;
        }
        const std::vector<double> found = times(candidates, rounds_);
        for (std::size_t i = 0; i < found.size(); ++i)
          std::fprintf(stderr, "%s  time %.3f\n", row(candidates[i]).c_str(), found[i]);
        best = candidates[std::min_element(found.begin(), found.end()) - found.begin()];
      }
    }
    const double gain = times({best}, 3 * rounds_)[0];
    std::fprintf(stderr, "best: %s: %.3f of the time of %s\n", row(best).c_str(), gain,
                 row(now_).c_str());
    return gain < kWorthwhile ? best : now_;
  }

 private:
  static constexpr double kWorthwhile = 0.99;  // less gain than that is noise: the table stays

  double seconds(Product& p, const GemmTiles& tiles) {
    swept = tiles;
    return p.run(table_);
  }

  Kernels table_;
  GemmTiles now_;
  int rounds_;
  std::vector<Product> products_;
};

}  // namespace
}  // namespace vectile::bench

int main(int argc, char** argv) {
  const bool quick = argc == 2 && std::strcmp(argv[1], "--quick") == 0;
  if (argc > 1 && !quick) {
    std::fprintf(stderr, "usage: tune_gemm [--quick]; VECTILE_ISA=avx2 chooses the tier\n");
    return 2;
  }
  vectile::set_num_threads(1);
  vectile::bench::Tuner tuner(quick);
  const vectile::GemmTiles best = tuner.best();
  std::time_t now = std::time(nullptr);
  char date[16];
  std::strftime(date, sizeof date, "%Y-%m-%d", std::localtime(&now));
  std::printf("    {\"%s\", %s},  // %s, %s\n", vectile::active_tier(),
              vectile::bench::row(best).c_str(), vectile::cpu_name(), date);
  return 0;
}
