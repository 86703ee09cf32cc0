// What kernels are written in: CUDA's language or its emulation, and the instructions below it that
// have no name there: tensor-core products, matrix loads and asynchronous copies.
#pragma once

#if defined(VECTILE_CUDA_EMULATED)
#include "emulated.h"
#else
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#endif

#include "base/types.h"

namespace vectile::cuda {

constexpr int kWarp = 32;
constexpr unsigned kAll = ~0u;

#if defined(VECTILE_CUDA_EMULATED)
__device__ inline char* dynamic_memory() { return emulated::dynamic_memory(); }
#else
__device__ inline char* dynamic_memory() {
  extern __shared__ __align__(1024) char memory[];
  return memory;
}
#endif

// ---- storage types ------------------------------------------------------------------------------

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ double to_float(double x) { return x; }
__device__ __forceinline__ float to_float(BFloat16 x) {
  return __uint_as_float(static_cast<unsigned>(x.bits) << 16);
}

template <class S>
__device__ __forceinline__ S from_float(Computed<S> x);
template <>
__device__ __forceinline__ float from_float<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ double from_float<double>(double x) {
  return x;
}

// A whole number as the nearest integer that Q, of a byte, holds; NaN as the lowest.
template <class Q, class T>
__device__ __forceinline__ Q saturate(T x) {
  constexpr T least = std::is_signed_v<Q> ? T(-128) : T(0), most = least + T(255);
  return static_cast<Q>(static_cast<int>(x > least ? (x < most ? x : most) : least));
}

// To the nearest, ties to even; a NaN stays one.
#if defined(VECTILE_CUDA_EMULATED)
template <>
__device__ inline BFloat16 from_float<BFloat16>(float x) {
  const unsigned u = __float_as_uint(x);
  if (x != x) return {static_cast<std::uint16_t>((u >> 16) | 0x40)};
  return {static_cast<std::uint16_t>((u + 0x7fff + ((u >> 16) & 1)) >> 16)};
}
__device__ inline float to_float(Float16 x) {
  _Float16 h;
  std::memcpy(&h, &x, 2);
  return static_cast<float>(h);
}
template <>
__device__ inline Float16 from_float<Float16>(float x) {
  const auto h = static_cast<_Float16>(x);
  Float16 y;
  std::memcpy(&y, &h, 2);
  return y;
}
#else
template <>
__device__ __forceinline__ BFloat16 from_float<BFloat16>(float x) {
  BFloat16 y;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
}
__device__ __forceinline__ float to_float(Float16 x) {
  return __half2float(__ushort_as_half(x.bits));
}
template <>
__device__ __forceinline__ Float16 from_float<Float16>(float x) {
  return {__half_as_ushort(__float2half_rn(x))};
}
#endif

// Two numbers rounded to a two-byte type, the first in the lower half.
template <class S>
__device__ __forceinline__ unsigned pack(float low, float high);

// ---- warps and blocks ---------------------------------------------------------------------------

struct Sum {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};
struct Max {  // NaN if there is one
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a > b || a != a ? a : b;
  }
};
struct Min {  // the same
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a < b || a != a ? a : b;
  }
};

// Max of float32 in one instruction.
__device__ __forceinline__ float largest(float a, float b);
__device__ __forceinline__ double largest(double a, double b) { return Max{}(a, b); }

// Every lane gets f over all lanes, combined in the same order each time.
template <class T, class F>
__device__ __forceinline__ T warp_reduce(T x, F f) {
  for (int mask = kWarp / 2; mask; mask /= 2) x = f(x, __shfl_xor_sync(kAll, x, mask));
  return x;
}

// The same over a block of THREADS threads, whole warps; `scratch` holds one T a warp and must not
// be in use. Ends with a barrier, so that it may be reused at once.
template <int THREADS, class T, class F>
__device__ __forceinline__ T block_reduce(T x, F f, T* scratch) {
  constexpr int warps = THREADS / kWarp;
  x = warp_reduce(x, f);
  if constexpr (warps == 1) return x;
  const int thread = static_cast<int>(threadIdx.x);
  if (thread % kWarp == 0) scratch[thread / kWarp] = x;
  __syncthreads();
  T y = scratch[0];
  for (int w = 1; w < warps; ++w) y = f(y, scratch[w]);
  __syncthreads();
  return y;
}

