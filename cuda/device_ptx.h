// The instructions that device.h declares, for sm_80 and up.
#pragma once

namespace vectile::cuda {

__device__ __forceinline__ unsigned shared_address(const void* p) {
  return static_cast<unsigned>(__cvta_generic_to_shared(p));
}

template <int bytes>
__device__ __forceinline__ void copy_async(void* shared, const void* global, bool valid) {
  if constexpr (bytes == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
                 "l"(global), "r"(valid ? 16 : 0)
                 : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_address(shared)),
                 "l"(global), "n"(bytes), "r"(valid ? bytes : 0)
                 : "memory");
}
__device__ __forceinline__ void copy_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int pending>
__device__ __forceinline__ void copy_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

#define VECTILE_MMA(NAME, REGISTER, D, A, B)                                    \
  asm volatile("mma.sync.aligned." NAME                                         \
               " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "                \
               "{%0, %1, %2, %3};"                                              \
               : REGISTER(D[0]), REGISTER(D[1]), REGISTER(D[2]), REGISTER(D[3]) \
               : "r"(A[0]), "r"(A[1]), "r"(A[2]), "r"(A[3]), "r"(B[0]), "r"(B[1]))

__device__ __forceinline__ void multiply_add(float (&d)[4], const unsigned (&a)[4],
                                             const unsigned (&b)[2], BFloat16) {
  VECTILE_MMA("m16n8k16.row.col.f32.bf16.bf16.f32", "+f", d, a, b);
}
__device__ __forceinline__ void multiply_add(float (&d)[4], const unsigned (&a)[4],
                                             const unsigned (&b)[2], Float16) {
  VECTILE_MMA("m16n8k16.row.col.f32.f16.f16.f32", "+f", d, a, b);
}
__device__ __forceinline__ void multiply_add(float (&d)[4], const unsigned (&a)[4],
                                             const unsigned (&b)[2], Tf32) {
  VECTILE_MMA("m16n8k8.row.col.f32.tf32.tf32.f32", "+f", d, a, b);
}
template <class A, class B>
__device__ __forceinline__ void multiply_add(int (&d)[4], const unsigned (&a)[4],
                                             const unsigned (&b)[2], A, B) {
  if constexpr (std::is_signed_v<A> && std::is_signed_v<B>)
    VECTILE_MMA("m16n8k32.row.col.s32.s8.s8.s32", "+r", d, a, b);
  else if constexpr (std::is_signed_v<A>)
    VECTILE_MMA("m16n8k32.row.col.s32.s8.u8.s32", "+r", d, a, b);
  else if constexpr (std::is_signed_v<B>)
    VECTILE_MMA("m16n8k32.row.col.s32.u8.s8.s32", "+r", d, a, b);
  else
    VECTILE_MMA("m16n8k32.row.col.s32.u8.u8.s32", "+r", d, a, b);
}
#undef VECTILE_MMA

#define VECTILE_LDMATRIX(TRANSPOSED, R, ROW)                                                    \
  asm volatile("ldmatrix.sync.aligned.m8n8.x4" TRANSPOSED ".shared.b16 {%0, %1, %2, %3}, [%4];" \
               : "=r"(R[0]), "=r"(R[1]), "=r"(R[2]), "=r"(R[3])                                 \
               : "r"(shared_address(ROW))                                                       \
               : "memory")

__device__ __forceinline__ void load_matrices(unsigned (&r)[4], const void* row) {
  VECTILE_LDMATRIX("", r, row);
}
__device__ __forceinline__ void load_matrices_transposed(unsigned (&r)[4], const void* row) {
  VECTILE_LDMATRIX(".trans", r, row);
}
#undef VECTILE_LDMATRIX

template <>
__device__ __forceinline__ unsigned pack<BFloat16>(float low, float high) {
  unsigned y;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
  return y;
}
template <>
__device__ __forceinline__ unsigned pack<Float16>(float low, float high) {
  unsigned y;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
  return y;
}

__device__ __forceinline__ float largest(float a, float b) {
  float y;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
  return y;
}

__device__ __forceinline__ float exp2_flushed(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ __forceinline__ float reciprocal_flushed(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ __forceinline__ float quotient(float a, float b) {
  float y;
  asm("rcp.approx.f32 %0, %1;" : "=f"(y) : "f"(b));
  return a * y;
}

__device__ __forceinline__ float to_tf32(float x) {
  unsigned y;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(x));
  return __uint_as_float(y);
}

}  // namespace vectile::cuda
