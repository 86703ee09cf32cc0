#include "ops/gemm_plan.h"

#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <utility>

#include "ops/common.h"

namespace vectile::ops {
namespace {

// C^T = B^T A^T
template <class S>
Gemm<S> transposed(Gemm<S> g) {
  std::swap(g.m, g.n);
  std::swap(g.a, g.b);
  std::swap(g.a_row, g.b_col);
  std::swap(g.a_col, g.b_row);
  std::swap(g.c_row, g.c_col);
  return g;
}

// Costs are in vector multiply-adds, fitted to measurements on Zen 3.
constexpr double kGatherCost = 1.5;          // per element packed one by one
constexpr double kCachedElements = 1 << 18;  // an operand larger than that comes from afar:
constexpr double kStreamCost = 10;           // a vector of it in memory order,
constexpr double kStripCost = 8, kPageStripCost = 24;  // a strip at a time, its rows pages apart,
constexpr double kColumnCost = 16, kPageColumnCost = 32;  // the same, transposed
constexpr double kWaitCost = 1.6;  // six sums where latency and ports ask for eight or more

// Lines so far apart collide in the L1 cache, the more the larger the power of two.
template <class T, int bytes = 1024>
bool page_stride(i64 stride) {
  return stride * i64(sizeof(T)) % bytes == 0;
}

// True if the lines of a strip, one in each of k rows, find room in the sets of the L1 cache that
// they map to.
template <class T>
bool strip_fits(i64 k, i64 row) {
  constexpr i64 kWayBytes = 4096, kWays = 6;  // of 8, the others for A and C
  const i64 bytes = std::abs(row) * i64(sizeof(T));
  return k <= kWays * kWayBytes / std::gcd(std::max<i64>(bytes, 64), kWayBytes);
}

template <class S>
double tile_cost(const Gemm<S>& g, const GemmTiles& t) {
  const double m = double(g.m), n = double(g.n), k = double(g.k);
  const bool large_a = m * k > kCachedElements, large_b = n * k > kCachedElements;
  // A tile of one row, or of few rows of one vector, waits for its own sums.
  double per_vector = m * (n <= t.lanes && t.mr < 8 ? kWaitCost : 1);
  double moving = 0;
  if (g.strips)
    per_vector = std::max(per_vector, 2.);
  else if (g.b_col == 1)
    per_vector += !large_b ? 2 : page_stride<Computed<S>>(g.b_row) ? kPageStripCost : kStripCost;
  else if (g.b_row == 1)
    per_vector += !large_b ? 6 : page_stride<Computed<S>>(g.b_col) ? kPageColumnCost : kColumnCost;
  else
    moving = k * n * kGatherCost;
  if (large_a) moving += m * k * (g.a_col == 1 ? 0.5 : 2);
  return k * double(ceil_div(g.n, t.lanes)) * per_vector + moving + (g.c_col != 1 ? m * n : 0);
}

template <class S>
double dot_cost(const Gemm<S>& g, const GemmTiles& t) {
  constexpr double kInnerElements = 6144;  // of A in the L1 cache
  const double m = double(g.m), n = double(g.n), k = double(g.k);
  const double per_vector =
      std::max(m * (m * k > kInnerElements ? 3.5 : 2.5), n * k > kCachedElements ? kStreamCost : 1);
  return n * (double(ceil_div(g.k, t.lanes)) * per_vector + 8 * m) +
         (g.a_col != 1 ? m * k * kGatherCost : 0);
}

template <class S>
double axpy_cost(const Gemm<S>& g, const GemmTiles& t) {
  const double m = double(g.m), n = double(g.n), k = double(g.k);
  const double per_vector = std::max(2 + 0.6 * m * m, n * k > kCachedElements ? kStreamCost : 1);
  return k * double(ceil_div(g.n, t.lanes)) * per_vector;
}

constexpr i64 kFarStrips = 8;                      // in rows of B that lie on different pages
constexpr i64 kNearElements = 1 << 15;             // of an operand that tiles may read where it is
constexpr i64 kMaxDotRows = 16, kMaxAxpyRows = 8;  // gemm_dot reads B once per 8 rows of A
constexpr double kPartWork = 1 << 22, kMaxParts = 12;  // multiply-adds worth a cut of K
constexpr double kTaskWork = 1 << 20, kTasks = 8;   // worth a task of their own; tasks per thread
constexpr double kLongWork = 1u << 31;              // about 50 ms
constexpr i64 kWideColumns = 384;                   // of a task that packs A for itself
constexpr i64 kSums = 1 << 20, kSumColumns = 4096;  // of float32 that are rounded later
constexpr double kSmallWork = 1 << 17;              // a task has at least this, of several products

}  // namespace

template <class S>
GemmPlan<S> plan_gemm(const Kernels& kernels, const Gemm<S>& g, i64 batch) {
  using T = Computed<S>;
  GemmTiles t;
  kernels.of<T>().gemm_tiles(&t);
  GemmPlan<S> plan;
  plan.g = g;

  // Orientation and kernel: the cheapest of up to six.
  double best = tile_cost(g, t);
  const auto consider = [&](const Gemm<S>& candidate, bool swapped) {
    const auto offer = [&](double cost, auto kernel) {
      if (cost < best)
        best = cost, plan.g = candidate, plan.kernel = kernel, plan.swapped = swapped;
    };
    if (swapped) offer(tile_cost(candidate, t), plan.tile);
    if (candidate.m <= kMaxDotRows && candidate.b_row == 1) offer(dot_cost(candidate, t), plan.dot);
    if (candidate.m <= kMaxAxpyRows && candidate.b_col == 1 && candidate.c_col == 1)
      offer(axpy_cost(candidate, t), plan.axpy);
  };
  if (!g.strips) {
    consider(g, false);
    consider(transposed(g), true);
  }
  Gemm<S>& p = plan.g;
  const bool tiled = plan.kernel == plan.tile;
  plan.finish = !tiled || (plan.swapped && p.c_col == 1);
  if (plan.finish) p.bias = nullptr, p.residual = nullptr, p.activation = Activation::none;

  if (!p.strips) p.kc = round_up(ceil_div(p.k, ceil_div(p.k, t.kc)), t.lanes);
  const i64 nr = t.nr, strips = ceil_div(p.n, nr);
  const bool spread_a = p.a_col == 1 && (widens<S> || !page_stride<T>(p.a_row));
  const bool near_a = spread_a && p.m * p.k <= kNearElements;
  const bool near_b = p.b_col == 1 && p.n * p.k <= kNearElements && strip_fits<T>(p.k, p.b_row);
  const i64 in_place = p.a_col != 1 ? 2 : spread_a ? t.strips_in_place : t.strips_paged;
  const bool apart = page_stride<T, 2048>(p.b_row);  // few of its lines serve a second panel of A
  const i64 rows_in_place = apart ? std::min<i64>(t.rows_in_place, 2 * t.mr) : t.rows_in_place;
  p.pack_b = tiled && !p.strips && !near_b && (p.b_col != 1 || p.m > rows_in_place);
  const bool far_b = tiled && !p.strips && !p.pack_b && !near_b && strips >= kFarStrips;
  p.pack_a = tiled && !near_a && (far_b || strips > in_place);
  if (widens<S>) {
    p.pack_a = p.pack_a || (tiled && p.a_col != 1 && p.a_row != 1);
    p.pack_b = tiled && !p.strips;
  }

  if (far_b) p.kc = std::min(p.kc, t.kc_in_place);

  // Sums are split where rows and columns alone give too few tasks: by the problem, not by the
  // threads.
  const double work = double(p.m) * double(p.n) * double(p.k);
  const auto tasks_of = [&](double each, double most) {
    return static_cast<i64>(std::clamp(double(batch) * work / each, 1., most));
  };
  const i64 columns = tiled ? 4 * nr : 256;
  if (batch == 1 && !p.strips &&
      2 * ceil_div(p.n, columns) * (tiled ? ceil_div(p.m, 16 * t.mr) : 1) <=
          tasks_of(kPartWork, kMaxParts))
    plan.k_parts = std::clamp<i64>(p.k / 1024, 1, 8);

  // Blocks: one for a thread alone, or some for Ctrl-C to come between; else enough to share out.
  // They leave every sum as it is, so that their number may depend on the threads.
  const auto rows_of = [&](i64 mc) { return std::min(4 * mc, mc * t.kc / std::min(p.kc, p.k)); };
  p.mc = p.m <= rows_of(t.mc_alone) ? rows_of(t.mc_alone) : rows_of(t.mc);
  plan.mt = p.m, plan.nt = p.n;
  if (plan.kernel == plan.axpy || p.c_col != 1) plan.nt = std::min<i64>(p.n, 2048);
  if (tiled && p.c_col != 1) plan.mt = std::min(p.m, p.mc);
  const int threads = num_threads();
  const i64 shared = threads > 1 ? tasks_of(kTaskWork, kTasks * threads) : 1;
  const i64 tasks = ceil_div(std::max(shared, tasks_of(kLongWork, 1 << 10)), batch);
  const auto cut = [](i64 size, i64 parts, i64 unit) {
    return std::min(size, round_up(ceil_div(size, parts), unit));
  };
  if (plan.blocks() < tasks && !tiled) {
    plan.nt = std::max(cut(plan.nt, ceil_div(tasks, plan.blocks()), nr), std::min(p.n, columns));
  } else if (plan.blocks() < tasks && (p.n >= tasks * kWideColumns || p.m < 4 * t.mr)) {
    plan.nt = std::max(cut(p.n, tasks, nr), std::min(p.n, columns));  // each packs A again
  } else if (plan.blocks() < tasks) {  // each reads all of B, which is packed once for all
    plan.share_b = p.pack_b && batch == 1;
    plan.mt = std::max(cut(p.m, tasks, t.mr), std::min<i64>(p.m, 2 * t.mr));
  }
  if (widens<S> && tiled && p.c_col == 1 &&
      p.k > p.kc) {  // blocks have their sums in the workspace
    plan.nt = std::min(plan.nt, round_up(kSumColumns, nr));
    plan.mt = std::min(plan.mt, std::max(2 * p.mc, round_up(kSums / plan.nt, t.mr)));
  }
  if (plan.blocks() == 1 && work < kSmallWork) plan.group = static_cast<i64>(kSmallWork / work);
  return plan;
}

template <class S>
i64 scratch_of(const Kernels& kernels, const GemmPlan<S>& plan) {
  const i64 sums = plan.finish && plan.g.rounded ? plan.mt * plan.nt : 0;
  if (plan.kernel != plan.tile) return sums;
  const i64 rows = plan.row_blocks(), blocks = plan.blocks();
  i64 most = 0;
  for (const i64 corner : {i64{0}, rows - 1, blocks - rows, blocks - 1}) {
    i64 elements = 0;
    kernels.of<S>().gemm_workspace(plan.g, plan.block(corner), &elements);
    most = std::max(most, elements);
  }
  return sums + most;
}

#define VECTILE_INSTANTIATE(S)                                 \
  template i64 scratch_of(const Kernels&, const GemmPlan<S>&); \
  template GemmPlan<S> plan_gemm(const Kernels&, const Gemm<S>&, i64);
VECTILE_INSTANTIATE(float)
VECTILE_INSTANTIATE(double)
VECTILE_INSTANTIATE(Float16)
VECTILE_INSTANTIATE(BFloat16)

}  // namespace vectile::ops
