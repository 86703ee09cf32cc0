#include "ops/gemm_plan.h"

#include <algorithm>
#include <utility>

#include "ops/common.h"

namespace vectile::ops {
namespace {

// C^T = B^T A^T
template <class T>
Gemm<T> transposed(Gemm<T> g) {
  std::swap(g.m, g.n);
  std::swap(g.a, g.b);
  std::swap(g.a_row, g.b_col);
  std::swap(g.a_col, g.b_row);
  std::swap(g.c_row, g.c_col);
  return g;
}

// Costs are in cycles, roughly, at one vector multiply-add each.
constexpr double kTransposeCost = 0.35, kGatherCost = 1.5;  // per element packed
// Per vector of an operand larger than the cache: read in memory order, or a strip at a time.
constexpr double kStreamCost = 10, kStripCost = 18;
constexpr double kCachedElements = 1 << 18;
constexpr double kWaitCost = 1.6;  // six sums where latency and ports ask for eight or more

template <class T>
double tile_cost(const Gemm<T>& g, const GemmTiles& t) {
  const double m = double(g.m), n = double(g.n), k = double(g.k);
  // A tile of one row, or of few rows of one vector, waits for its own sums.
  const double wait = n <= t.lanes && t.mr < 8 ? kWaitCost : 1;
  const double per_vector =
      std::max(m * wait, n * k > kCachedElements && !g.b_packed ? kStripCost : 2);
  double packing = 0;
  if (g.b_col != 1 && !g.b_packed)
    packing = k * n * (g.b_row == 1 ? kTransposeCost : kGatherCost) * double(ceil_div(g.m, t.mc));
  return k * double(ceil_div(g.n, t.lanes)) * per_vector + packing + (g.c_col != 1 ? m * n : 0);
}

template <class T>
double dot_cost(const Gemm<T>& g, const GemmTiles& t) {
  const double m = double(g.m), n = double(g.n), k = double(g.k);
  const double per_vector = std::max(m, n * k > kCachedElements ? kStreamCost : 1);
  return n * (double(ceil_div(g.k, t.lanes)) * per_vector + 8 * m) +
         (g.a_col != 1 ? m * k * kGatherCost : 0);
}

template <class T>
double axpy_cost(const Gemm<T>& g, const GemmTiles& t) {
  const double m = double(g.m), n = double(g.n), k = double(g.k);
  const double per_vector = std::max(1 + m * m / 5, n * k > kCachedElements ? kStreamCost : 1);
  return k * double(ceil_div(g.n, t.lanes)) * per_vector;
}

constexpr i64 kMaxDotRows = 16, kMaxAxpyRows = 8;  // gemm_dot reads B once per 8 rows of A
constexpr double kChunkWork = 1 << 22;             // multiply-adds worth a task of their own
constexpr double kSmallWork = 1 << 17;             // a task has at least this, of several products
constexpr double kMaxTasks = 12;

}  // namespace

template <class T>
GemmPlan<T> plan_gemm(const Kernels& kernels, const Gemm<T>& g, i64 batch) {
  GemmTiles t;
  kernels.of<T>().gemm_tiles(&t);
  GemmPlan<T> plan;
  plan.g = g;

  // Orientation and kernel: the cheapest of up to six.
  double best = tile_cost(g, t);
  const auto consider = [&](const Gemm<T>& candidate, bool swapped) {
    const auto offer = [&](double cost, auto kernel) {
      if (cost < best)
        best = cost, plan.g = candidate, plan.kernel = kernel, plan.swapped = swapped;
    };
    if (swapped) offer(tile_cost(candidate, t), plan.tile);
    if (candidate.m <= kMaxDotRows && candidate.b_row == 1) offer(dot_cost(candidate, t), plan.dot);
    if (candidate.m <= kMaxAxpyRows && candidate.b_col == 1 && candidate.c_col == 1)
      offer(axpy_cost(candidate, t), plan.axpy);
  };
  if (!g.b_packed) {
    consider(g, false);
    consider(transposed(g), true);
  }
  Gemm<T>& p = plan.g;
  const bool tiled = plan.kernel == plan.tile;
  plan.finish = !tiled || (plan.swapped && p.c_col == 1);
  if (plan.finish) p.bias = nullptr, p.activation = Activation::none;

  if (!p.b_packed) p.kc = round_up(ceil_div(p.k, ceil_div(p.k, t.kc)), t.lanes);
  const i64 nr = t.nr, strips = ceil_div(p.n, nr), panels = ceil_div(p.m, t.mr);
  const bool page_stride = p.a_row * i64(sizeof(T)) % 2048 == 0;  // rows collide in the L1 cache
  p.pack_a = tiled && (p.a_col == 1 ? strips >= (page_stride ? 2 : 6) : strips >= 3);
  p.pack_b = tiled && !p.b_packed && (p.b_col != 1 || panels >= 3);

  // Blocks: rows of A that fit the L2 cache, then enough of them to share out.
  plan.mt = !tiled ? p.m : std::min(p.m, round_up(ceil_div(p.m, ceil_div(p.m, t.mc)), t.mr));
  plan.nt = p.n;
  const double work = double(p.m) * double(p.n) * double(p.k);
  const auto wanted =
      static_cast<i64>(std::clamp(double(batch) * work / kChunkWork, 1., kMaxTasks));
  if (plan.row_blocks() * batch < wanted) {
    // Narrower blocks pack A again, lower ones read B again.
    const i64 least = !tiled ? 2048 : p.pack_a ? std::clamp(p.n / 2, 8 * nr, 16 * nr) : 4 * nr;
    plan.nt = std::max(least, ceil_div(p.n, ceil_div(wanted, plan.row_blocks() * batch)));
    plan.nt = std::min(p.n, round_up(plan.nt, nr));
    const i64 tasks = plan.blocks() * batch;
    if (tasks < wanted && tiled) {
      const i64 rows = std::max<i64>(16 * t.mr, ceil_div(plan.mt, ceil_div(wanted, tasks)));
      plan.mt = std::min(p.m, round_up(ceil_div(p.m, ceil_div(p.m, rows)), t.mr));
    }
    if (plan.blocks() * batch * 2 <= wanted && batch == 1 && !p.b_packed)
      plan.k_parts = std::min<i64>(8, p.k / 1024);
    plan.k_parts = std::max<i64>(1, plan.k_parts);
  }
  if (plan.blocks() == 1 && work < kSmallWork) plan.group = static_cast<i64>(kSmallWork / work);
  return plan;
}

template GemmPlan<float> plan_gemm(const Kernels&, const Gemm<float>&, i64);
template GemmPlan<double> plan_gemm(const Kernels&, const Gemm<double>&, i64);

}  // namespace vectile::ops
