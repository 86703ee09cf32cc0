#include "ops/embedding.h"

#include <algorithm>
#include <cstring>

#include "ops/embedding_args.h"
#include "ops/indices.h"
#include "ops/staging.h"

namespace vectile::ops {

Array embedding(const TensorView& ids, const TensorView& weight) {
  constexpr const char* op = "embedding";
  embedding_args(op, ids, weight);
  const i64 n = weight.shape[1], count = ids.elements();
  const Buffer<i64> index = checked_indices(op, "ids", ids, weight.shape[0]);
  // A table of contiguous rows is read in place, however far apart the rows are.
  const Array table = n <= 1 || weight.strides[1] == 1 ? Array(weight) : contiguous(weight);
  Shape shape = ids.shape;
  shape.push(n);
  Array y = Array::empty(weight.dtype, shape);
  if (is_half(weight.dtype)) {  // rows are moved as bits
    const auto* from = table.as<std::uint16_t>();
    auto* to = y.as<std::uint16_t>();
    parallel_ranges(count, rows_grain(n), [&](i64 begin, i64 end) {
      for (i64 i = begin; i < end; ++i)
        std::memcpy(to + i * n, from + index[i] * table.strides[0],
                    static_cast<std::size_t>(n) * sizeof(*to));
    });
    return y;
  }
  dispatch_float(weight.dtype, [&](auto t) {
    using T = decltype(t);
    const auto kernel = kernels_of<T>().embedding;
    parallel_ranges(count, rows_grain(n), [&](i64 begin, i64 end) {
      kernel(index.get() + begin, table.as<T>(), table.strides[0], y.as<T>() + begin * n,
             end - begin, n);
    });
  });
  return y;
}

Array embedding_backward(const TensorView& grad, const TensorView& ids, i64 num_embeddings) {
  constexpr const char* op = "embedding_backward";
  embedding_backward_args(op, grad, ids, num_embeddings);
  const i64 n = grad.shape.back(), count = ids.elements();
  Array dweight = Array::empty(grad.dtype, Shape(num_embeddings, n));
  const Buffer<i64> index = checked_indices(op, "ids", ids, num_embeddings);
  const Array g = widened(grad);
  // Counting sort, stable: order[offsets[v] .. offsets[v + 1]) are the positions of id v.
  const Buffer<i64> offsets(num_embeddings + 2), order(count);
  std::fill_n(offsets.get(), num_embeddings + 2, i64{0});
  i64* next = offsets.get() + 1;  // next[v]: where v's next position goes; ends as offsets[v + 1]
  for (i64 i = 0; i < count; ++i) ++next[index[i] + 1];
  for (i64 v = 1; v <= num_embeddings; ++v) next[v] += next[v - 1];
  for (i64 i = 0; i < count; ++i) order[next[index[i]]++] = i;
  dispatch_float(grad.dtype, [&](auto t) {
    using T = decltype(t);
    const auto kernel = kernels_of<T>().embedding_backward;
    staged_ranges<T>(
        num_embeddings, rows_grain(n),
        [&](i64 v, i64 rows, T* to) {
          kernel(g.as<T>(), offsets.get() + v, order.get(), to, rows, n);
        },
        writing<T>(dweight, n));
  });
  return dweight;
}

}  // namespace vectile::ops
