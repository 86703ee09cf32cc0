// cast: every pair of floating-point types goes through float32, in blocks that stay in L1.
//
// float64 becomes float32 by rounding to odd before it is rounded to a smaller type: float32 has
// more than two extra bits for each of them, so the second rounding sees on which side of a tie the
// number was, and the result is that of one rounding (Boldo & Melquiond, "Emulation of FMA and
// correctly rounded sums: proved algorithms using rounding to odd", 2008, theorem 2).
#include "kernels/rows.h"
#include "simd/storage.h"

namespace vectile::VECTILE_TIER {

constexpr i64 kCastBlock = 1024;

template <class S>
static void widen_run(const void* x, float* y, i64 n) {
  const S* from = static_cast<const S*>(x);
  row_each<float>(
      n, [&](i64 j, auto... k) VECTILE_LAMBDA { load_float(from + j, k...).store(y + j, k...); });
}

template <class S>
static void narrow_run(const float* x, void* y, i64 n) {
  S* to = static_cast<S*>(y);
  row_each<float>(n, [&](i64 j, auto... k) VECTILE_LAMBDA {
    store_float(Vec<float>::load(x + j, k...), to + j, k...);
  });
}

static void round_to_odd(const double* x, float* y, i64 n) {
  for (i64 i = 0; i < n; ++i) {
    const float r = static_cast<float>(x[i]);
    const double back = static_cast<double>(r);
    const uint32_t bits = bit_cast<uint32_t>(r);
    const bool even = (bits & 1) == 0 && back != x[i] && x[i] == x[i];
    const uint32_t step = __builtin_fabs(back) < __builtin_fabs(x[i]) ? 1u : ~0u;
    y[i] = bit_cast<float>(even ? bits + step : bits);
  }
}

static void widen(const void* x, DType from, float* y, i64 n) {
  switch (from) {
    case DType::f16:
      return widen_run<Float16>(x, y, n);
    case DType::bf16:
      return widen_run<BFloat16>(x, y, n);
    case DType::f8e4m3:
      return widen_run<Float8E4M3>(x, y, n);
    case DType::f8e5m2:
      return widen_run<Float8E5M2>(x, y, n);
    case DType::f64:
      return round_to_odd(static_cast<const double*>(x), y, n);
    default:
      std::memcpy(y, x, static_cast<size_t>(n) * sizeof(float));
  }
}

static void narrow(const float* x, void* y, DType to, i64 n) {
  switch (to) {
    case DType::f16:
      return narrow_run<Float16>(x, y, n);
    case DType::bf16:
      return narrow_run<BFloat16>(x, y, n);
    case DType::f8e4m3:
      return narrow_run<Float8E4M3>(x, y, n);
    case DType::f8e5m2:
      return narrow_run<Float8E5M2>(x, y, n);
    case DType::f64:
      for (i64 i = 0; i < n; ++i) static_cast<double*>(y)[i] = static_cast<double>(x[i]);
      return;
    default:
      std::memcpy(y, x, static_cast<size_t>(n) * sizeof(float));
  }
}

static void cast(const void* x, DType from, void* y, DType to, i64 n) {
  const size_t item_x = item_size(from), item_y = item_size(to);
  if (from == to) {
    std::memcpy(y, x, static_cast<size_t>(n) * item_x);
  } else if (from == DType::f64 && to == DType::f32) {
    for (i64 i = 0; i < n; ++i)
      static_cast<float*>(y)[i] = static_cast<float>(static_cast<const double*>(x)[i]);
  } else if (to == DType::f32) {
    widen(x, from, static_cast<float*>(y), n);
  } else if (from == DType::f32) {
    narrow(static_cast<const float*>(x), y, to, n);
  } else {
    alignas(64) float block[kCastBlock];
    for (i64 i = 0; i < n; i += kCastBlock) {
      const i64 m = n - i < kCastBlock ? n - i : kCastBlock;
      widen(static_cast<const char*>(x) + static_cast<size_t>(i) * item_x, from, block, m);
      narrow(block, static_cast<char*>(y) + static_cast<size_t>(i) * item_y, to, m);
    }
  }
}

}  // namespace vectile::VECTILE_TIER

#include "kernels/register.h"
