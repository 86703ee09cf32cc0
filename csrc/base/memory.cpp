#include "base/memory.h"

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <mutex>
#include <new>
#include <string>

#include "base/error.h"

namespace vectile {
namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr int kMinShift = 6;  // smallest class: 64 bytes
constexpr int kClasses = (64 - kMinShift) * 4;

struct MemoryError : std::bad_alloc {
  explicit MemoryError(std::string m) : message(std::move(m)) {}
  const char* what() const noexcept override { return message.c_str(); }
  std::string message;
};

// Sits in the 64 bytes before the data.
struct Header {
  std::int64_t size_class;
  Header* next;
};
static_assert(sizeof(Header) <= kAlignment);

// Classes are (4 + q)·2^s bytes, q in 0..3: at most 25 % above the request.
int class_of(std::size_t bytes) {
  if (bytes <= (std::size_t{1} << kMinShift)) return 0;
  const int shift = std::bit_width(bytes - 1) - 1;
  const std::size_t quarter = std::size_t{1} << (shift - 2);
  const auto q = static_cast<int>((bytes - 1 - (std::size_t{1} << shift)) / quarter);
  return (shift - kMinShift) * 4 + q + 1;
}
std::size_t class_bytes(int c) {
  const int shift = c / 4 + kMinShift;
  return (std::size_t{4} + c % 4) << (shift - 2);
}

std::size_t default_limit() {
  if (const char* env = std::getenv("VECTILE_CACHE_LIMIT")) {
    char* end = nullptr;
    const unsigned long long v = std::strtoull(env, &end, 10);
    if (end != env && *end == '\0') return v;
  }
  const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGE_SIZE);
  const std::size_t quarter =
      pages > 0 ? static_cast<std::size_t>(pages) / 4 * page : std::size_t{1} << 30;
  return std::min(quarter, std::size_t{4} << 30);
}

struct Cache {
  std::mutex mutex;
  Header* free[kClasses] = {};
  MemoryStats stats = {0, 0, 0, default_limit(), 0, 0};

  void release_one(int c) {
    Header* h = free[c];
    free[c] = h->next;
    stats.cached -= class_bytes(c);
    std::free(h);
  }
  // Largest classes go first: they hold the most and are the least often reused.
  void shrink_to(std::size_t bytes) {
    for (int c = kClasses - 1; c >= 0 && stats.cached > bytes; --c)
      while (free[c] && stats.cached > bytes) release_one(c);
  }
};

Cache& cache() {  // never destroyed: arrays may outlive static destruction
  static Cache* instance = [] {
    auto* c = new Cache;
    pthread_atfork([] { cache().mutex.lock(); }, [] { cache().mutex.unlock(); },
                   [] { cache().mutex.unlock(); });
    return c;
  }();
  return *instance;
}

}  // namespace

void* allocate(std::size_t bytes) {
  if (bytes > (std::size_t{1} << 62)) throw MemoryError(text("cannot allocate ", bytes, " bytes"));
  const int c = class_of(bytes);
  const std::size_t size = class_bytes(c);
  Cache& k = cache();
  {
    std::lock_guard lock(k.mutex);
    k.stats.in_use += size;
    k.stats.peak_in_use = std::max(k.stats.peak_in_use, k.stats.in_use);
    if (Header* h = k.free[c]) {
      k.free[c] = h->next;
      k.stats.cached -= size;
      ++k.stats.hits;
      return reinterpret_cast<char*>(h) + kAlignment;
    }
    ++k.stats.misses;
  }
  const std::size_t align = size >= kHugePage ? kHugePage : kAlignment;
  void* raw = nullptr;
  if (posix_memalign(&raw, align, size + kAlignment) != 0) {
    empty_cache();
    if (posix_memalign(&raw, align, size + kAlignment) != 0) {
      std::lock_guard lock(k.mutex);
      k.stats.in_use -= size;
      throw MemoryError(text("cannot allocate ", bytes, " bytes"));
    }
  }
#ifdef MADV_HUGEPAGE
  if (size >= kHugePage) madvise(raw, size, MADV_HUGEPAGE);
#endif
  auto* h = static_cast<Header*>(raw);
  h->size_class = c;
  return static_cast<char*>(raw) + kAlignment;
}

void deallocate(void* data) noexcept {
  if (!data) return;
  auto* h = reinterpret_cast<Header*>(static_cast<char*>(data) - kAlignment);
  const auto c = static_cast<int>(h->size_class);
  const std::size_t size = class_bytes(c);
  Cache& k = cache();
  std::lock_guard lock(k.mutex);
  k.stats.in_use -= size;
  if (size > k.stats.limit) return std::free(h);
  k.shrink_to(k.stats.limit - size);
  h->next = k.free[c];
  k.free[c] = h;
  k.stats.cached += size;
}

i64 checked_elements(const Shape& shape) {
  i64 n = 1;
  bool wrapped = false, empty = false;
  for (int i = 0; i < shape.ndim; ++i) {
    if (shape.dim[i] < 0)
      throw ValueError(text("shape: dimension ", i, ": expected >= 0, got ", shape.dim[i]));
    empty |= shape.dim[i] == 0;
    wrapped |= __builtin_mul_overflow(n, shape.dim[i], &n);
  }
  if (empty) return 0;
  if (wrapped) throw std::overflow_error(text("shape ", shape, ": more elements than 2**63"));
  return n;
}

std::size_t checked_bytes(const Shape& shape, DType dtype) {
  i64 bytes;
  if (__builtin_mul_overflow(checked_elements(shape), static_cast<i64>(item_size(dtype)), &bytes))
    throw std::overflow_error(text("shape ", shape, " of ", dtype, ": more bytes than 2**63"));
  return static_cast<std::size_t>(bytes);
}

MemoryStats memory_stats() {
  std::lock_guard lock(cache().mutex);
  return cache().stats;
}

void empty_cache() noexcept {
  std::lock_guard lock(cache().mutex);
  cache().shrink_to(0);
}

}  // namespace vectile
