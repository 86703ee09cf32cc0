#include "ops/loss.h"

#include <limits>

#include "ops/indices.h"
#include "ops/staging.h"

namespace vectile::ops {
namespace {

// Checked targets, with every ignored one as -1, and how many are left.
struct Targets {
  Buffer<i64> index;
  i64 kept = 0;
};

Targets check_arguments(const char* op, const TensorView& logits, const TensorView& targets,
                        const CrossEntropyOptions& o) {
  cross_entropy_args(op, logits, targets, o);
  Targets t{checked_indices(op, "targets", targets, logits.shape.back(), &o.ignore_index)};
  const i64 rows = targets.elements();
  for (i64 r = 0; r < rows; ++r) {
    if (t.index[r] == o.ignore_index)
      t.index[r] = -1;
    else
      ++t.kept;
  }
  return t;
}

}  // namespace

CrossEntropy cross_entropy(const TensorView& logits, const TensorView& targets,
                           const CrossEntropyOptions& o) {
  const Targets t = check_arguments("cross_entropy", logits, targets, o);
  const Array x = readable_rows(logits);
  const i64 n = x.shape.back(), rows = targets.elements();
  const DType compute = compute_dtype(x.dtype);
  CrossEntropy result{Array::empty(compute, targets.shape), Array::empty(compute, targets.shape)};
  dispatch_float(x.dtype, [&](auto zero) {
    using T = decltype(zero);
    const auto kernel = kernels_of<T>().cross_entropy;
    T* each = result.loss.as<T>();
    staged_ranges<T>(
        rows, rows_grain(n),
        [&](i64 r, i64 count, const T* from) {
          kernel(from, t.index.get() + r, o.label_smoothing, each + r, result.lse.as<T>() + r,
                 count, n);
        },
        reading<T>(x, n));
    if (o.reduction == LossReduction::none) {
      result.loss = narrowed(std::move(result.loss), x.dtype);
      return;
    }
    double total = 0;
    for (i64 r = 0; r < rows; ++r) total += each[r];
    if (o.reduction == LossReduction::mean)
      total =
          t.kept ? total / static_cast<double>(t.kept) : std::numeric_limits<double>::quiet_NaN();
    result.loss = Array::full(x.dtype, Shape(), total);
  });
  return result;
}

Array cross_entropy_backward(const TensorView& grad, const TensorView& logits,
                             const TensorView& targets, const TensorView& lse,
                             const CrossEntropyOptions& o) {
  constexpr const char* op = "cross_entropy_backward";
  const Targets t = check_arguments(op, logits, targets, o);
  cross_entropy_backward_args(op, grad, logits, targets, lse, o);
  const bool per_row = o.reduction == LossReduction::none;
  const Array x = readable_rows(logits), g = widened(grad), l = widened(lse);
  const i64 n = x.shape.back(), rows = targets.elements();
  Array dx = Array::empty(x.dtype, x.shape);
  dispatch_float(x.dtype, [&](auto zero) {
    using T = decltype(zero);
    const auto kernel = kernels_of<T>().cross_entropy_backward;
    T shared = per_row ? T(0) : *g.as<T>();
    if (o.reduction == LossReduction::mean) shared /= static_cast<T>(t.kept);
    const T* scale = per_row ? g.as<T>() : &shared;
    staged_ranges<T>(
        rows, rows_grain(n),
        [&](i64 r, i64 count, const T* from, Out<T> to) {
          kernel(from, t.index.get() + r, l.as<T>() + r, scale + r * per_row, per_row,
                 o.label_smoothing, to, count, n);
        },
        reading<T>(x, n), producing<T>(dx, n));
  });
  return dx;
}

}  // namespace vectile::ops
