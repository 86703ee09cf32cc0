// CUDA's kernel language on the host: every thread of a block is a fiber that runs to its next
// barrier, blocks run one after the other. Tests run the kernels so where there is no GPU.
//
// Between barriers threads run one by one, upwards and in the next stretch downwards: what relies
// on an order, or misses a barrier, gives wrong results. Shared memory of dynamic size starts as
// NaNs and ends where it was said to. The blocks of a cluster run together, in the same way.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <stdexcept>

// CUDA overloads these for float; C's own take double alone.
using std::abs, std::fmax, std::fmin, std::floor, std::ceil, std::rint, std::log1p, std::expm1;
using std::exp, std::exp2, std::log, std::log2, std::tanh, std::erf, std::sqrt, std::pow, std::fma;
using std::isnan, std::isinf, std::erfc;

#define __global__ static
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __shared__ static
#define __constant__ static const
#define __grid_constant__
#define __restrict__ __restrict

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

namespace vectile::cuda::emulated {

constexpr int kWarp = 32;

// The running thread.
struct Thread {
  dim3 thread, block, grid, size;
  int lane, block_in_cluster;
};
const Thread& self();

void block_barrier();
void warp_barrier();
void cluster_barrier();
// Lets others run; throws where all wait and nothing is under way.
void wait_until(const std::function<bool()>& done);
// The place where a lane of this thread's warp leaves what others want of it.
constexpr int kSlot = 64;
void* slot(int lane);
char* dynamic_memory();
void* in_block(void* shared, int block);  // the same place of another block of the cluster

// Runs body once for each thread of each block, so many along x a cluster. Throws where threads
// wait for others that have ended or stand at another barrier.
void run(dim3 grid, dim3 block, std::size_t shared, unsigned cluster,
         const std::function<void()>& body);

// What f makes of the values that the lanes of a warp bring: f(value of a lane).
template <class T, class F>
auto exchange(const T& mine, F&& f) {
  static_assert(sizeof(T) <= kSlot);
  std::memcpy(slot(self().lane), &mine, sizeof mine);
  warp_barrier();
  auto result = f([](int lane) {
    T value;
    std::memcpy(&value, slot(lane), sizeof value);
    return value;
  });
  warp_barrier();
  return result;
}

}  // namespace vectile::cuda::emulated

#define threadIdx (::vectile::cuda::emulated::self().thread)
#define blockIdx (::vectile::cuda::emulated::self().block)
#define blockDim (::vectile::cuda::emulated::self().size)
#define gridDim (::vectile::cuda::emulated::self().grid)

inline void __syncthreads() { vectile::cuda::emulated::block_barrier(); }
inline void __syncwarp(unsigned = ~0u) { vectile::cuda::emulated::warp_barrier(); }

template <class T>
T __shfl_xor_sync(unsigned, T x, int mask) {
  const int lane = vectile::cuda::emulated::self().lane;
  return vectile::cuda::emulated::exchange(x, [&](auto of) { return of(lane ^ mask); });
}
template <class T>
T __shfl_sync(unsigned, T x, int from) {
  return vectile::cuda::emulated::exchange(x, [&](auto of) { return of(from % 32); });
}
template <class T>
T __shfl_down_sync(unsigned, T x, unsigned delta) {
  const int lane = vectile::cuda::emulated::self().lane, from = lane + static_cast<int>(delta);
  return vectile::cuda::emulated::exchange(x, [&](auto of) { return of(from < 32 ? from : lane); });
}
template <class T>
T __shfl_up_sync(unsigned, T x, unsigned delta) {
  const int lane = vectile::cuda::emulated::self().lane, from = lane - static_cast<int>(delta);
  return vectile::cuda::emulated::exchange(x, [&](auto of) { return of(from >= 0 ? from : lane); });
}
inline unsigned __ballot_sync(unsigned, bool x) {
  return vectile::cuda::emulated::exchange(x, [](auto of) {
    unsigned bits = 0;
    for (int i = 0; i < 32; ++i) bits |= static_cast<unsigned>(of(i)) << i;
    return bits;
  });
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline bool __any_sync(unsigned mask, bool x) { return __ballot_sync(mask, x) != 0; }
inline bool __all_sync(unsigned mask, bool x) { return __ballot_sync(mask, x) == ~0u; }

// One thread runs at a time.
template <class T>
T atomicAdd(T* p, T x) {
  const T before = *p;
  *p = before + x;
  return before;
}
inline int atomicMax(int* p, int x) {
  const int before = *p;
  *p = before < x ? x : before;
  return before;
}
inline unsigned atomicExch(unsigned* p, unsigned x) {
  const unsigned before = *p;
  *p = x;
  return before;
}
inline void __threadfence() {}

inline float __uint_as_float(unsigned x) {
  float y;
  std::memcpy(&y, &x, 4);
  return y;
}
inline unsigned __float_as_uint(float x) {
  unsigned y;
  std::memcpy(&y, &x, 4);
  return y;
}

// Bytes of y:x that the four hexadecimal digits of `select` name, the lowest digit's lowest.
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned select) {
  const std::uint64_t bytes = std::uint64_t{y} << 32 | x;
  unsigned z = 0;
  for (int i = 0; i < 4; ++i)
    z |= static_cast<unsigned>(bytes >> 8 * (select >> 4 * i & 7) & 0xff) << 8 * i;
  return z;
}
// c + the products of the four bytes of a and b, signed or not as they are.
inline int __dp4a(int a, int b, int c) {
  for (int i = 0; i < 4; ++i)
    c += static_cast<std::int8_t>(a >> 8 * i) * static_cast<std::int8_t>(b >> 8 * i);
  return c;
}
inline unsigned __dp4a(unsigned a, unsigned b, unsigned c) {
  for (int i = 0; i < 4; ++i) c += (a >> 8 * i & 0xff) * (b >> 8 * i & 0xff);
  return c;
}
inline int __float2int_rn(float x) { return static_cast<int>(std::nearbyint(x)); }
inline float __ldg(const float* p) { return *p; }
template <class T>
T rsqrt(T x) {
  return T(1) / std::sqrt(x);
}
inline float __fdividef(float x, float y) { return x / y; }
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>((static_cast<std::uint64_t>(a) * b) >> 32);
}
