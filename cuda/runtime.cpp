#include "runtime.h"

#include <algorithm>
#include <atomic>
#include <climits>
#include <map>
#include <mutex>
#include <string>

namespace vectile::cuda {
namespace {

thread_local Call* current = nullptr;
std::atomic<int> newest_architecture = INT_MAX, most_multiprocessors = INT_MAX;

Call& required() {
  if (!current) throw std::logic_error("cuda: no call is under way");
  return *current;
}

}  // namespace

#if !defined(VECTILE_CUDA_EMULATED)
void succeed(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // it would be reported again by the next call
  throw CudaError(
      text("cuda: ", what, ": ", cudaGetErrorName(status), ": ", cudaGetErrorString(status)));
}
#endif

int Call::device() { return required().device_; }
Stream Call::stream() { return required().stream_; }

int limit_architecture(int to) { return newest_architecture.exchange(to); }
int limit_multiprocessors(int to) { return most_multiprocessors.exchange(std::max(1, to)); }

#if defined(VECTILE_CUDA_EMULATED)

Call::Call(int device, Stream stream) : device_(device), stream_(stream), outer_(current) {
  current = this;
}
Call::~Call() { current = outer_; }
int device_count() { return 1; }
int multiprocessors() { return std::min(2, most_multiprocessors.load()); }
int architecture() { return std::min(90, newest_architecture.load()); }
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
  return std::min(count, most_multiprocessors.load());
}

int architecture() {
  int major = 0, minor = 0;
  succeed(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, Call::device()),
          "cudaDeviceGetAttribute");
  succeed(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, Call::device()),
          "cudaDeviceGetAttribute");
  return std::min(10 * major + minor, newest_architecture.load());
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

namespace {

// Lets a kernel have more dynamic memory than the 48 KB of every kernel: set for the most so far,
// not at each launch.
void allow_shared(const void* kernel, std::size_t bytes) {
  static std::mutex mutex;
  static std::map<std::pair<const void*, int>, std::size_t> allowed;
  const std::lock_guard lock(mutex);
  std::size_t& most = allowed[{kernel, Call::device()}];
  if (bytes <= most) return;
  succeed(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(bytes)),
          "cudaFuncSetAttribute");
  most = bytes;
}

// A launch as CUDA takes it.
struct Configured {
  cudaLaunchAttribute cluster;
  cudaLaunchConfig_t config{};

  Configured(const void* kernel, const Launch& l) {
    if (l.shared > 48 << 10) allow_shared(kernel, l.shared);
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim = {l.cluster, 1, 1};
    config.gridDim = l.grid;
    config.blockDim = l.block;
    config.dynamicSmemBytes = l.shared;
    config.stream = Call::stream();
    config.attrs = &cluster;
    config.numAttrs = l.cluster > 1 ? 1 : 0;
  }
  Configured(const Configured&) = delete;  // config points to the cluster
};

}  // namespace

void launch_kernel(const void* kernel, const Launch& l, void** arguments) {
  const Configured c(kernel, l);
  succeed(cudaLaunchKernelExC(&c.config, kernel, arguments), "cudaLaunchKernelExC");
}

int resident_clusters(const void* kernel, const Launch& l) {
  const Configured c(kernel, l);
  int count = 0;
  succeed(cudaOccupancyMaxActiveClusters(&count, kernel, &c.config),
          "cudaOccupancyMaxActiveClusters");
  return count;
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
