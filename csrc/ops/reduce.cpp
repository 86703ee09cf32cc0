#include "ops/reduce.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "ops/staging.h"

namespace vectile::ops {
namespace {

constexpr i64 kDeep = 256;          // longest column one kernel call sums: bounds its error
constexpr i64 kColumnTile = 2048;   // columns per call: the running sums stay in L1
constexpr i64 kNarrow = 32;         // fewer columns than this are folded into longer lines
constexpr i64 kFoldedColumns = 64;  // at least this many then
constexpr i64 kStagedTile = 128;    // kColumnTile where columns are widened first

template <class T>
struct Variants {
  RowsKernel<T> rows;
  ColumnsKernel<T> columns;
};

// Row-major elements of type T or of a half type, which are widened where they are read.
template <class T>
class Source {
 public:
  explicit Source(const TensorView& x, i64 first = 0) : x_(x), first_(first) {}
  explicit Source(const T* x) : first_(0) {
    x_.data = const_cast<T*>(x);
    x_.dtype = sizeof(T) == 4 ? DType::f32 : DType::f64;
  }
  bool staged() const { return is_half(x_.dtype); }
  Source from(i64 offset) const { return Source(x_, first_ + offset); }
  const T* in_place(i64 offset) const { return x_.as<T>() + first_ + offset; }
  Staged<T, const T*> rows(i64 n) const {
    TensorView v = x_;
    v.data = static_cast<char*>(x_.data) + first_ * static_cast<i64>(item_size(x_.dtype));
    return reading<T>(v, n);
  }
  // `rows` of n elements, `stride` apart, side by side in `y`.
  void copy(i64 offset, i64 stride, i64 rows, i64 n, T* y) const {
    const auto size = static_cast<i64>(item_size(x_.dtype));
    const DType to = sizeof(T) == 4 ? DType::f32 : DType::f64;
    for (i64 r = 0; r < rows; ++r)
      kernels().cast(static_cast<char*>(x_.data) + (first_ + offset + r * stride) * size, x_.dtype,
                     y + r * n, to, n);
  }

