#include "ops/norm.h"

#include <algorithm>

#include "ops/norm_args.h"
#include "ops/staging.h"

namespace vectile::ops {
namespace {

// Blocks of rows whose weight gradients are summed apart and then added in order. Their number
// bounds the memory for partial sums and depends on the problem only.
constexpr i64 kMaxBlocks = 64;

i64 row_count(const Shape& shape) { return without_last(shape).elements(); }

Array per_row(const TensorView& x, bool wanted) {
  return wanted ? Array::empty(compute_dtype(x.dtype), without_last(x.shape)) : Array();
}

// A parameter of shape (n,), row-major; empty when it is not given.
Array parameter(const char* op, const char* name, const TensorView* p, const TensorView& x) {
  norm_parameter_args(op, name, p, x);
  return p ? widened(*p) : Array();
}

NormGradient backward(const char* op, const TensorView& grad, const TensorView& x,
                      const TensorView* weight, const TensorView* mean, const TensorView& rstd) {
  norm_backward_args(op, grad, x, weight, mean, rstd);
  const Array w = weight ? widened(*weight) : Array();
  const Array m = mean ? widened(*mean) : Array(), s = widened(rstd);
  const Array g = contiguous(grad), in = contiguous(x);
  const i64 n = x.shape.back(), rows = row_count(x.shape);
  NormGradient result;
  result.dx = Array::empty(x.dtype, x.shape);
  if (weight) result.dweight = Array::zeros(w.dtype, w.shape);
  if (weight && mean) result.dbias = Array::zeros(w.dtype, w.shape);
  const auto finish = [&] {
    if (!weight) return std::move(result);
    result.dweight = narrowed(std::move(result.dweight), weight->dtype);
    result.dbias = narrowed(std::move(result.dbias), weight->dtype);
    return std::move(result);
  };
  if (x.elements() == 0) return finish();
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
      // A kernel overwrites its sums: those of the pieces after the first are added.
      const bool pieces = weight && is_half(x.dtype);
      const Buffer<T> more(pieces ? 2 * n : 0);
      const auto run = [&](i64 r, i64 count, const T* pg, const T* px, T* dx) {
        const bool add = pieces && r > begin;
        T *sum_w = add ? more.get() : dw, *sum_b = add ? more.get() + n : db;
        if (mean)
          k.layer_norm_backward(pg, px, w.as<T>(), m.as<T>() + r, s.as<T>() + r, dx, sum_w, sum_b,
                                count, n);
        else
          k.rms_norm_backward(pg, px, w.as<T>(), s.as<T>() + r, dx, sum_w, count, n);
        if (!add) return;
        for (i64 j = 0; j < n; ++j) dw[j] += sum_w[j];
        if (mean)
          for (i64 j = 0; j < n; ++j) db[j] += sum_b[j];
      };
      staged_pieces<T>(begin, end, run, reading<T>(g, n), reading<T>(in, n),
                       writing<T>(result.dx, n));
    });
    if (direct) return;
    parallel_ranges(n, std::max<i64>(64, kGrain / blocks), [&](i64 begin, i64 end) {
      const T* from = partial.get() + begin;
      k.column_sum(from, 2 * n, result.dweight.as<T>() + begin, blocks, end - begin);
      if (mean) k.column_sum(from + n, 2 * n, result.dbias.as<T>() + begin, blocks, end - begin);
    });
  });
  return finish();
}

// Sums of a few rows are normalised while they are in the first-level cache:
// norm(kernels, sum, y, mean, rstd, rows) does so.
constexpr i64 kFewElements = 1 << 12;

