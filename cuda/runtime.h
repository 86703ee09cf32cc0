// Device memory, streams, errors and launches: what the ops of cuda/ stand on.
#pragma once

#include <initializer_list>
#include <stdexcept>
#include <tuple>
#include <utility>

#if defined(VECTILE_CUDA_EMULATED)
#include "emulated.h"
#else
#include <cuda_runtime.h>
#endif

#include "base/memory.h"
#include "ops/check.h"

namespace vectile::cuda {

#if defined(VECTILE_CUDA_EMULATED)
using Stream = void*;
#else
using Stream = cudaStream_t;
#endif

// A CUDA call that failed; RuntimeError in Python.
struct CudaError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

#if !defined(VECTILE_CUDA_EMULATED)
void succeed(cudaError_t status, const char* what);  // or throw
#endif

// Device and stream of the ops that this thread calls while it lives; the device before it
// afterwards.
class Call {
 public:
  Call(int device, Stream stream);
  ~Call();
  Call(const Call&) = delete;
  static int device();
  static Stream stream();

 private:
  int device_, before_ = -1;
  Stream stream_;
  Call* outer_;
};

int device_count();  // 0 where there is no driver
// Of the call's device, as in sm_90, or the limits where those are lower: kernels for newer devices
// are not chosen then, or those for large arrays are for smaller ones. Setting a limit returns the
// one before.
int architecture();
int limit_architecture(int limit);
int multiprocessors();
int limit_multiprocessors(int limit);
const char* device_name(int device);  // "" where there is none

// In the order of the call's stream.
void* allocate_device(std::size_t bytes);
void free_device(void* data, int device, Stream stream) noexcept;
void fill_device(void* data, int byte, std::size_t bytes);
void copy_to_device(void* to, const void* from, std::size_t bytes);
void copy_to_host(void* to, const void* from, std::size_t bytes);  // waits for it

// A view that may own its memory, on the device and the stream of the call that made it.
struct Array : TensorView {
  Array() = default;
  explicit Array(const TensorView& borrowed) : TensorView(borrowed) {}
  Array(Array&& o) noexcept
      : TensorView(o),
        owner_(std::exchange(o.owner_, nullptr)),
        device_(o.device_),
        stream_(o.stream_) {}
  Array& operator=(Array&& o) noexcept {
    static_cast<TensorView&>(*this) = o;
    std::swap(owner_, o.owner_);
    std::swap(device_, o.device_);
    std::swap(stream_, o.stream_);
    return *this;
  }
  ~Array() {
    if (owner_) free_device(owner_, device_, stream_);
  }
  bool owns() const { return owner_ != nullptr; }
  void* release() { return std::exchange(owner_, nullptr); }  // the caller frees

  static Array empty(DType dtype, const Shape& shape);
  static Array zeros(DType dtype, const Shape& shape);

 private:
  void* owner_ = nullptr;
  int device_ = 0;
  Stream stream_{};
};

// y[i] = x[i] elementwise; same shape and dtype, any strides.
void copy_strided(const TensorView& x, const TensorView& y);
Array contiguous(const TensorView& x);
// y[i] = x[i] between floating-point types, both row-major.
void cast(const TensorView& x, const TensorView& y);
// `x` row-major and of that type: itself, where it is so.
Array converted(const TensorView& x, DType dtype);
// An argument that may be left out, row-major; no data where it is.
inline Array given(const TensorView* x) { return x ? contiguous(*x) : Array(); }

// The place an op writes its row-major result; see vectile::Output.
class Output {
 public:
  Output(const char* op, DType dtype, const Shape& shape, const TensorView* out = nullptr,
         std::initializer_list<const TensorView*> inputs = {});
  const TensorView& view() const { return array_; }
  void* data() const { return array_.data; }
  Array finish();  // owning, or a view of `out`

 private:
  Array array_;
  const TensorView* out_ = nullptr;
};

// How a kernel is launched; `shared` is the dynamic memory in bytes, `cluster` the blocks along x
// that run together.
struct Launch {
  dim3 grid, block;
  std::size_t shared = 0;
  unsigned cluster = 1;
};

// Of such a launch, how many clusters the device has room for at a time.
#if defined(VECTILE_CUDA_EMULATED)
inline int resident_clusters(const void*, const Launch& l) {
  return multiprocessors() / static_cast<int>(l.cluster);
}
template <class... P, class... A>
void launch(void (*kernel)(P...), const Launch& l, const A&... a) {
  emulated::run(l.grid, l.block, l.shared, l.cluster, [&] { kernel(static_cast<P>(a)...); });
}
#else
int resident_clusters(const void* kernel, const Launch& l);
void launch_kernel(const void* kernel, const Launch& l, void** arguments);
template <class... P, class... A>
void launch(void (*kernel)(P...), const Launch& l, const A&... a) {
  static_assert(sizeof...(P) == sizeof...(A));
  std::tuple<P...> given(static_cast<P>(a)...);
  std::apply(
      [&](auto&... p) {
        void* pointers[] = {const_cast<void*>(static_cast<const void*>(&p))..., nullptr};
        launch_kernel(reinterpret_cast<const void*>(kernel), l, pointers);
      },
      given);
}
#endif

// Blocks of a launch for n pieces of work; kernels stride over what is beyond the most.
constexpr i64 kMostBlocks = 1 << 30;
constexpr unsigned blocks_for(i64 n, i64 per_block) {
  const i64 blocks = ceil_div(n, per_block);
  return static_cast<unsigned>(blocks < kMostBlocks ? blocks : kMostBlocks);
}

}  // namespace vectile::cuda
