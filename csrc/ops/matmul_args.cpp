#include "ops/matmul_args.h"

#include <algorithm>

namespace vectile::ops {

TensorView with_axis(const TensorView& v, int axis) {
  TensorView r = v;
  ++r.shape.ndim;
  for (int i = v.ndim(); i > axis; --i) {
    r.shape[i] = v.shape[i - 1];
    r.strides[i] = v.strides[i - 1];
  }
  r.shape[axis] = 1;
  r.strides[axis] = 1;
  return r;
}

Batch::Batch(const TensorView& va, const TensorView& vb, const TensorView& vc) {
  const int n = vc.ndim() - 2;
  const auto stride = [&](const TensorView& v, int i) {
    const int axis = v.ndim() - 2 - (n - i);
    return axis < 0 || v.shape[axis] == 1 ? i64{0} : v.strides[axis];
  };
  for (int i = 0; i < n; ++i) {
    if (vc.shape[i] == 1) continue;
    const int d = shape.ndim;
    a[d] = stride(va, i), b[d] = stride(vb, i), c[d] = stride(vc, i);
    shape.push(vc.shape[i]);
  }
}

Batch::Offsets Batch::at(i64 index) const {
  Offsets o;
  for (int d = shape.ndim - 1; d >= 0; --d) {
    const i64 i = index % shape[d];
    index /= shape[d];
    o.a += i * a[d], o.b += i * b[d], o.c += i * c[d];
  }
  return o;
}

MatmulShape::MatmulShape(const char* op, const TensorView& x, const TensorView& y) {
  check(x.ndim() > 0, op, "a", "ndim", "at least 1", 0);
  check(y.ndim() > 0, op, "b", "ndim", "at least 1", 0);
  vector_a = x.ndim() == 1, vector_b = y.ndim() == 1;
  a = vector_a ? with_axis(x, 0) : x, b = vector_b ? with_axis(y, 1) : y;
  const i64 k = a.shape[-1];
  if (b.shape[-2] != k) [[unlikely]]
    fail(op, "b", "shape", vector_b ? text("(", k, ",)") : text("(..., ", k, ", *)"), y.shape);
  result.ndim = std::max(a.ndim(), b.ndim()) - 2;
  for (int i = 0; i < result.ndim; ++i) {  // from the innermost
    const int ia = a.ndim() - 3 - i, ib = b.ndim() - 3 - i;
    const i64 da = ia >= 0 ? a.shape[ia] : 1, db = ib >= 0 ? b.shape[ib] : 1;
    if (da != db && da != 1 && db != 1) [[unlikely]] {
      Shape first = a.shape, second = b.shape;
      first.ndim -= 2, second.ndim -= 2;
      fail(op, "b", "batch shape", text("one that broadcasts with ", first), second);
    }
    result[result.ndim - 1 - i] = da == 1 ? db : da;
  }
  if (!vector_a) result.push(a.shape[-2]);
  if (!vector_b) result.push(b.shape[-1]);
}

TensorView MatmulShape::matrix(const TensorView& r) const {
  TensorView c = r;
  if (vector_b) c = with_axis(c, c.ndim());
  if (vector_a) c = with_axis(c, c.ndim() - 1);
  return c;
}

}  // namespace vectile::ops
