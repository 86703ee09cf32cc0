// A batch of matrix products, as the kernels of gemm see it.
#pragma once

#include <algorithm>

#include "epilogue.h"
#include "gemm_tile.h"

namespace vectile::cuda {

constexpr i64 kMostBatches = 65535;  // of a grid
constexpr unsigned kGroup = 8;

// Where block `index` of rows x columns lies: down kGroup rows of blocks, then to the right, so
// that those that run together find their operands in the L2 cache.
struct BlockPlace {
  unsigned row, column;
  __device__ BlockPlace(unsigned index, unsigned rows, unsigned columns) {
    const unsigned group = kGroup * columns, first = index / group * kGroup;
    const unsigned within = index % group, left = rows - first;
    const unsigned height = left < kGroup ? left : kGroup;
    row = first + within % height;
    column = within / height;
  }
};

// Elements from a product of a batch to the next, by axes, the last first.
struct Strides {
  i64 a, b, c;
};
struct BatchAxes {
  int axes;
  i64 count, size[kMaxDims];
  Strides stride[kMaxDims];

  __device__ Strides at(i64 index) const {
    Strides o{};
    for (int d = 0; d < axes; ++d) {
      const i64 i = d + 1 < axes ? index % size[d] : index;
      if (d + 1 < axes) index /= size[d];
      o.a += i * stride[d].a;
      o.b += i * stride[d].b;
      o.c += i * stride[d].c;
    }
    return o;
  }
};

// Into how many parts products of S, (m, k) by (k, n) in `blocks` blocks in all, are cut along k:
// four blocks a multiprocessor keep enough copies under way. But parts have eight steps each, and
// cost half the operands' bytes at most to write and to read.
template <class S>
i64 parts_of(i64 m, i64 n, i64 k, i64 blocks) {
  const double operands = static_cast<double>(m + n) * static_cast<double>(k) * sizeof(S);
  const double part = 2.0 * static_cast<double>(m) * static_cast<double>(n) * sizeof(float);
  return std::max<i64>(1, std::min({4 * i64{multiprocessors()} / blocks,
                                    k * static_cast<i64>(sizeof(S)) / (8 * kStepBytes),
                                    static_cast<i64>(operands / 2 / part)}));
}

// Sums of products cut along k, where C has too few blocks to keep the device busy: `count` parts
// of (m, pitch) for each product of the batch, added up in order.
struct Parts {
  int count;
  float* sums;
  i64 m, pitch;
};

template <class S>
struct Product {
  Lines<S> a, b;
  Epilogue<S> c;
  BatchAxes batch;
  Parts parts;
};

// Starts the products by the kernels for sm_90a, where the device has them and there is enough
// work; else false. Math is one of gemm_tile.h's.
template <class Math>
bool multiply_on_hopper(const Product<typename Math::Stored>& p);

}  // namespace vectile::cuda
