#include "ops/cast.h"

#include "ops/cast_args.h"

namespace vectile {

void cast_strided(const TensorView& x, const TensorView& y) {
  if (x.dtype == y.dtype) return copy_strided(x, y);
  if (!y.contiguous()) return copy_strided(cast_to(x, y.dtype), y);
  const Array in = contiguous(x);
  const auto kernel = kernels().cast;
  const auto* from = static_cast<const char*>(in.data);
  auto* to = static_cast<char*>(y.data);
  const auto size_x = static_cast<i64>(item_size(x.dtype));
  const auto size_y = static_cast<i64>(item_size(y.dtype));
  parallel_ranges(in.elements(), kGrain, [&](i64 begin, i64 end) {
    kernel(from + begin * size_x, x.dtype, to + begin * size_y, y.dtype, end - begin);
  });
}

Array cast_to(const TensorView& x, DType dtype) {
  Array y = Array::empty(dtype, x.shape);
  cast_strided(x, y);
  return y;
}

namespace ops {

Array cast(const TensorView& x, DType dtype) {
  cast_args(x, dtype);
  return cast_to(x, dtype);
}

}  // namespace ops
}  // namespace vectile