 private:
  TensorView x_;
  i64 first_;
};

// y[o, i] = reduction of x[o, k, i] over k; x is (outer, n, inner) and y (outer, inner), row-major.
template <class T>
void reduce_middle(const Variants<T>& op, const Source<T>& x, T* y, i64 outer, i64 n, i64 inner) {
  if (inner == 1) {
    if (n <= kGrain) {
      staged_ranges<T>(
          outer, rows_grain(n),
          [&](i64 r, i64 rows, const T* from) { op.rows(from, y + r, rows, n); }, x.rows(n));
      return;
    }
    const i64 chunks = ceil_div(n, kGrain);
    const Buffer<T> partial(outer * chunks);
    parallel_for(outer * chunks, [&](i64 c) {
      const i64 row = c / chunks, begin = c % chunks * kGrain;
      const i64 length = std::min(kGrain, n - begin);
      const auto run = [&](i64, i64 rows, const T* from) {
        op.rows(from, partial.get() + c, rows, length);
      };
      staged_pieces<T>(0, 1, run, x.from(row * n + begin).rows(length));
    });
    return reduce_middle(op, Source<T>(partial.get()), y, outer, chunks, 1);
  }

  // Narrow lines: `fold` of them side by side make one line of a shorter, wider array.
  const i64 fold = inner < kNarrow ? ceil_div(kFoldedColumns, inner) : 1;
  if (fold > 1 && n >= 4 * fold) {
    const i64 long_n = n / fold, rest = n - long_n * fold, lines = fold + rest;
    const Buffer<T> partial(outer * lines * inner);
    parallel_ranges(outer, rows_grain(n * inner), [&](i64 begin, i64 end) {
      for (i64 o = begin; o < end; ++o) {
        const Source<T> from = x.from(o * n * inner);
        T* to = partial.get() + o * lines * inner;
        reduce_middle(op, from, to, 1, long_n, fold * inner);
        from.copy(long_n * fold * inner, 0, 1, rest * inner, to + fold * inner);
      }
    });
    return reduce_middle(op, Source<T>(partial.get()), y, outer, lines, inner);
  }

  const i64 width = x.staged() ? kStagedTile : kColumnTile;
  const i64 chunks = ceil_div(n, kDeep), tiles = ceil_div(inner, width);
  const Buffer<T> partial(chunks > 1 ? outer * chunks * inner : 0);
  T* to = chunks > 1 ? partial.get() : y;
  const i64 work = std::min(n, kDeep) * std::min(inner, width);
  parallel_ranges(outer * chunks * tiles, rows_grain(work), [&](i64 begin, i64 end) {
    const Buffer<T> tile(x.staged() ? work : 0);
    for (i64 c = begin; c < end; ++c) {
      const i64 j = c % tiles * width, line = c / tiles, k = line % chunks * kDeep;
      const i64 at = (line / chunks * n + k) * inner + j;
      const i64 deep = std::min(kDeep, n - k), columns = std::min(width, inner - j);
      if (x.staged()) x.copy(at, inner, deep, columns, tile.get());
      op.columns(x.staged() ? tile.get() : x.in_place(at), x.staged() ? columns : inner,
                 to + line * inner + j, deep, columns);
    }
  });
  if (chunks > 1) reduce_middle(op, Source<T>(partial.get()), y, outer, chunks, inner);
}

// Axes by falling stride: in that order a transposed array is row-major.
void order_by_stride(const TensorView& x, int* order) {
  for (int i = 0; i < x.ndim(); ++i) order[i] = i;
  std::stable_sort(order, order + x.ndim(),
                   [&](int i, int j) { return std::abs(x.strides[i]) > std::abs(x.strides[j]); });
}

// Reduces the marked axes of a row-major array one run of adjacent axes after the other, innermost
// first, and leaves the others in their order.
template <class T>
Array reduce_axes(const Variants<T>& op, const TensorView& x, const bool* reduced) {
  i64 size[kMaxDims];
  bool drop[kMaxDims];
  int runs = 0;
  Shape kept;
  for (int i = 0; i < x.ndim(); ++i) {
    if (!reduced[i]) kept.push(x.shape[i]);
    if (x.shape[i] == 1) continue;
    if (runs && drop[runs - 1] == reduced[i]) {
      size[runs - 1] *= x.shape[i];
    } else {
      drop[runs] = reduced[i];
      size[runs++] = x.shape[i];
    }
  }
  const DType compute = compute_dtype(x.dtype);
  Source<T> from(x);
  Array held;  // what `from` points into after the first pass
  for (int r = runs - 1; r >= 0; --r) {
    if (!drop[r]) continue;
    i64 outer = 1, inner = 1;
    for (int i = 0; i < r; ++i) outer *= size[i];
    for (int i = r + 1; i < runs; ++i) inner *= size[i];
    const i64 n = size[r];
    size[r] = 1;
    Array next = Array::empty(compute, Shape(outer * inner));
    reduce_middle(op, from, next.as<T>(), outer, n, inner);
    held = std::move(next);
    from = Source<T>(held);
  }
  if (!held.owns()) {  // no axis of more than one element
    held = Array::empty(compute, kept);
    from.copy(0, 0, 1, x.elements(), held.as<T>());
  }
  held.shape = kept;
  held.set_contiguous_strides();
  return held;
}

template <class T>
void divide_by(const TensorView& y, i64 count) {
  const T n = static_cast<T>(count);
  kernels_of<T>().divide({y.as<T>(), 0, 1}, {&n, 0, 0}, y.as<T>(), 1, y.elements());
}

// The result has the kept axes in order, and the type kernels compute in.
template <class T>
Array reduce_typed(const Reduction& op, const TensorView& x, const bool* reduced, i64 count) {
  int order[kMaxDims];
  const bool reorder = !x.contiguous();
  if (reorder) order_by_stride(x, order);
  const Array in = contiguous(reorder ? permuted(x, order) : x);
  bool drop[kMaxDims];
  for (int i = 0; i < x.ndim(); ++i) drop[i] = reduced[reorder ? order[i] : i];
  const Variants<T> variants{op.rows.kernel<T>(), op.columns.kernel<T>()};
  Array y = reduce_axes(variants, in, drop);
  if (op.mean) divide_by<T>(y, count);
  if (!reorder) return y;
  // Position k of y holds the k-th kept axis of `order`; put the axes back.
  int place[kMaxDims], kept = 0, back[kMaxDims];
  for (int i = 0; i < x.ndim(); ++i)
    if (!drop[i]) place[order[i]] = kept++;
  kept = 0;
  for (int i = 0; i < x.ndim(); ++i)
    if (!reduced[i]) back[kept++] = place[i];
  const TensorView sorted = permuted(y, back);
  Array result = Array::empty(y.dtype, sorted.shape);
  copy_strided(sorted, result);
  return result;
}

}  // namespace

Array reduce(const Reduction& op, const TensorView& x, unsigned axes, bool keepdims,
             const TensorView* out) {
  const char* name = op.rows.name;
  const Reduced r = reduce_args(name, x, axes, keepdims, op.empty);
  if (out) check_out(name, *out, x.dtype, r.shape);
  Array y;
  if (x.elements() > 0)
    y = narrowed(
        dispatch_float(x.dtype,
                       [&](auto t) { return reduce_typed<decltype(t)>(op, x, r.axis, r.count); }),
        x.dtype);
  else
    y = Array::full(x.dtype, r.kept,
                    op.empty == Empty::nan ? std::numeric_limits<double>::quiet_NaN() : 0.0);
  y.shape = r.shape;
  y.set_contiguous_strides();
  if (!out) return y;
  Output result(name, x.dtype, r.shape, out, {&x});
  copy_strided(y, result.view());
  return result.finish();
}

Array sum_to(const TensorView& x, const Shape& shape) {
  Array y = reduce(kReductions[0], x, sum_to_args(x, shape), false);
  y.shape = shape;
  y.set_contiguous_strides();
  return y;
}

double global_norm(const TensorView* arrays, i64 count) {
  struct Piece {
    i64 array, begin;
  };
  i64 pieces = 0;
  for (i64 a = 0; a < count; ++a) {
    check_floating("global_norm", "arrays", arrays[a]);
    pieces += ceil_div(arrays[a].elements(), kGrain);
  }
  std::vector<Array> packed;
  std::vector<Piece> piece;
  piece.reserve(static_cast<std::size_t>(pieces));
  for (i64 a = 0; a < count; ++a) {
    packed.push_back(contiguous(arrays[a]));
    for (i64 k = 0; k < arrays[a].elements(); k += kGrain) piece.push_back({a, k});
  }
  const Buffer<double> partial(pieces);
  parallel_ranges(pieces, 4, [&](i64 begin, i64 end) {
    for (i64 p = begin; p < end; ++p) {
      const Array& x = packed[static_cast<std::size_t>(piece[static_cast<std::size_t>(p)].array)];
      const i64 k = piece[static_cast<std::size_t>(p)].begin;
      dispatch_float(x.dtype, [&](auto t) {
        using T = decltype(t);
        partial[p] = 0;
        const auto run = [&](i64, i64 n, const T* from) {
          double sum;
          kernels_of<T>().sum_squares(from, &sum, n);
          partial[p] += sum;
        };
        staged_pieces<T>(k, std::min(k + kGrain, x.elements()), run, reading<T>(x, 1));
      });
    }
  });
  double sum = 0;
  kernels_of<double>().row_sum(partial.get(), &sum, 1, pieces);
  return std::sqrt(sum);
}

}  // namespace vectile::ops
