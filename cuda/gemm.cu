// Matrix products: blocks of C whose operands stream through a ring of stages in shared memory to
// tensor cores (float64: to FMA), finished by the epilogue before they are stored.
#include "gemm.h"

#include <algorithm>

#include "gemm_problem.h"
#include "ops/matmul_args.h"

namespace vectile::cuda {
namespace {

// Of C for a block, of which each warp has an equal part, and whether for a part of k: large tiles
// are taken where C has blocks enough, and have no registers to spare.
template <int M, int N, int WARPS_M, int WARPS_N, int STAGES, bool IN_PARTS>
struct Tile {
  static constexpr bool in_parts = IN_PARTS;
  static constexpr int m = M, n = N, warps_m = WARPS_M, warps_n = WARPS_N, stages = STAGES;
  static constexpr int warps = WARPS_M * WARPS_N, threads = warps * kWarp;
  static constexpr std::size_t bytes = std::size_t{STAGES} * (M + N) * kStepBytes;
};
using Large = Tile<128, 128, 2, 4, 4, false>;
using Small = Tile<64, 64, 2, 2, 4, true>;
struct Plain {
  static constexpr int m = 64, n = 64, threads = 256;
  static constexpr std::size_t bytes = 0;
};

// Which block of C a block of the grid computes.
template <class T>
struct Place {
  BlockPlace at;
  __device__ Place(i64 m_size, i64 n_size)
      : at(blockIdx.x, static_cast<unsigned>(ceil_div(m_size, T::m)),
           static_cast<unsigned>(ceil_div(n_size, T::n))) {}
  __device__ i64 m() const { return i64{at.row} * T::m; }
  __device__ i64 n() const { return i64{at.column} * T::n; }
};

// A warp's part of C: its sums, and the way to whole vectors of a row through shared memory of its
// own.
template <class Math, int WARP_M, int WARP_N>
struct Sums {
  static constexpr int rows = WARP_M / 16, columns = WARP_N / 8;
  static_assert(WARP_N == 32);  // floats of a row in shared memory, one in each bank
  float at[Math::sums][rows][columns][4];

  __device__ void clear() {
#pragma unroll
    for (int s = 0; s < Math::sums; ++s)
#pragma unroll
      for (int i = 0; i < rows; ++i)
#pragma unroll
        for (int j = 0; j < columns; ++j)
#pragma unroll
          for (int r = 0; r < 4; ++r) at[s][i][j][r] = 0;
  }

  // Adds a step's product of the warp's lines in two tiles.
  template <bool a_along_k, bool b_along_k, class TileA, class TileB>
  __device__ void add(const char* a, const char* b, int a_line, int b_line) {
#pragma unroll
    for (int k = 0; k < TileA::depth; k += kFragment) {
      Fragment<Math::pieces> right[columns / 2];
#pragma unroll
      for (int j = 0; j < columns / 2; ++j)
        right[j] = Math::template load<b_along_k, TileB>(b, b_line + kFragment * j, k);
#pragma unroll
      for (int i = 0; i < rows; ++i) {
        const auto left = Math::template load<a_along_k, TileA>(a, a_line + kFragment * i, k);
#pragma unroll
        for (int t = 0; t < Math::terms; ++t) {
          const Term term = Math::term(t);
#pragma unroll
          for (int j = 0; j < columns; ++j) {
            const unsigned (&r)[4] = right[j / 2].at[term.b];
            const unsigned column[] = {r[j % 2], r[j % 2 + 2]};
            float (&sum)[4] = at[term.sum][i][j];
            if (Math::sums == 2 && term.sum == 0) {
              float part[4] = {};
              multiply_add(part, left.at[term.a], column, typename Math::Operand{});
#pragma unroll
              for (int e = 0; e < 4; ++e) sum[e] += part[e];
            } else {
              multiply_add(sum, left.at[term.a], column, typename Math::Operand{});
            }
          }
        }
      }
    }
  }

