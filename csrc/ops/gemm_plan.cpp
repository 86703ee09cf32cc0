#include "ops/gemm_plan.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace vectile::ops {
namespace {

constexpr i64 ceil_div(i64 a, i64 b) { return (a + b - 1) / b; }
constexpr i64 round_up(i64 a, i64 b) { return ceil_div(a, b) * b; }

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

// Cycles, roughly, at one vector multiply-add each.
constexpr double kTransposeCost = 0.35, kGatherCost = 1.5;  // per element packed

template <class T>
double tile_cost(const Gemm<T>& g, const GemmTiles& t) {
  const double m = double(g.m), n = double(g.n), k = double(g.k);
  const double vectors = double(ceil_div(g.n, t.lanes)), panels = double(ceil_div(g.m, t.mr));
  // A tile of few rows waits for its loads: nv of B, one of A per row.
  const double arithmetic = k * std::max(m * vectors, panels * 4.0);
  const double unit = std::min(std::abs(g.b_col), g.n == 1 ? 1 : std::abs(g.b_row)) == 1 ? 1 : 0;
  double packing = 0;
  if (g.b_col != 1 && !g.b_packed)
    packing = k * n * (unit != 0 ? kTransposeCost : kGatherCost) * double(ceil_div(g.m, t.mc));
  return arithmetic + packing + (g.c_col != 1 ? m * n : 0);
}

template <class T>
double dot_cost(const Gemm<T>& g, const GemmTiles& t) {
  const double m = double(g.m), n = double(g.n), k = double(g.k);
  return m * n * (double(ceil_div(g.k, t.lanes)) + 8) + (g.a_col != 1 ? m * k * kGatherCost : 0);
}

constexpr i64 kDotRows = 16;              // gemm_dot reads B once per 8 rows of A
constexpr i64 kChunkWork = i64{1} << 22;  // multiply-adds worth a task of their own
constexpr i64 kMaxTasks = 64;

}  // namespace

template <class T>
GemmPlan<T> plan_gemm(const Kernels& kernels, const Gemm<T>& g, i64 batch) {
  GemmTiles t;
  kernels.of<T>().gemm_tiles(&t, nullptr);
  GemmPlan<T> plan;
  plan.g = g;

  // Orientation and kernel: the cheapest of up to four.
  double best = tile_cost(g, t);
  if (!g.b_packed) {
    const Gemm<T> swapped = transposed(g);
    const auto consider = [&](const Gemm<T>& candidate, bool dot, bool swap) {
      const double cost = dot ? dot_cost(candidate, t) : tile_cost(candidate, t);
      if (cost < best) best = cost, plan.g = candidate, plan.dot = dot, plan.swapped = swap;
    };
    consider(swapped, false, true);
    if (g.m <= kDotRows && g.b_row == 1) consider(g, true, false);
    if (swapped.m <= kDotRows && swapped.b_row == 1) consider(swapped, true, true);
  }
  Gemm<T>& p = plan.g;
  plan.finish = plan.dot || (plan.swapped && p.c_col == 1);
  if (plan.finish) p.bias = nullptr, p.activation = Activation::none;

  if (!p.b_packed) p.kc = round_up(ceil_div(p.k, ceil_div(p.k, t.kc)), t.lanes);
  const i64 strips = ceil_div(p.n, t.nr), panels = ceil_div(p.m, t.mr);
  const bool page_stride = p.a_row * i64(sizeof(T)) % 2048 == 0;  // rows collide in the L1 cache
  p.pack_a = !plan.dot && (p.a_col == 1 ? strips >= (page_stride ? 2 : 6) : strips >= 3);
  p.pack_b = !plan.dot && !p.b_packed && (p.b_col != 1 || panels >= 3);

  // Blocks: rows of A that fit the L2 cache, then enough of them to share out.
  plan.mt = plan.dot ? p.m : std::min(p.m, round_up(ceil_div(p.m, ceil_div(p.m, t.mc)), t.mr));
  plan.nt = p.n;
  const i64 work = p.m * p.n * p.k;
  i64 wanted = std::clamp<i64>(batch * (work / kChunkWork), 1, kMaxTasks);
  if (plan.row_blocks() * batch < wanted) {
    const i64 least = plan.dot ? 64 : (p.pack_a ? 8 : 4) * t.nr;
    plan.nt = std::max(least, ceil_div(p.n, ceil_div(wanted, plan.row_blocks() * batch)));
    plan.nt = std::min(p.n, round_up(plan.nt, t.nr));
    const i64 tasks = plan.blocks() * batch;
    if (tasks < wanted && !plan.dot)
      plan.mt = std::min(
          p.m, round_up(std::max<i64>(4 * t.mr, ceil_div(plan.mt, ceil_div(wanted, tasks))), t.mr));
    if (plan.blocks() * batch * 2 <= wanted && batch == 1 && !p.b_packed)
      plan.k_parts = std::min<i64>(8, p.k / 1024);
    plan.k_parts = std::max<i64>(1, plan.k_parts);
  }
  return plan;
}

template GemmPlan<float> plan_gemm(const Kernels&, const Gemm<float>&, i64);
template GemmPlan<double> plan_gemm(const Kernels&, const Gemm<double>&, i64);

}  // namespace vectile::ops
