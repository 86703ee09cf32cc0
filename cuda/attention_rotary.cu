#include "attention_rotary.h"

#include "rotary.h"
#include "rows.h"

namespace vectile::cuda::attention {
namespace {

constexpr int kThreads = 256;

// Rows of a table (copies, length, n) by place; NaN for a place outside.
template <class T>
__global__ void __launch_bounds__(kThreads)
    gather_kernel(const T* table, const int* places, i64 copies, i64 lq, i64 length, i64 n, T* y) {
  for (i64 x = i64{blockIdx.x} * kThreads + threadIdx.x; x < copies * lq * n;
       x += i64{gridDim.x} * kThreads) {
    const i64 place = places[x / n % lq], copy = x / n / lq;
    const bool inside = place >= 0 && place < length;
    y[x] = inside ? table[(copy * length + place) * n + x % n] : T(NAN);
  }
}

Array gathered(const Array& table, const Array& places) {
  Shape shape = table.shape;
  shape[-2] = places.shape[0];
  Array y = Array::empty(table.dtype, shape);
  const i64 n = shape[-1], size = y.elements();
  if (size == 0) return y;
  dispatch_float(table.dtype, [&](auto t) {
    using T = decltype(t);
    launch(gather_kernel<T>, {blocks_for(size, kThreads), kThreads}, table.as<T>(),
           places.as<int>(), size / (shape[-2] * n), shape[-2], table.shape[-2], n, y.as<T>());
  });
  return y;
}

// The same for all heads: (..., 1, rows, pairs).
TensorView over_heads(const TensorView& x) {
  if (x.ndim() == 2) return x;
  TensorView y = x;
  const int at = x.ndim() - 2;
  y.shape.push(0);
  for (int i = x.ndim(); i > at; --i) {
    y.shape[i] = x.shape[i - 1];
    y.strides[i] = x.strides[i - 1];
  }
  y.shape[at] = 1;
  return y;
}

}  // namespace

Rotary::Rotary(const char* op, const ops::AttentionOptions& o, const TensorView& query,
               const ops::AttentionSizes& s, const Array& places)
    : interleaved_(o.interleaved) {
  ops::rotary_table_args(op, o, query, s);
  check(o.cu_seqlens_q || s.lq <= s.lk, op, "rotary", "key length", "at least the query's",
        "none for query 0");
  for (int i = 0; i < 2; ++i) {
    Array& given = keys_[i].kept = converted(i ? *o.sine : *o.cosine, compute_dtype(query.dtype));
    TensorView rows = given;
    if (o.cu_seqlens_q) {
      rows = queries_[i].kept = gathered(given, places);
    } else {
      rows.shape[-2] = s.lq;
      rows.data = given.as<char>() +
                  (s.lk - s.lq) * given.stride(-2) * static_cast<i64>(item_size(given.dtype));
    }
    keys_[i].view = over_heads(given);
    queries_[i].view = over_heads(rows);
  }
}

Array Rotary::turned(const TensorView& x, const Tables& tables, bool back) const {
  return rotary_embedding(x, tables[0].view, tables[1].view, interleaved_, back);
}

}  // namespace vectile::cuda::attention
