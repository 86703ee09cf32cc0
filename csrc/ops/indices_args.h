// The integer types of indices, the same for every device.
#pragma once

#include "ops/check.h"

namespace vectile {

// f(an element) for arrays of integers; TypeError for others.
template <class F>
void dispatch_integer(const char* op, const char* argument, DType dtype, F&& f) {
  switch (dtype) {
    case DType::i8:
      return f(std::int8_t{});
    case DType::u8:
      return f(std::uint8_t{});
    case DType::i16:
      return f(std::int16_t{});
    case DType::u16:
      return f(std::uint16_t{});
    case DType::i32:
      return f(std::int32_t{});
    case DType::u32:
      return f(std::uint32_t{});
    case DType::i64:
      return f(std::int64_t{});
    case DType::u64:
      return f(std::uint64_t{});
    default:
      fail<TypeError>(op, argument, "dtype", "an integer type", dtype);
  }
}

}  // namespace vectile
