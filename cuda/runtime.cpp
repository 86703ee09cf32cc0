#include "runtime.h"

#include <algorithm>
#include <atomic>
#include <climits>
#include <string>

#include "hopper.h"

#if !defined(VECTILE_CUDA_EMULATED)
#include <cudaTypedefs.h>
#endif

namespace vectile::cuda {
namespace {

thread_local Call* current = nullptr;
std::atomic<int> limit = INT_MAX;

Call& required() {
  if (!current) throw std::logic_error("cuda: no call is under way");
  return *current;
}

#if !defined(VECTILE_CUDA_EMULATED)
void succeed(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // it would be reported again by the next call
  throw CudaError(
      text("cuda: ", what, ": ", cudaGetErrorName(status), ": ", cudaGetErrorString(status)));
}
#endif

}  // namespace

int Call::device() { return required().device_; }
Stream Call::stream() { return required().stream_; }

int limit_architecture(int to) { return limit.exchange(to); }

bool can_map(const Tensor& t) {
  const auto whole = [](i64 n) { return n % 16 == 0 && n > 0 && n < i64{1} << 40; };
  return reinterpret_cast<std::uintptr_t>(t.data) % 16 == 0 &&
         std::all_of(t.size, t.size + 5, [](i64 n) { return n > 0 && n <= INT_MAX; }) &&
         std::all_of(t.stride, t.stride + 4, whole);
}

#if defined(VECTILE_CUDA_EMULATED)

Call::Call(int device, Stream stream) : device_(device), stream_(stream), outer_(current) {
  current = this;
}
Call::~Call() { current = outer_; }
int device_count() { return 1; }
int multiprocessors() { return 2; }
int architecture() { return std::min(90, limit.load()); }

TensorMap make_map(const Tensor& t) {
  emulated::MapContents contents{static_cast<const char*>(t.data), {}, {}, t.item};
  std::copy_n(t.size, 5, contents.size);
  std::copy_n(t.stride, 4, contents.stride);
  TensorMap map;
  std::memcpy(map.bytes, &contents, sizeof contents);
  return map;
}
const char* device_name(int device) { return device == 0 ? "emulated" : ""; }

// New memory holds anything, and so does freed memory: NaNs.
void* allocate_device(std::size_t bytes) {
  auto* block = static_cast<char*>(allocate(kAlignment + bytes));
  std::memcpy(block, &bytes, sizeof bytes);
  return std::memset(block + kAlignment, 0xff, bytes);
}
void free_device(void* data, int, Stream) noexcept {
  char* block = static_cast<char*>(data) - kAlignment;
  std::size_t bytes;
  std::memcpy(&bytes, block, sizeof bytes);
  std::memset(data, 0xff, bytes);
  deallocate(block);
}
void fill_device(void* data, int byte, std::size_t bytes) { std::memset(data, byte, bytes); }
void copy_to_device(void* to, const void* from, std::size_t bytes) {
  if (bytes) std::memcpy(to, from, bytes);
}
void copy_to_host(void* to, const void* from, std::size_t bytes) {
  if (bytes) std::memcpy(to, from, bytes);
}

#else

Call::Call(int device, Stream stream) : device_(device), stream_(stream), outer_(current) {
  succeed(cudaGetDevice(&before_), "cudaGetDevice");
  if (before_ != device) succeed(cudaSetDevice(device), "cudaSetDevice");
  current = this;
}
Call::~Call() {
  current = outer_;
  if (before_ != device_) cudaSetDevice(before_);
}

int device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    cudaGetLastError();
    return 0;
  }
  return count;
}

int multiprocessors() {
  int count = 0;
  succeed(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, Call::device()),
          "cudaDeviceGetAttribute");
  return count;
}

int architecture() {
  int major = 0, minor = 0;
  succeed(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, Call::device()),
          "cudaDeviceGetAttribute");
  succeed(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, Call::device()),
          "cudaDeviceGetAttribute");
  return std::min(10 * major + minor, limit.load());
}

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