// sum + the four bytes, signed or unsigned as the last argument is.
__device__ __forceinline__ int add_bytes(int sum, unsigned four, std::int8_t) {
  return __dp4a(static_cast<int>(four), 0x01010101, sum);
}
__device__ __forceinline__ int add_bytes(int sum, unsigned four, std::uint8_t) {
  return static_cast<int>(__dp4a(four, 0x01010101u, static_cast<unsigned>(sum)));
}

// Every thread gets the N sums over the block in place of its own terms; `scratch` holds N T a warp
// and must not be in use. Ends with a barrier.
template <int THREADS, int N, class T>
__device__ __forceinline__ void block_sums(T (&x)[N], T* scratch) {
  constexpr int warps = THREADS / kWarp;
  for (int i = 0; i < N; ++i) x[i] = warp_reduce(x[i], Sum{});
  if constexpr (warps == 1) return;
  const int thread = static_cast<int>(threadIdx.x);
  if (thread % kWarp == 0)
    for (int i = 0; i < N; ++i) scratch[i * warps + thread / kWarp] = x[i];
  __syncthreads();
  for (int i = 0; i < N; ++i) {
    x[i] = scratch[i * warps];
    for (int w = 1; w < warps; ++w) x[i] += scratch[i * warps + w];
  }
  __syncthreads();
}

// ---- asynchronous copies (sm_80) ----------------------------------------------------------------

// So many bytes, 4 or 16, from global to shared memory, both aligned to them; zeros if not `valid`.
template <int bytes = 16>
__device__ __forceinline__ void copy_async(void* shared, const void* global, bool valid);
// Closes a group of copies; waits until at most `pending` of the newest groups are under way. A
// barrier is needed before other threads' copies are read.
__device__ __forceinline__ void copy_commit();
template <int pending>
__device__ __forceinline__ void copy_wait();

// ---- tensor cores (sm_80) -----------------------------------------------------------------------
//
// d += a b for a warp: a is (16, k), b is (k, 8) and lies by columns, d is (16, 8). With g = lane /
// 4 and t = lane % 4, and k elements of 32 / k bytes:
//   a[0..3]: rows g, g + 8, g, g + 8; the register's elements from column t (4 / size) on, in the
//   last two half of k further right.
//   b[0..1]: column g; rows as the columns of a.
//   d[0..3]: row g, columns 2t and 2t + 1; row g + 8, the same.
struct Tf32 {  // float32 whose last 13 bits are not read
  float value;
};
__device__ __forceinline__ void multiply_add(float (&d)[4], const unsigned (&a)[4],
                                             const unsigned (&b)[2], BFloat16);
__device__ __forceinline__ void multiply_add(float (&d)[4], const unsigned (&a)[4],
                                             const unsigned (&b)[2], Float16);
__device__ __forceinline__ void multiply_add(float (&d)[4], const unsigned (&a)[4],
                                             const unsigned (&b)[2], Tf32);
template <class A, class B>  // signed or unsigned bytes
__device__ __forceinline__ void multiply_add(int (&d)[4], const unsigned (&a)[4],
                                             const unsigned (&b)[2], A, B);

// Four matrices of 8 rows of 16 bytes; lane l gives row l % 8 of matrix l / 8. Register i holds
// bytes 4t to 4t + 3 of row g of matrix i: `a` of multiply_add for matrices (0, 0), (8, 0), (0, 16
// bytes), (8, 16 bytes). Transposed, for elements of two bytes: rows 2t and 2t + 1 of column g.
__device__ __forceinline__ void load_matrices(unsigned (&r)[4], const void* row);
__device__ __forceinline__ void load_matrices_transposed(unsigned (&r)[4], const void* row);

// 2^x, off by 2 units in the last place; zero instead of subnormal numbers.
__device__ __forceinline__ float exp2_flushed(float x);

// 1 / x, off by 1 unit in the last place; zero instead of subnormal numbers.
__device__ __forceinline__ float reciprocal_flushed(float x);

// a / b, off by 2 units in the last place.
__device__ __forceinline__ float quotient(float a, float b);
__device__ __forceinline__ double quotient(double a, double b) { return a / b; }

// x rounded as a tensor core needs a float32 operand (to nearest, ties away from zero).
__device__ __forceinline__ float to_tf32(float x);

}  // namespace vectile::cuda

#if defined(VECTILE_CUDA_EMULATED)
#include "device_emulated.h"
#else
#include "device_ptx.h"
#endif
