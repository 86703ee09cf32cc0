#include "ops/norm.h"

#include <algorithm>

namespace vectile::ops {
namespace {

// Blocks of rows whose weight gradients are summed apart and then added in order. Their number
// bounds the memory for partial sums and depends on the problem only.
constexpr i64 kMaxBlocks = 64;

i64 row_count(const Shape& shape) { return without_last(shape).elements(); }

Array per_row(const TensorView& x, bool wanted) {
  return wanted ? Array::empty(x.dtype, without_last(x.shape)) : Array();
}

void check_input(const char* op, const TensorView& x, double eps) {
  check_float(op, "x", x);
  check(x.ndim() > 0, op, "x", "ndim", "at least 1", 0);
  check(eps >= 0, op, "eps", "value", "at least 0", eps);
}

// A parameter of shape (n,), row-major; empty when it is not given.
Array parameter(const char* op, const char* name, const TensorView* p, const TensorView& x) {
  if (!p) return {};
  check_same_dtype(op, name, *p, x);
  check_shape(op, name, *p, Shape(x.shape.back()));
  return contiguous(*p);
}

Array statistic(const char* op, const char* name, const TensorView& s, const TensorView& x) {
  check_same_dtype(op, name, s, x);
  check_shape(op, name, s, without_last(x.shape));
  return contiguous(s);
}

NormGradient backward(const char* op, const TensorView& grad, const TensorView& x,
                      const TensorView* weight, const TensorView* mean, const TensorView& rstd) {
  check_input(op, x, 0);
  check_same_dtype(op, "grad", grad, x);
  check_shape(op, "grad", grad, x.shape);
  const Array w = parameter(op, "weight", weight, x);
  const Array m = mean ? statistic(op, "mean", *mean, x) : Array();
  const Array s = statistic(op, "rstd", rstd, x);
  const Array g = contiguous(grad), in = contiguous(x);
  const i64 n = x.shape.back(), rows = row_count(x.shape);
  NormGradient result;
  result.dx = Array::empty(x.dtype, x.shape);
  if (weight) result.dweight = Array::zeros(x.dtype, w.shape);
  if (weight && mean) result.dbias = Array::zeros(x.dtype, w.shape);
  if (x.elements() == 0) return result;
  const i64 block = std::max(rows_grain(n), ceil_div(rows, kMaxBlocks));
  const i64 blocks = ceil_div(rows, block);
  dispatch_float(x.dtype, [&](auto t) {
    using T = decltype(t);
    const auto& k = kernels_of<T>();
    // One block writes the gradients themselves; several write (blocks, 2, n) partial sums.
    const bool direct = blocks == 1 || !weight;
    const Buffer<T> partial(direct ? 0 : blocks * 2 * n);
    parallel_ranges(rows, block, [&](i64 begin, i64 end) {
      T* dw = direct ? result.dweight.as<T>() : partial.get() + begin / block * 2 * n;
      T* db = direct ? result.dbias.as<T>() : dw + n;
      const i64 at = begin * n, count = end - begin;
      if (mean)
        k.layer_norm_backward(g.as<T>() + at, in.as<T>() + at, w.as<T>(), m.as<T>() + begin,
                              s.as<T>() + begin, result.dx.as<T>() + at, dw, db, count, n);
      else
        k.rms_norm_backward(g.as<T>() + at, in.as<T>() + at, w.as<T>(), s.as<T>() + begin,
                            result.dx.as<T>() + at, dw, count, n);
    });
    if (direct) return;
    parallel_ranges(n, std::max<i64>(64, kGrain / blocks), [&](i64 begin, i64 end) {
      const T* from = partial.get() + begin;
      k.column_sum(from, 2 * n, result.dweight.as<T>() + begin, blocks, end - begin);
      if (mean) k.column_sum(from + n, 2 * n, result.dbias.as<T>() + begin, blocks, end - begin);
    });
  });
  return result;
}

}  // namespace

Normalised layer_norm(const TensorView& x, const TensorView* weight, const TensorView* bias,
                      double eps, bool stats) {
  constexpr const char* op = "layer_norm";
  check_input(op, x, eps);
  const Array w = parameter(op, "weight", weight, x), b = parameter(op, "bias", bias, x);
  const Array in = contiguous(x);
  Normalised result{Array::empty(x.dtype, x.shape), per_row(x, stats), per_row(x, stats)};
  const i64 n = x.shape.back();
  dispatch_float(x.dtype, [&](auto t) {
    using T = decltype(t);
    const auto kernel = kernels_of<T>().layer_norm;
    T *mean = result.mean.as<T>(), *rstd = result.rstd.as<T>();
    parallel_ranges(row_count(x.shape), rows_grain(n), [&](i64 begin, i64 end) {
      kernel(in.as<T>() + begin * n, w.as<T>(), b.as<T>(), eps, result.y.as<T>() + begin * n,
             mean ? mean + begin : nullptr, rstd ? rstd + begin : nullptr, end - begin, n);
    });
  });
  return result;
}

Normalised rms_norm(const TensorView& x, const TensorView* weight, double eps, bool stats) {
  constexpr const char* op = "rms_norm";
  check_input(op, x, eps);
  const Array w = parameter(op, "weight", weight, x);
  const Array in = contiguous(x);
  Normalised result{Array::empty(x.dtype, x.shape), {}, per_row(x, stats)};
  const i64 n = x.shape.back();
  dispatch_float(x.dtype, [&](auto t) {
    using T = decltype(t);
    const auto kernel = kernels_of<T>().rms_norm;
    T* rstd = result.rstd.as<T>();
    parallel_ranges(row_count(x.shape), rows_grain(n), [&](i64 begin, i64 end) {
      kernel(in.as<T>() + begin * n, w.as<T>(), eps, result.y.as<T>() + begin * n,
             rstd ? rstd + begin : nullptr, end - begin, n);
    });
  });
  return result;
}

NormGradient layer_norm_backward(const TensorView& grad, const TensorView& x,
                                 const TensorView* weight, const TensorView& mean,
                                 const TensorView& rstd) {
  return backward("layer_norm_backward", grad, x, weight, &mean, rstd);
}

NormGradient rms_norm_backward(const TensorView& grad, const TensorView& x,
                               const TensorView* weight, const TensorView& rstd) {
  return backward("rms_norm_backward", grad, x, weight, nullptr, rstd);
}

}  // namespace vectile::ops
