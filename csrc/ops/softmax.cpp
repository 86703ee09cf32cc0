#include "ops/softmax.h"

#include "ops/float_op.h"
#include "ops/softmax_args.h"
#include "ops/staging.h"

namespace vectile::ops {
namespace {

template <class T>
using ForwardKernel = void (*)(const T* x, Out<T> y, i64 rows, i64 n);
template <class T>
using BackwardKernel = void (*)(const T* grad, const T* y, Out<T> dx, i64 rows, i64 n);

// Runs fn(first row, rows, pointer...) over chunks of whole rows of length n.
template <class T, class F, class... Operand>
void over_rows(const Shape& shape, F&& fn, const Operand&... operand) {
  const i64 n = shape.back(), elements = shape.elements();
  if (elements > 0) staged_ranges<T>(elements / n, rows_grain(n), fn, operand...);
}

Array forward(const FloatOp<ForwardKernel>& f, const TensorView& x, i64 axis,
              const TensorView* out) {
  const char* op = f.name;
  const int a = softmax_args(op, x, axis);
  return dispatch_float(x.dtype, [&](auto t) {
    using T = decltype(t);
    const auto kernel = f.kernel<T>();
    const auto run = [&](const TensorView& in, const auto& y) {
      const i64 n = in.shape.back();
      over_rows<T>(
          in.shape, [&](i64, i64 rows, const T* from, Out<T> to) { kernel(from, to, rows, n); },
          reading<T>(in, n), y(n));
    };
    if (a == x.ndim() - 1) {
      const Array in = readable_rows(x);
      Output y(op, x.dtype, x.shape, out, {&x});
      run(in, [&](i64 n) { return producing<T>(y, n); });
      return y.finish();
    }
    const Array in = contiguous(axis_last(x, a));
    const Array rows = Array::empty(x.dtype, in.shape);
    run(in, [&](i64 n) { return writing<T>(rows, n); });
    Output y(op, x.dtype, x.shape, out, {&x});
    copy_strided(rows, axis_last(y.view(), a));
    return y.finish();
  });
}

Array backward(const FloatOp<BackwardKernel>& f, const TensorView& grad, const TensorView& y,
               i64 axis) {
  const char* op = f.name;
  const int a = softmax_backward_args(op, grad, y, axis);
  return dispatch_float(y.dtype, [&](auto t) {
    using T = decltype(t);
    const auto kernel = f.kernel<T>();
    const Array g = readable_rows(axis_last(grad, a)), v = readable_rows(axis_last(y, a));
    Array dx = Array::empty(y.dtype, v.shape);
    const i64 n = v.shape.back();
    over_rows<T>(
        v.shape,
        [&](i64, i64 rows, const T* pg, const T* pv, Out<T> to) { kernel(pg, pv, to, rows, n); },
        reading<T>(g, n), reading<T>(v, n), producing<T>(dx, n));
    if (a == y.ndim() - 1) return dx;
    Array result = Array::empty(y.dtype, y.shape);
    copy_strided(dx, axis_last(result, a));
    return result;
  });
}

}  // namespace

Array softmax(const TensorView& x, i64 axis, const TensorView* out) {
  return forward(VECTILE_FLOAT_OP(softmax, softmax), x, axis, out);
}
Array log_softmax(const TensorView& x, i64 axis, const TensorView* out) {
  return forward(VECTILE_FLOAT_OP(log_softmax, log_softmax), x, axis, out);
}
Array softmax_backward(const TensorView& grad, const TensorView& y, i64 axis) {
  return backward(VECTILE_FLOAT_OP(softmax_backward, softmax_backward), grad, y, axis);
}
Array log_softmax_backward(const TensorView& grad, const TensorView& y, i64 axis) {
  return backward(VECTILE_FLOAT_OP(log_softmax_backward, log_softmax_backward), grad, y, axis);
}

}  // namespace vectile::ops
