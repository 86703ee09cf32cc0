// Tensors of global memory as the copy engine of sm_90a sees them.
//
// It brings boxes of 64 rows of 128 bytes to shared memory, zeros where they are outside the
// tensor. A row's chunks of 16 bytes are permuted by an exclusive or with the row modulo 8, which
// the tensor cores undo.
#pragma once

#include "runtime.h"

namespace vectile::cuda {

constexpr int kBoxRows = 64, kBoxRowBytes = 128, kBoxBytes = kBoxRows * kBoxRowBytes;

// Element (i, j, x, y, z) of `item` bytes is at data + i item + j stride[0] + x stride[1] + ...,
// strides in bytes.
struct Tensor {
  const void* data;
  int item;
  i64 size[5], stride[4];
};
struct alignas(64) TensorMap {
  unsigned char bytes[128];
};

// Whether the copy engine can read it: nowhere empty, data and strides multiples of 16 bytes.
bool can_map(const Tensor& t);
TensorMap make_map(const Tensor& t);

}  // namespace vectile::cuda
