// The instructions that hopper.h declares, for sm_90a.
#pragma once

namespace vectile::cuda {

// ---- barriers -----------------------------------------------------------------------------------

__device__ __forceinline__ void barrier_init(Barrier* b, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(b)), "r"(arrivals)
               : "memory");
}
__device__ __forceinline__ void barrier_init_end() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ __forceinline__ void barrier_arrive(Barrier* b) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(b)) : "memory");
}
__device__ __forceinline__ void barrier_arrive(Barrier* b, int block) {
  asm volatile(
      "{\n"
      ".reg .b32 there;\n"
      "mapa.shared::cluster.u32 there, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [there];\n"
      "}" ::"r"(shared_address(b)),
      "r"(block)
      : "memory");
}
__device__ __forceinline__ void barrier_expect(Barrier* b, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(b)),
               "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void barrier_wait(Barrier* b, int parity) {
  asm volatile(
      "{\n"
      ".reg .pred ended;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 ended, [%0], %1;\n"
      "@!ended bra again;\n"
      "}" ::"r"(shared_address(b)),
      "r"(parity)
      : "memory");
}

// ---- boxes --------------------------------------------------------------------------------------

#define VECTILE_COPY_BOX(MULTICAST, MASK, ...)                                                     \
  asm volatile(                                                                                    \
      "cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes" MULTICAST \
      " [%0], [%1, {%3, %4, %5, %6, %7}], [%2]" MASK ";" ::"r"(shared_address(to)),                \
      "l"(&map), "r"(shared_address(b)), "r"(from.at[0]), "r"(from.at[1]), "r"(from.at[2]),        \
      "r"(from.at[3]), "r"(from.at[4])__VA_ARGS__                                                  \
      : "memory")

__device__ __forceinline__ void copy_box(void* to, const TensorMap& map, const Coordinates& from,
                                         Barrier* b) {
  VECTILE_COPY_BOX("", "");
}
__device__ __forceinline__ void copy_box(void* to, const TensorMap& map, const Coordinates& from,
                                         Barrier* b, unsigned blocks) {
  VECTILE_COPY_BOX(".multicast::cluster", ", %8", , "h"(static_cast<unsigned short>(blocks)));
}
#undef VECTILE_COPY_BOX

// ---- sums in global memory ----------------------------------------------------------------------

__device__ __forceinline__ void bulk_store(float* to, const float* from, int bytes) {
  asm volatile(
      "cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;\n"
      "cp.async.bulk.commit_group;" ::"l"(to),
      "r"(shared_address(from)), "r"(bytes)
      : "memory");
}
__device__ __forceinline__ void bulk_add(float* to, const float* from, int bytes) {
  asm volatile(
      "cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;\n"
      "cp.async.bulk.commit_group;" ::"l"(to),
      "r"(shared_address(from)), "r"(bytes)
      : "memory");
}
__device__ __forceinline__ void bulk_wait_read() {
  asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
}
__device__ __forceinline__ void bulk_wait() {
  asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}
__device__ __forceinline__ void turn_wait(const unsigned* turn, unsigned passed) {
  unsigned now;
  do {
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(now) : "l"(turn) : "memory");
  } while (now != passed);
  asm volatile("fence.proxy.async.global;" ::: "memory");
}
__device__ __forceinline__ void turn_pass(unsigned* turn) {
  asm volatile(
      "fence.proxy.async.global;\n"
      "red.release.gpu.global.add.u32 [%0], 1;" ::"l"(turn)
      : "memory");
}

// ---- clusters -----------------------------------------------------------------------------------

__device__ __forceinline__ int block_in_cluster() {
  int rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
__device__ __forceinline__ void cluster_barrier() {
  asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
}
__device__ __forceinline__ void stores_end() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
template <int count>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(count));
}
template <int count>
__device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(count));
}

// ---- products -----------------------------------------------------------------------------------

