#include "ops/rotary.h"

#include <algorithm>

#include "ops/cast.h"

namespace vectile::ops {
namespace {

// A table row-major in the type kernels compute in.
Array table(const char* op, const char* argument, const TensorView& t, const TensorView& x) {
  check_parameter_dtype(op, argument, t, x);
  return converted(t, compute_dtype(x.dtype));
}

}  // namespace

Array rotary_embedding(const TensorView& x, const TensorView& cosine, const TensorView& sine,
                       bool interleaved, bool inverse) {
  constexpr auto op = "rotary_embedding";
  check_floating(op, "x", x);
  check(x.ndim() >= 2, op, "x", "ndim", "at least 2", x.ndim());
  check(cosine.ndim() >= 2, op, "cosine", "ndim", "at least 2", cosine.ndim());
  check_shape(op, "sine", sine, cosine.shape);
  const i64 length = x.shape[-2], n = x.shape[-1], pairs = cosine.shape[-1];
  check(2 * pairs <= n, op, "cosine", "pairs", text("at most ", n / 2), pairs);
  check(cosine.shape[-2] == length, op, "cosine", "length", length, cosine.shape[-2]);
  bool fits = cosine.ndim() <= x.ndim();
  for (int i = 3; fits && i <= cosine.ndim(); ++i)
    fits = cosine.shape[-i] == 1 || cosine.shape[-i] == x.shape[-i];
  if (!fits) fail(op, "cosine", "shape", text("leading axes of ", x.shape), cosine.shape);
  const Array cosines = table(op, "cosine", cosine, x);
  const Array sines = table(op, "sine", sine, x);
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
