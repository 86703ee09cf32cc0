// How one matrix product is carried out: orientation, kernel, packing, blocks.
#pragma once

#include "dispatch/table.h"
#include "kernels/gemm_types.h"

namespace vectile::ops {

template <class S>
struct GemmPlan {
  Gemm<S> g;  // as the kernel sees it, possibly transposed: C^T = B^T A^T
  enum { tile, dot, axpy } kernel = tile;  // gemm, gemm_dot, gemm_axpy
  bool swapped = false;
  // The epilogue, and rounding to a half type, are applied by the caller, on the original C.
  bool finish = false;
  i64 mt, nt;            // rows and columns of a block
  bool share_b = false;  // B is packed before the blocks are computed
  i64 group = 1;         // blocks per task; more than one where whole products are small
  i64 k_parts = 1;       // K cut into parts whose partial products are added in order

  i64 row_blocks() const { return (g.m + mt - 1) / mt; }
  i64 blocks() const { return row_blocks() * ((g.n + nt - 1) / nt); }
  GemmBlock block(i64 i) const {
    const i64 m0 = i % row_blocks() * mt, n0 = i / row_blocks() * nt;
    return {m0, m0 + mt < g.m ? m0 + mt : g.m, n0, n0 + nt < g.n ? n0 + nt : g.n};
  }
};

// m, n, k > 0. `batch` products of this shape run together. Kernel, orientation and cuts of K
// depend on the problem only, and not on whether float32 is widened from a half type; blocks of
// rows and columns, which change no sum, also on the number of threads.
template <class S>
GemmPlan<S> plan_gemm(const Kernels& kernels, const Gemm<S>& g, i64 batch);

// Elements of workspace that serve every block of the plan. Those at its corners have all sizes,
// and a smaller one may need more: it is cut into fewer, higher parts, or needs a strip of its own.
template <class S>
i64 scratch_of(const Kernels& kernels, const GemmPlan<S>& plan);

}  // namespace vectile::ops
