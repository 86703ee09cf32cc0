#include "ops/rotary.h"

#include <algorithm>

#include "ops/cast.h"
#include "ops/rotary_args.h"

namespace vectile::ops {
Array rotary_embedding(const TensorView& x, const TensorView& cosine, const TensorView& sine,
                       bool interleaved, bool inverse) {
  constexpr auto op = "rotary_embedding";
  rotary_args(op, x, cosine, sine);
  const i64 length = x.shape[-2], n = x.shape[-1], pairs = cosine.shape[-1];
  const Array cosines = converted(cosine, compute_dtype(x.dtype));
  const Array sines = converted(sine, compute_dtype(x.dtype));
  const Array rows = rows_contiguous(x);
  Array y = Array::empty(x.dtype, x.shape);
  i64 planes = 1;
  for (int i = 0; i + 2 < x.ndim(); ++i) planes *= x.shape[i];
  if (y.elements() == 0) return y;

  // Offsets of plane p in x and in the tables.
  const auto place = [&](i64 p, i64& in_x, i64& in_table) {
    in_x = in_table = 0;
    for (int i = 3; i <= x.ndim(); ++i) {
      const i64 at = p % x.shape[-i];
      p /= x.shape[-i];
      in_x += at * rows.stride(-i);
      if (i <= cosine.ndim() && cosine.shape[-i] != 1) in_table += at * cosines.stride(-i);
    }
  };
  dispatch_floating(x.dtype, [&](auto s) {
    using S = decltype(s);
    using T = Computed<S>;
    const auto kernel = kernels_of<S>().rotary;
    parallel_ranges(planes * length, rows_grain(n), [&](i64 begin, i64 end) {
      while (begin < end) {  // the rows of one plane at a time
        const i64 i = begin % length, count = std::min(length - i, end - begin);
        i64 in_x, in_table;
        place(begin / length, in_x, in_table);
        in_table += i * pairs;
        kernel(rows.as<S>() + in_x + i * rows.stride(-2), rows.stride(-2),
               cosines.as<T>() + in_table, sines.as<T>() + in_table, pairs, interleaved, inverse,
               y.as<S>() + begin * n, count, n, pairs);
        begin += count;
      }
    });
  });
  return y;
}

}  // namespace vectile::ops
