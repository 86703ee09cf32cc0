// Arrays whose type is known at run time only: a few numbers beside those that a kernel is made
// for.
#pragma once

#include "device.h"

namespace vectile::cuda {

// Of any integer type; no data: none.
struct Integers {
  const void* data = nullptr;
  DType dtype = DType::i64;
  __device__ i64 at(i64 i) const {
    switch (dtype) {
      case DType::i8:
        return static_cast<const std::int8_t*>(data)[i];
      case DType::u8:
        return static_cast<const std::uint8_t*>(data)[i];
      case DType::i16:
        return static_cast<const std::int16_t*>(data)[i];
      case DType::u16:
        return static_cast<const std::uint16_t*>(data)[i];
      case DType::i32:
        return static_cast<const std::int32_t*>(data)[i];
      case DType::u32:
        return static_cast<const std::uint32_t*>(data)[i];
      default:
        return static_cast<const i64*>(data)[i];
    }
  }
};

// Of any floating-point type that ops take.
struct Reals {
  const void* data = nullptr;
  DType dtype = DType::f32;
  template <class T>
  __device__ T at(i64 i) const {
    switch (dtype) {
      case DType::f64:
        return static_cast<T>(static_cast<const double*>(data)[i]);
      case DType::f16:
        return to_float(static_cast<const Float16*>(data)[i]);
      case DType::bf16:
        return to_float(static_cast<const BFloat16*>(data)[i]);
      default:
        return static_cast<const float*>(data)[i];
    }
  }
};

// Rounds to an element of a floating-point type.
template <class T>
__device__ __forceinline__ void store_real(void* data, DType dtype, i64 i, T x) {
  switch (dtype) {
    case DType::f64:
      static_cast<double*>(data)[i] = x;
      break;
    case DType::f16:
      static_cast<Float16*>(data)[i] = from_float<Float16>(static_cast<float>(x));
      break;
    case DType::bf16:
      static_cast<BFloat16*>(data)[i] = from_float<BFloat16>(static_cast<float>(x));
      break;
    default:
      static_cast<float*>(data)[i] = static_cast<float>(x);
  }
}

}  // namespace vectile::cuda