const char* device_name(int device) {
  static thread_local cudaDeviceProp properties;
  if (device >= device_count()) return "";
  succeed(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
  return properties.name;
}

void* allocate_device(std::size_t bytes) {
  // Freed memory stays with the pool: the next step takes it without a call to the driver.
  static const bool kept = [] {
    for (int i = 0; i < device_count(); ++i) {
      cudaMemPool_t pool;
      std::uint64_t all = ~std::uint64_t{0};
      succeed(cudaDeviceGetDefaultMemPool(&pool, i), "cudaDeviceGetDefaultMemPool");
      succeed(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &all),
              "cudaMemPoolSetAttribute");
    }
    return true;
  }();
  static_cast<void>(kept);
  void* p = nullptr;
  const cudaError_t status = cudaMallocAsync(&p, bytes ? bytes : 1, Call::stream());
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    throw std::bad_alloc();
  }
  succeed(status, "cudaMallocAsync");
  return p;
}
void free_device(void* data, int device, Stream stream) noexcept {
  int before = device;
  cudaGetDevice(&before);
  if (before != device) cudaSetDevice(device);
  cudaFreeAsync(data, stream);
  if (before != device) cudaSetDevice(before);
}
void fill_device(void* data, int byte, std::size_t bytes) {
  succeed(cudaMemsetAsync(data, byte, bytes, Call::stream()), "cudaMemsetAsync");
}
void copy_to_device(void* to, const void* from, std::size_t bytes) {
  succeed(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, Call::stream()),
          "cudaMemcpyAsync");
}
void copy_to_host(void* to, const void* from, std::size_t bytes) {
  succeed(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, Call::stream()),
          "cudaMemcpyAsync");
  succeed(cudaStreamSynchronize(Call::stream()), "cudaStreamSynchronize");
}

void launch_kernel(const void* kernel, const Launch& l, void** arguments) {
  if (l.shared > 48 << 10)
    succeed(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 static_cast<int>(l.shared)),
            "cudaFuncSetAttribute");
  cudaLaunchAttribute cluster;
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {l.cluster, 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = l.grid;
  config.blockDim = l.block;
  config.dynamicSmemBytes = l.shared;
  config.stream = Call::stream();
  config.attrs = &cluster;
  config.numAttrs = l.cluster > 1 ? 1 : 0;
  succeed(cudaLaunchKernelExC(&config, kernel, arguments), "cudaLaunchKernelExC");
}

#endif

Array Array::empty(DType dtype, const Shape& shape) {
  Array a;
  a.owner_ = allocate_device(checked_bytes(shape, dtype));
  a.device_ = Call::device();
  a.stream_ = Call::stream();
  a.data = a.owner_;
  a.dtype = dtype;
  a.writable = true;
  a.shape = shape;
  a.set_contiguous_strides();
  return a;
}

Array Array::zeros(DType dtype, const Shape& shape) {
  Array a = empty(dtype, shape);
  fill_device(a.data, 0, static_cast<std::size_t>(a.elements()) * item_size(dtype));
  return a;
}

Array contiguous(const TensorView& x) {
  if (x.contiguous()) return Array(x);
  Array packed = Array::empty(x.dtype, x.shape);
  copy_strided(x, packed);
  return packed;
}

Array converted(const TensorView& x, DType dtype) {
  Array from = contiguous(x);
  if (x.dtype == dtype) return from;
  Array to = Array::empty(dtype, x.shape);
  cast(from, to);
  return to;
}

Output::Output(const char* op, DType dtype, const Shape& shape, const TensorView* out,
               std::initializer_list<const TensorView*> inputs) {
  if (!out) {
    array_ = Array::empty(dtype, shape);
    return;
  }
  check_out(op, *out, dtype, shape);
  bool direct = out->contiguous();
  for (const TensorView* in : inputs) {
    const bool elementwise = in && in->data == out->data && in->dtype == out->dtype &&
                             in->shape == out->shape && in->contiguous();
    direct = direct && (!in || elementwise || !overlaps(*in, *out));
  }
  out_ = out;
  array_ = direct ? Array(*out) : Array::empty(dtype, shape);
}

Array Output::finish() {
  if (out_ && array_.data != out_->data) {
    copy_strided(array_, *out_);
    return Array(*out_);
  }
  return std::move(array_);
}

}  // namespace vectile::cuda
