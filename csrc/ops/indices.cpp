#include "ops/indices.h"

#include <limits>
#include <type_traits>

#include "ops/indices_args.h"

namespace vectile {
namespace {

// Widens n elements; a uint64 beyond int64 becomes -1 - that is, out of every range.
template <class I>
void widen(const TensorView& ids, i64* y) {
  const I* x = ids.as<I>();
  const i64 n = ids.elements();
  for (i64 i = 0; i < n; ++i) {
    y[i] = static_cast<i64>(x[i]);
    if constexpr (std::is_same_v<I, std::uint64_t>)
      if (x[i] > static_cast<I>(std::numeric_limits<i64>::max())) y[i] = -1;
  }
}

[[noreturn]] void out_of_range(const char* op, const char* argument, const TensorView& ids, i64 at,
                               i64 value, i64 limit) {
  Shape position = ids.shape;
  i64 rest = at;
  for (int d = ids.ndim() - 1; d >= 0; --d) {
    position[d] = rest % ids.shape[d];
    rest /= ids.shape[d];
  }
  const std::string got =
      ids.dtype == DType::u64 && value < 0 ? "more than 2**63 - 1" : text(value);
  fail<IndexError>(op, argument, text("at ", position).c_str(), text("0 <= index < ", limit), got);
}

}  // namespace

Buffer<i64> integers(const char* op, const char* argument, const TensorView& ids) {
  Buffer<i64> y(checked_elements(ids.shape));
  const Array x = contiguous(ids);
  dispatch_integer(op, argument, ids.dtype, [&](auto i) { widen<decltype(i)>(x, y.get()); });
  return y;
}

Buffer<i64> checked_indices(const char* op, const char* argument, const TensorView& ids, i64 limit,
                            const i64* ignored) {
  Buffer<i64> y = integers(op, argument, ids);
  const i64 n = ids.elements();
  for (i64 i = 0; i < n; ++i) {
    const bool inside = static_cast<std::uint64_t>(y[i]) < static_cast<std::uint64_t>(limit);
    const bool wrapped = ids.dtype == DType::u64 && y[i] < 0;
    if (!inside && !(ignored && y[i] == *ignored && !wrapped)) [[unlikely]]
      out_of_range(op, argument, ids, i, y[i], limit);
  }
  return y;
}

}  // namespace vectile
