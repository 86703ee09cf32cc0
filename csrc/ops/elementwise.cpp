#include "ops/elementwise.h"

#include <algorithm>

#include "ops/elementwise_args.h"
#include "ops/staging.h"

namespace vectile::ops {
namespace {

// An operand of the type kernels compute in, or one of a half type that is row-major and as large
// as the result; anything else is widened or packed first.
Array operand(const TensorView& x, const Shape& result) {
  if (!is_half(x.dtype)) return Array(x);
  return x.shape == result ? contiguous(x) : widened(x);
}

template <class T>
void run_contiguous(BinaryKernel<T> kernel, const TensorView& a, const TensorView& b,
                    const Output& y) {
  staged_ranges<T>(
      y.view().elements(), kGrain,
      [&](i64, i64 n, const T* pa, const T* pb, Out<T> to) {
        kernel({pa, 0, 1}, {pb, 0, 1}, to, 1, n);
      },
      reading<T>(a, 1), reading<T>(b, 1), producing<T>(y, 1));
}

template <class T>
void run_broadcast(BinaryKernel<T> kernel, const Broadcast& p, const TensorView& x,
                   const TensorView& other, const Output& y) {
  const auto staged = [](const TensorView& v, i64 n) {
    return reading<T>(is_half(v.dtype) ? v : TensorView(), n);
  };
  const T *a = x.as<T>(), *b = other.as<T>();
  const int outer = std::max(0, p.shape.ndim - 2);
  const i64 n = p.shape.ndim >= 1 ? p.shape[-1] : 1, rows = p.shape.ndim >= 2 ? p.shape[-2] : 1;
  const Lines<T> la{a, p.shape.ndim >= 2 ? p.a[outer] : 0, p.inner_a()};
  const Lines<T> lb{b, p.shape.ndim >= 2 ? p.b[outer] : 0, p.inner_b()};
  const auto place = [&](i64 plane, const i64* strides) {
    i64 offset = 0;
    for (int i = outer - 1; i >= 0; --i) {
      offset += plane % p.shape[i] * strides[i];
      plane /= p.shape[i];
    }
    return offset;
  };
  if (rows == 1) {  // one line: cut it
    staged_ranges<T>(
        n, kGrain,
        [&](i64 at, i64 m, const T* pa, const T* pb, Out<T> to) {
          kernel(pa ? Lines<T>{pa, 0, 1} : Lines<T>{a + at * la.step, 0, la.step},
                 pb ? Lines<T>{pb, 0, 1} : Lines<T>{b + at * lb.step, 0, lb.step}, to, 1, m);
        },
        staged(x, 1), staged(other, 1), producing<T>(y, 1));
    return;
  }
  // Chunks of whole rows, which may span planes.
  staged_ranges<T>(
      p.shape.elements() / n, rows_grain(n),
      [&](i64 begin, i64 count, const T* pa, const T* pb, Out<T> to) {
        for (i64 done = 0, m; done < count; done += m) {
          const i64 plane = (begin + done) / rows, r = (begin + done) % rows;
          m = std::min(rows - r, count - done);
          kernel(pa ? Lines<T>{pa + done * n, n, 1}
                    : Lines<T>{a + place(plane, p.a) + r * la.row, la.row, la.step},
                 pb ? Lines<T>{pb + done * n, n, 1}
                    : Lines<T>{b + place(plane, p.b) + r * lb.row, lb.row, lb.step},
                 to.at(done * n), m, n);
        }
      },
      staged(x, n), staged(other, n), producing<T>(y, n));
}

// Elements of a row as operands share it: one, unless the rows of one of them lie apart.
template <class... View>
i64 row_length(const TensorView& x, const View&... more) {
  return (x.contiguous() && ... && more.contiguous()) ? 1 : x.shape.back();
}

// y = f(x) by chunks; kernel(T{}) is what does one: f(x, y, n) or f(x, y, n, first).
template <class Kernel>
Array map(const char* op, const TensorView& x, const TensorView* out, Kernel kernel) {
  check_floating(op, "x", x);
  const Array in = readable_rows(x);
  Output y(op, x.dtype, x.shape, out, {&x});
  const i64 width = row_length(in);
  dispatch_float(x.dtype, [&](auto t) {
    using T = decltype(t);
    const auto f = kernel(t);
    staged_ranges<T>(
        in.elements() / width, rows_grain(width),
        [&](i64 begin, i64 rows, const T* from, Out<T> to) {
          if constexpr (std::is_invocable_v<decltype(f), const T*, Out<T>, i64, i64>)
            f(from, to, rows * width, begin * width);
          else
            f(from, to, rows * width);
        },
        reading<T>(in, width), producing<T>(y, width));
  });
  return y.finish();
}

// dx = f(grad, v) by chunks, likewise.
template <class Kernel>
Array map_gradient(const char* op, const TensorView& grad, const TensorView& v, const char* v_name,
                   Kernel kernel) {
  gradient_args(op, grad, v, v_name);
  const Array g = readable_rows(grad), in = readable_rows(v);
  Array dx = Array::empty(v.dtype, v.shape);
  const i64 width = row_length(in, g);
  dispatch_float(v.dtype, [&](auto t) {
    using T = decltype(t);
    const auto f = kernel(t);
    staged_ranges<T>(
        in.elements() / width, rows_grain(width),
        [&](i64, i64 rows, const T* pg, const T* pv, Out<T> to) { f(pg, pv, to, rows * width); },
        reading<T>(g, width), reading<T>(in, width), producing<T>(dx, width));
  });
  return dx;
}

}  // namespace

Array unary(const FloatOp<UnaryKernel>& op, const TensorView& x, const TensorView* out) {
  return map(op.name, x, out, [&](auto t) { return op.kernel<decltype(t)>(); });
}

Array gradient(const FloatOp<GradientKernel>& op, const TensorView& grad, const TensorView& v,
               const char* v_name) {
  return map_gradient(op.name, grad, v, v_name, [&](auto t) { return op.kernel<decltype(t)>(); });
}

Array leaky_relu(const TensorView& x, double slope, const TensorView* out) {
  return map("leaky_relu", x, out, [&](auto t) {
    using T = decltype(t);
    const auto kernel = kernels_of<T>().leaky_relu;
    return [=](const T* from, Out<T> to, i64 n) { kernel(from, static_cast<T>(slope), to, n); };
  });
}

Array leaky_relu_backward(const TensorView& grad, const TensorView& x, double slope) {
  return map_gradient("leaky_relu_backward", grad, x, "x", [&](auto t) {
    using T = decltype(t);
    const auto kernel = kernels_of<T>().leaky_relu_backward;
    return [=](const T* g, const T* v, Out<T> to, i64 n) {
      kernel(g, v, static_cast<T>(slope), to, n);
    };
  });
}

Array binary(const FloatOp<BinaryKernel>& op, const TensorView& a, const TensorView& b,
             const TensorView* out) {
  const bool same = a.shape == b.shape;
  const Shape shape = binary_args(op.name, a, b);
  Output y(op.name, given_dtype(a), shape, out, {&a, &b});
  const i64 n = y.view().elements();
  if (n == 0) return y.finish();
  dispatch_float(a.dtype, [&](auto t) {
    using T = decltype(t);
    const BinaryKernel<T> kernel = op.kernel<T>();
    if (same && a.contiguous() && b.contiguous()) return run_contiguous(kernel, a, b, y);
    // Lines whose elements are neither adjacent nor all the same are packed first.
    const Array u = operand(a, shape), v = operand(b, shape);
    const Broadcast plan(shape, u, v);
    const auto direct = [](i64 step) { return step == 0 || step == 1; };
    if (direct(plan.inner_a()) && direct(plan.inner_b()))
      return run_broadcast(kernel, plan, u, v, y);
    const Array pu = contiguous(u), pv = contiguous(v);
    run_broadcast(kernel, Broadcast(shape, pu, pv), pu, pv, y);
  });
  return y.finish();
}

Array prelu(const TensorView& x, const TensorView& weight, const TensorView* out) {
  check_slopes("prelu", x, weight);
  return binary({"prelu", &FloatKernels<float>::prelu, &FloatKernels<double>::prelu}, x,
                slopes_along(x, weight), out);
}

PreluGradient prelu_backward(const TensorView& grad, const TensorView& x,
                             const TensorView& weight) {
  check_slopes("prelu_backward", x, weight);
  check_same_dtype("prelu_backward", "grad", grad, x);
  check_shape("prelu_backward", "grad", grad, x.shape);
  if (is_half(x.dtype)) return in_float32(x.dtype, prelu_backward, grad, x, weight);
  const Array g = contiguous(grad), in = contiguous(x), slopes = contiguous(weight);
  PreluGradient r{Array::empty(x.dtype, x.shape), Array::zeros(x.dtype, weight.shape)};
  const i64 size = x.elements(), channels = weight.elements();
  if (size == 0) return r;
  // x as lines of one slope each, which are cut; or, where these are single elements, as rows of
  // one element per channel. Every piece has its own sums, which are added up in its order.
  const i64 lines = channels == 1 ? 1 : x.shape[0] * channels, length = size / lines;
  const bool by_rows = length == 1 && channels > 1;
  const i64 rows = by_rows ? rows_grain(channels) : 1;
  const i64 cut = by_rows ? 1 : ceil_div(length, kGrain);
  const i64 pieces = by_rows ? ceil_div(x.shape[0], rows) * channels : lines * cut;
  dispatch_float(x.dtype, [&](auto t) {
    using T = decltype(t);
    const auto kernel = kernels_of<T>().prelu_backward;
    const T *pg = g.as<T>(), *px = in.as<T>(), *w = slopes.as<T>();
    T* dx = r.dx.template as<T>();
    const Array sums = Array::zeros(x.dtype, Shape(pieces));
    T* sum = sums.as<T>();
    if (by_rows) {
      parallel_ranges(x.shape[0], rows, [&](i64 begin, i64 end) {
        const i64 at = begin * channels;
        kernel(pg + at, px + at, {w, 0, 1}, dx + at, sum + begin / rows * channels, end - begin,
               channels);
      });
    } else {
      parallel_ranges(pieces, rows_grain(length), [&](i64 begin, i64 end) {
        for (i64 p = begin, m; p < end; p += m) {
          const i64 line = p / cut, c = line % channels, from = p % cut * kGrain;
          const i64 at = line * length + from;
          m = cut == 1 ? std::min(channels - c, end - p) : 1;
          kernel(pg + at, px + at, {w + c, 1, 0}, dx + at, sum + p, m,
                 std::min(length - from, kGrain));
        }
      });
    }
    T* dw = r.dweight.template as<T>();
    for (i64 p = 0; p < pieces; ++p) dw[p / cut % channels] += sum[p];
  });
  return r;
}

Array dropout(const TensorView& x, double p, std::uint64_t seed) {
  check_floating("dropout", "x", x);
  check_rate("dropout", p);
  if (p == 1) return Array::zeros(x.dtype, x.shape);
  const auto threshold = static_cast<std::uint32_t>(p * 0x1p32);
  return map("dropout", x, nullptr, [&](auto t) {
    using T = decltype(t);
    const auto kernel = kernels_of<T>().dropout;
    return [=](const T* from, Out<T> to, i64 n, i64 first) {
      kernel(from, to.data, first, n, seed, threshold, static_cast<T>(1 / (1 - p)));
    };
  });
}

}  // namespace vectile::ops
