// cross_entropy fused with log-softmax: 1. maximum of the row and sum of exp(x - max); 2. sum of x
// - max where labels are smoothed. The loss is taken from x - max, so it does not lose digits to a
// large lse.
#include "kernels/exp_sum.h"

namespace vectile::VECTILE_TIER {

template <class T>
static void cross_entropy(const T* x, const i64* targets, double smoothing, T* loss, T* lse,
                          i64 rows, i64 n) {
  using V = Vec<T>;
  for (i64 r = 0; r < rows; ++r, x += n) {
    const ExpSum<T> s = exp_sum(x, n);
    const T top = s.top;
    const V shift(top);
    const double log_sum = __builtin_log(s.masked ? __builtin_nan("") : s.sum);
    lse[r] = static_cast<T>(top + log_sum);
    if (targets[r] < 0) {
      loss[r] = T(0);
      continue;
    }
    double value = (1 - smoothing) * (log_sum - (double(x[targets[r]]) - double(top)));
    if (smoothing != 0) {
      const auto centred = row_sums<T>(n, [&](auto& s, i64 j, auto... k) VECTILE_LAMBDA {
        s.a += V::load(x + j, k...) - shift;
      });
      value += smoothing * (log_sum - centred.a / static_cast<double>(n));
    }
    loss[r] = static_cast<T>(value);
  }
}

template <class T>
static void cross_entropy_backward(const T* x, const i64* targets, const T* lse, const T* scale,
                                   i64 scale_stride, double smoothing, Out<T> dx, i64 rows, i64 n) {
  using V = Vec<T>;
  const V share(static_cast<T>(smoothing / static_cast<double>(n)));
  for (i64 r = 0; r < rows; ++r, x += n, dx = dx.at(n)) {
    if (targets[r] < 0) {
      row_map(dx, n, [](i64, auto...) VECTILE_LAMBDA { return V(); });
      continue;
    }
    const V s(scale[r * scale_stride]), shift(lse[r]);
    // x - lse is not positive but for a rounding of lse.
    const auto p = [=](V v) VECTILE_LAMBDA { return exp_nonpositive(v - shift) - share; };
    row_map(dx, n, [&](i64 j, auto... k) VECTILE_LAMBDA { return s * p(V::load(x + j, k...)); });
    const i64 t = targets[r];
    (s * (p(V(x[t])) - V(static_cast<T>(1 - smoothing)))).store(dx.data + t, 1);
  }
  finish(dx);
}

}  // namespace vectile::VECTILE_TIER

#include "kernels/register.h"
