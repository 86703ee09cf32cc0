// Products of bytes for sm_90a, by the kernel of gemm_hopper.h.
#pragma once

#include "gemm_hopper.h"
#include "gemm_s8_tile.h"

namespace vectile::cuda::hopper {

template <class A, class B>
struct FormS8 : FormOf<std::uint8_t, int, 1, 256, 4> {
  static constexpr int terms = 1, sums = 1;
  __device__ static constexpr Term term(int) { return {0, 0, 0}; }
  template <bool, bool, bool>
  __device__ static void multiply(int (&sum)[128], std::uint64_t a, std::uint64_t b) {
    warpgroup_multiply_add<A, B, 256>(sum, a, b);
  }
};

// What becomes of the sums: zero points taken out as SumsS8 does, then what Finish makes of them.
template <class Finish>
struct EpilogueS8 {
  using Y = typename Finish::Y;
  static constexpr int size = Vector<Y>::size < 8 ? Vector<Y>::size : 8;
  Finish f;
  i64 m, n, k;
  Numbers<int> a_zero, b_zero;
  const int *sums_a, *sums_b;  // of the rows of A and the columns of B; null for zeros

  __device__ EpilogueS8 moved(i64 by) const {
    EpilogueS8 e = *this;
    e.f.y += by;
    return e;
  }
  __device__ void finish(const int* sums, i64 row, i64 column) const {
    if (row >= m || column >= n) return;
    const int count = static_cast<int>(n - column < size ? n - column : size);
    const auto row_of = f.row(row);
    const auto x = static_cast<unsigned>(a_zero[row]);
    const unsigned sum_a = sums_a ? static_cast<unsigned>(sums_a[row]) : 0;
    struct alignas(size * sizeof(Y)) Values {
      Y at[size];
    } values;
#pragma unroll
    for (int e = 0; e < size; ++e) {
      if (e >= count) break;
      const i64 j = column + e;
      const auto y = static_cast<unsigned>(b_zero[j]);
      const unsigned sum_b = sums_b ? static_cast<unsigned>(sums_b[j]) : 0;
      const unsigned sum =
          static_cast<unsigned>(sums[e]) - x * sum_b - y * sum_a + static_cast<unsigned>(k) * x * y;
      values.at[e] = f.result(f.value(static_cast<int>(sum), row_of, f.column(j)));
    }
    Y* const to = f.y + row * n + column;
    if (count == size && reinterpret_cast<std::uintptr_t>(to) % sizeof values == 0) {
      *reinterpret_cast<Values*>(to) = values;
    } else {
#pragma unroll
      for (int e = 0; e < size; ++e)
        if (e < count) to[e] = values.at[e];
    }
  }
};

// The sum of each line, a warp's work.
template <class T>
__global__ void __launch_bounds__(kThreads) line_sums_kernel(LinesS8 x, i64 k, int* sums) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const i64 warps = i64{gridDim.x} * kThreads / kWarp;
  for (i64 i = (i64{blockIdx.x} * kThreads + threadIdx.x) / kWarp; i < x.count; i += warps) {
    int sum = 0;
    for (i64 at = i64{lane} * kVectorBytes; at < k; at += kWarp * kVectorBytes) {
      const auto v = *reinterpret_cast<const uint4*>(x.data + i * x.line + at);
      for (const unsigned four : {v.x, v.y, v.z, v.w}) sum = add_bytes(sum, four, T{});
    }
    sum = warp_reduce(sum, Sum{});
    if (lane == 0) sums[i] = sum;
  }
}

template <class T>
Array line_sums(const LinesS8& x, i64 k, bool wanted) {
  if (!wanted) return {};
  Array sums = Array::empty(DType::i32, Shape(x.count));
  launch(line_sums_kernel<T>, {blocks_for(x.count, kThreads / kWarp), kThreads}, x, k,
         sums.template as<int>());
  return sums;
}

// Starts the products where the device has the kernel and they suit it; else false.
template <class A, class B, class Finish>
bool multiply_s8(const ProductS8& p, const Finish& f) {
  using F = FormS8<A, B>;
  const i64 m = p.a.count, n = p.b.count;
  const bool zeros = p.a_zero.data || p.b_zero.data;
  if (p.axes > 2 || (zeros && p.batches > 1) || !suits<F>(m, n, p.k, p.batches)) return false;
  BatchAxes batch{};
  batch.axes = p.axes;
  batch.count = p.batches;
  for (int d = 0; d < p.axes; ++d) {
    batch.size[d] = p.size[d];
    batch.stride[d] = {p.a.batch[d], p.b.batch[d], d ? p.size[0] * m * n : m * n};
  }
  const auto tensor = [&](const LinesS8& x) {
    Tensor t{x.data, 1, {p.k, x.count, 1, 1, 1}, {x.line, x.line, x.line, x.line}};
    for (int d = 0; d < p.axes; ++d)
      if (x.batch[d]) t.size[3 + d] = p.size[d], t.stride[2 + d] = x.batch[d];
    return t;
  };
  const Tensor a = tensor(p.a), b = tensor(p.b);
  if (!can_map(a) || !can_map(b)) return false;
  const Array sums_a = line_sums<A>(p.a, p.k, p.b_zero.data != nullptr);
  const Array sums_b = line_sums<B>(p.b, p.k, p.a_zero.data != nullptr);
  const EpilogueS8<Finish> c{f, m, n, p.k, p.a_zero, p.b_zero, sums_a.as<int>(), sums_b.as<int>()};
  run<F, false, false>(make_map(a), make_map(b), c, batch, m, n, p.k);
  return true;
}

}  // namespace vectile::cuda::hopper
