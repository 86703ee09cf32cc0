// What every op shares: owned arrays, contiguous inputs, checked outputs, chunking.
#pragma once

#include <initializer_list>
#include <utility>

#include "base/memory.h"
#include "base/out.h"
#include "base/parallel.h"
#include "dispatch/dispatch.h"
#include "ops/check.h"

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

// Whether an array is larger than the last cache: whoever reads it reads memory.
bool beyond_caches(const TensorView& y);

// New memory as the place where a kernel writes its result.
template <class T>
Out<T> fresh(const Array& y) {
  return {y.as<T>(), beyond_caches(y)};
}

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

// Elements of work below which a chunk is not worth handing to another thread.
constexpr i64 kGrain = 1 << 15;

// Rows per chunk so that a chunk holds about kGrain elements.
inline i64 rows_grain(i64 n) { return n < kGrain ? kGrain / (n < 1 ? 1 : n) : 1; }

}  // namespace vectile
