// Rows that a block of threads works on together.
#pragma once

#include <cstring>

#include "device.h"
#include "runtime.h"

namespace vectile::cuda {

constexpr int kVectorBytes = 16;

template <class S>
struct alignas(kVectorBytes) Vector {
  static constexpr int size = kVectorBytes / sizeof(S);
  S at[size];
};

__device__ __forceinline__ bool is_aligned(const void* p) {
  return reinterpret_cast<std::uintptr_t>(p) % kVectorBytes == 0;
}

// N neighbours, whole vectors, as they lie in memory. What a kernel needs is fetched first and
// widened then, so that all of it is under way at a time. In words, which the compiler would split
// into halves again if they were elements.
template <class S, int N>
struct alignas(kVectorBytes) Packed {
  static_assert(N % Vector<S>::size == 0);
  unsigned word[N * sizeof(S) / 4];

  template <class T>
  __device__ __forceinline__ void widen(T* at) const {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      if constexpr (sizeof(S) == 2) {
        at[i] = to_float(S{static_cast<std::uint16_t>(word[i / 2] >> (i % 2 * 16))});
      } else {
        S x;
        std::memcpy(&x, word + i * sizeof(S) / 4, sizeof(S));
        at[i] = x;
      }
    }
  }
  template <class T>
  __device__ static __forceinline__ Packed rounded(const T* at) {
    Packed p;
    if constexpr (sizeof(S) == 2) {
#pragma unroll
      for (int i = 0; i < N; i += 2) p.word[i / 2] = pack<S>(at[i], at[i + 1]);
    } else {
      std::memcpy(p.word, at, sizeof p.word);
    }
    return p;
  }
};

// x[first + i] for i < N; zeros from element n of x on. In whole vectors where they are aligned.
template <int N, class S>
__device__ __forceinline__ Packed<S, N> fetch(const S* x, i64 first, i64 n) {
  if (first + N <= n && is_aligned(x + first))
    return *reinterpret_cast<const Packed<S, N>*>(x + first);
  Computed<S> at[N];
#pragma unroll
  for (int i = 0; i < N; ++i) at[i] = first + i < n ? to_float(x[first + i]) : Computed<S>(0);
  return Packed<S, N>::rounded(at);
}

// at[i] = x[first + i] for i < N; `outside` from element n of x on. In whole vectors where they are
// aligned.
template <int N, class S, class T>
__device__ __forceinline__ void load_elements(const S* x, i64 first, i64 n, T outside, T* at) {
  if constexpr (N % Vector<S>::size == 0)
    if (first + N <= n && is_aligned(x + first)) {
      const Packed<S, N> packed = *reinterpret_cast<const Packed<S, N>*>(x + first);
      packed.widen(at);
      return;
    }
#pragma unroll
  for (int i = 0; i < N; ++i)
    at[i] = first + i < n ? static_cast<T>(to_float(x[first + i])) : outside;
}

// y[first + i] = at[i] likewise.
template <int N, class S, class T>
__device__ __forceinline__ void store_elements(S* y, i64 first, i64 n, const T* at) {
  if constexpr (N % Vector<S>::size == 0)
    if (first + N <= n && is_aligned(y + first)) {
      *reinterpret_cast<Packed<S, N>*>(y + first) = Packed<S, N>::rounded(at);
      return;
    }
#pragma unroll
  for (int i = 0; i < N; ++i)
    if (first + i < n) y[first + i] = from_float<S>(at[i]);
}

// W adjacent elements of x as far as there are n, zeros past them; and back.
template <class S, int W>
__device__ __forceinline__ void load_adjacent(Computed<S> (&to)[W], const S* x, i64 n) {
  load_elements<W>(x, 0, n, Computed<S>(0), to);
}
template <class S, int W>
__device__ __forceinline__ void store_adjacent(const Computed<S> (&from)[W], S* y, i64 n) {
  store_elements<W>(y, 0, n, from);
}