  __device__ float total(int i, int j, int r) const {
    const float y = at[0][i][j][r];
    if constexpr (Math::sums == 1) return y;
    return abs(y) < INFINITY ? y + at[Math::sums - 1][i][j][r] : y;
  }

  // Of an element in shared memory; rows that are written together begin in different banks.
  __device__ static int place(int row, int column) { return row * WARP_N + (column ^ row % 4 * 8); }

  template <class C>
  __device__ void finish(const C& c, float* shared, i64 first_row, i64 first_col) const {
    constexpr int size = C::size, in_row = WARP_N / size;
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
    for (int i = 0; i < rows; ++i)
#pragma unroll
      for (int j = 0; j < columns; ++j)
#pragma unroll
        for (int half = 0; half < 2; ++half)
          *reinterpret_cast<float2*>(shared +
                                     place(16 * i + 8 * half + lane / 4, 8 * j + 2 * (lane % 4))) =
              float2{total(i, j, 2 * half), total(i, j, 2 * half + 1)};
    __syncwarp();
#pragma unroll 1
    for (int v = lane; v < WARP_M * in_row; v += kWarp) {
      const int row = v / in_row, column = v % in_row * size;
      c.finish(shared + place(row, column), first_row + row, first_col + column);
    }
  }
};

// Where the sums of a part go.
struct OfPart {
  static constexpr int size = Vector<float>::size;
  float* to;
  i64 m, pitch;
  __device__ OfPart(const Parts& p, i64 product, int part)
      : to(p.sums + (product * p.count + part) * p.m * p.pitch), m(p.m), pitch(p.pitch) {}
  __device__ void finish(const float* sums, i64 row, i64 col) const {
    if (row < m && col < pitch)
      *reinterpret_cast<Vector<float>*>(to + row * pitch + col) =
          *reinterpret_cast<const Vector<float>*>(sums);
  }
};

template <class Math, class T, bool a_along_k, bool b_along_k>
__global__ void __launch_bounds__(T::threads, Math::blocks)
    gemm_kernel(Product<typename Math::Stored> p, i64 first_batch) {
  using S = typename Math::Stored;
  using TileA = SharedTile<S, T::m, a_along_k>;
  using TileB = SharedTile<S, T::n, b_along_k>;
  constexpr int warp_m = T::m / T::warps_m, warp_n = T::n / T::warps_n;
  using Part = Sums<Math, warp_m, warp_n>;
  static_assert(sizeof(float) * T::m * T::n <= T::bytes);
  char* const memory = dynamic_memory();
  const auto stage_a = [&](int s) { return memory + s * (TileA::bytes + TileB::bytes); };
  const auto stage_b = [&](int s) { return stage_a(s) + TileA::bytes; };
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int line_a = warp / T::warps_n * warp_m, line_b = warp % T::warps_n * warp_n;
  const Place<T> place(p.c.m, p.c.n);

  const i64 product = first_batch + blockIdx.z;
  const int part = static_cast<int>(blockIdx.y);
  i64 first = 0, end = p.a.k;
  if constexpr (T::in_parts) {
    const i64 steps = ceil_div(p.a.k, TileA::depth);
    first = steps * part / p.parts.count * TileA::depth;
    if (part + 1 < p.parts.count) end = steps * (part + 1) / p.parts.count * TileA::depth;
  }
  const Strides by = p.batch.at(product);
  Copier<S, T::m, a_along_k, T::threads> a(p.a.moved(by.a + first * p.a.depth), place.m());
  Copier<S, T::n, b_along_k, T::threads> b(p.b.moved(by.b + first * p.b.depth), place.n());
  Part sums;
  sums.clear();
  // A group of copies for every step, empty ones past the last: a step has arrived when at most
  // stages - 2 of the groups after it are under way.
  i64 left = end - first;
  int to = 0;
  const auto start = [&] {
    if (left > 0) a.copy(stage_a(to), left), b.copy(stage_b(to), left);
    left -= TileA::depth;
    copy_commit();
    to = to + 1 == T::stages ? 0 : to + 1;
  };
#pragma unroll 1
  for (int s = 0; s < T::stages - 1; ++s) start();
  while (left > -(T::stages - 1) * TileA::depth) {
    copy_wait<T::stages - 2>();
    __syncthreads();  // the step is here for all, and its predecessor's stage free
    start();          // and now `to` is the oldest, of this step
    sums.template add<a_along_k, b_along_k, TileA, TileB>(stage_a(to), stage_b(to), line_a, line_b);
  }
  copy_wait<0>();
  __syncthreads();
  const auto finish = [&](const auto& c) {
    sums.finish(c, reinterpret_cast<float*>(memory) + warp * warp_m * warp_n, place.m() + line_a,
                place.n() + line_b);
  };
  if (T::in_parts && p.parts.count > 1)
    finish(OfPart(p.parts, product, part));
  else
    finish(p.c.moved(by.c));
}

constexpr int kAddThreads = 128;

// Adds up the parts of whole vectors of C.
template <class S>
__global__ void __launch_bounds__(kAddThreads) add_parts_kernel(Product<S> p) {
  constexpr int size = Vector<S>::size;
  const i64 in_row = ceil_div(p.c.n, size), all = p.batch.count * p.c.m * in_row;
  for (i64 i = i64{blockIdx.x} * kAddThreads + threadIdx.x; i < all;
       i += i64{gridDim.x} * kAddThreads) {
    const i64 product = i / in_row / p.c.m, row = i / in_row % p.c.m, col = i % in_row * size;
    float sums[size] = {};
#pragma unroll 4
    for (int part = 0; part < p.parts.count; ++part) {
      float more[size];
      const OfPart of(p.parts, product, part);
      load_elements<size>(of.to + row * of.pitch, col, of.pitch, 0.0f, more);
#pragma unroll
      for (int e = 0; e < size; ++e) sums[e] += more[e];
    }
    p.c.moved(p.batch.at(product).c).finish(sums, row, col);
  }
}

// float64 without tensor cores: 4 x 4 elements a thread, rows 16 apart, columns in pairs 32 apart.
__global__ void __launch_bounds__(Plain::threads, 1)
    plain_kernel(Product<double> p, i64 first_batch) {
  constexpr int depth = 16, pitch = Plain::m + 2;
  __shared__ double a[depth][pitch], b[depth][pitch];
  const int thread = static_cast<int>(threadIdx.x), tx = thread % 16, ty = thread / 16;
  const Place<Plain> place(p.c.m, p.c.n);
  const auto load = [&](const Lines<double>& x, i64 first, i64 k, double (&to)[depth][pitch]) {
    const bool along_k = x.depth == 1;
#pragma unroll
    for (int i = thread; i < depth * Plain::m; i += Plain::threads) {
      const int d = along_k ? i % depth : i / Plain::m, l = along_k ? i / depth : i % Plain::m;
      const bool inside = first + l < x.count && k + d < x.k;
      to[d][l] = inside ? x.at[(first + l) * x.line + (k + d) * x.depth] : 0.;
    }
  };
  const Strides by = p.batch.at(first_batch + blockIdx.z);
  const Lines<double> lines_a = p.a.moved(by.a), lines_b = p.b.moved(by.b);
  const Epilogue<double> c = p.c.moved(by.c);
  double sums[4][2][2] = {};
  for (i64 k = 0; k < p.a.k; k += depth) {
    __syncthreads();
    load(lines_a, place.m(), k, a);
    load(lines_b, place.n(), k, b);
    __syncthreads();
#pragma unroll
    for (int d = 0; d < depth; ++d)
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j)
          sums[i][j / 2][j % 2] =
              fma(a[d][ty + 16 * i], b[d][2 * tx + j / 2 * 32 + j % 2], sums[i][j / 2][j % 2]);
  }
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int j = 0; j < 2; ++j)
      c.finish(sums[i][j], place.m() + ty + 16 * i, place.n() + 2 * tx + 32 * j);
}