template <class Norm>
AddNormalised add_and_norm(const char* op, const TensorView& x, const TensorView& residual,
                           bool mean, bool stats, Norm&& norm) {
  norm_residual_args(op, residual, x);
  const Array a = readable_rows(x), b = readable_rows(residual);
  AddNormalised result{Array::empty(x.dtype, x.shape), Array::empty(x.dtype, x.shape),
                       per_row(x, mean && stats), per_row(x, stats)};
  const i64 n = x.shape.back(), few = std::max<i64>(1, kFewElements / std::max<i64>(1, n));
  dispatch_float(x.dtype, [&](auto t) {
    using T = decltype(t);
    const auto& k = kernels_of<T>();
    T *m = result.mean.as<T>(), *s = result.rstd.as<T>();
    staged_ranges<T>(
        row_count(x.shape), rows_grain(n),
        [&](i64 first, i64 count, const T* pa, const T* pb, T* sum, Out<T> y) {
          for (i64 r = 0, rows; r < count; r += rows) {
            rows = std::min(few, count - r);
            const i64 at = r * n;
            k.add({pa + at, 0, 1}, {pb + at, 0, 1}, sum + at, 1, rows * n);
            norm(k, sum + at, y.at(at), m ? m + first + r : nullptr, s ? s + first + r : nullptr,
                 rows);
          }
        },
        reading<T>(a, n), reading<T>(b, n), writing<T>(result.sum, n), producing<T>(result.y, n));
  });
  return result;
}

}  // namespace

AddNormalised add_layer_norm(const TensorView& x, const TensorView& residual,
                             const TensorView* weight, const TensorView* bias, double eps,
                             bool stats) {
  constexpr const char* op = "add_layer_norm";
  norm_args(op, x, eps);
  const Array w = parameter(op, "weight", weight, x), b = parameter(op, "bias", bias, x);
  return add_and_norm(
      op, x, residual, true, stats,
      [&]<class T>(const FloatKernels<T>& k, const T* sum, Out<T> y, T* mean, T* rstd, i64 rows) {
        k.layer_norm(sum, w.as<T>(), b.as<T>(), eps, y, mean, rstd, rows, x.shape.back());
      });
}

AddNormalised add_rms_norm(const TensorView& x, const TensorView& residual,
                           const TensorView* weight, double eps, bool stats) {
  constexpr const char* op = "add_rms_norm";
  norm_args(op, x, eps);
  const Array w = parameter(op, "weight", weight, x);
  return add_and_norm(
      op, x, residual, false, stats,
      [&]<class T>(const FloatKernels<T>& k, const T* sum, Out<T> y, T*, T* rstd, i64 rows) {
        k.rms_norm(sum, w.as<T>(), eps, y, rstd, rows, x.shape.back());
      });
}

Normalised layer_norm(const TensorView& x, const TensorView* weight, const TensorView* bias,
                      double eps, bool stats) {
  constexpr const char* op = "layer_norm";
  norm_args(op, x, eps);
  const Array w = parameter(op, "weight", weight, x), b = parameter(op, "bias", bias, x);
  const Array in = readable_rows(x);
  Normalised result{Array::empty(x.dtype, x.shape), per_row(x, stats), per_row(x, stats)};
  const i64 n = x.shape.back();
  dispatch_float(x.dtype, [&](auto t) {
    using T = decltype(t);
    const auto kernel = kernels_of<T>().layer_norm;
    T *mean = result.mean.as<T>(), *rstd = result.rstd.as<T>();
    staged_ranges<T>(
        row_count(x.shape), rows_grain(n),
        [&](i64 r, i64 rows, const T* from, Out<T> to) {
          kernel(from, w.as<T>(), b.as<T>(), eps, to, mean ? mean + r : nullptr,
                 rstd ? rstd + r : nullptr, rows, n);
        },
        reading<T>(in, n), producing<T>(result.y, n));
  });
  return result;
}

Normalised rms_norm(const TensorView& x, const TensorView* weight, double eps, bool stats) {
  constexpr const char* op = "rms_norm";
  norm_args(op, x, eps);
  const Array w = parameter(op, "weight", weight, x);
  const Array in = readable_rows(x);
  Normalised result{Array::empty(x.dtype, x.shape), {}, per_row(x, stats)};
  const i64 n = x.shape.back();
  dispatch_float(x.dtype, [&](auto t) {
    using T = decltype(t);
    const auto kernel = kernels_of<T>().rms_norm;
    T* rstd = result.rstd.as<T>();
    staged_ranges<T>(
        row_count(x.shape), rows_grain(n),
        [&](i64 r, i64 rows, const T* from, Out<T> to) {
          kernel(from, w.as<T>(), eps, to, rstd ? rstd + r : nullptr, rows, n);
        },
        reading<T>(in, n), producing<T>(result.y, n));
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
