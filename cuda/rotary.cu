// Rotary position embedding (Su et al., RoFormer, arXiv 2104.09864, eq. 34): one read and one
// write, 16 bytes of pairs' first and second elements a thread.
#include "rotary.h"

#include "ops/rotary_args.h"
#include "rows.h"

namespace vectile::cuda {
namespace {

constexpr int kThreads = 256;

// Where the rows of x and the tables lie: axes but the last, those merged that lie together in
// both; the last of them first.
struct RowLayout {
  int axes = 0;
  i64 size[kMaxDims], x[kMaxDims], table[kMaxDims];

  void push(i64 n, i64 in_x, i64 in_table) {
    const int k = axes - 1;
    if (n == 1) return;
    if (k >= 0 && in_x == x[k] * size[k] && in_table == table[k] * size[k]) {
      size[k] *= n;
      return;
    }
    size[axes] = n;
    x[axes] = in_x;
    table[axes++] = in_table;
  }
};

// A block is (threads of a row, rows). Pair j is (x[2 j], x[2 j + 1]) if interleaved, else (x[j],
// x[pairs + j]); elements past the pairs are copied.
template <class S, bool interleaved>
__global__ void __launch_bounds__(kThreads)
    rotary_kernel(const S* __restrict__ x, const Computed<S>* __restrict__ cosine,
                  const Computed<S>* __restrict__ sine, Computed<S> sign, S* __restrict__ y,
                  const __grid_constant__ RowLayout l, i64 rows, i64 n, i64 pairs) {
  using T = Computed<S>;
  constexpr int W = Vector<S>::size;
  for (i64 r = i64{blockIdx.x} * blockDim.y + threadIdx.y; r < rows;
       r += i64{gridDim.x} * blockDim.y) {
    i64 rest = r, in_x = 0, in_table = 0;
    for (int a = 0; a < l.axes; ++a) {
      const i64 at = a + 1 < l.axes ? rest % l.size[a] : rest;
      if (a + 1 < l.axes) rest /= l.size[a];
      in_x += at * l.x[a];
      in_table += at * l.table[a];
    }
    const S* from = x + in_x;
    S* to = y + r * n;
    for (i64 j = i64{threadIdx.x} * W; j < pairs; j += blockDim.x * W) {
      T c[W], s[W], both[2][W];
      load_adjacent(c, cosine + in_table + j, pairs - j);
      load_adjacent(s, sine + in_table + j, pairs - j);
      const i64 first = interleaved ? 2 * j : j, second = interleaved ? 2 * j + W : pairs + j;
      const i64 left = interleaved ? 2 * (pairs - j) : pairs - j;
      const i64 left2 = interleaved ? left - W : left;
      load_adjacent(both[0], from + first, left);
      load_adjacent(both[1], from + second, left2);
#pragma unroll
      for (int k = 0; k < W; ++k) {
        T& a = interleaved ? both[2 * k / W][2 * k % W] : both[0][k];
        T& b = interleaved ? both[2 * k / W][2 * k % W + 1] : both[1][k];
        const T turned = sign * s[k], before = a;
        a = fma(-b, turned, before * c[k]);
        b = fma(before, turned, b * c[k]);
      }
      store_adjacent(both[0], to + first, left);
      store_adjacent(both[1], to + second, left2);
    }
#pragma unroll 1
    for (i64 j = 2 * pairs + threadIdx.x; j < n; j += blockDim.x) to[j] = from[j];
  }
}

}  // namespace

Array rotary_embedding(const TensorView& x, const TensorView& cosine, const TensorView& sine,
                       bool interleaved, bool inverse) {
  ops::rotary_args("rotary_embedding", x, cosine, sine);
  Array y = Array::empty(x.dtype, x.shape);
  if (y.elements() == 0) return y;
  const i64 n = x.shape[-1], pairs = cosine.shape[-1];
  const DType compute = compute_dtype(x.dtype);
  const Array rows = n == 1 || x.stride(-1) == 1 ? Array(x) : contiguous(x);
  const Array cosines = converted(cosine, compute);
  const Array sines = converted(sine, compute);
  RowLayout l;
  for (int i = 2; i <= x.ndim(); ++i) {
    const bool shared = i > cosine.ndim() || cosine.shape[-i] == 1;
    l.push(x.shape[-i], rows.stride(-i), shared ? 0 : cosines.stride(-i));
  }
  dispatch_floating(x.dtype, [&](auto s) {
    using S = decltype(s);
    using T = Computed<S>;
    unsigned across = 1;
    while (across < kThreads && across * Vector<S>::size < pairs) across *= 2;
    const dim3 block(across, kThreads / across);
    const i64 count = y.elements() / n;
    launch(interleaved ? rotary_kernel<S, true> : rotary_kernel<S, false>,
           {blocks_for(count, block.y), block}, rows.as<S>(), cosines.as<T>(), sines.as<T>(),
           inverse ? T(-1) : T(1), y.as<S>(), l, count, n, pairs);
  });
  return y;
}

}  // namespace vectile::cuda
