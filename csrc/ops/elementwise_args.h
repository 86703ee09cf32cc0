// The arguments of the elementwise family, checked and laid out the same way for every device.
#pragma once

#include <algorithm>

#include "ops/check.h"

namespace vectile::ops {

// Both operands over the shape of the result, without axes of one element and with adjacent axes
// merged where both operands allow it; the result itself is row-major.
struct Broadcast {
  Shape shape;
  i64 a[kMaxDims], b[kMaxDims];  // strides

  Broadcast(const Shape& result, const TensorView& x, const TensorView& y) {
    for (int i = 0; i < result.ndim; ++i) {
      const i64 n = result[i];
      if (n == 1) continue;
      const i64 sx = stride(x, i - result.ndim), sy = stride(y, i - result.ndim);
      const int k = shape.ndim - 1;
      if (k >= 0 && a[k] == sx * n && b[k] == sy * n) {
        shape[k] *= n;
        a[k] = sx;
        b[k] = sy;
      } else {
        a[shape.ndim] = sx;
        b[shape.ndim] = sy;
        shape.push(n);
      }
    }
  }
  i64 inner_a() const { return shape.ndim ? a[shape.ndim - 1] : 0; }
  i64 inner_b() const { return shape.ndim ? b[shape.ndim - 1] : 0; }

 private:
  static i64 stride(const TensorView& x, int i) {  // i counts from the end: -1 is the last axis
    return i < -x.ndim() || x.shape[i] == 1 ? 0 : x.stride(i);
  }
};

inline Shape broadcast_shape(const char* op, const TensorView& a, const TensorView& b) {
  Shape s = a.ndim() >= b.ndim() ? a.shape : b.shape;
  for (int i = -1; i >= -std::min(a.ndim(), b.ndim()); --i) {
    const i64 n = a.shape[i], m = b.shape[i];
    if (n != m && n != 1 && m != 1) [[unlikely]]
      fail(op, "b", "shape", text("one that broadcasts with ", a.shape), b.shape);
    s[i] = n == 1 ? m : n;
  }
  return s;
}

// The shape of the result.
inline Shape binary_args(const char* op, const TensorView& a, const TensorView& b) {
  check_floating(op, "a", a);
  check_same_dtype(op, "b", b, a);
  return a.shape == b.shape ? a.shape : broadcast_shape(op, a, b);
}

inline void gradient_args(const char* op, const TensorView& grad, const TensorView& v,
                          const char* v_name) {
  check_floating(op, v_name, v);
  check_same_dtype(op, "grad", grad, v);
  check_shape(op, "grad", grad, v.shape);
}

// One slope for all of x, or one for each place on its axis 1.
inline void check_slopes(const char* op, const TensorView& x, const TensorView& weight) {
  check_floating(op, "x", x);
  check_same_dtype(op, "weight", weight, x);
  check(weight.ndim() <= 1, op, "weight", "rank", "at most 1", weight.ndim());
  const i64 channels = x.ndim() > 1 ? x.shape[1] : 1;
  if (weight.elements() != 1 && weight.elements() != channels) [[unlikely]]
    fail(op, "weight", "length", text("1 or x's channels, ", channels), weight.elements());
}

// They as an operand that broadcasts with x.
inline TensorView slopes_along(const TensorView& x, const TensorView& weight) {
  TensorView slopes = weight;
  const bool shared = weight.elements() == 1;
  slopes.shape = Shape();
  for (int i = shared ? x.ndim() : 1; i < x.ndim(); ++i) {
    slopes.strides[i - 1] = i == 1 ? weight.stride(0) : 0;
    slopes.shape.push(i == 1 ? weight.shape[0] : 1);
  }
  return slopes;
}

inline void check_rate(const char* op, double p) {
  check(p >= 0 && p <= 1, op, "p", "value", "0 <= p <= 1", p);
}

// Of bias_activation_dropout.
inline void fused_args(const char* op, const TensorView& x, const TensorView* bias, double p) {
  check_floating(op, "x", x);
  check(x.ndim() > 0, op, "x", "ndim", "at least 1", 0);
  check_rate(op, p);
  if (!bias) return;
  check_same_dtype(op, "bias", *bias, x);
  check_shape(op, "bias", *bias, Shape(x.shape.back()));
}

}  // namespace vectile::ops
