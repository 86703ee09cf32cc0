// What kernels for sm_90a are written in beside device.h: clusters of blocks, barriers in shared
// memory, the copy engine and products of a warpgroup (PTX ISA 8.0: mbarrier,
// cp.async.bulk.tensor, wgmma). Bodies of such kernels stand between #if defined(VECTILE_HOPPER).
#pragma once

#include "device.h"
#include "tensor_map.h"

#if defined(VECTILE_CUDA_EMULATED) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define VECTILE_HOPPER
#endif

namespace vectile::cuda {

constexpr int kWarpgroup = 128;

struct Coordinates {  // of the first element of a box
  int at[5];
};

// ---- barriers in shared memory ------------------------------------------------------------------
//
// A phase ends when so many threads have arrived as init said and all bytes that they expect have
// come. Phases have parities 0, 1, 0, ...; waiting for parity 1 of a new barrier ends at once.
//
// Threads' accesses to memory are ordered by it within a block only. From block to block it tells
// of copies and of products, which need no more; wider, each arrival would wait for all stores to
// reach the L2 cache and each wait would empty the L1 cache.
using Barrier = std::uint64_t;

__device__ __forceinline__ void barrier_init(Barrier* b, int arrivals);
__device__ __forceinline__ void
barrier_init_end();  // before others, the copy engine among them, may see them
__device__ __forceinline__ void barrier_arrive(Barrier* b);
__device__ __forceinline__ void barrier_arrive(Barrier* b,
                                               int block);  // at the same place in another block
__device__ __forceinline__ void barrier_expect(Barrier* b, int bytes);  // arrives, too
__device__ __forceinline__ void barrier_wait(Barrier* b, int parity);

// A place in a ring of barriers and the parity of its phase.
template <int STAGES>
struct Ring {
  int stage = 0, parity = 0;
  __device__ __forceinline__ void advance() {
    if (++stage == STAGES) {
      stage = 0;
      parity ^= 1;
    }
  }
};

// Copies a box; its bytes count for `b`. In the second form for that place and barrier of every
// block of the cluster whose bit is set.
__device__ __forceinline__ void copy_box(void* to, const TensorMap& map, const Coordinates& from,
                                         Barrier* b);
__device__ __forceinline__ void copy_box(void* to, const TensorMap& map, const Coordinates& from,
                                         Barrier* b, unsigned blocks);

// Where byte `offset` of boxes lies in shared memory.
__device__ __forceinline__ unsigned swizzled(unsigned offset) {
  return offset ^ (offset >> 7 & 7) << 4;
}

// ---- sums in global memory ----------------------------------------------------------------------
//
// A thread has the copy engine store floats, a multiple of 16 bytes, or add them to what is there.
// `from` may change after bulk_wait_read(); all is done after bulk_wait().
__device__ __forceinline__ void bulk_store(float* to, const float* from, int bytes);
__device__ __forceinline__ void bulk_add(float* to, const float* from, int bytes);
__device__ __forceinline__ void bulk_wait_read();
__device__ __forceinline__ void bulk_wait();

// Blocks follow each other by a count in global memory: waits until so many have passed. What they
// had done in bulk before comes before what this thread has done afterwards.
__device__ __forceinline__ void turn_wait(const unsigned* turn, unsigned passed);
__device__ __forceinline__ void turn_pass(unsigned* turn);

// ---- clusters -----------------------------------------------------------------------------------

__device__ __forceinline__ int block_in_cluster();
__device__ __forceinline__ void cluster_barrier();

// Orders what this thread has stored in shared memory before what products and the copy engine do
// there after a barrier.
__device__ __forceinline__ void stores_end();

// Registers that a warpgroup's threads have from here on.
template <int count>
__device__ __forceinline__ void take_registers();
template <int count>
__device__ __forceinline__ void give_registers();

// ---- products -----------------------------------------------------------------------------------
//
// d += a b over 32 bytes of k for a warpgroup: a is (64, k), b is (k, N). Warp w of it has rows 16
// w to 16 w + 15 of d, where d[4 j + i] is element i of columns 8 j to 8 j + 7 as in multiply_add.
// Operands lie in boxes, whose rows are lines (rows of a, columns of b) of 128 bytes of k; or, for
// elements of two bytes, `across`: 64 of k, each with 64 lines. a may also come in registers as
// multiply_add takes it.

// What tensor cores need to know of an operand: that it begins at `at` in a box, and how far it is
// to the box of the next 64 lines.
__device__ __forceinline__ std::uint64_t describe(unsigned at, int next_box) {
  constexpr unsigned swizzle_128 = 1u << 30, next_rows = 8 * kBoxRowBytes;
  return std::uint64_t{swizzle_128 | next_rows / 16} << 32 |
         ((at & 0x3ffff) / 16 | static_cast<unsigned>(next_box) / 16 << 16);
}
// Of the operand that lies so many bytes further on.
__device__ __forceinline__ std::uint64_t further(std::uint64_t operand, int bytes) {
  return operand >> 32 << 32 | (static_cast<unsigned>(operand) + static_cast<unsigned>(bytes / 16));
}

// Products are under way from the first to the wait for their group; until then d, operands and
// the registers of a are theirs. begin() orders them after what registers held before.
__device__ __forceinline__ void products_begin();
__device__ __forceinline__ void products_commit();
template <int pending>
__device__ __forceinline__ void products_wait();

// S names the elements: BFloat16, Float16 or Tf32. d = a b if not `add`.
template <class S, int N, bool a_across, bool b_across, bool add = true>
__device__ __forceinline__ void warpgroup_multiply_add(float (&d)[N / 2], std::uint64_t a,
                                                       std::uint64_t b);
template <class S, int N, bool b_across>
__device__ __forceinline__ void warpgroup_multiply_add(float (&d)[N / 2], const unsigned (&a)[4],
                                                       std::uint64_t b);
// Of bytes, signed or unsigned.
template <class A, class B, int N>
__device__ __forceinline__ void warpgroup_multiply_add(int (&d)[N / 2], std::uint64_t a,
                                                       std::uint64_t b);
// Tells the compiler that products may have changed d.
template <int N>
__device__ __forceinline__ void products_done(float (&d)[N]);
template <int N>
__device__ __forceinline__ void products_done(int (&d)[N]);

// The operand at `line` (a multiple of 64) and step `k` of 32 bytes of a tile of boxes.
template <bool across>
__device__ __forceinline__ std::uint64_t operand(unsigned tile, int line, int k) {
  return further(describe(tile, kBoxBytes),
                 line / kBoxRows * kBoxBytes + k * (across ? 16 * kBoxRowBytes : 32));
}

}  // namespace vectile::cuda

#if defined(VECTILE_CUDA_EMULATED)
#include "hopper_emulated.h"
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
#include "hopper_ptx.h"
#endif