__device__ __forceinline__ void products_begin() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void products_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int pending>
__device__ __forceinline__ void products_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}
template <int N>
__device__ __forceinline__ void products_done(float (&d)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+f"(d[i])::"memory");
}
template <int N>
__device__ __forceinline__ void products_done(int (&d)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+r"(d[i])::"memory");
}

// The registers of d, as the text of an instruction and as its operands.
#define VECTILE_TEN(t)                                                                   \
  "%" #t "0, %" #t "1, %" #t "2, %" #t "3, %" #t "4, %" #t "5, %" #t "6, %" #t "7, %" #t \
  "8, "                                                                                  \
  "%" #t "9"
#define VECTILE_TEXT_32 \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, " VECTILE_TEN(1) ", " VECTILE_TEN(2) ", %30, %31"
#define VECTILE_TEXT_64                                                                           \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, " VECTILE_TEN(1) ", " VECTILE_TEN(2) ", " VECTILE_TEN( \
      3) ", " VECTILE_TEN(4) ", " VECTILE_TEN(5) ", %60, %61, %62, %63"
#define VECTILE_TEXT_128 \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, " VECTILE_TEN(1) ", " VECTILE_TEN(2) ", "  \
  VECTILE_TEN(3) ", " VECTILE_TEN(4) ", " VECTILE_TEN(5) ", " VECTILE_TEN(6) ", "     \
  VECTILE_TEN(7) ", " VECTILE_TEN(8) ", " VECTILE_TEN(9) ", " VECTILE_TEN(10) ", "    \
  VECTILE_TEN(11) ", %120, %121, %122, %123, %124, %125, %126, %127"
#define VECTILE_8(T, i) \
  T(d[i]), T(d[i + 1]), T(d[i + 2]), T(d[i + 3]), T(d[i + 4]), T(d[i + 5]), T(d[i + 6]), T(d[i + 7])
#define VECTILE_REGISTERS_32(T) VECTILE_8(T, 0), VECTILE_8(T, 8), VECTILE_8(T, 16), VECTILE_8(T, 24)
#define VECTILE_REGISTERS_64(T) \
  VECTILE_REGISTERS_32(T), VECTILE_8(T, 32), VECTILE_8(T, 40), VECTILE_8(T, 48), VECTILE_8(T, 56)
#define VECTILE_REGISTERS_128(T)                                                                   \
  VECTILE_REGISTERS_64(T), VECTILE_8(T, 64), VECTILE_8(T, 72), VECTILE_8(T, 80), VECTILE_8(T, 88), \
      VECTILE_8(T, 96), VECTILE_8(T, 104), VECTILE_8(T, 112), VECTILE_8(T, 120)

// d = a b, plus d if ADD is not 0. Texts of operands have their numbers, those after d's.
#define VECTILE_WGMMA(KIND, T, COUNT, OPERANDS, ADD, ...)                                          \
  asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, " ADD                                         \
               ", 0;\nwgmma.mma_async.sync.aligned." KIND " {" VECTILE_TEXT_##COUNT "}, " OPERANDS \
                                                                                    ";\n}"         \
               : VECTILE_REGISTERS_##COUNT(T)                                                      \
               : __VA_ARGS__)

// Both operands in shared memory; a in registers.
#define VECTILE_WGMMA_HALVES(TYPE, N, COUNT, A, B, TA, TB, ADD)                               \
  VECTILE_WGMMA("m64n" #N "k16.f32." TYPE "." TYPE, "+f", COUNT,                              \
                A ", " B ", add, 1, 1, " TA ", " TB, ADD, "l"(a), "l"(b), "n"(int{a_across}), \
                "n"(int{b_across}), "n"(int{add}))