// ---- launches -----------------------------------------------------------------------------------

// Runs a kernel for the blocks of all products of the batch.
template <class T, class S>
void over_blocks(void (*kernel)(Product<S>, i64), const Product<S>& p) {
  const i64 blocks = ceil_div(p.c.m, T::m) * ceil_div(p.c.n, T::n);
  check(blocks < i64{1} << 28, "matmul", "result", "blocks", "fewer than 2^28", blocks);
  for (i64 first = 0; first < p.batch.count; first += kMostBatches) {
    const auto batches = static_cast<unsigned>(std::min(p.batch.count - first, kMostBatches));
    launch(kernel,
           {dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(p.parts.count), batches),
            dim3(T::threads), T::bytes},
           p, first);
  }
}

template <class F>
void with_bool(bool value, F&& f) {
  value ? f(std::true_type{}) : f(std::false_type{});
}

template <class Math>
void run(Product<typename Math::Stored> p, bool a_along_k, bool b_along_k) {
  using S = typename Math::Stored;
  if (multiply_on_hopper<Math>(p)) return;
  const auto start = [&](auto large) {
    using T = std::conditional_t<large.value, Large, Small>;
    with_bool(a_along_k, [&](auto ak) {
      with_bool(b_along_k,
                [&](auto bk) { over_blocks<T>(gemm_kernel<Math, T, ak.value, bk.value>, p); });
    });
  };
  const auto blocks = [&](auto tile) {
    return ceil_div(p.c.m, tile.m) * ceil_div(p.c.n, tile.n) * p.batch.count;
  };
  const bool fills = p.c.m > Small::m && p.c.n > Small::n && blocks(Large{}) >= multiprocessors();
  if (fills) return start(std::true_type{});
  const i64 parts = parts_of<S>(p.c.m, p.c.n, p.a.k, blocks(Small{}));
  const i64 pitch = round_up(p.c.n, Vector<S>::size);
  if (parts == 1) return start(std::false_type{});
  const Array sums = Array::empty(DType::f32, Shape(p.batch.count, parts, p.c.m, pitch));
  p.parts = {static_cast<int>(parts), sums.as<float>(), p.c.m, pitch};
  start(std::false_type{});
  launch(add_parts_kernel<S>,
         {blocks_for(sums.elements() / parts / Vector<S>::size, kAddThreads), kAddThreads}, p);
}

