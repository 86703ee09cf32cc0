// The bfloat16 kernels of the amx tier against sums in double, their tiles being the model of
// simd/amx.h.
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "kernels/gemm_bf16.cpp"

namespace vectile::VECTILE_TIER {
namespace {

struct Size {
  i64 m, n, k;
};

class GemmBf16Amx : public testing::TestWithParam<Size> {};

float widened(BFloat16 x) { return __builtin_bit_cast(float, std::uint32_t{x.bits} << 16); }

TEST_P(GemmBf16Amx, IsWithinTheBound) {
  const auto [m, n, k] = GetParam();
  std::mt19937 engine(7);
  std::normal_distribution<float> draw;
  std::vector<BFloat16> a(m * k), b(k * n);
  const auto fill = [&](std::vector<BFloat16>& x) {
    for (auto& e : x)
      e.bits = static_cast<uint16_t>(__builtin_bit_cast(std::uint32_t, draw(engine)) >> 16);
  };
  fill(a), fill(b);
  std::vector<float> bias(n);
  for (auto& e : bias) e = draw(engine);

  Gemm16Format f;
  gemm_bf16_format(&f);
  ASSERT_EQ(f.mr, 32);
  const i64 depth = (k + f.k_step - 1) / f.k_step * f.k_step, rows = (m + f.mr - 1) / f.mr * f.mr;
  const i64 columns = (n + f.nr - 1) / f.nr * f.nr;
  for (const bool transposed : {false, true}) {  // how B lies in memory
    std::vector<BFloat16> laid(k * n);
    for (i64 s = 0; s < k; ++s)
      for (i64 j = 0; j < n; ++j) laid[transposed ? j * k + s : s * n + j] = b[s * n + j];
    std::vector<uint16_t> left(rows * depth, 0x7fc0), strips(depth * columns, 0x7fc0);
    gemm_bf16_rows(a.data(), DType::bf16, k, 1, m, k, left.data(), depth);
    gemm_bf16_pack(laid.data(), DType::bf16, transposed ? 1 : n, transposed ? k : 1, k, n,
                   strips.data());
    std::vector<float> c(m * n);
    const Gemm16 g{m,           n,
                   k,           left.data(),
                   depth,       strips.data(),
                   bias.data(), Activation::none,
                   DType::f32,  c.data(),
                   nullptr,     n};
    gemm_bf16_block(g, {0, m, 0, n});
    for (i64 i = 0; i < m; ++i)
      for (i64 j = 0; j < n; ++j) {
        double sum = bias[j], magnitude = std::fabs(sum);
        for (i64 s = 0; s < k; ++s) {
          const double product = double(widened(a[i * k + s])) * widened(b[s * n + j]);
          sum += product, magnitude += std::fabs(product);
        }
        ASSERT_NEAR(c[i * n + j], sum, double(k + 1) * 0x1p-23 * magnitude) << i << ' ' << j;
      }
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, GemmBf16Amx,
                         testing::Values(Size{1, 1, 1}, Size{1, 33, 65}, Size{2, 32, 64},
                                         Size{7, 31, 3}, Size{16, 16, 64}, Size{31, 33, 63},
                                         Size{32, 32, 64}, Size{33, 65, 129}, Size{64, 96, 512},
                                         Size{130, 40, 700}, Size{161, 17, 1030}));

}  // namespace
}  // namespace vectile::VECTILE_TIER
