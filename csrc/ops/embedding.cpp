#include "ops/embedding.h"

#include <algorithm>

#include "ops/indices.h"

namespace vectile::ops {

Array embedding(const TensorView& ids, const TensorView& weight) {
  constexpr const char* op = "embedding";
  check_float(op, "weight", weight);
  check(weight.ndim() == 2, op, "weight", "ndim", 2, weight.ndim());
  check(ids.ndim() < kMaxDims, op, "ids", "ndim", kMaxDims - 1, ids.ndim());
  const i64 n = weight.shape[1], count = ids.elements();
  const Buffer<i64> index = checked_indices(op, "ids", ids, weight.shape[0]);
  // A table of contiguous rows is read in place, however far apart the rows are.
  const Array table = n <= 1 || weight.strides[1] == 1 ? Array(weight) : contiguous(weight);
  Shape shape = ids.shape;
  shape.push(n);
  Array y = Array::empty(weight.dtype, shape);
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
  check_float(op, "grad", grad);
  check(num_embeddings >= 0, op, "num_embeddings", "value", "at least 0", num_embeddings);
  Shape expected = ids.shape;
  const bool fits = ids.ndim() < kMaxDims && grad.ndim() == ids.ndim() + 1;
  if (fits) expected.push(grad.shape.back());
  if (!fits || !(grad.shape == expected))
    fail(op, "grad", "shape", text("ids.shape ", ids.shape, " + (n,)"), grad.shape);
  const i64 n = grad.shape.back(), count = ids.elements();
  Array dweight = Array::empty(grad.dtype, Shape(num_embeddings, n));
  const Buffer<i64> index = checked_indices(op, "ids", ids, num_embeddings);
  const Array g = contiguous(grad);
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
    parallel_ranges(num_embeddings, rows_grain(n), [&](i64 begin, i64 end) {
      kernel(g.as<T>(), offsets.get() + begin, order.get(), dweight.as<T>() + begin * n,
             end - begin, n);
    });
  });
  return dweight;
}

}  // namespace vectile::ops
