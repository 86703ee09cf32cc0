// What every op shares: owned arrays, contiguous inputs, checked outputs, axes, chunking.
#pragma once

#include <initializer_list>
#include <utility>

#include "base/error.h"
#include "base/memory.h"
#include "base/out.h"
#include "base/parallel.h"
#include "base/types.h"
#include "dispatch/dispatch.h"

namespace vectile {

// A view that may own its memory (a block of base/memory).
struct Array : TensorView {
  Array() = default;
  explicit Array(const TensorView& borrowed) : TensorView(borrowed) {}
  Array(Array&& o) noexcept : TensorView(o), owner_(std::exchange(o.owner_, nullptr)) {}
  Array& operator=(Array&& o) noexcept {
    static_cast<TensorView&>(*this) = o;
    std::swap(owner_, o.owner_);
    return *this;
  }
  ~Array() {
    if (owner_) deallocate(owner_);
  }
  bool owns() const { return owner_ != nullptr; }
  void* release() { return std::exchange(owner_, nullptr); }  // the caller deallocates

  static Array empty(DType dtype, const Shape& shape);
  static Array zeros(DType dtype, const Shape& shape);
  static Array full(DType dtype, const Shape& shape, double value);  // a type of check_floating

 private:
  void* owner_ = nullptr;
};

// y[i] = x[i] elementwise; same shape and dtype, any strides.
void copy_strided(const TensorView& x, const TensorView& y);

// `x` itself when it is row-major, else a packed copy.
Array contiguous(const TensorView& x);

// The same when its last axis is contiguous.
Array rows_contiguous(const TensorView& x);

// `x` with its axes in the given order, or with `axis` moved last; no data moves.
TensorView permuted(const TensorView& x, const int* order);
TensorView axis_last(const TensorView& x, int axis);

// Whether an array is larger than the last cache: whoever reads it reads memory.
bool beyond_caches(const TensorView& y);

// New memory as the place where a kernel writes its result.
template <class T>
Out<T> fresh(const Array& y) {
  return {y.as<T>(), beyond_caches(y)};
}

bool overlaps(const TensorView& a, const TensorView& b);

// The place an op writes its row-major result: new memory, the caller's `out` when it can be
// written directly, or a temporary that finish() copies into `out` (strided, or sharing memory with
// an input in any way but exactly elementwise).
class Output {
 public:
  Output(const char* op, DType dtype, const Shape& shape, const TensorView* out = nullptr,
         std::initializer_list<const TensorView*> inputs = {});
  const TensorView& view() const { return array_; }
  bool overwrites() const { return overwrites_; }  // an input, element by element
  template <class T>
  T* data() const {
    return array_.as<T>();
  }
  Array finish();  // owning, or a view of `out`

 private:
  Array array_;
  const TensorView* out_ = nullptr;
  bool overwrites_ = false;
};

// What kernels compute in: float32 for the half types, which are storage only.
constexpr DType compute_dtype(DType t) { return is_half(t) ? DType::f32 : t; }
// What the caller passed: float32 that was widened inside an op answers for its origin.
inline DType given_dtype(const TensorView& x) {
  return x.origin == DType::other ? x.dtype : x.origin;
}

// Validation. Each throws `op: argument property: expected X, got Y`.
void check_float(const char* op, const char* argument, const TensorView& x);  // float32 or float64
void check_floating(const char* op, const char* argument, const TensorView& x);  // or a half type
void check_same_dtype(const char* op, const char* argument, const TensorView& x,
                      const TensorView& reference);
// The same; float32 will do beside a half type, for parameters and statistics.
void check_parameter_dtype(const char* op, const char* argument, const TensorView& x,
                           const TensorView& reference);
void check_shape(const char* op, const char* argument, const TensorView& x, const Shape& expected);
void check_out(const char* op, const TensorView& out, DType dtype, const Shape& shape);
int check_axis(const char* op, i64 axis, int ndim);  // into [0, ndim)

// Runs f(T{}) with T = double for float64, else float.
template <class F>
decltype(auto) dispatch_float(DType dtype, F&& f) {
  return dtype == DType::f64 ? f(double{}) : f(float{});
}

// The same, with S = Float16 or BFloat16 for the half types.
template <class F>
decltype(auto) dispatch_floating(DType dtype, F&& f) {
  return dtype == DType::f16    ? f(Float16{})
         : dtype == DType::bf16 ? f(BFloat16{})
                                : dispatch_float(dtype, f);
}

constexpr i64 ceil_div(i64 a, i64 b) { return (a + b - 1) / b; }  // a >= 0, b > 0
constexpr i64 round_up(i64 a, i64 b) { return ceil_div(a, b) * b; }

// A shape with another last axis, or without it.
inline Shape with_last(Shape s, i64 last) {
  s[-1] = last;
  return s;
}
inline Shape without_last(Shape s) {
  --s.ndim;
  return s;
}

// Elements of work below which a chunk is not worth handing to another thread.
constexpr i64 kGrain = 1 << 15;

// Rows per chunk so that a chunk holds about kGrain elements.
inline i64 rows_grain(i64 n) { return n < kGrain ? kGrain / (n < 1 ? 1 : n) : 1; }

}  // namespace vectile