// A piece of a row in the registers of a block: KEEP vectors of adjacent elements a thread.
template <class S, int THREADS, int KEEP>
struct Piece {
  using T = Computed<S>;
  static constexpr int size = Vector<S>::size, count = KEEP * size;
  static constexpr int capacity = THREADS * count;
  T at[count];

  // The element of the piece that at[i] is.
  __device__ static int index(int i) {
    return (i / size * THREADS + static_cast<int>(threadIdx.x)) * size + i % size;
  }
  // Elements before the first vector of x.
  __device__ static int head(const S* x) {
    return static_cast<int>(-reinterpret_cast<std::uintptr_t>(x) % kVectorBytes / sizeof(S));
  }
  // Whether the first n elements of a row are whole vectors: of all threads or of none.
  __device__ static bool whole(const S* x, int n) { return n % size == 0 && is_aligned(x); }
  // The first n elements of x, n at most the capacity; `outside` past them.
  __device__ void load(const S* x, int n, T outside) {
    if (!whole(x, n)) {
#pragma unroll
      for (int i = 0; i < count; i += size) load_elements<size>(x, index(i), n, outside, at + i);
      return;
    }
    Packed<S, size> packed[KEEP] = {};
#pragma unroll
    for (int k = 0; k < KEEP; ++k)
      if (const int first = index(k * size); first < n)
        packed[k] = *reinterpret_cast<const Packed<S, size>*>(x + first);
#pragma unroll
    for (int k = 0; k < KEEP; ++k) packed[k].widen(at + k * size);
    if (n == capacity) return;
#pragma unroll
    for (int i = 0; i < count; ++i)
      if (index(i) >= n) at[i] = outside;
  }
  __device__ void store(S* y, int n) const {
    if (!whole(y, n)) {
#pragma unroll
      for (int i = 0; i < count; i += size) store_elements<size>(y, index(i), n, at + i);
      return;
    }
#pragma unroll
    for (int k = 0; k < KEEP; ++k)
      if (const int first = index(k * size); first < n)
        *reinterpret_cast<Packed<S, size>*>(y + first) = Packed<S, size>::rounded(at + k * size);
  }
};

// Threads of a multiprocessor that kernels of rows leave registers for: 64 KB of rows under way.
constexpr int kRowThreads = 1024;

// Vectors of a row that a thread keeps: no more than 1024 threads have registers for twice.
template <class S>
constexpr int kRowVectors = sizeof(S) == 2 ? 2 : 4;

// f(first element, length) for the pieces of a row; one piece where it fits the registers.
template <class P, class F>
__device__ __forceinline__ void over_pieces(i64 n, F&& f) {
  for (i64 first = 0; first < n; first += P::capacity)
    f(first, static_cast<int>(n - first < P::capacity ? n - first : P::capacity));
}
// Likewise, but rows of more pieces are cut so that all between their `head` and what is left at
// the end are of whole vectors. f is left out by threads that have nothing of a piece.
template <class P, class F>
__device__ __forceinline__ void over_pieces(i64 n, int head, F&& f) {
  if (n <= P::capacity) return f(0, static_cast<int>(n));
  int count = head ? head : P::capacity;
  for (i64 first = 0; first < n;) {
    if (P::index(0) < count) f(first, count);
    first += count;
    count = static_cast<int>(n - first < P::capacity ? n - first : P::capacity);
    if (count > P::size) count -= count % P::size;
  }
}

// f(Threads<N>{}) for the threads of a block that hold a row of n elements of S in KEEP vectors
// each, as far as there are so many: at most MOST, by default 512 for eight-byte elements, which
// need twice the registers.
template <int N>
struct Threads {
  static constexpr int value = N;
};
template <class S, int KEEP, int MOST = sizeof(S) == 8 ? 512 : 1024, class F>
void with_threads(i64 n, F&& f) {
  const i64 needed = ceil_div(n, KEEP * Vector<S>::size);
  if (needed <= 32) return f(Threads<32>{});
  if (needed <= 128) return f(Threads<128>{});
  if (needed <= 256) return f(Threads<256>{});
  f(Threads<MOST>{});
}

}  // namespace vectile::cuda
