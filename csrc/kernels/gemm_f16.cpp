// gemm_f16: products in binary16. An operand is rounded to it, sums of F16::kSteps products are
// too, and these are added in float32.
#include "kernels/gemm_16.h"
#include "kernels/gemm_f16_tile.h"

namespace vectile::VECTILE_TIER {

static void gemm_f16_format(Gemm16Format* format) {
  *format = {F16::panel, F16::nr, F16::together, F16::k_step};
}

static void gemm_f16_rows(const void* a, DType dtype, i64 row, i64 col, i64 m, i64 k, uint16_t* dst,
                          i64 dst_row) {
  with_stored(a, dtype, [&](const auto* x) { rows_16<F16>(x, row, col, m, k, dst, dst_row); });
}

static void gemm_f16_pack(const void* b, DType dtype, i64 row, i64 col, i64 k, i64 n,
                          uint16_t* strips) {
  with_stored(b, dtype, [&](const auto* x) { pack_16<F16>(x, row, col, k, n, strips); });
}

static void gemm_f16_block(const Gemm16& g, const GemmBlock& block) { block_16<F16>(g, block); }

}  // namespace vectile::VECTILE_TIER

#include "kernels/register.h"
