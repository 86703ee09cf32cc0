// The sweep of the elementwise family expands from its .inc: a kernel is called by its signature.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "sweep.h"

namespace vectile::sweep {
namespace {

// Operands of one call on n elements, or on kRows lines of n.
constexpr i64 kRows = 3;
template <class T>
struct Operands {
  std::vector<T> x, grad, y, sums;
  i64 n;
  int form;  // of lines: which of the operands repeats one element per line; 2: stream the result

  Out<T> place() { return {y.data(), form == 2}; }
  Lines<T> lines(const std::vector<T>& v, bool repeated) const {
    return repeated ? Lines<T>{v.data(), 1, 0} : Lines<T>{v.data(), n, 1};
  }
};

template <class T>
void call(void (*kernel)(const T*, Out<T>, i64), Operands<T>& o) {
  kernel(o.x.data(), o.place(), kRows * o.n);
}
template <class T>
void call(void (*kernel)(const T*, const T*, Out<T>, i64), Operands<T>& o) {
  kernel(o.grad.data(), o.x.data(), o.place(), kRows * o.n);
}
template <class T>
void call(void (*kernel)(const T*, T, Out<T>, i64), Operands<T>& o) {
  kernel(o.x.data(), T(0.25), o.place(), kRows * o.n);
}
template <class T>
void call(void (*kernel)(const T*, const T*, T, Out<T>, i64), Operands<T>& o) {
  kernel(o.grad.data(), o.x.data(), T(0.25), o.place(), kRows * o.n);
}
template <class T>
void call(void (*kernel)(Lines<T>, Lines<T>, Out<T>, i64, i64), Operands<T>& o) {
  kernel(o.lines(o.x, o.form == 1), o.lines(o.grad, o.form == 2), o.place(), kRows, o.n);
}
template <class T>
void call(void (*kernel)(const T*, const T*, Lines<T>, T*, T*, i64, i64), Operands<T>& o) {
  kernel(o.grad.data(), o.x.data(), o.lines(o.grad, o.form == 1), o.y.data(), o.sums.data(), kRows,
         o.n);
}
template <class T>
void call(void (*kernel)(const T*, T*, i64, i64, uint64_t, uint32_t, T), Operands<T>& o) {
  kernel(o.x.data(), o.y.data(), 0, kRows * o.n, 1234567, 1u << 30, T(1.25));
}

// Zeros, numbers around 1, small and large ones, infinity and NaN. Every x of a float32 call is in
// [-0x1p60, 0x1p60] or none of the numbers.
template <class T>
Operands<T> operands(i64 n, int form) {
  Operands<T> o{{}, {},  {}, std::vector<T>(static_cast<std::size_t>(std::max(n, kRows)), T(0)),
                n,  form};
  std::mt19937 engine(7);
  std::uniform_real_distribution<float> draw(-4, 4);
  constexpr float kInf = std::numeric_limits<float>::infinity();
  constexpr float kSpecial[] = {0.f,
                                -0.f,
                                1e-30f,
                                -1e-4f,
                                25.f,
                                -25.f,
                                0x1p60f,
                                -0x1p60f,
                                kInf,
                                -kInf,
                                std::numeric_limits<float>::quiet_NaN()};
  for (i64 i = 0; i < kRows * n; ++i) {
    const float x = draw(engine), g = draw(engine);
    o.x.push_back(i % 5 == 3 ? kSpecial[i / 5 % std::size(kSpecial)] : x);
    o.grad.push_back(g);
  }
  o.y.assign(static_cast<std::size_t>(kRows * n + 16), T(-77));
  return o;
}

// Relative to the result, and where that is a difference to x and grad: |error| <= 16 eps of their
// sum.
void expect_result(double got, double exact, double scale) {
  if (std::fabs(exact) > std::numeric_limits<float>::max()) exact = std::copysign(INFINITY, exact);
  if (!std::isfinite(exact)) {
    EXPECT_TRUE(got == exact || (std::isnan(got) && std::isnan(exact))) << got << " for " << exact;
    return;
  }
  constexpr double eps = std::numeric_limits<float>::epsilon();
  EXPECT_LE(std::fabs(got - exact), 16 * eps * (std::fabs(exact) + scale) + 0x1p-140)
      << got << " for " << exact;
}

template <class Narrow, class Wide>
void sweep_kernel(const char* name, Narrow elementwise_of<float>::* narrow,
                  Wide elementwise_of<double>::* wide) {
  for (const i64 n : kLengths)
    for (const int form : {0, 1, 2}) {
      auto exact = operands<double>(n, form);
      const std::string before = active_tier();
      set_tier("scalar");
      call(kernels_of<double>().*wide, exact);
      set_tier(before);
      each_tier([&](const std::string& tier) {
        SCOPED_TRACE(text(name, " of ", n, " form ", form, " on ", tier));
        auto got = operands<float>(n, form);
        call(kernels_of<float>().*narrow, got);
        for (std::size_t i = 0; i < got.x.size(); ++i) {
          const double x = std::fabs(exact.x[i]), g = std::fabs(exact.grad[i]);
          expect_result(got.y[i], exact.y[i], (x < 1e3 ? x : 1e3) + g);
        }
        for (std::size_t i = got.x.size(); i < got.y.size(); ++i) EXPECT_EQ(got.y[i], -77);
        double all = 0;  // what a sum may hold: one infinity or NaN rules it
        for (std::size_t i = 0; i < got.x.size(); ++i)
          all += std::isfinite(exact.x[i]) ? std::fabs(exact.x[i] * exact.grad[i]) : 0;
        for (std::size_t i = 0; i < got.sums.size(); ++i)
          expect_result(got.sums[i], exact.sums[i], all);
      });
    }
}

}  // namespace

void sweep_elementwise() {
#define VECTILE_KERNEL_T(name, args) \
  sweep_kernel(#name, &elementwise_of<float>::name, &elementwise_of<double>::name);
#include "kernels/elementwise.inc"
#undef VECTILE_KERNEL_T
}

}  // namespace vectile::sweep
