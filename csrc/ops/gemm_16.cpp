#include "ops/gemm_16.h"

#include <algorithm>
#include <atomic>

#include "ops/gemm_quantized.h"
#include "ops/machine.h"

namespace vectile::ops {
namespace {

std::atomic<Use16> use{Use16::faster};

constexpr i64 kCacheBytes = 1 << 20;  // of B, in the L2 cache
constexpr i64 kFewRows = 128;         // for which packing B once for all threads is not worth it
constexpr i64 kSets = 512;            // numbers apart: rows that share few sets of the L1 cache

// Where a unit overtakes float32: AMX beside 177 GFLOP/s of FMA, operands in the L3 cache.
struct Least {
  i64 m, n, k;
};
constexpr Least kStored{8, 32, 32}, kConverted{32, 32, 32}, kF16{64, 128, 128};

struct Format : Gemm16Format {
  explicit Format(const Unit16& unit) { unit.format(this); }
  i64 depth(i64 k) const { return round_up(k, k_step); }
  // Numbers of one stored row of A; off the powers of two.
  i64 row(i64 k) const { return round_up(depth(k), 32) + 32; }
  i64 fitting(i64 k, i64 unit) const {  // lines along k in the cache, a multiple of unit
    return std::max<i64>(1, kCacheBytes / 2 / depth(k) / unit) * unit;
  }
};

}  // namespace

void set_use_16(Use16 now) { use = now; }

Unit16 unit_16(const Kernels& k, Compute compute, DType dtype) {
  if (compute == Compute::standard && dtype == DType::bf16) compute = Compute::bf16;
  const Use16 now = use.load(std::memory_order_relaxed);
  if (now == Use16::never) return {};
  // VFMADD231PH has twice the lanes wherever it exists; VDPBF16PS is slower than FMA on some CPUs.
  if (compute == Compute::f16 && k.gemm_f16_block)
    return {DType::f16, k.gemm_f16_format, k.gemm_f16_rows, k.gemm_f16_pack, k.gemm_f16_block};
  if (compute == Compute::bf16 && k.gemm_bf16_block &&
      (now == Use16::always || faster_than_fma(k.gemm_bf16_chains)))
    return {DType::bf16, k.gemm_bf16_format, k.gemm_bf16_rows, k.gemm_bf16_pack, k.gemm_bf16_block};
  return {};
}

bool worth_16(const Unit16& unit, DType dtype, i64 m, i64 n, i64 k) {
  if (!unit) return false;
  if (use.load(std::memory_order_relaxed) == Use16::always) return true;
  const Least& least = unit.dtype == DType::f16 ? kF16 : dtype == unit.dtype ? kStored : kConverted;
  return m >= least.m && n >= least.n && k >= least.k;
}

i64 packed_elements_16(const Unit16& unit, i64 k, i64 n) {
  const Format f(unit);
  return f.depth(k) * round_up(n, f.nr);
}

void pack_16(const Unit16& unit, const void* b, DType dtype, i64 row, i64 col, i64 k, i64 n,
             std::uint16_t* strips) {
  const Format f(unit);
  const i64 size = static_cast<i64>(item_size(dtype)), chunk = 4 * f.nr;
  parallel_ranges(n, chunk, [&](i64 begin, i64 end) {
    unit.pack(static_cast<const char*>(b) + begin * col * size, dtype, row, col, k, end - begin,
              strips + begin * f.depth(k));
  });
}

void multiply_16(const Unit16& unit, const Product16& p) {
  const Format f(unit);
  const i64 size = static_cast<i64>(item_size(p.dtype)), depth = f.depth(p.k);
  // Rows of A in stored form, with room for whole tiles.
  const bool in_place = p.dtype == unit.dtype && p.a_col == 1 && p.a_row % kSets != 0 &&
                        p.k == depth && p.m % f.mr == 0;
  const i64 row = in_place ? p.a_row : f.row(p.k);
  const Buffer<std::uint16_t> copy(in_place ? 0 : round_up(p.m, f.mr) * row);
  if (!in_place)
    parallel_ranges(p.m, round_up(rows_grain(p.k), f.mr), [&](i64 begin, i64 end) {
      unit.rows(static_cast<const char*>(p.a) + begin * p.a_row * size, p.dtype, p.a_row, p.a_col,
                end - begin, p.k, copy.get() + begin * row, row);
    });
  Gemm16 g{
      p.m,     p.n,      p.k,        in_place ? static_cast<const std::uint16_t*>(p.a) : copy.get(),
      row,     p.strips, p.bias,     p.activation,
      p.dtype, p.c,      p.residual, p.c_row};
  // A task packs a group of columns for itself, or all of B is packed before, where there are too
  // few for the threads.
  const i64 threads = num_threads(), wanted = threads > 1 ? 4 * threads : 1;
  const i64 strips = ceil_div(p.n, f.nr);
  Buffer<std::uint16_t> packed;
  if (!g.strips && strips < wanted && p.m > kFewRows) {
    packed = Buffer<std::uint16_t>(packed_elements_16(unit, p.k, p.n));
    pack_16(unit, p.b, p.dtype, p.b_row, p.b_col, p.k, p.n, packed.get());
    g.strips = packed.get();
  }
  if (g.strips) {
    const i64 rows = threads > 1 ? round_up(even_rows(p.m, kFewRows), kFewRows) : p.m;
    over_blocks(p.m, p.n, p.k, f.nr,
                {rows, std::min<i64>(4 * f.nr, f.fitting(p.k, f.nr)), i64{1} << 26},
                [&](const GemmBlock& block) { unit.block(g, block); });
    return;
  }
  const i64 columns = std::min(f.fitting(p.k, f.nr), ceil_div(strips, wanted) * f.nr);
  parallel_ranges(p.n, columns, [&](i64 n0, i64 n1) {
    const Buffer<std::uint16_t> own(depth * round_up(n1 - n0, f.nr));
    unit.pack(static_cast<const char*>(p.b) + n0 * p.b_col * size, p.dtype, p.b_row, p.b_col, p.k,
              n1 - n0, own.get());
    Gemm16 part = g;
    part.strips = own.get() - n0 * depth;
    unit.block(part, {0, p.m, n0, n1});
  });
}

}  // namespace vectile::ops
