// Half types in ops whose kernels compute on float32 or float64.
//
// Row-wise ops stage: staged_ranges hands a kernel the operands' own memory where it has the
// kernel's type, and where it does not, pieces that stay in cache, widened before the kernel and
// narrowed after it, in one pass over memory; and rows that lie apart likewise, side by side. Ops
// that read their operands many times widen them once: in_float32.
#pragma once

#include <algorithm>
#include <cstring>
#include <tuple>

#include "ops/cast.h"

namespace vectile {

// `x` row-major, of the type kernels compute in; x itself where it is that.
inline Array widened(const TensorView& x) {
  Array y = converted(x, compute_dtype(x.dtype));
  if (is_half(x.dtype)) y.origin = x.dtype;
  return y;
}
inline Array widened(const TensorView* x) { return x ? widened(*x) : Array(); }

// A float32 result in the type the caller asked for.
inline Array narrowed(Array&& y, DType dtype) {
  return y.dtype == dtype || !y.data ? std::move(y) : cast_to(y, dtype);
}

// An operand of `n` elements per row as a kernel over T reads it (Pointer: const T*) or writes it
// (T*, or Out<T> for one that may be written around the caches). It is row-major, or one to read as
// readable_rows gives it. A view without memory stays a null pointer.
template <class T, class Pointer_>
class Staged {
 public:
  using Pointer = Pointer_;
  static constexpr bool written = !std::is_same_v<Pointer, const T*>;

  Staged(const TensorView& x, i64 n, bool stream = false)
      : data_(static_cast<char*>(x.data)), dtype_(x.dtype), stream_(stream), n_(n) {
    if (!written && data_ && !x.contiguous()) apart_ = &x;
  }
  i64 scratch() const { return data_ && (is_half(dtype_) || apart_) ? n_ : 0; }  // elements per row
  Pointer in_place(i64 row) const {
    T* p = data_ ? reinterpret_cast<T*>(data_) + row * n_ : nullptr;
    if constexpr (std::is_same_v<Pointer, Out<T>>)
      return {p, stream_};
    else
      return p;
  }
  // Rows [row, row + rows) for the kernel, in `free` memory if need be, of which they take their
  // share.
  Pointer begin(i64 row, i64 rows, T*& free) const {
    if (!scratch()) return in_place(row);
    T* piece = free;
    free += rows * n_;
    if constexpr (!written) {
      const i64 lines = apart_ ? rows : 1, length = apart_ ? n_ : rows * n_;
      for (i64 i = 0; i < lines; ++i) {
        const char* from = apart_ ? apart(row + i) : stored(row);
        if (is_half(dtype_))
          kernels().cast(from, dtype_, piece + i * n_, DType::f32, length);
        else
          std::memcpy(piece + i * n_, from, static_cast<std::size_t>(length) * sizeof(T));
      }
    }
    return piece;
  }
  void end(i64 row, i64 rows, Pointer piece) const {
    if constexpr (written && sizeof(T) == 4)
      if (scratch()) kernels().cast(address(piece), DType::f32, stored(row), dtype_, rows * n_);
  }

 private:
  static T* address(Out<T> piece) { return piece.data; }

  char* stored(i64 row) const { return data_ + row * n_ * static_cast<i64>(item_size(dtype_)); }
  char* apart(i64 row) const {
    i64 at = 0;
    for (int i = apart_->ndim() - 2; i >= 0; --i) {
      at += row % apart_->shape[i] * apart_->strides[i];
      row /= apart_->shape[i];
    }
    return data_ + at * static_cast<i64>(item_size(dtype_));
  }

  char* data_;
  DType dtype_;
  bool stream_;
  i64 n_;
  const TensorView* apart_ = nullptr;  // the view itself where its rows lie apart
};

// `x` itself where the elements of a row, its last axis, are adjacent, however far apart the rows
// are; a packed copy where they are not or are few.
inline Array readable_rows(const TensorView& x) {
  constexpr i64 few = 16;
  const bool direct = x.ndim() > 0 && x.stride(-1) == 1 && x.shape.back() >= few;
  return direct ? Array(x) : contiguous(x);
}

template <class T>
Staged<T, const T*> reading(const TensorView& x, i64 n) {
  return {x, n};
}
template <class T>
Staged<T, T*> writing(const TensorView& y, i64 n) {
  return {y, n};
}
// A result that the call only writes; around the caches if it is larger than they are.
template <class T>
Staged<T, Out<T>> producing(const TensorView& y, i64 n) {
  return {y, n, beyond_caches(y)};
}
template <class T>
Staged<T, Out<T>> producing(const Output& y, i64 n) {
  return {y.view(), n, !y.overwrites() && beyond_caches(y.view())};
}

// Elements of all operands that are widened at a time: they stay in L2.
constexpr i64 kStaged = 1 << 14;

// f(first row, rows, pointer...) for rows [begin, end), in several calls where operands are staged.
template <class T, class F, class... Operand>
void staged_pieces(i64 begin, i64 end, F&& f, const Operand&... operand) {
  const i64 width = (i64{0} + ... + operand.scratch());
  if (width == 0) {
    f(begin, end - begin, operand.in_place(begin)...);
    return;
  }
  const i64 most = std::clamp<i64>(kStaged / width, 1, end - begin);
  const Buffer<T> scratch(most * width);
  for (i64 row = begin, rows; row < end; row += rows) {
    rows = std::min(most, end - row);
    T* free = scratch.get();
    const std::tuple<typename Operand::Pointer...> p{operand.begin(row, rows, free)...};
    std::apply(
        [&](auto... pointer) {
          f(row, rows, pointer...);
          (operand.end(row, rows, pointer), ...);
        },
        p);
  }
}

// The same for all rows in parallel chunks of `grain`; rows must not depend on one another.
template <class T, class F, class... Operand>
void staged_ranges(i64 rows, i64 grain, F&& f, const Operand&... operand) {
  parallel_ranges(rows, grain,
                  [&](i64 begin, i64 end) { staged_pieces<T>(begin, end, f, operand...); });
}

// Any half argument of an op as float32, everything else as it is.
inline Array float32_argument(const TensorView& x) {
  return is_half(x.dtype) ? widened(x) : Array(x);
}
class OptionalFloat32 {
 public:
  explicit OptionalFloat32(const TensorView* x)
      : array_(x ? float32_argument(*x) : Array()), given_(x != nullptr) {}
  operator const TensorView*() const { return given_ ? &array_ : nullptr; }

 private:
  Array array_;
  bool given_;
};
inline OptionalFloat32 float32_argument(const TensorView* x) { return OptionalFloat32(x); }
template <class A>
const A& float32_argument(const A& other) {
  return other;
}

// What an op returns, with its results in the dtype of its arguments; a struct of results names
// those with `auto results() { return std::tie(...); }`, and the others stay float32.
inline Array narrow_results(Array&& y, DType dtype) { return narrowed(std::move(y), dtype); }
template <class R>
R narrow_results(R&& r, DType dtype) {
  std::apply([&](auto&... y) { ((y = narrowed(std::move(y), dtype)), ...); }, r.results());
  return std::move(r);
}

// op(arguments...) computed in float32 on half arguments.
template <class Op, class... A>
auto in_float32(DType dtype, Op&& op, const A&... arguments) {
  return narrow_results(op(float32_argument(arguments)...), dtype);
}

}  // namespace vectile
