// Vec<T> of the tier this file is compiled for, lane by lane against scalar C++.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "simd/activations.h"

namespace vectile::VECTILE_TIER {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

template <class T>
std::vector<T> lanes_of(Vec<T> v) {
  std::vector<T> a(Vec<T>::lanes);
  v.store(a.data());
  return a;
}

template <class T>
bool same(T a, T b) {  // NaN equals NaN, -0 differs from 0
  return std::isnan(a) ? std::isnan(b) : a == b && std::signbit(a) == std::signbit(b);
}

// Values that rounding, comparison and sign handling get wrong first.
template <class T>
std::vector<T> interesting() {
  using L = std::numeric_limits<T>;
  std::vector<T> v;
  for (T x : {T(0), L::denorm_min(), L::min(), T(0.25), T(0.5), T(0.75), T(1), T(1.5), T(2.5), T(3),
              T(3.5), T(126.5), T(1e6 + 0.5), T(1) / L::epsilon(), T(2) / L::epsilon(), T(1e30),
              L::max(), L::infinity(), L::quiet_NaN()}) {
    v.push_back(x);
    v.push_back(-x);
  }
  return v;
}

template <class T>
class SimdTest : public testing::Test {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(SimdTest, Types);

template <class T, class F, class G>
void expect_unary(F vector, G scalar) {
  for (const T x : interesting<T>())
    for (const T y : lanes_of<T>(vector(Vec<T>(x))))
      EXPECT_TRUE(same<T>(y, scalar(x))) << x << ": " << y << " for " << scalar(x);
}

template <class T, class F, class G>
void expect_binary(F vector, G scalar) {
  for (const T a : interesting<T>())
    for (const T b : interesting<T>())
      for (const T y : lanes_of<T>(vector(Vec<T>(a), Vec<T>(b))))
        EXPECT_TRUE(same<T>(y, scalar(a, b)))
            << a << ", " << b << ": " << y << " for " << scalar(a, b);
}

TYPED_TEST(SimdTest, Arithmetic) {
  using T = TypeParam;
  using V = Vec<T>;
  expect_binary<T>([](V a, V b) { return a + b; }, [](T a, T b) { return a + b; });
  expect_binary<T>([](V a, V b) { return a - b; }, [](T a, T b) { return a - b; });
  expect_binary<T>([](V a, V b) { return a * b; }, [](T a, T b) { return a * b; });
  expect_binary<T>([](V a, V b) { return a / b; }, [](T a, T b) { return a / b; });
  expect_unary<T>([](V a) { return -a; }, [](T a) { return -a; });
  expect_unary<T>([](V a) { return abs(a); }, [](T a) { return std::fabs(a); });
  expect_unary<T>([](V a) { return sqrt(a); }, [](T a) { return std::sqrt(a); });
  expect_unary<T>([](V a) { return round(a); }, [](T a) { return std::nearbyint(a); });
  expect_unary<T>([](V a) { return floor(a); }, [](T a) { return std::floor(a); });
  expect_binary<T>([](V a, V b) { return copysign(a, b); },
                   [](T a, T b) { return std::copysign(a, b); });
}

TYPED_TEST(SimdTest, FusedMultiplyAddRoundsOnce) {
  using T = TypeParam;
  const T e = std::numeric_limits<T>::epsilon();
#if !defined(__FMA__) && !defined(__ARM_FEATURE_FMA)
  GTEST_SKIP() << "no FMA in this instruction set";
#endif
  for (const T y : lanes_of(fma(Vec<T>(1 + e), Vec<T>(1 - e), Vec<T>(-1)))) EXPECT_EQ(y, -e * e);
  for (const T y : lanes_of(fnma(Vec<T>(1 + e), Vec<T>(1 - e), Vec<T>(1)))) EXPECT_EQ(y, e * e);
}

TYPED_TEST(SimdTest, MinMaxAndClampPropagateNaN) {
  using T = TypeParam;
  using V = Vec<T>;
  const auto least = [](T a, T b) { return std::isnan(a) || a < b ? a : b; };
  const auto most = [](T a, T b) { return std::isnan(a) || a > b ? a : b; };
  expect_binary<T>([](V a, V b) { return min(a, b); }, least);
  expect_binary<T>([](V a, V b) { return max(a, b); }, most);
  expect_unary<T>([](V a) { return clamp(a, V(T(-2)), V(T(3))); },
                  [](T a) { return a < -2  ? T(-2)
                                   : a > 3 ? T(3)
                                           : a; });
  expect_unary<T>([](V a) { return max_number(a, V(T(1))); }, [](T a) { return a < 1 ? T(1) : a; });
}

TYPED_TEST(SimdTest, Comparisons) {
  using T = TypeParam;
  using V = Vec<T>;
  const V one(T(1)), zero(T(0));
  for (const T a : interesting<T>()) {
    for (const T b : interesting<T>()) {
      const auto is = [&](auto mask) { return lanes_of(select(mask, one, zero)).back() == 1; };
      const V u(a), v(b);
      EXPECT_EQ(is(u < v), a < b);
      EXPECT_EQ(is(u <= v), a <= b);
      EXPECT_EQ(is(u > v), a > b);
      EXPECT_EQ(is(u >= v), a >= b);
      EXPECT_EQ(is(u == v), a == b);
      EXPECT_EQ(is(u != v), a != b);
      EXPECT_EQ((u < v).any(), a < b);
      EXPECT_EQ((u < v).all(), a < b);
      EXPECT_EQ(is(is_nan(u) | (u < v)), std::isnan(a) || a < b);
      EXPECT_EQ(is(is_nan(u) & is_nan(v)), std::isnan(a) && std::isnan(b));
      EXPECT_EQ(is(!is_nan(u)), !std::isnan(a));
    }
  }
}

TYPED_TEST(SimdTest, MaskedLoadsKeepTheRest) {
  using T = TypeParam;
  constexpr int w = Vec<T>::lanes;
  for (int n = 0; n <= w; ++n) {
    const std::vector<T> x(w - n, T(3));  // nothing before its first lane
    const auto y = lanes_of(Vec<T>::load(x.data() - n, !first_mask<T>(n), Vec<T>(T(5))));
    for (int i = 0; i < w; ++i) EXPECT_EQ(y[i], i < n ? 5 : 3);
  }
}

TYPED_TEST(SimdTest, InterleavesBothWays) {
  using T = TypeParam;
  constexpr int w = Vec<T>::lanes;
  std::vector<T> x(2 * w);
  for (int i = 0; i < 2 * w; ++i) x[i] = T(i);
  Vec<T> even, odd, a, b;
  deinterleave(Vec<T>::load(x.data()), Vec<T>::load(x.data() + w), even, odd);
  for (int i = 0; i < w; ++i) {
    EXPECT_EQ(lanes_of(even)[i], 2 * i);
    EXPECT_EQ(lanes_of(odd)[i], 2 * i + 1);
  }
  interleave(even, odd, a, b);
  for (int i = 0; i < w; ++i) {
    EXPECT_EQ(lanes_of(a)[i], i);
    EXPECT_EQ(lanes_of(b)[i], w + i);
  }
}

TYPED_TEST(SimdTest, MasksCountLanes) {
  using T = TypeParam;
  for (int n = 0; n <= Vec<T>::lanes; ++n) {
    const auto mask = first_mask<T>(n);
    EXPECT_EQ(mask.any(), n > 0);
    EXPECT_EQ(mask.all(), n == Vec<T>::lanes);
    const auto y = lanes_of(select(mask, Vec<T>(T(7)), Vec<T>(T(9))));
    for (int i = 0; i < Vec<T>::lanes; ++i) EXPECT_EQ(y[i], i < n ? 7 : 9);
  }
}

// Two pages, the second without access: reading or writing past `end()` kills the process.
class Fence {
 public:
  Fence() : size_(static_cast<std::size_t>(sysconf(_SC_PAGESIZE))) {
    base_ = static_cast<char*>(
        mmap(nullptr, 2 * size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    mprotect(base_ + size_, size_, PROT_NONE);
  }
  ~Fence() { munmap(base_, 2 * size_); }
  template <class T>
  T* last(int n) const {
    return reinterpret_cast<T*>(base_ + size_) - n;
  }

 private:
  std::size_t size_;
  char* base_;
};

template <class T, class Element>
void expect_partial_memory_access() {
  const Fence fence;
  for (int n = 0; n <= Vec<T>::lanes; ++n) {
    Element* p = fence.last<Element>(n);
    for (int i = 0; i < n; ++i) p[i] = Element(i + 1);
    const auto v = lanes_of(Vec<T>::load(p, n));
    for (int i = 0; i < Vec<T>::lanes; ++i) EXPECT_EQ(v[i], i < n ? T(i + 1) : T(0));
    std::memset(fence.last<char>(1024), 0x55, 1024);
    Vec<T>(T(3)).store(p, n);
    for (int i = 0; i < n; ++i) EXPECT_EQ(p[i], Element(3));
    EXPECT_EQ(fence.last<char>(n * static_cast<int>(sizeof(Element)) + 1)[0], 0x55);
  }
}

TYPED_TEST(SimdTest, PartialLoadsAndStoresStayInBounds) {
  using T = TypeParam;
  expect_partial_memory_access<T, T>();
  expect_partial_memory_access<T, std::int8_t>();
  expect_partial_memory_access<T, std::uint8_t>();
  expect_partial_memory_access<T, std::int32_t>();
}

template <class T, class Integer>
void expect_saturation(T lowest, T highest) {
  Integer y[Vec<T>::lanes];
  for (const T x : interesting<T>()) {
    Vec<T>(x).store(y);
    const T r = std::nearbyint(x);
    const T expected = std::isnan(x) || r < lowest ? lowest : r > highest ? highest : r;
    for (const Integer v : y) EXPECT_EQ(T(v), expected) << x;
  }
}

TYPED_TEST(SimdTest, IntegerStoresRoundToEvenAndSaturate) {
  using T = TypeParam;
  expect_saturation<T, std::int8_t>(-128, 127);
  expect_saturation<T, std::uint8_t>(0, 255);
  expect_saturation<T, std::int32_t>(T(-2147483648.0),
                                     sizeof(T) == 4 ? T(2147483520.0) : T(2147483647.0));
}

TYPED_TEST(SimdTest, IntegerLoads) {
  using T = TypeParam;
  std::int8_t s8[Vec<T>::lanes];
  std::uint8_t u8[Vec<T>::lanes];
  std::int32_t s32[Vec<T>::lanes];
  for (int i = 0; i < Vec<T>::lanes; ++i) {
    s8[i] = static_cast<std::int8_t>(-128 + 17 * i);
    u8[i] = static_cast<std::uint8_t>(255 - 17 * i);
    s32[i] = -1'000'000 * i;
  }
  const auto a = lanes_of(Vec<T>::load(s8)), b = lanes_of(Vec<T>::load(u8)),
             c = lanes_of(Vec<T>::load(s32));
  for (int i = 0; i < Vec<T>::lanes; ++i) {
    EXPECT_EQ(a[i], T(s8[i]));
    EXPECT_EQ(b[i], T(u8[i]));
    EXPECT_EQ(c[i], T(s32[i]));
  }
}

TYPED_TEST(SimdTest, ReductionsCoverEveryLane) {
  using T = TypeParam;
  constexpr int n = Vec<T>::lanes;
  T x[n];
  for (int hot = 0; hot < n; ++hot) {
    for (int i = 0; i < n; ++i) x[i] = T(i == hot ? 100 : i);
    const T sum = T(n * (n - 1) / 2 - hot + 100);
    EXPECT_EQ(reduce_add(Vec<T>::load(x)), sum);
    EXPECT_EQ(reduce_max(Vec<T>::load(x)), 100);
    EXPECT_EQ(reduce_min(-Vec<T>::load(x)), -100);
    x[hot] = T(kNaN);
    EXPECT_TRUE(std::isnan(reduce_add(Vec<T>::load(x))));
    EXPECT_TRUE(std::isnan(reduce_max(Vec<T>::load(x))));
    EXPECT_TRUE(std::isnan(reduce_min(Vec<T>::load(x))));
  }
  EXPECT_EQ(Vec<T>(T(5)).first_lane(), 5);
}

TYPED_TEST(SimdTest, ScalingByPowersOfTwo) {
  using T = TypeParam;
  const int bias = std::numeric_limits<T>::max_exponent - 1;
  for (int n = -2 * bias + 2; n <= 2 * bias - 2; n += 3) {
    for (const T m : {T(1), T(1.375), T(-1) - std::numeric_limits<T>::epsilon()}) {
      for (const T y : lanes_of(ldexp(Vec<T>(m), Vec<T>(T(n))))) EXPECT_EQ(y, std::ldexp(m, n));
      if (std::abs(n) >= bias) continue;
      for (const T y : lanes_of(ldexp_normal(Vec<T>(m), Vec<T>(T(n)))))
        EXPECT_EQ(y, std::ldexp(m, n));
    }
  }
}

TYPED_TEST(SimdTest, ExponentAndMantissaRebuildTheValue) {
  using T = TypeParam;
  using L = std::numeric_limits<T>;
  for (int n = L::min_exponent - L::digits; n < L::max_exponent; ++n) {
    for (const T f : {T(1), T(1.25), T(1.5), T(2) - L::epsilon()}) {
      const T x = std::ldexp(f, n);
      if (x == 0 || std::isinf(x)) continue;
      Vec<T> m, e;
      split_exponent(Vec<T>(x), m, e);
      const T mantissa = m.first_lane(), exponent = e.first_lane();
      EXPECT_TRUE(mantissa >= T(0.75) && mantissa < T(1.5)) << x;
      EXPECT_EQ(std::ldexp(mantissa, static_cast<int>(exponent)), x);
    }
  }
}

TEST(Math, FlushingExponentialIsExactWhereItMustBe) {
  EXPECT_EQ(exp_nonpositive(Vec<float>(0.f)).first_lane(), 1.f);
  EXPECT_EQ(exp_nonpositive(Vec<float>(-kInf)).first_lane(), 0.f);
  EXPECT_EQ(exp_nonpositive(Vec<float>(-1e30f)).first_lane(), 0.f);
  EXPECT_EQ(exp_nonpositive(Vec<float>(-88.f)).first_lane(), 0.f);
  EXPECT_TRUE(std::isnan(exp_nonpositive(Vec<float>(kNaN)).first_lane()));
  for (float x = -87.33f; x <= 0; x += 0.0011f) {
    const double exact = std::exp(static_cast<double>(x));
    EXPECT_NEAR(exp_nonpositive(Vec<float>(x)).first_lane() / exact, 1, 0x1p-23);
  }
}

TEST(Activations, LimitsAreFiniteAndNaNPropagates) {
  const auto at = [](float x, auto f) { return f(Vec<float>(x)).first_lane(); };
  const auto check = [&](auto f, float left, float right) {
    EXPECT_NEAR(at(-kInf, f), left, 1e-7);
    EXPECT_NEAR(at(-1e30f, f), left, 1e-7);
    EXPECT_EQ(at(kInf, f), right);
    EXPECT_TRUE(std::isnan(at(kNaN, f)));
  };
  using V = Vec<float>;
  check([](V v) { return relu(v); }, 0, kInf);
  check([](V v) { return silu(v); }, 0, kInf);
  check([](V v) { return softplus(v); }, 0, kInf);
  check([](V v) { return gelu(v); }, 0, kInf);
  check([](V v) { return gelu_tanh(v); }, 0, kInf);
  check([](V v) { return silu_derivative(v); }, 0, 1);
  check([](V v) { return gelu_derivative(v); }, 0, 1);
  check([](V v) { return gelu_tanh_derivative(v); }, 0, 1);
}

}  // namespace
}  // namespace vectile::VECTILE_TIER
