#include "tensor_map.h"

#include <algorithm>
#include <climits>
#include <cstring>

#if defined(VECTILE_CUDA_EMULATED)
#include "hopper.h"
#else
#include <cudaTypedefs.h>
#endif

namespace vectile::cuda {

bool can_map(const Tensor& t) {
  const auto whole = [](i64 n) { return n % 16 == 0 && n > 0 && n < i64{1} << 40; };
  return reinterpret_cast<std::uintptr_t>(t.data) % 16 == 0 &&
         std::all_of(t.size, t.size + 5, [](i64 n) { return n > 0 && n <= INT_MAX; }) &&
         std::all_of(t.stride, t.stride + 4, whole);
}

#if defined(VECTILE_CUDA_EMULATED)

TensorMap make_map(const Tensor& t) {
  emulated::MapContents contents{static_cast<const char*>(t.data), {}, {}, t.item};
  std::copy_n(t.size, 5, contents.size);
  std::copy_n(t.stride, 4, contents.stride);
  TensorMap map;
  std::memcpy(map.bytes, &contents, sizeof contents);
  return map;
}

#else

// The driver's function is asked for by name, so that the module loads where there is no driver.
TensorMap make_map(const Tensor& t) {
  static const auto encode = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found;
    succeed(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000,
                                             cudaEnableDefault, &found),
            "cudaGetDriverEntryPointByVersion");
    if (found != cudaDriverEntryPointSuccess)
      throw CudaError("cuda: cuTensorMapEncodeTiled: the driver is older than CUDA 12");
    return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(function);
  }();
  // It needs a context, which a thread that has not yet used the device lacks.
  succeed(cudaSetDevice(Call::device()), "cudaSetDevice");
  cuuint64_t size[5], stride[4];
  cuuint32_t box[5] = {static_cast<cuuint32_t>(kBoxRowBytes / t.item), kBoxRows, 1, 1, 1};
  const cuuint32_t every[5] = {1, 1, 1, 1, 1};
  std::copy_n(t.size, 5, size);
  std::copy_n(t.stride, 4, stride);
  const auto type = t.item == 1   ? CU_TENSOR_MAP_DATA_TYPE_UINT8
                    : t.item == 2 ? CU_TENSOR_MAP_DATA_TYPE_UINT16
                                  : CU_TENSOR_MAP_DATA_TYPE_UINT32;
  CUtensorMap map;
  const CUresult status =
      encode(&map, type, 5, const_cast<void*>(t.data), size, stride, box, every,
             CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (status != CUDA_SUCCESS)
    throw CudaError(text("cuda: cuTensorMapEncodeTiled: status ", static_cast<int>(status)));
  TensorMap result;
  static_assert(sizeof result == sizeof map);
  std::memcpy(&result, &map, sizeof map);
  return result;
}

#endif

}  // namespace vectile::cuda