// C = A B, strides in elements; what fold_into_rows takes.
struct Strided {
  i64 m, n, k, a_row, a_col, b_row, b_col, c_row;
};

// How an operand is copied: along k or along its lines, in whole chunks if it can be.
template <class S>
bool choose_copies(Lines<S>& x, const BatchAxes& batch, i64 Strides::* stride) {
  constexpr i64 size = Vector<S>::size;
  bool aligned = reinterpret_cast<std::uintptr_t>(x.at) % kVectorBytes == 0;
  for (int d = 0; d < batch.axes; ++d) aligned = aligned && batch.stride[d].*stride % size == 0;
  const auto whole = [&](i64 along, i64 length, i64 across, i64 others) {
    return aligned && along == 1 && length % size == 0 && (others == 1 || across % size == 0);
  };
  const bool k = whole(x.depth, x.k, x.line, x.count);
  x.vectors = k || whole(x.line, x.count, x.depth, x.k);
  return k || (!x.vectors && x.line != 1);
}

BatchAxes merged(const ops::Batch& batch) {
  BatchAxes l{};
  l.count = batch.count();
  for (int d = batch.shape.ndim - 1; d >= 0; --d) {
    const Strides s{batch.a[d], batch.b[d], batch.c[d]};
    const i64 n = l.axes ? l.size[l.axes - 1] : 0;
    const Strides last = l.axes ? l.stride[l.axes - 1] : Strides{};
    if (l.axes && s.a == last.a * n && s.b == last.b * n && s.c == last.c * n) {
      l.size[l.axes - 1] *= batch.shape[d];
      continue;
    }
    l.size[l.axes] = batch.shape[d];
    l.stride[l.axes++] = s;
  }
  return l;
}

