// The kernels of the amx tier against plain sums, their tiles being the model of simd/amx.h.
#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "kernels/gemm_s8.cpp"

namespace vectile::VECTILE_TIER {
namespace {

i64 rounded(i64 n, i64 to) { return (n + to - 1) / to * to; }

struct Size {
  i64 m, n, k;
};

class GemmS8Amx : public testing::TestWithParam<Size> {};

TEST_P(GemmS8Amx, IsExact) {
  const auto [m, n, k] = GetParam();
  std::mt19937 engine(7);
  std::uniform_int_distribution<int> draw(0, 255);
  std::vector<uint8_t> a(m * k), b(k * n);
  for (auto& byte : a) byte = static_cast<uint8_t>(draw(engine));
  for (auto& byte : b) byte = static_cast<uint8_t>(draw(engine));
  std::vector<int32_t> a_zero(m), b_zero(n);
  for (auto& zero : a_zero) zero = draw(engine);
  for (auto& zero : b_zero) zero = draw(engine) - 128;

  GemmS8Format f;
  gemm_s8_format(&f);
  ASSERT_EQ(f.mr, 32);
  const i64 depth = rounded((k + 3) / 4, f.step), row = depth * f.left_elements;
  std::vector<int32_t> left(rounded(m, f.mr) * row, -1), terms(m), sums(m);
  std::vector<int32_t> strips(depth * rounded(n, f.nr), -1), columns(n);
  for (const bool is_signed : {false, true}) {
    gemm_s8_rows(a.data(), false, k, 1, m, k, a_zero.data(), left.data(), row, terms.data(),
                 sums.data());
    gemm_s8_pack(b.data(), is_signed, n, 1, k, n, strips.data(), columns.data());
    const GemmS8 g{m,
                   n,
                   k,
                   left.data(),
                   row,
                   strips.data(),
                   terms.data(),
                   columns.data(),
                   b_zero.data(),
                   sums.data()};
    std::vector<int32_t> c(m * n);
    gemm_s8_exact(g, {0, m, 0, n}, c.data(), n);
    for (i64 i = 0; i < m; ++i)
      for (i64 j = 0; j < n; ++j) {
        int32_t sum = 0;
        for (i64 s = 0; s < k; ++s) {
          const int byte = b[s * n + j];
          const int value = is_signed ? static_cast<int8_t>(byte) : byte - 128;
          sum += (a[i * k + s] - a_zero[i]) * (value - b_zero[j]);
        }
        ASSERT_EQ(c[i * n + j], sum) << i << ' ' << j;
      }
    std::vector<int8_t> back(n * k);
    gemm_s8_unpack(strips.data(), k, n, back.data());
    for (i64 j = 0; j < n; ++j)
      for (i64 s = 0; s < k; ++s) {
        const int byte = b[s * n + j];
        ASSERT_EQ(back[j * k + s], is_signed ? static_cast<int8_t>(byte) : byte - 128);
      }
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, GemmS8Amx,
                         testing::Values(Size{1, 1, 1}, Size{1, 33, 65}, Size{2, 32, 64},
                                         Size{7, 31, 3}, Size{16, 16, 64}, Size{31, 33, 63},
                                         Size{32, 32, 64}, Size{33, 65, 129}, Size{64, 96, 512},
                                         Size{130, 40, 700}, Size{161, 17, 1030}, Size{5, 3, 0}));

}  // namespace
}  // namespace vectile::VECTILE_TIER
