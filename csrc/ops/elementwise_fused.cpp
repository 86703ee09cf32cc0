// bias, activation and dropout in one pass over memory: the kernels of each follow one another on a
// piece that stays in the first-level cache. The backward computes the sum and the mask again.
#include <algorithm>
#include <iterator>

#include "ops/elementwise.h"
#include "ops/elementwise_args.h"
#include "ops/reduce.h"
#include "ops/staging.h"

namespace vectile::ops {
namespace {

constexpr i64 kPiece = 1 << 12;  // a multiple of the elements that share a dropout counter block

struct Step {
  FloatOp<UnaryKernel> f;
  FloatOp<GradientKernel> slope;
  bool from_result;  // the slope takes the activation's result, not its argument
};
constexpr Step kSteps[] = {
    // in the order of Activation, without none
    {VECTILE_FLOAT_OP(relu, relu), VECTILE_FLOAT_OP(relu, relu_backward), true},
    {VECTILE_FLOAT_OP(gelu, gelu), VECTILE_FLOAT_OP(gelu, gelu_backward), false},
    {VECTILE_FLOAT_OP(gelu, gelu_tanh), VECTILE_FLOAT_OP(gelu, gelu_tanh_backward), false},
    {VECTILE_FLOAT_OP(silu, silu), VECTILE_FLOAT_OP(silu, silu_backward), false},
    {VECTILE_FLOAT_OP(tanh, tanh), VECTILE_FLOAT_OP(tanh, tanh_backward), true},
    {VECTILE_FLOAT_OP(sigmoid, sigmoid), VECTILE_FLOAT_OP(sigmoid, sigmoid_backward), true},
};
static_assert(std::size(kSteps) == static_cast<std::size_t>(Activation::sigmoid));

// What both directions check and share; all arrays row-major.
struct Fused {
  Array x, bias;
  const Step* activation;
  double p;
  std::uint64_t seed;

  Fused(const char* op, const TensorView& input, const TensorView* b, Activation f, double rate,
        std::uint64_t key)
      : activation(f == Activation::none ? nullptr : &kSteps[static_cast<int>(f) - 1]),
        p(rate),
        seed(key) {
    fused_args(op, input, b, rate);
    if (b) bias = vectile::contiguous(*b);
    x = vectile::contiguous(input);
  }

  // Calls fn(first element, elements) for every piece.
  template <class F>
  void each_piece(F&& fn) const {
    parallel_ranges(x.elements(), kGrain, [&](i64 begin, i64 end) {
      for (i64 i = begin; i < end; i += kPiece) fn(i, std::min(kPiece, end - i));
    });
  }

  // y = x + bias for the elements [begin, begin + count)
  template <class T>
  void biased(i64 begin, i64 count, T* y) const {
    const T* from = x.as<T>() + begin;
    if (!bias.data) {
      std::copy_n(from, count, y);
      return;
    }
    const i64 n = x.shape.back();
    const T* b = bias.as<T>();
    const auto add = kernels_of<T>().add;
    for (i64 i = 0; i < count;) {
      const i64 j = (begin + i) % n, left = count - i;
      const i64 rows = j == 0 ? left / n : 0, m = rows ? n : std::min(n - j, left);
      add({from + i, n, 1}, {b + j, 0, 1}, y + i, std::max<i64>(1, rows), m);
      i += std::max<i64>(1, rows) * m;
    }
  }

  // y = the mask's elements of v, scaled
  template <class T>
  void masked(const T* v, T* y, i64 begin, i64 count) const {
    if (p == 1)
      std::fill_n(y, count, T(0));
    else if (p > 0)
      kernels_of<T>().dropout(v, y, begin, count, seed, static_cast<std::uint32_t>(p * 0x1p32),
                              static_cast<T>(1 / (1 - p)));
    else if (v != y)
      std::copy_n(v, count, y);
  }
};

}  // namespace

Array bias_activation_dropout(const TensorView& x, const TensorView* bias, Activation activation,
                              double p, std::uint64_t seed) {
  const Fused f("bias_activation_dropout", x, bias, activation, p, seed);
  if (is_half(x.dtype))
    return in_float32(x.dtype, bias_activation_dropout, x, bias, activation, p, seed);
  Array y = Array::empty(x.dtype, x.shape);
  dispatch_float(x.dtype, [&](auto t) {
    using T = decltype(t);
    f.each_piece([&](i64 i, i64 n) {
      T* to = y.as<T>() + i;
      f.biased(i, n, to);
      if (f.activation) f.activation->f.kernel<T>()(to, to, n);
      f.masked(to, to, i, n);
    });
  });
  return y;
}

BiasActivationDropoutGradient bias_activation_dropout_backward(const TensorView& grad,
                                                               const TensorView& x,
                                                               const TensorView* bias,
                                                               Activation activation, double p,
                                                               std::uint64_t seed) {
  constexpr const char* op = "bias_activation_dropout_backward";
  const Fused f(op, x, bias, activation, p, seed);
  check_same_dtype(op, "grad", grad, x);
  check_shape(op, "grad", grad, x.shape);
  if (is_half(x.dtype))
    return in_float32(x.dtype, bias_activation_dropout_backward, grad, x, bias, activation, p,
                      seed);
  const Array g = contiguous(grad);
  BiasActivationDropoutGradient r;
  r.dx = Array::empty(x.dtype, x.shape);
  dispatch_float(x.dtype, [&](auto t) {
    using T = decltype(t);
    f.each_piece([&](i64 i, i64 n) {
      T* to = r.dx.template as<T>() + i;
      f.masked(g.as<T>() + i, to, i, n);
      if (!f.activation) return;
      alignas(64) T u[kPiece];
      f.biased(i, n, u);
      if (f.activation->from_result) f.activation->f.kernel<T>()(u, u, n);
      f.activation->slope.kernel<T>()(to, u, to, n);
    });
  });
  if (bias) r.dbias = sum_to(r.dx, bias->shape);
  return r;
}

}  // namespace vectile::ops
