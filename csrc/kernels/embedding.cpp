// embedding: y[i] = weight[ids[i]]. Its gradient is gathered, not scattered: the positions of each
// id come sorted, so every row of dweight is written once, by one thread, in a fixed order.
#include "kernels/rows.h"

namespace vectile::VECTILE_TIER {

template <class T>
static void embedding(const i64* ids, const T* weight, i64 stride, T* y, i64 count, i64 n) {
  using V = Vec<T>;
  for (i64 i = 0; i < count; ++i, y += n) {
    const T* row = weight + ids[i] * stride;
    row_each<T>(
        n, [&](i64 j, auto... k) VECTILE_LAMBDA { V::load(row + j, k...).store(y + j, k...); });
  }
}

template <class T>
static void embedding_backward(const T* grad, const i64* offsets, const i64* order, T* dweight,
                               i64 rows, i64 n) {
  using V = Vec<T>;
  for (i64 v = 0; v < rows; ++v, dweight += n) {
    const i64 begin = offsets[v], end = offsets[v + 1];
    row_each<T>(n, [&](i64 j, auto... k) VECTILE_LAMBDA {
      V a;
      for (i64 i = begin; i < end; ++i) a += V::load(grad + order[i] * n + j, k...);
      a.store(dweight + j, k...);
    });
  }
}

}  // namespace vectile::VECTILE_TIER

#include "kernels/register.h"