// c = activation(a b + bias) + residual for the views' last two axes, the columns of c dense; bias
// and residual dense or null.
template <class S>
void multiply(const TensorView& a, const TensorView& b, const TensorView& c, const S* bias,
              Activation activation, const S* residual, ops::Compute compute) {
  Strided g{c.shape[-2],  c.shape[-1],  a.shape[-1],  a.stride(-2),
            a.stride(-1), b.stride(-2), b.stride(-1), c.stride(-2)};
  // Strides of axes with one element mean nothing; give them the value the kernels like.
  if (g.k == 1) g.a_col = 1, g.b_row = 1;
  if (g.n == 1) g.b_col = g.k;
  if (g.m == 1) g.a_row = g.k, g.c_row = g.n;
  ops::Batch batch(a, b, c);
  ops::fold_into_rows(batch, g);
  Product<S> p{{a.as<S>(), g.m, g.k, g.a_row, g.a_col, false},
               {b.as<S>(), g.n, g.k, g.b_col, g.b_row, false},
               {c.as<S>(), g.m, g.n, g.c_row, bias, residual, activation},
               merged(batch),
               {1, nullptr, 0, 0}};
  if (g.m == 0 || g.n == 0 || p.batch.count == 0) return;
  const bool a_along_k = choose_copies(p.a, p.batch, &Strides::a);
  const bool b_along_k = choose_copies(p.b, p.batch, &Strides::b);
  if constexpr (sizeof(S) == 8) {
    over_blocks<Plain>(plain_kernel, p);
  } else if constexpr (sizeof(S) == 2) {
    run<Halves<S>>(p, a_along_k, b_along_k);
  } else if (compute == ops::Compute::standard) {
    run<Split>(p, a_along_k, b_along_k);
  } else {
    run<Rounded>(p, a_along_k, b_along_k);
  }
}

}  // namespace

Array matmul(const TensorView& a, const TensorView& b, const TensorView* out,
             ops::Compute compute) {
  constexpr const char* op = "matmul";
  check_floating(op, "a", a);
  ops::check_compute(op, "a", a, compute);
  check_same_dtype(op, "b", b, a);
  const ops::MatmulShape shape(op, a, b);
  // Written in place when its rows are dense and it shares no memory with an operand.
  if (out) check_out(op, *out, a.dtype, shape.result);
  const bool dense = out && (shape.vector_b || out->shape.back() <= 1 || out->stride(-1) == 1);
  const bool direct = dense && !overlaps(*out, a) && !overlaps(*out, b);
  Array c = direct ? Array(*out) : Array::empty(a.dtype, shape.result);
  dispatch_floating(a.dtype, [&](auto s) {
    using S = decltype(s);
    multiply<S>(shape.a, shape.b, shape.matrix(c), nullptr, Activation::none, nullptr, compute);
  });
  if (!out || direct) return c;
  copy_strided(c, *out);
  return Array(*out);
}

Array linear(const TensorView& x, const TensorView& weight, const TensorView* bias,
             Activation activation, const TensorView* residual, ops::Compute compute) {
  Array y = Array::empty(x.dtype, ops::linear_args(x, weight, bias, compute));
  if (residual) ops::check_residual(*residual, y);
  const Array dense = given(bias), added = given(residual);
  const bool vector = x.ndim() == 1;
  constexpr int order[] = {1, 0};
  dispatch_floating(x.dtype, [&](auto s) {
    using S = decltype(s);
    multiply<S>(vector ? ops::with_axis(x, 0) : x, permuted(weight, order),
                vector ? ops::with_axis(y, 0) : y, dense.as<S>(), activation, added.as<S>(),
                compute);
  });
  return y;
}

}  // namespace vectile::cuda
