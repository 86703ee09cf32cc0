// A caching allocator: blocks are 64-byte aligned, rounded to size classes (four per power of two)
// and kept for reuse when returned, so that a training loop stops taking page faults after its
// first steps. Large blocks are aligned to and advised for huge pages. Thread-safe and fork-safe.
#pragma once

#include <cstddef>
#include <utility>

#include "base/types.h"

namespace vectile {

constexpr std::size_t kAlignment = 64;

// Throws MemoryError (names the bytes) when the system refuses. allocate(0) is a valid block.
void* allocate(std::size_t bytes);
void deallocate(void* data) noexcept;

// Elements and bytes of a new array; throw OverflowError/ValueError instead of wrapping around.
i64 checked_elements(const Shape& shape);
std::size_t checked_bytes(const Shape& shape, DType dtype);

struct MemoryStats {
  std::size_t in_use;       // bytes handed out now
  std::size_t cached;       // bytes kept for reuse
  std::size_t peak_in_use;  // largest in_use so far
  std::size_t limit;        // bound on cached (VECTILE_CACHE_LIMIT)
  std::size_t hits;         // allocations served from the cache
  std::size_t misses;       // allocations that asked the system
};
MemoryStats memory_stats();
void empty_cache() noexcept;

// Scratch memory of one kernel call.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(i64 n)
      : data_(n ? static_cast<T*>(allocate(checked_bytes(Shape(n, sizeof(T)), DType::u8)))
                : nullptr) {}
  ~Buffer() {
    if (data_) deallocate(data_);
  }
  Buffer(Buffer&& o) noexcept : data_(std::exchange(o.data_, nullptr)) {}
  Buffer& operator=(Buffer&& o) noexcept {
    std::swap(data_, o.data_);
    return *this;
  }
  T* get() const { return data_; }
  T& operator[](i64 i) const { return data_[i]; }
  T* release() { return std::exchange(data_, nullptr); }

 private:
  T* data_ = nullptr;
};

}  // namespace vectile