#define VECTILE_WGMMA_ROWS(TYPE, N, COUNT, A0, A1, A2, A3, B, TB)                          \
  VECTILE_WGMMA("m64n" #N "k16.f32." TYPE "." TYPE, "+f", COUNT,                           \
                "{" A0 ", " A1 ", " A2 ", " A3 "}, " B ", add, 1, 1, " TB, "1", "r"(a[0]), \
                "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(int{b_across}))

#define VECTILE_BOTH(TYPE)                                                                        \
  do {                                                                                            \
    if constexpr (N == 64) VECTILE_WGMMA_HALVES(TYPE, 64, 32, "%32", "%33", "%34", "%35", "%36"); \
    if constexpr (N == 128)                                                                       \
      VECTILE_WGMMA_HALVES(TYPE, 128, 64, "%64", "%65", "%66", "%67", "%68");                     \
    if constexpr (N == 256)                                                                       \
      VECTILE_WGMMA_HALVES(TYPE, 256, 128, "%128", "%129", "%130", "%131", "%132");               \
  } while (false)
#define VECTILE_ROWS(TYPE)                                                         \
  do {                                                                             \
    if constexpr (N == 64)                                                         \
      VECTILE_WGMMA_ROWS(TYPE, 64, 32, "%32", "%33", "%34", "%35", "%36", "%37");  \
    if constexpr (N == 128)                                                        \
      VECTILE_WGMMA_ROWS(TYPE, 128, 64, "%64", "%65", "%66", "%67", "%68", "%69"); \
  } while (false)

template <class S, int N, bool a_across, bool b_across, bool add>
__device__ __forceinline__ void warpgroup_multiply_add(float (&d)[N / 2], std::uint64_t a,
                                                       std::uint64_t b) {
  static_assert(N == 64 || N == 128 || N == 256);
  if constexpr (std::is_same_v<S, Tf32>) {
    static_assert(N == 256 && !a_across && !b_across);
    VECTILE_WGMMA("m64n256k8.f32.tf32.tf32", "+f", 128, "%128, %129, add, 1, 1", "%130", "l"(a),
                  "l"(b), "n"(int{add}));
  } else if constexpr (std::is_same_v<S, BFloat16>) {
    VECTILE_BOTH("bf16");
  } else {
    VECTILE_BOTH("f16");
  }
}

template <class S, int N, bool b_across>
__device__ __forceinline__ void warpgroup_multiply_add(float (&d)[N / 2], const unsigned (&a)[4],
                                                       std::uint64_t b) {
  static_assert(N == 64 || N == 128);
  if constexpr (std::is_same_v<S, BFloat16>)
    VECTILE_ROWS("bf16");
  else
    VECTILE_ROWS("f16");
}

template <class A, class B, int N>
__device__ __forceinline__ void warpgroup_multiply_add(int (&d)[N / 2], std::uint64_t a,
                                                       std::uint64_t b) {
  static_assert(N == 256);
#define VECTILE_BYTES(TYPES) \
  VECTILE_WGMMA("m64n256k32.s32." TYPES, "+r", 128, "%128, %129, add", "1", "l"(a), "l"(b))
  if constexpr (std::is_signed_v<A> && std::is_signed_v<B>)
    VECTILE_BYTES("s8.s8");
  else if constexpr (std::is_signed_v<A>)
    VECTILE_BYTES("s8.u8");
  else if constexpr (std::is_signed_v<B>)
    VECTILE_BYTES("u8.s8");
  else
    VECTILE_BYTES("u8.u8");
#undef VECTILE_BYTES
}

#undef VECTILE_ROWS
#undef VECTILE_BOTH
#undef VECTILE_WGMMA_ROWS
#undef VECTILE_WGMMA_HALVES
#undef VECTILE_WGMMA
#undef VECTILE_REGISTERS_128
#undef VECTILE_REGISTERS_64
#undef VECTILE_REGISTERS_32
#undef VECTILE_8
#undef VECTILE_TEXT_128
#undef VECTILE_TEXT_64
#undef VECTILE_TEXT_32
#undef VECTILE_TEN

}  // namespace vectile::cuda
