// Element types, shapes and views: what every layer above speaks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace vectile {

using i64 = std::int64_t;

enum class DType : std::uint8_t {
  f32,
  f64,
  i8,
  u8,
  i16,
  u16,
  i32,
  u32,
  i64,
  u64,
  boolean,
  f16,
  bf16,
  f8e4m3,
  f8e5m2,
  other
};

// Floating-point types that exist in memory only: kernels compute on them in float32.
struct Float16 {  // IEEE binary16
  std::uint16_t bits;
};
struct BFloat16 {  // the upper half of a float32
  std::uint16_t bits;
};
struct Float8E4M3 {  // no infinity; the largest number is 448 (ml_dtypes.float8_e4m3fn)
  std::uint8_t bits;
};
struct Float8E5M2 {
  std::uint8_t bits;
};

// What kernels compute in where memory holds S.
template <class S>
struct ComputedFrom {
  using type = S;
};
template <>
struct ComputedFrom<Float16> {
  using type = float;
};
template <>
struct ComputedFrom<BFloat16> {
  using type = float;
};
template <class S>
using Computed = typename ComputedFrom<S>::type;
template <class S>
inline constexpr bool widens = !std::is_same_v<S, Computed<S>>;

constexpr int kMaxDims = 16;

constexpr std::size_t item_size(DType t) {
  switch (t) {
    case DType::i8:
    case DType::u8:
    case DType::boolean:
    case DType::f8e4m3:
    case DType::f8e5m2:
      return 1;
    case DType::i16:
    case DType::u16:
    case DType::f16:
    case DType::bf16:
      return 2;
    case DType::f32:
    case DType::i32:
    case DType::u32:
      return 4;
    default:
      return 8;
  }
}

constexpr const char* dtype_name(DType t) {
  constexpr const char* names[] = {
      "float32", "float64", "int8", "uint8",   "int16",    "uint16",        "int32",       "uint32",
      "int64",   "uint64",  "bool", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "other"};
  return names[static_cast<int>(t)];
}

// The two-byte types that every op takes in place of float32.
constexpr bool is_half(DType t) { return t == DType::f16 || t == DType::bf16; }
constexpr bool is_float8(DType t) { return t == DType::f8e4m3 || t == DType::f8e5m2; }

// A dimension list of fixed capacity; cheap to copy, no heap.
struct Shape {
  int ndim = 0;
  i64 dim[kMaxDims];

  Shape() = default;
  template <class... I>
  explicit Shape(I... dims) : ndim(sizeof...(dims)), dim{static_cast<i64>(dims)...} {}
  i64 operator[](int i) const { return dim[i < 0 ? i + ndim : i]; }
  i64& operator[](int i) { return dim[i < 0 ? i + ndim : i]; }
  void push(i64 d) { dim[ndim++] = d; }
  i64 back() const { return dim[ndim - 1]; }
  bool operator==(const Shape& o) const {
    if (ndim != o.ndim) return false;
    for (int i = 0; i < ndim; ++i)
      if (dim[i] != o.dim[i]) return false;
    return true;
  }
  // Number of elements. Views of existing memory cannot overflow; new shapes go through
  // checked_elements (base/memory.h).
  i64 elements() const {
    i64 n = 1;
    for (int i = 0; i < ndim; ++i) n *= dim[i];
    return n;
  }
};

// Borrowed memory: `strides` count elements and may be zero or negative.
struct TensorView {
  void* data = nullptr;
  DType dtype = DType::other;
  DType origin = DType::other;  // the half type that these float32 values were widened from
  bool writable = false;
  Shape shape;
  i64 strides[kMaxDims];

  int ndim() const { return shape.ndim; }
  i64 elements() const { return shape.elements(); }
  i64 stride(int i) const { return strides[i < 0 ? i + shape.ndim : i]; }
  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
  bool contiguous() const {  // row-major; dimensions of one element may have any stride
    i64 expect = 1;
    for (int i = shape.ndim - 1; i >= 0; --i) {
      if (shape.dim[i] == 0) return true;
      if (shape.dim[i] != 1 && strides[i] != expect) return false;
      expect *= shape.dim[i];
    }
    return true;
  }
  void set_contiguous_strides() {
    i64 s = 1;
    for (int i = shape.ndim - 1; i >= 0; --i) {
      strides[i] = s;
      s *= shape.dim[i];
    }
  }
};

}  // namespace vectile
